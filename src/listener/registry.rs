//! Who is connected. A vehicle has one live connection: a second one ends the first, and starts when that has ended,
//! so that its records come after the first one's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

#[derive(Default)]
pub(crate) struct Registry(Mutex<HashMap<Arc<str>, Entry>>);

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
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Entry>> {
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
        let before = self.lock().insert(Arc::clone(sender_id), entry);
        let ended = before.map(|before| {
            before.replaced.cancel();
            before.ended
        });
        (registration, ended)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.ended.cancel();
        let mut entries = self.registry.lock();
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
        assert_eq!(registry.lock().len(), 1);
        assert!(!second.replaced.is_cancelled());
        drop(second);
        assert!(registry.lock().is_empty());
    }
}
