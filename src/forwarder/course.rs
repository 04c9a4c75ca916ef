//! What a pump knows beyond a session: whom it suspects, what it has given up, and how long it waits.
//!
//! Invariant: a destination that refuses what several vehicles send does not have the queue emptied into the dead letters,
//! which hold far less; one vehicle whose records are refused delays nobody.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::backoff::Backoff;
use super::flow::Flow;

/// So many numbers behind the last record that was doubted.
const SOON: u64 = 256;

pub(super) struct Course {
    pub(super) backoff: Backoff,
    /// Records that go alone: nothing is on its way with one of them.
    pub(super) suspects: BTreeSet<u64>,
    /// Records that the destination has, or that are in the dead letters, though the cursor has not passed them.
    pub(super) settled: BTreeSet<u64>,
    /// The last one that was in company when that was refused.
    doubted: Option<u64>,
    pub(super) flow: Flow,
    refused: Option<Refused>,
}

/// What was refused since something was delivered.
struct Refused {
    /// Whose it was last.
    vin: Arc<str>,
    /// Nothing goes out before this, once it was another one's than before.
    until: Option<Instant>,
}

impl Course {
    pub(super) fn new() -> Self {
        Self {
            backoff: Backoff::new(),
            suspects: BTreeSet::new(),
            settled: BTreeSet::new(),
            doubted: None,
            flow: Flow::default(),
            refused: None,
        }
    }

    /// The destination takes what it is sent.
    pub(super) fn delivered(&mut self) {
        self.backoff.succeeded();
        self.refused = None;
    }

    /// It refuses a record of this vehicle. If the one before was another's, and nothing was delivered between, the
    /// destination is at fault rather than they. Returns whether there is a wait now.
    pub(super) fn refused(&mut self, vin: &Arc<str>) -> bool {
        let now = Instant::now();
        let refused = self.refused.get_or_insert_with(|| Refused {
            vin: Arc::clone(vin),
            until: None,
        });
        // Before the end of a wait it refuses what was sent before its beginning.
        if refused.vin != *vin && refused.until.is_none_or(|until| until <= now) {
            refused.until = Some(now + self.backoff.wait());
        }
        refused.vin = Arc::clone(vin);
        refused.until.is_some_and(|until| until > now)
    }

    /// Whether records go one at a time, because several vehicles' were refused in a row.
    pub(super) fn is_wary(&self) -> bool {
        self.refused.as_ref().is_some_and(|refused| refused.until.is_some())
    }

    /// Until when nothing goes out, if that is not over.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        let until = self.refused.as_ref().and_then(|refused| refused.until);
        until.filter(|until| *until > Instant::now())
    }

    /// These were refused together, perhaps only for their company, and go alone. If that comes again soon the destination
    /// takes no company of this size, and all that was on its way goes alone: it would have a session for each otherwise.
    pub(super) fn doubt(&mut self, doubted: &[u64], on_their_way: impl Iterator<Item = u64>) {
        let first = doubted.first().copied().unwrap_or_default();
        match self.doubted.is_some_and(|last| first <= last + SOON) {
            true => self.suspects.extend(on_their_way),
            false => self.suspects.extend(doubted),
        }
        self.doubted = self.suspects.last().copied();
    }

    /// The cursor has passed what is before it.
    pub(super) fn passed(&mut self, cursor: u64) {
        for numbers in [&mut self.settled, &mut self.suspects] {
            while numbers.first().is_some_and(|number| *number < cursor) {
                numbers.pop_first();
            }
        }
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
            assert!(!course.refused(&one) && !course.is_wary());
        }
        let mut waits = Vec::new();
        for vin in [&other, &one, &other, &one, &other, &one] {
            assert!(course.refused(vin) && course.is_wary());
            let until = course.waits_until().expect("there is a wait");
            assert!(course.refused(&one) && course.refused(vin), "sent before the wait");
            assert_eq!(course.waits_until(), Some(until), "and not counted");
            waits.push(until - Instant::now());
            tokio::time::sleep_until(until).await;
            for _ in 0..100 {
                assert!(!course.refused(vin), "one vehicle's, in a row");
            }
        }
        assert!(waits.is_sorted(), "{waits:?}");
        assert!(waits[5] > Duration::from_secs(5), "{waits:?}");
        course.delivered();
        assert!(!course.is_wary() && !course.refused(&other));
    }
}
