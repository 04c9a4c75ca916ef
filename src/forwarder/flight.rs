//! The records that a destination has been handed and has not confirmed, and how far the confirmations reach without
//! a gap: the cursor.
//!
//! It holds what it takes to count them, not the records: one that is wanted again is in the queue until the cursor passes.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

/// So many records behind one that is not confirmed, however long they have been: one of several partitions that takes
/// nothing must not have the account of the others grow for ever.
const LONGEST: usize = 1 << 16;
/// So long a record that is to go alone waits for what is on its way.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Flight {
    /// In the order of their numbers.
    records: VecDeque<Flying>,
    cursor: u64,
    unconfirmed: usize,
    bytes: usize,
    /// When the last one was handed over.
    sent_at: Instant,
}

struct Flying {
    number: u64,
    /// A hash of whose it is.
    vehicle: u64,
    /// Of what was made of it; `None`: confirmed, or not this destination's.
    bytes: Option<usize>,
}

impl Flight {
    pub(crate) fn new(cursor: u64) -> Self {
        Self {
            records: VecDeque::new(),
            cursor,
            unconfirmed: 0,
            bytes: 0,
            sent_at: Instant::now(),
        }
    }

    /// The first number that is not confirmed.
    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// How many are unconfirmed.
    pub(crate) fn unconfirmed(&self) -> usize {
        self.unconfirmed
    }

    /// Bytes of what was made of those.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is no room in the account for more.
    pub(crate) fn is_long(&self) -> bool {
        self.records.len() >= LONGEST
    }

    /// Those, by their numbers.
    pub(crate) fn on_their_way(&self) -> impl Iterator<Item = u64> {
        let unconfirmed = self.records.iter().filter(|record| record.bytes.is_some());
        unconfirmed.map(|record| record.number)
    }

    /// Confirmed beyond the cursor, and behind no unconfirmed record of the same vehicle: what came after one that fails
    /// is sent again after it, or it would be the older one that the destination has last.
    pub(crate) fn settled(&self) -> impl Iterator<Item = u64> {
        let mut waiting = HashSet::new();
        let settled = self.records.iter().filter(move |record| match record.bytes {
            Some(_) => {
                waiting.insert(record.vehicle);
                false
            }
            None => !waiting.contains(&record.vehicle),
        });
        settled.map(|record| record.number)
    }

    /// Until when an answer to what is on its way is waited for by who wants to be alone. `None`: no longer. What the
    /// destination takes that long for waits for something else, one of many partitions for instance.
    pub(crate) fn busy_until(&self) -> Option<Instant> {
        let until = self.sent_at + PATIENCE;
        (self.unconfirmed > 0 && until > Instant::now()).then_some(until)
    }

    /// A record of this vehicle that has been handed over.
    pub(crate) fn sent(&mut self, number: u64, bytes: usize, vin: &str, now: Instant) {
        self.records.push_back(Flying {
            number,
            vehicle: xxh3_64(vin.as_bytes()),
            bytes: Some(bytes),
        });
        self.unconfirmed += 1;
        self.bytes += bytes;
        self.sent_at = now;
    }

    /// Numbers before `end` that are not this destination's, hold no record, or are durably in its dead letters.
    pub(crate) fn pass(&mut self, end: u64) {
        match self.records.back_mut() {
            None => self.cursor = self.cursor.max(end),
            Some(last) if last.bytes.is_none() => last.number = last.number.max(end - 1),
            Some(last) if last.number < end - 1 => self.records.push_back(Flying {
                number: end - 1,
                vehicle: 0,
                bytes: None,
            }),
            Some(_) => {}
        }
    }

    /// Whether a record is on its way.
    pub(crate) fn holds(&self, number: u64) -> bool {
        self.at(number).is_some()
    }

    /// A record that the destination has, or that is durably in its dead letters. Returns its bytes, if it was on its way.
    pub(crate) fn confirm(&mut self, number: u64) -> Option<usize> {
        let at = self.at(number)?;
        let bytes = self.records.get_mut(at)?.bytes.take()?;
        self.unconfirmed -= 1;
        self.bytes -= bytes;
        while let Some(passed) = self.records.pop_front_if(|record| record.bytes.is_none()) {
            self.cursor = passed.number + 1;
        }
        Some(bytes)
    }

    fn at(&self, number: u64) -> Option<usize> {
        // Mostly the oldest.
        let at = match self.records.front() {
            Some(oldest) if oldest.number == number => 0,
            _ => self.records.partition_point(|record| record.number < number),
        };
        let record = self.records.get(at)?;
        (record.number == number && record.bytes.is_some()).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_moves_only_over_contiguous_confirmations() {
        let mut flight = Flight::new(10);
        (10..15).for_each(|number| flight.sent(number, 7, "one", Instant::now()));
        assert_eq!((flight.confirm(11), flight.confirm(12)), (Some(7), Some(7)));
        assert_eq!((flight.cursor(), flight.unconfirmed(), flight.bytes()), (10, 3, 21));
        assert_eq!(flight.confirm(10), Some(7));
        assert_eq!((flight.cursor(), flight.unconfirmed(), flight.bytes()), (13, 2, 14));
        assert_eq!((flight.confirm(12), flight.confirm(99)), (None, None));
        assert_eq!(
            (flight.cursor(), flight.unconfirmed()),
            (13, 2),
            "twice or unknown changes nothing"
        );
    }

    #[test]
    fn the_account_behind_an_unconfirmed_record_is_bounded() {
        let mut flight = Flight::new(0);
        flight.sent(0, 7, "one", Instant::now());
        let mut next = 1;
        while !flight.is_long() {
            flight.sent(next, 7, "one", Instant::now());
            flight.confirm(next);
            next += 1;
        }
        assert_eq!((next, flight.unconfirmed(), flight.cursor()), (LONGEST as u64, 1, 0));
        flight.confirm(0);
        assert!(!flight.is_long());
        assert_eq!((flight.unconfirmed(), flight.cursor()), (0, next));
    }

    #[test]
    fn what_is_settled_is_behind_nothing_of_the_same_vehicle() {
        let mut flight = Flight::new(0);
        for (number, vin) in (0..).zip(["a", "b", "a", "c", "b", "c", "a"]) {
            flight.sent(number, 7, vin, Instant::now());
        }
        flight.pass(9);
        for number in [1, 2, 3, 4, 6] {
            flight.confirm(number);
        }
        assert_eq!(flight.cursor(), 0);
        assert_eq!(flight.on_their_way().collect::<Vec<_>>(), [0, 5]);
        assert_eq!(flight.settled().collect::<Vec<_>>(), [1, 3, 4, 8]);
        assert!(flight.holds(5) && !flight.holds(2) && !flight.holds(8));
    }

    #[test]
    fn what_is_not_routed_is_passed_when_everything_before_it_is_confirmed() {
        let mut flight = Flight::new(0);
        flight.pass(3);
        assert_eq!(flight.cursor(), 3);
        flight.sent(3, 7, "one", Instant::now());
        flight.pass(5);
        flight.pass(6);
        flight.sent(6, 7, "one", Instant::now());
        flight.pass(20);
        assert_eq!(flight.cursor(), 3);
        assert_eq!(flight.confirm(3), Some(7));
        assert_eq!(flight.cursor(), 6);
        assert_eq!(flight.confirm(6), Some(7));
        assert_eq!((flight.cursor(), flight.unconfirmed()), (20, 0));
    }
}
