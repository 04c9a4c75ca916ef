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
        // Every change under it is a single insert or remove.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a vehicle's place. The second value is to be waited for: the connection that had it is then gone.
    pub(crate) fn register(self: &Arc<Self>, sender_id: &Arc<str>) -> (Registration, Option<CancellationToken>) {
        let registration = Registration {
            registry: Arc::clone(self),
            sender_id: Arc::clone(sender_id),
            replaced: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        let entry = Entry {
            replaced: registration.replaced.clone(),
            ended: registration.ended.clone(),
        };
        let before = self.lock().connected.insert(Arc::clone(sender_id), entry);
        let ended = before.map(|before| {
            before.replaced.cancel();
            before.ended
        });
        (registration, ended)
    }
}

impl Registration {
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
        assert_eq!(registry.lock().left.len(), 1);
    }
}
