//! Who is connected. A vehicle has one live connection: a second one ends the first, and starts when that has ended,
//! so that its records come after the first one's.
//!
//! Invariant: a vehicle's rate is the vehicle's, however often it connects.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::rate::Rate;

#[derive(Default)]
pub(crate) struct Registry(Mutex<Vehicles>);

#[derive(Default)]
struct Vehicles {
    connected: HashMap<Arc<str>, Entry>,
    /// What those that have left may send when they come back, as long as that is less than what a new one may.
    left: HashMap<Arc<str>, Rate>,
}

struct Entry {
    replaced: CancellationToken,
    ended: CancellationToken,
    /// The end of the connection before, as long as this one waits for it.
    waits_for: Option<CancellationToken>,
}

/// A vehicle's place in the registry, given up when it is dropped.
pub(crate) struct Registration {
    registry: Arc<Registry>,
    sender_id: Arc<str>,
    /// Cancelled when a newer connection takes over.
    pub replaced: CancellationToken,
    ended: CancellationToken,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Vehicles> {
        // No change under it can be half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a vehicle's place. The second value is to be waited for: the connection that had it is then gone. One that waits
    /// itself is not waited for, but what it waits for.
    pub(crate) fn register(self: &Arc<Self>, sender_id: &Arc<str>) -> (Registration, Option<CancellationToken>) {
        let registration = Registration {
            registry: Arc::clone(self),
            sender_id: Arc::clone(sender_id),
            replaced: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        let connected = &mut self.lock().connected;
        let waits_for = connected.get(sender_id).map(|before| {
            before.replaced.cancel();
            before.waits_for.as_ref().unwrap_or(&before.ended).clone()
        });
        let entry = Entry {
            replaced: registration.replaced.clone(),
            ended: registration.ended.clone(),
            waits_for: waits_for.clone(),
        };
        connected.insert(Arc::clone(sender_id), entry);
        (registration, waits_for)
    }
}

impl Registration {
    /// It has waited, and begins; false if a newer one has come meanwhile, which then begins instead.
    pub(crate) fn begins(&self) -> bool {
        let connected = &mut self.registry.lock().connected;
        let begins = !self.replaced.is_cancelled();
        if let Some(entry) = connected.get_mut(&self.sender_id).filter(|_| begins) {
            entry.waits_for = None;
        }
        begins
    }

    /// What the vehicle may send, once the connection before has ended; `new` if there was none just now.
    pub(crate) fn rate(&self, new: Rate) -> Rate {
        self.registry.lock().left.remove(&self.sender_id).unwrap_or(new)
    }

    /// The vehicle has left, and may send that much.
    pub(crate) fn leaves(&self, rate: Rate, now: Instant) {
        let mut vehicles = self.registry.lock();
        vehicles.left.retain(|_, rate| !rate.is_full(now));
        vehicles.left.insert(Arc::clone(&self.sender_id), rate);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.ended.cancel();
        let entries = &mut self.registry.lock().connected;
        // Only its own entry: a newer one has another token, and is not ended.
        if entries
            .get(&self.sender_id)
            .is_some_and(|entry| entry.ended.is_cancelled())
        {
            entries.remove(&self.sender_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_that_waits_makes_way_at_once_and_none_overtakes() {
        let registry = Arc::new(Registry::default());
        let vehicle: Arc<str> = "vehicle_device.A".into();
        let (first, _) = registry.register(&vehicle);
        assert!(first.begins());
        let (second, before) = registry.register(&vehicle);
        let (third, first_ended) = registry.register(&vehicle);
        assert!(second.replaced.is_cancelled() && !second.begins());
        drop((second, before));
        let first_ended = first_ended.expect("the first is there");
        assert!(!first_ended.is_cancelled(), "whatever became of the second");
        drop(first);
        assert!(first_ended.is_cancelled() && third.begins());
        let (_fourth, third_ended) = registry.register(&vehicle);
        let third_ended = third_ended.expect("the third is there");
        assert!(!third_ended.is_cancelled());
        drop(third);
        assert!(third_ended.is_cancelled());
    }

    #[test]
    fn a_second_connection_replaces_the_first_and_keeps_the_place() {
        let registry = Arc::new(Registry::default());
        let vehicle: Arc<str> = "vehicle_device.A".into();
        let (first, before) = registry.register(&vehicle);
        assert!(before.is_none());
        let (second, before) = registry.register(&vehicle);
        let before = before.expect("the first is there");
        assert!(first.replaced.is_cancelled() && !before.is_cancelled());
        drop(first);
        assert!(before.is_cancelled());
        assert_eq!(registry.lock().connected.len(), 1);
        assert!(!second.replaced.is_cancelled());
        drop(second);
        assert!(registry.lock().connected.is_empty());
    }

    #[test]
    fn a_vehicle_that_comes_back_has_no_more_to_send_than_when_it_left() {
        let registry = Arc::new(Registry::default());
        let now = Instant::now();
        let (first, _) = registry.register(&"vehicle_device.A".into());
        let mut rate = first.rate(Rate::new(2));
        rate.spend(now);
        rate.spend(now);
        first.leaves(rate, now);
        let (second, _) = registry.register(&"vehicle_device.A".into());
        let mut rate = second.rate(Rate::new(2));
        assert!(rate.pause(now).is_some());
        second.leaves(rate, now);
        // Whose bucket is full again is as good as a new one.
        let (other, _) = registry.register(&"vehicle_device.B".into());
        other.leaves(other.rate(Rate::new(2)), now + Duration::from_secs(2));
        let left: Vec<_> = registry.lock().left.keys().cloned().collect();
        assert_eq!(left, ["vehicle_device.B".into()]);
    }
}
