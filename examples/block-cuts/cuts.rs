//! Where in a block log the power is cut, and what of the writes that were not flushed has reached the disk by then.

use std::ops::Range;

use rand::rngs::StdRng;
use rand::seq::index::sample;
use rand::{RngExt, SeedableRng};

use crate::block_log::{BlockLog, Kind, SECTOR};
use crate::disk::Disk;

/// Everything before `durable` is on the disk, any part of `durable..entries` may be, and nothing later is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cut {
    pub(crate) durable: usize,
    pub(crate) entries: usize,
    /// Which, and says which cut this is.
    pub(crate) number: u64,
}

/// So many cuts of a log, in its order: one at every flush, as far as there are enough, and the rest somewhere in the
/// writes behind a flush. With fewer cuts than flushes, half of them at a flush.
pub(crate) fn plan(log: &BlockLog, cuts: usize, seed: u64) -> Vec<Cut> {
    let mut rng = StdRng::seed_from_u64(seed);
    let flushes = log
        .entries
        .iter()
        .enumerate()
        .filter(|(_, entry)| entry.kind == Kind::Flush);
    // The end of a span is the flush that had not returned.
    let starts: Vec<usize> = [0].into_iter().chain(flushes.map(|(place, _)| place + 1)).collect();
    let ends = starts.iter().skip(1).map(|start| start - 1).chain([log.entries.len()]);
    let spans: Vec<Range<usize>> = starts.iter().zip(ends).map(|(start, end)| *start..end).collect();
    let open: Vec<&Range<usize>> = spans.iter().filter(|span| !span.is_empty()).collect();
    let at_flushes = if cuts >= spans.len() { spans.len() } else { cuts / 2 };
    let mut planned: Vec<(usize, usize)> = sample(&mut rng, spans.len(), at_flushes)
        .into_iter()
        .map(|span| (spans[span].start, spans[span].start))
        .collect();
    while planned.len() < cuts && !open.is_empty() {
        let span = open[rng.random_range(0..open.len())];
        planned.push((span.start, rng.random_range(span.clone()) + 1));
    }
    planned.sort_unstable();
    planned
        .into_iter()
        .zip(0..)
        .map(|((durable, entries), number)| Cut {
            durable,
            entries,
            number,
        })
        .collect()
}

/// How the disk chose among its unflushed writes.
enum Choice {
    /// Each write by itself, whole.
    Writes(f64),
    /// Each sector by itself: any write may be torn.
    Sectors(f64),
    /// All but this one.
    Without(usize),
    /// This one alone.
    Only(usize),
}

impl Cut {
    /// Puts the part that reached the disk on it.
    ///
    /// The sectors of `whole`, where the file system has its superblock, are never torn: ext4 and btrfs update theirs in
    /// place, check a sum over all of it, and do not mount with a mixture.
    pub(crate) fn apply(&self, log: &BlockLog, disk: &mut Disk, seed: u64, whole: &Range<usize>) {
        let mut rng = StdRng::seed_from_u64(seed ^ (self.number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let span = self.durable..self.entries;
        let choice = match rng.random_range(0..5) {
            _ if span.is_empty() => return,
            0 | 1 => Choice::Sectors(rng.random_range(0.05..1.0)),
            2 => Choice::Writes(rng.random_range(0.1..1.0)),
            3 => Choice::Without(rng.random_range(span.clone())),
            _ => Choice::Only(rng.random_range(span.clone())),
        };
        for place in span {
            let entry = &log.entries[place];
            let (each, as_one) = match choice {
                Choice::Sectors(share) => (Some(share), rng.random_bool(share)),
                Choice::Writes(share) => (None, rng.random_bool(share)),
                Choice::Without(other) => (None, place != other),
                Choice::Only(this) => (None, place == this),
            };
            for (sector, bytes) in (entry.sector as usize..).zip(log.data(entry).chunks(SECTOR)) {
                let arrives = match each {
                    Some(share) if !whole.contains(&sector) => rng.random_bool(share),
                    _ => as_one,
                };
                if arrives {
                    disk.write(sector * SECTOR, bytes);
                }
            }
        }
    }
}
