//! What a pump knows beyond a session: whom it suspects, what it has given up, and how long it waits.
//!
//! Invariant: a destination that refuses everything does not have the queue emptied into the dead letters, which hold far
//! less; one vehicle whose records are refused delays nobody.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::backoff::Backoff;
use super::flow::Flow;

pub(super) struct Course {
    pub(super) backoff: Backoff,
    /// The record behind which nothing goes out before it has passed.
    pub(super) suspect: Option<u64>,
    /// Records that are in the dead letters though the cursor has not passed them.
    pub(super) given_up: BTreeSet<u64>,
    pub(super) flow: Flow,
    refused: Option<Refused>,
}

/// What was refused since something was delivered.
struct Refused {
    /// Whose it all was; `None`: more than one vehicle's.
    vin: Option<Arc<str>>,
    /// Nothing goes out before this.
    until: Instant,
}

impl Course {
    pub(super) fn new() -> Self {
        Self {
            backoff: Backoff::new(),
            suspect: None,
            given_up: BTreeSet::new(),
            flow: Flow::default(),
            refused: None,
        }
    }

    /// The destination takes what it is sent.
    pub(super) fn delivered(&mut self) {
        self.backoff.succeeded();
        self.refused = None;
    }

    /// It refuses a record of this vehicle. Of several in a row, with nothing delivered between, the destination is at
    /// fault rather than they. Returns whether there is a wait now.
    pub(super) fn refused(&mut self, vin: &Arc<str>) -> bool {
        let now = Instant::now();
        let refused = self.refused.get_or_insert_with(|| Refused {
            vin: Some(Arc::clone(vin)),
            until: now,
        });
        // Before that it refuses what was sent before the wait.
        if refused.vin.as_ref() != Some(vin) && now >= refused.until {
            refused.vin = None;
            refused.until = now + self.backoff.wait();
        }
        now < refused.until
    }

    /// Whether records go one at a time, because the last word was a refusal.
    pub(super) fn is_wary(&self) -> bool {
        self.refused.is_some()
    }

    /// Until when nothing goes out, if that is not over.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        let until = self.refused.as_ref().map(|refused| refused.until);
        until.filter(|until| *until > Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_vehicle_waits_for_nothing_and_several_for_ever_longer() {
        let (one, other): (Arc<str>, Arc<str>) = ("one".into(), "other".into());
        let mut course = Course::new();
        for _ in 0..100 {
            assert!(!course.refused(&one) && course.is_wary());
        }
        let mut waits = Vec::new();
        for vin in [&other, &one, &one, &other, &other, &one] {
            assert!(course.refused(vin));
            let until = course.waits_until().expect("there is a wait");
            assert!(course.refused(&one), "sent before the wait");
            assert_eq!(course.waits_until(), Some(until), "and not counted");
            waits.push(until - Instant::now());
            tokio::time::sleep_until(until).await;
            assert_eq!(course.waits_until(), None);
        }
        assert!(waits.is_sorted_by(|before, after| after >= before), "{waits:?}");
        assert!(waits[5] > Duration::from_secs(5), "{waits:?}");
        course.delivered();
        assert!(!course.is_wary() && !course.refused(&other));
    }
}
