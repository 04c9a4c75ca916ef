//! Numbers that stood for a record and cannot be read: each is counted and logged once, whoever meets it.

use std::collections::BTreeMap;
use std::ops::Range;

/// Ranges that do not touch, by their start.
#[derive(Default)]
pub(crate) struct Lost(BTreeMap<u64, u64>);

impl Lost {
    /// Numbers that never stood for a record are never lost.
    pub(crate) fn never_used(ranges: &[Range<u64>]) -> Self {
        let mut lost = Self::default();
        for range in ranges {
            lost.add(range.clone());
        }
        lost
    }

    /// Adds a range. Returns the parts of it that are new, in order.
    pub(crate) fn add(&mut self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut new = Vec::new();
        if range.is_empty() {
            return new;
        }
        let (mut start, mut end) = (range.start, range.end);
        let mut from = range.start;
        let before = self.0.range(..=range.start).next_back();
        let touched: Vec<_> = before
            .into_iter()
            .chain(self.0.range(range.start + 1..=range.end))
            .map(|(start, end)| *start..*end)
            .filter(|known| known.end >= range.start)
            .collect();
        for known in touched {
            if known.start > from {
                new.push(from..known.start.min(range.end));
            }
            from = from.max(known.end);
            start = start.min(known.start);
            end = end.max(known.end);
            self.0.remove(&known.start);
        }
        if from < range.end {
            new.push(from..range.end);
        }
        if start < end {
            self.0.insert(start, end);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_number_is_new_once(ranges in proptest::collection::vec((0..60_u64, 0..12_u64), 1..30)) {
            let mut lost = Lost::default();
            let mut seen = std::collections::BTreeSet::new();
            for (from, length) in ranges {
                let new: Vec<u64> = lost.add(from..from + length).into_iter().flatten().collect();
                let expected: Vec<u64> = (from..from + length).filter(|number| seen.insert(*number)).collect();
                prop_assert_eq!(new, expected);
            }
        }
    }
}
