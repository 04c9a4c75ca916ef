//! How many records come, and whether that is so many that no commit has to wait for company.

use std::time::{Duration, Instant};

/// Records a second from which on no commit is delayed: company comes by itself, and acks are as fast as the disk.
const BUSY: f64 = 500.0;
/// How long records are counted before it is known how many come.
const COUNTED: Duration = Duration::from_millis(500);

/// How many records come.
#[derive(Debug, Default)]
pub(super) struct Pace {
    since: Option<Instant>,
    counted: usize,
    busy: bool,
}

impl Pace {
    pub(super) fn count(&mut self, records: usize, now: Instant) {
        self.counted += records;
        let passed = now - *self.since.get_or_insert(now);
        if passed >= COUNTED {
            self.busy = self.counted as f64 >= BUSY * passed.as_secs_f64();
            self.since = Some(now);
            self.counted = 0;
        }
    }

    /// Whether commits wait for nobody.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_records_a_second_are_busy_and_fewer_are_not_any_more() {
        let begun = Instant::now();
        let mut pace = Pace::default();
        pace.count(200, begun);
        assert!(!pace.is_busy(), "nobody knows yet how many come");
        pace.count(60, begun + COUNTED);
        assert!(pace.is_busy(), "260 in half a second");
        pace.count(240, begun + COUNTED + COUNTED);
        assert!(!pace.is_busy(), "240 in half a second");
    }
}
