//! A vehicle's rate: how fast its socket is read, and never that anything is dropped.

use std::time::{Duration, Instant};

/// A token bucket that holds one second's worth.
pub(super) struct Rate {
    per_second: f64,
    tokens: f64,
    at: Instant,
}

impl Rate {
    pub(super) fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self {
            per_second,
            tokens: per_second,
            at: Instant::now(),
        }
    }

    fn refill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + since * self.per_second).min(self.per_second);
        self.at = now;
    }

    pub(super) fn spend(&mut self, now: Instant) {
        self.refill(now);
        self.tokens -= 1.0;
    }

    /// Whether it is as good as a new one.
    pub(super) fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.tokens >= self.per_second
    }

    /// How long to wait for the next token, if there is none.
    pub(super) fn pause(&mut self, now: Instant) -> Option<Duration> {
        self.refill(now);
        (self.tokens < 1.0).then(|| Duration::from_secs_f64((1.0 - self.tokens) / self.per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_allows_a_second_at_once_and_then_its_pace() {
        let mut rate = Rate::new(10);
        let start = rate.at;
        for _ in 0..10 {
            assert_eq!(rate.pause(start), None);
            rate.spend(start);
        }
        let pause = rate.pause(start).expect("the bucket is empty");
        assert!(
            pause > Duration::from_millis(90) && pause <= Duration::from_millis(101),
            "{pause:?}"
        );
        let later = start + Duration::from_millis(101);
        assert_eq!(rate.pause(later), None);
        rate.spend(later);
        assert!(rate.pause(later).is_some());
    }
}
