//! How long to wait before the next try: doubling from half a second to a minute, jittered so that a thousand gateways
//! do not come back to one broker at once, and from the start again after a success.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(60);

pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    pub(crate) fn succeeded(&mut self) {
        self.next = FIRST;
    }

    /// The time to wait now: between half and all of the current step.
    pub(crate) fn wait(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(LONGEST);
        // Every `RandomState` is keyed differently.
        let random = RandomState::new().hash_one(()) as u32;
        step / 2 + (step / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_to_a_minute_within_its_jitter_and_starts_again_after_a_success() {
        let mut backoff = Backoff::new();
        let mut step = FIRST;
        for _ in 0..12 {
            let wait = backoff.wait();
            assert!(wait >= step / 2 && wait <= step, "{wait:?} of {step:?}");
            step = (step * 2).min(LONGEST);
        }
        assert_eq!(step, LONGEST);
        backoff.succeeded();
        assert!(backoff.wait() <= FIRST);
    }
}
