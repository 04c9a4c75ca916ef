//! Whether a loop that everything depends on still turns, the writer's or the listener's: the service manager's watchdog
//! is fed only while each does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When a loop last came round.
#[derive(Debug)]
pub struct Heartbeat {
    started: Instant,
    last: AtomicU64,
}

impl Heartbeat {
    /// How often a loop is to come round at least.
    pub const INTERVAL: Duration = Duration::from_secs(1);

    /// The loop comes round.
    pub fn beat(&self) {
        self.last
            .store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// How long ago that was.
    pub fn silence(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last)
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            last: AtomicU64::new(0),
        }
    }
}
