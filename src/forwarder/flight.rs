//! The records that a destination has been handed and has not confirmed, and how far the confirmations reach without
//! a gap: the cursor.

use std::collections::VecDeque;

pub(crate) struct Flight {
    /// In the order of their numbers; `true`: confirmed, or not this destination's.
    records: VecDeque<(u64, bool)>,
    cursor: u64,
    unconfirmed: usize,
}

impl Flight {
    pub(crate) fn new(cursor: u64) -> Self {
        Self {
            records: VecDeque::new(),
            cursor,
            unconfirmed: 0,
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

    /// A record that is being handed over.
    pub(crate) fn sent(&mut self, number: u64) {
        self.records.push_back((number, false));
        self.unconfirmed += 1;
    }

    /// Numbers before `end` that are not this destination's, or hold no record.
    pub(crate) fn pass(&mut self, end: u64) {
        match self.records.back_mut() {
            None => self.cursor = self.cursor.max(end),
            Some((last, true)) => *last = (*last).max(end - 1),
            Some((last, false)) if *last < end - 1 => self.records.push_back((end - 1, true)),
            Some(_) => {}
        }
    }

    /// A record that the destination has, or that is durably in its dead letters.
    pub(crate) fn confirm(&mut self, number: u64) {
        let at = self.records.partition_point(|(sent, _)| *sent < number);
        let Some((_, done @ false)) = self.records.get_mut(at).filter(|(sent, _)| *sent == number) else {
            return;
        };
        *done = true;
        self.unconfirmed -= 1;
        while let Some((number, true)) = self.records.front() {
            self.cursor = number + 1;
            self.records.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_moves_only_over_contiguous_confirmations() {
        let mut flight = Flight::new(10);
        (10..15).for_each(|number| flight.sent(number));
        flight.confirm(11);
        flight.confirm(12);
        assert_eq!((flight.cursor(), flight.unconfirmed()), (10, 3));
        flight.confirm(10);
        assert_eq!((flight.cursor(), flight.unconfirmed()), (13, 2));
        flight.confirm(12);
        flight.confirm(99);
        assert_eq!(
            (flight.cursor(), flight.unconfirmed()),
            (13, 2),
            "twice or unknown changes nothing"
        );
    }

    #[test]
    fn what_is_not_routed_is_passed_when_everything_before_it_is_confirmed() {
        let mut flight = Flight::new(0);
        flight.pass(3);
        assert_eq!(flight.cursor(), 3);
        flight.sent(3);
        flight.pass(5);
        flight.pass(6);
        flight.sent(6);
        flight.pass(20);
        assert_eq!(flight.cursor(), 3);
        flight.confirm(3);
        assert_eq!(flight.cursor(), 6);
        flight.confirm(6);
        assert_eq!((flight.cursor(), flight.unconfirmed()), (20, 0));
    }
}
