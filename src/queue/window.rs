//! The newest fingerprints, in the order in which they came: whether one is among them, and the oldest out for a new one.
//!
//! Bounded in bytes: 24 for each, 16 in the ring and 8 in the table that finds it there, so that 4 MiB hold 174,762.
//! Nothing is allocated before the first one, and then in steps that double. `cargo bench --bench window` has what else
//! was tried: the standard library's sets take less time and hold a third fewer in the same space.

/// What one costs: its place in the ring, and two slots of the table, which is never more than half full.
const BYTES: u64 = (size_of::<u128>() + 2 * size_of::<u32>()) as u64;
/// Places in the first step.
const FIRST: usize = 64;
/// No record's fingerprint, or of one in 2^128: what stands in a place that was given back.
const NOTHING: u128 = 0;

/// Fingerprints, as many as there is room for.
#[derive(Debug, Default)]
pub struct Window {
    /// How many it may hold.
    limit: usize,
    /// In the order in which they came, from `oldest` on and around.
    ring: Vec<u128>,
    oldest: usize,
    /// One more than a place in the ring, or 0: the first that is free at or behind where the fingerprint says.
    slots: Vec<u32>,
}

impl Window {
    /// One that takes at most so many bytes; with 0 it holds nothing.
    pub fn new(max_bytes: u64) -> Self {
        let limit = (max_bytes / BYTES).min(u64::from(u32::MAX - 1));
        Self {
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            ..Self::default()
        }
    }

    /// How many it may hold.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many it holds.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Bytes that it has allocated.
    pub fn bytes(&self) -> usize {
        self.ring.capacity() * size_of::<u128>() + self.slots.capacity() * size_of::<u32>()
    }

    /// Whether a fingerprint is among them.
    pub fn contains(&self, fingerprint: u128) -> bool {
        self.slot_of(fingerprint).is_some_and(|slot| self.slots[slot] != 0)
    }

    /// Adds one, in place of the oldest if there is no room. `false`: it is among them already, and as old as it was.
    pub fn insert(&mut self, fingerprint: u128) -> bool {
        if self.contains(fingerprint) {
            return false;
        }
        if self.limit == 0 || fingerprint == NOTHING {
            return true;
        }
        let place = match self.ring.len() == self.limit {
            true => {
                self.forget(self.ring[self.oldest]);
                let place = self.oldest;
                self.ring[place] = fingerprint;
                self.oldest = (place + 1) % self.limit;
                place
            }
            false => {
                self.make_room();
                self.ring.push(fingerprint);
                self.ring.len() - 1
            }
        };
        self.enter(place);
        true
    }

    /// Takes the newest out again, so many of them. Those that had to go for them do not come back; the next ones take
    /// the places that are free now.
    pub fn take_back(&mut self, newest: usize) {
        let places = self.ring.len();
        let newest = newest.min(places);
        for back in 1..=newest {
            let place = (self.oldest + places - back) % places;
            self.forget(self.ring[place]);
            self.ring[place] = NOTHING;
        }
        match places == self.limit {
            true => self.oldest = (self.oldest + places - newest) % places.max(1),
            false => self.ring.truncate(places - newest),
        }
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = u128> + '_ {
        let (newer, older) = self.ring.split_at(self.oldest);
        let all = older.iter().chain(newer).copied();
        all.filter(|fingerprint| *fingerprint != NOTHING)
    }

    /// Room for one more: the ring and the table grow together.
    fn make_room(&mut self) {
        if 2 * self.ring.len() < self.slots.len() {
            return;
        }
        let room = (2 * self.ring.len()).max(FIRST).min(self.limit);
        // The table can be made again from the ring: the old and the new one are never there together.
        self.slots = Vec::new();
        self.ring.reserve_exact(room - self.ring.len());
        self.slots = vec![0; 2 * room];
        (0..self.ring.len()).for_each(|place| self.enter(place));
    }

    fn enter(&mut self, place: usize) {
        let slot = self.slot_of(self.ring[place]);
        let slot = slot.expect("the table has two slots for each place, and was made before the first");
        self.slots[slot] = place as u32 + 1;
    }

    /// Takes one out of the table. What lies behind it moves up, so that a search still ends at the first free slot.
    fn forget(&mut self, fingerprint: u128) {
        if fingerprint == NOTHING {
            return;
        }
        let Some(mut free) = self.slot_of(fingerprint) else {
            return;
        };
        let slots = self.slots.len();
        let mut slot = free;
        loop {
            slot = (slot + 1) % slots;
            let Some(place) = (self.slots[slot] as usize).checked_sub(1) else {
                break;
            };
            let from = |start: usize| (slot + slots - start) % slots;
            if from(self.home(self.ring[place])) >= from(free) {
                self.slots[free] = self.slots[slot];
                free = slot;
            }
        }
        self.slots[free] = 0;
    }

