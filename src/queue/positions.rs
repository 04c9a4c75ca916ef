//! Where each destination is: the cursors in memory, moved by the forwarders and saved by the writer.
//!
//! A cursor only ever grows. One that the configuration no longer names keeps its place.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::backlog;

pub(crate) struct Positions(Mutex<BTreeMap<String, Position>>);

#[derive(Debug, Clone, Copy)]
struct Position {
    next: u64,
    required: bool,
    /// Somebody comes for its records: it is configured.
    registered: bool,
    dropped: u64,
    /// Bytes of segments that it may hold.
    max_backlog: Option<u64>,
}

impl Position {
    fn drop_to(&mut self, name: &str, first: u64, end: u64, skipped: &[Range<u64>], why: &str) {
        let from = self.next.max(first);
        let dropped = backlog(from, first, end, skipped);
        self.dropped += dropped;
        tracing::error!(destination = %name, from, to = end - 1, dropped,
            "records dropped, with those in between that were not for this destination: {why}");
        self.next = end;
    }
}

impl Positions {
    /// Places as saved. One that the configuration no longer names is as required as it was.
    pub(crate) fn new(saved: BTreeMap<String, u64>, optional: &BTreeSet<String>) -> Self {
        let place = |(name, next)| {
            let position = Position {
                next,
                required: !optional.contains(&name),
                registered: false,
                dropped: 0,
                max_backlog: None,
            };
            (name, position)
        };
        Self(Mutex::new(saved.into_iter().map(place).collect()))
    }

    /// The destinations that are not required.
    pub(crate) fn optional(&self) -> BTreeSet<String> {
        let positions = self.lock();
        let optional = positions.iter().filter(|(_, position)| !position.required);
        optional.map(|(name, _)| name.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Position>> {
        // Every change under it is a single assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A destination's place, `start` for one that is new.
    pub(crate) fn register(&self, name: &str, start: u64, required: bool) -> u64 {
        let mut positions = self.lock();
        let position = positions.entry(name.to_owned()).or_insert(Position {
            next: start,
            required,
            registered: true,
            dropped: 0,
            max_backlog: None,
        });
        position.required = required;
        position.registered = true;
        position.next
    }

    /// Bounds what a destination may hold; `None`: nothing but the queue's own limits does.
    pub(crate) fn set_max_backlog(&self, name: &str, max_bytes: Option<u64>) {
        if let Some(position) = self.lock().get_mut(name) {
            position.max_backlog = max_bytes;
        }
    }

    /// The destinations whose backlog is bounded, with their places and their bounds.
    pub(crate) fn bounded(&self) -> Vec<(String, u64, u64)> {
        let positions = self.lock();
        let bounded = positions
            .iter()
            .filter_map(|(name, position)| Some((name.clone(), position.next, position.max_backlog?)));
        bounded.collect()
    }

    /// Moves a destination's cursor forward. Everything before `next` is confirmed, in its dead letters, or not its.
    pub(crate) fn advance(&self, name: &str, next: u64) {
        if let Some(position) = self.lock().get_mut(name) {
            position.next = position.next.max(next);
        }
    }

    /// Takes away a destination's place. `false`: it had none.
    pub(crate) fn remove(&self, name: &str) -> bool {
        self.lock().remove(name).is_some()
    }

    pub(crate) fn all(&self) -> BTreeMap<String, u64> {
        self.lock()
            .iter()
            .map(|(name, position)| (name.clone(), position.next))
            .collect()
    }

    /// One destination's place.
    pub(crate) fn get(&self, name: &str) -> Option<u64> {
        self.lock().get(name).map(|position| position.next)
    }

    /// Whether a destination has a place, and is configured.
    pub(crate) fn is_registered(&self, name: &str) -> bool {
        self.lock().get(name).is_some_and(|position| position.registered)
    }

    /// The first number that somebody still needs.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.lock().values().map(|position| position.next).min()
    }

    /// Records that a destination lost because the queue needed their space.
    pub(crate) fn dropped(&self, name: &str) -> u64 {
        self.lock().get(name).map_or(0, |position| position.dropped)
    }

    /// Moves destinations past `end`: all of them, or those that are not required when only they still need what is
    /// before it. Returns how many it moved.
    pub(crate) fn drop_before(&self, first: u64, end: u64, all: bool, skipped: &[Range<u64>], why: &str) -> usize {
        let mut positions = self.lock();
        let behind = |position: &Position| position.next < end;
        if !all && positions.values().any(|position| position.required && behind(position)) {
            return 0;
        }
        let moved = positions.iter_mut().filter(|(_, position)| behind(position));
        moved
            .map(|(name, position)| position.drop_to(name, first, end, skipped, why))
            .count()
    }

    /// Whether somebody still needs something before `end`, and nobody who is required.
    pub(crate) fn is_needed_by_optional_alone(&self, end: u64) -> bool {
        let positions = self.lock();
        let mut behind = positions.values().filter(|position| position.next < end).peekable();
        behind.peek().is_some() && behind.all(|position| !position.required)
    }

    /// Moves one destination past `end`.
    pub(crate) fn drop_of(&self, name: &str, first: u64, end: u64, skipped: &[Range<u64>], why: &str) {
        if let Some(position) = self.lock().get_mut(name).filter(|position| position.next < end) {
            position.drop_to(name, first, end, skipped, why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_never_goes_back() {
        let positions = Positions::new([("cloud".to_owned(), 5)].into(), &BTreeSet::new());
        assert_eq!(positions.register("cloud", 0, true), 5);
        positions.advance("cloud", 9);
        positions.advance("cloud", 7);
        assert_eq!(positions.get("cloud"), Some(9));
    }

    #[test]
    fn only_a_destination_that_is_not_required_is_moved_on() {
        let positions = Positions::new(BTreeMap::new(), &BTreeSet::new());
        positions.register("cloud", 0, true);
        positions.register("file", 0, false);
        assert_eq!(
            positions.drop_before(0, 10, false, &[], "full"),
            0,
            "the required one still needs it"
        );
        positions.advance("cloud", 10);
        positions.advance("file", 4);
        assert_eq!(positions.drop_before(0, 10, false, &[], "full"), 1);
        assert_eq!((positions.get("file"), positions.dropped("file")), (Some(10), 6));
        assert_eq!(positions.oldest(), Some(10));
        assert_eq!(
            positions.drop_before(10, 15, true, &[], "full"),
            2,
            "all of them, if that is wanted"
        );
        assert_eq!((positions.get("cloud"), positions.dropped("cloud")), (Some(15), 5));
    }

    #[test]
    fn a_destination_that_left_the_configuration_keeps_its_place() {
        let positions = Positions::new([("old".to_owned(), 3)].into(), &BTreeSet::new());
        positions.register("new", 50, true);
        assert_eq!(positions.oldest(), Some(3));
        assert_eq!(positions.drop_before(0, 10, false, &[], "full"), 0);
    }

    #[test]
    fn a_destination_that_left_and_was_not_required_fills_nothing() {
        let positions = Positions::new([("trace".to_owned(), 3)].into(), &["trace".to_owned()].into());
        positions.register("cloud", 50, true);
        assert_eq!(positions.drop_before(0, 10, false, &[], "full"), 1);
        assert_eq!(positions.optional(), ["trace".to_owned()].into());
    }
}
