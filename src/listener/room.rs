//! How many connections there may be, and who makes way when they are too many: whoever has been at the door longest without
//! showing a vehicle's certificate.
//!
//! Invariant: never more places than the limit; a vehicle that is in is never put out for a stranger.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

pub(super) struct Room {
    limit: usize,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    /// Vehicles that are in.
    vehicles: usize,
    /// Those at the door, in the order in which they came.
    waiting: BTreeMap<u64, CancellationToken>,
    /// The number of the next one.
    next: u64,
}

/// A connection's place, given up when it is dropped.
pub(super) struct Place {
    room: Arc<Room>,
    /// As long as it is at the door.
    number: Option<u64>,
    /// Cancelled when it has to make way.
    pub(super) evicted: CancellationToken,
}

impl Room {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            places: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // Every change under it is whole.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection, at the cost of another one's where there is no other; `None` if there are as many
    /// vehicles as there may be connections.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Place> {
        let mut places = self.lock();
        if places.vehicles + places.waiting.len() >= self.limit {
            let (_, longest) = places.waiting.pop_first()?;
            longest.cancel();
        }
        let (number, evicted) = (places.next, CancellationToken::new());
        places.next += 1;
        places.waiting.insert(number, evicted.clone());
        Some(Place {
            room: Arc::clone(self),
            number: Some(number),
            evicted,
        })
    }
}

impl Place {
    /// A vehicle's from now on; false if it had to make way before.
    pub(super) fn becomes_vehicle(&mut self) -> bool {
        let mut places = self.room.lock();
        let is_in = self
            .number
            .is_some_and(|number| places.waiting.remove(&number).is_some());
        if is_in {
            self.number = None;
            places.vehicles += 1;
        }
        is_in
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.room.lock();
        match self.number {
            // Perhaps somebody else has it by now.
            Some(number) => drop(places.waiting.remove(&number)),
            None => places.vehicles -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_been_at_the_door_longest_makes_way_and_no_vehicle_does() {
        let room = Room::new(2);
        let enter = || room.enter().expect("somebody can make way");
        let mut vehicle = enter();
        assert!(vehicle.becomes_vehicle());
        let mut first = enter();
        let mut second = enter();
        assert!(first.evicted.is_cancelled() && !second.evicted.is_cancelled());
        assert!(!first.becomes_vehicle(), "its place is another one's");
        drop(first);
        assert!(second.becomes_vehicle());
        assert!(room.enter().is_none(), "both are vehicles");
        drop(vehicle);
        let third = enter();
        assert!(!second.evicted.is_cancelled() && !third.evicted.is_cancelled());
        drop((second, third));
        let places = room.lock();
        assert_eq!((places.vehicles, places.waiting.len()), (0, 0));
    }
}