    /// Fetches what the next look-ups and inserts of these will need, all at once: one after the other each would wait for
    /// memory by itself.
    pub(super) fn fetch(&self, fingerprints: impl Iterator<Item = u128>) {
        if self.slots.is_empty() {
            return;
        }
        let oldest = self.ring.iter().cycle().skip(self.oldest);
        let touched = fingerprints.zip(oldest).fold(0, |touched, (new, old)| {
            touched ^ self.slots[self.home(new)] ^ self.slots[self.home(*old)]
        });
        // Nobody wants to know; only the fetching counts.
        std::hint::black_box(touched);
    }

    /// The slot that has a fingerprint, or the free one that would. `None`: there is no table yet.
    fn slot_of(&self, fingerprint: u128) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut slot = self.home(fingerprint);
        while let Some(place) = (self.slots[slot] as usize).checked_sub(1) {
            if self.ring[place] == fingerprint {
                break;
            }
            slot = if slot + 1 == self.slots.len() { 0 } else { slot + 1 };
        }
        Some(slot)
    }

    /// Where the search for a fingerprint begins: its upper half, scaled to the table.
    fn home(&self, fingerprint: u128) -> usize {
        (((fingerprint >> 64) * self.slots.len() as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// Few enough that they meet again, and crowded at both ends of the table.
    fn fingerprint(n: u8) -> u128 {
        match n {
            0..64 => u128::from(n) + 1,
            64..128 => u128::MAX - u128::from(n),
            _ => u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        }
    }

    proptest! {
        /// Of each batch what was new is taken back again if the batch failed; in the model too its places are the oldest then.
        #[test]
        fn what_a_failed_batch_left_is_taken_back(
            limit in 1_usize..100,
            batches in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..40), any::<bool>()), 0..30),
        ) {
            let mut window = Window::new(limit as u64 * BYTES);
            let mut newest: VecDeque<Option<u8>> = VecDeque::new();
            for (batch, failed) in batches {
                let mut fresh = 0;
                for n in batch {
                    let new = !newest.contains(&Some(n));
                    prop_assert_eq!(window.insert(fingerprint(n)), new);
                    if new {
                        fresh += 1;
                        newest.push_back(Some(n));
                        newest.drain(..newest.len().saturating_sub(limit));
                    }
                }
                if failed {
                    window.take_back(fresh);
                    let full = newest.len() == limit;
                    newest.truncate(newest.len().saturating_sub(fresh));
                    while full && newest.len() < limit {
                        newest.push_front(None);
                    }
                }
                let expected: Vec<_> = newest.iter().flatten().map(|n| fingerprint(*n)).collect();
                prop_assert_eq!(window.iter().collect::<Vec<_>>(), expected);
                prop_assert!(window.bytes() <= limit * BYTES as usize);
            }
            for n in 0..=u8::MAX {
                prop_assert_eq!(window.contains(fingerprint(n)), newest.contains(&Some(n)), "{}", n);
            }
        }

        #[test]
        fn it_holds_the_newest_and_no_other(limit in 1_u64..200, came in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut window = Window::new(limit * BYTES);
            let mut newest = VecDeque::new();
            for n in came {
                let new = !newest.contains(&n);
                prop_assert_eq!(window.insert(fingerprint(n)), new);
                if new {
                    newest.push_back(n);
                    newest.drain(..newest.len().saturating_sub(limit as usize));
                }
                prop_assert!(window.bytes() as u64 <= limit * BYTES);
            }
            for n in 0..=u8::MAX {
                prop_assert_eq!(window.contains(fingerprint(n)), newest.contains(&n), "{}", n);
            }
            let expected: Vec<_> = newest.iter().map(|n| fingerprint(*n)).collect();
            prop_assert_eq!(window.iter().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn it_takes_no_more_than_it_may_and_nothing_before_it_is_used() {
        let mut window = Window::new(4 << 20);
        assert_eq!((window.limit(), window.bytes()), (174_762, 0));
        window.insert(1);
        assert!(window.bytes() < 2000, "{}", window.bytes());
        for n in 0..400_000 {
            window.insert(u128::from(n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
            assert!(window.bytes() <= 4 << 20, "{} with {n}", window.bytes());
        }
        assert_eq!(window.len(), window.limit());
    }

    #[test]
    fn one_without_room_holds_nothing() {
        let mut window = Window::new(0);
        assert!(window.insert(1), "it is new each time");
        assert!(!window.contains(1));
        assert_eq!(window.bytes(), 0);
    }
}
