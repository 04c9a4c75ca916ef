//! A directory of segments: at most one open for appending, the others sealed, in the order of their numbers.
//!
//! Shared by the writer, which appends, seals and removes, and the readers. Reading never stops the writer: of a segment
//! that is damaged everything intact is read (`sealed`), and what is not is kept in `quarantine/`, with a note.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use super::journal::Journal;
use super::meta::{self, Meta};
use super::quarantine::Quarantine;
use super::release::{self, Removed};
use super::sealed::Damaged;
pub(crate) use super::sealed::ReadHandle;
use super::segment::{Chunk, OpenSegment, RawChunk, SealedSegment, SegmentError};
use super::storage::{self, Access, Disk, StorageError, failed};
use crate::record::stored::QueueId;

/// Why the directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SegmentsError {
    /// The file system refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// One segment failed.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

impl SegmentsError {
    /// Whether the disk, or our share of it, has no room.
    pub(crate) fn is_no_space(&self) -> bool {
        match self {
            Self::Storage(error) => error.is_no_space(),
            Self::Segment(error) => error.io().is_some_and(storage::is_no_space),
        }
    }
}

pub(crate) struct Segments {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    /// Which directory that was at the start, as far as the disk said.
    pub(super) identity: Option<(u64, u64)>,
    pub(super) quarantine: Quarantine,
    pub(super) listed: Mutex<Listed>,
    pub(super) open: RwLock<Option<OpenSegment>>,
    /// Whose records these are, once that is known.
    pub(super) queue: OnceLock<QueueId>,
    /// Held by the reader that looks through a damaged segment.
    pub(super) salvaging: Mutex<()>,
    /// The writer's alone.
    pub(super) journal: Mutex<Option<Journal>>,
    /// Something that cannot be moved has its name.
    pub(super) has_no_journal: AtomicBool,
}

#[derive(Default)]
pub(super) struct Listed {
    /// Bytes on the disk, by first number.
    pub(super) segments: BTreeMap<u64, u64>,
    /// The one that is appended to, and the bytes put into it.
    pub(super) open: Option<(u64, u64)>,
    /// The open segment's first number, when a reader could not read it as it was written.
    pub(super) doubtful: Option<u64>,
    /// Committed in the journal, and in no segment yet: behind all that is in one.
    pub(super) journaled: Vec<Chunk>,
    /// What the segment said that they were for, if it has been let go of.
    pub(super) abandoned: Option<Meta>,
    /// One more than the last record that can be read.
    pub(super) end: u64,
    /// One more than the last number that a failed commit may have left in the journal.
    pub(super) used: u64,
    /// The running time at the newest commit.
    pub(super) newest: u64,
    /// Where a read was failed by the disk last, and how often in a row, by first number.
    pub(super) failures: BTreeMap<u64, (u64, u32)>,
    /// Those that are read by what is intact in them.
    pub(super) damaged: BTreeMap<u64, Arc<Damaged>>,
    /// Those that are kept when they are consumed, because not all of their records could be read.
    pub(super) kept: BTreeSet<u64>,
    /// How many were rewritten: who has one open from before has the old file.
    pub(super) rewritten: u64,
    /// When each began, in running time, as far as that was asked for; by first number.
    pub(super) began: BTreeMap<u64, u64>,
}

impl Listed {
    /// One more than the last record that is in a segment.
    pub(super) fn stored(&self) -> u64 {
        self.journaled.first().map_or(self.end, |chunk| chunk.first)
    }

    /// Where the segment behind this one begins.
    pub(super) fn next(&self, first: u64) -> Option<u64> {
        self.segments.range(first + 1..).next().map(|(next, _)| *next)
    }
}

/// Where to read on from a number.
struct Holder {
    /// The segment that holds it, or the next one: its first number, whether it is open, where the one after it begins.
    segment: Option<(u64, bool, Option<u64>)>,
    /// The first number that is in the journal alone.
    journaled: Option<u64>,
}

/// What one read gave.
pub(crate) struct Read {
    pub chunks: Vec<RawChunk>,
    /// Of the segment that they are from, as far as that can be read.
    pub meta: Option<Meta>,
    /// Whether every frame in them has been found intact.
    pub is_checked: bool,
}

impl Segments {
    pub(super) fn lock(&self) -> MutexGuard<'_, Listed> {
        // Every change under it is a single insert, remove or assignment.
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn path(&self, first: u64) -> PathBuf {
        self.dir.join(meta::file_name(first))
    }

    /// One more than the last record that can be read.
    pub(crate) fn end(&self) -> u64 {
        self.lock().end
    }

    /// Number of the oldest record.
    pub(crate) fn first(&self) -> Option<u64> {
        let listed = self.lock();
        let journaled = listed.journaled.first().map(|chunk| chunk.first);
        listed.segments.keys().next().copied().or(journaled)
    }

    /// One more than the last number that may stand for a record.
    pub(crate) fn used(&self) -> u64 {
        let listed = self.lock();
        listed.end.max(listed.used)
    }

    /// How many segments there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().segments.len()
    }

    /// Bytes that all of them take on the disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.lock().segments.values().sum()
    }

    /// Bytes that the file system has left.
    pub(crate) fn free(&self) -> Result<u64, SegmentsError> {
        Ok(self
            .disk
            .free(&self.dir)
            .map_err(failed("ask for the free space of", &self.dir))?)
    }

    /// The numbers of the oldest segment that is not appended to: its first, and where the next one begins.
    pub(crate) fn oldest_sealed(&self) -> Option<(u64, u64)> {
        let listed = self.lock();
        let (first, _) = listed.segments.first_key_value()?;
        if listed.open.is_some_and(|(open, _)| open == *first) {
            return None;
        }
        Some((*first, listed.next(*first).unwrap_or(listed.stored())))
    }

    /// Bytes on the disk of the segments that hold something from `number` on.
    pub(crate) fn bytes_from(&self, number: u64) -> u64 {
        let listed = self.lock();
        let holder = listed.segments.range(..=number).next_back();
        let from = holder.map_or(number, |(first, _)| *first);
        listed.segments.range(from..).map(|(_, bytes)| bytes).sum()
    }

    /// The oldest sealed segments of those that hold something from `number` on, as many as exceed so many bytes in all:
    /// the first number in them, and where the next one begins.
    pub(crate) fn excess(&self, number: u64, max_bytes: u64) -> Option<(u64, u64)> {
        let mut left = self.bytes_from(number);
        let listed = self.lock();
        let from = listed
            .segments
            .range(..=number)
            .next_back()
            .map_or(number, |(first, _)| *first);
        let mut sealed = listed
            .segments
            .range(from..)
            .take_while(|(first, _)| listed.open.is_none_or(|(open, _)| open != **first))
            .peekable();
        let begin = **sealed.peek().map(|(first, _)| first)?;
        let (last, _) = sealed
            .take_while(|(_, bytes)| {
                let exceeds = left > max_bytes;
                left = left.saturating_sub(**bytes);
                exceeds
            })
            .last()?;
        Some((begin, listed.next(*last).unwrap_or(listed.stored())))
    }

    /// The oldest sealed segment's numbers, and the running time at which nothing more was added to it: the beginning of
    /// the next one that says it; of the newest, that of the last commit, which was not after `started` if no commit came
    /// since. `None` when nobody can say.
    pub(crate) fn oldest_ended(&self, started: u64) -> Option<(u64, u64, u64)> {
        let (first, end) = self.oldest_sealed()?;
        let (later, newest): (Vec<_>, _) = {
            let listed = self.lock();
            let later = listed.segments.range(first + 1..).map(|(next, _)| *next);
            (later.collect(), listed.newest)
        };
        let Some(next) = later.first().copied() else {
            return Some((first, end, newest.max(started)));
        };
        if let Some(began) = self.lock().began.get(&next) {
            return Some((first, end, *began));
        }
        // One that cannot be read is found by its readers; a later one's beginning keeps it longer, never shorter.
        let began = later
            .into_iter()
            .filter_map(|later| Some(SealedSegment::open(&*self.disk, &self.path(later)).ok()?.meta.began))
            .find(|began| *began != meta::BEGAN_UNKNOWN)?;
        self.lock().began.insert(next, began);
        Some((first, end, began))
    }

    /// Whether there is a segment that is appended to.
    pub(crate) fn is_open(&self) -> bool {
        self.open.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Since when, in running time, there is something that is in no sealed segment.
    pub(crate) fn unsealed_since(&self) -> Option<u64> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().map(|open| open.meta.began).or_else(|| {
            let listed = self.lock();
            (!listed.journaled.is_empty()).then_some(listed.newest)
        })
    }

    /// Unlinks the sealed segments that hold nothing at or after `number`, and sets aside those of them that are damaged.
    /// No more than `at_most`: others may wait meanwhile.
    pub(crate) fn remove_below(&self, number: u64, at_most: usize) -> Result<Removed, SegmentsError> {
        let mut removed = Removed::default();
        while removed.segments < at_most
            && let Some((first, end)) = self.oldest_sealed().filter(|(_, end)| *end <= number)
        {
            // Unlisted first: a reader must not take a file that is gone for a loss.
            self.lock().segments.remove(&first);
            // While it is open, to lose its name takes no time.
            if removed.files.len() < release::AT_ONCE {
                removed.files.extend(self.disk.open(&self.path(first), Access::Read));
            }
            // No ack depends on it, and the next start finds it again.
            if let Err(error) = self.dispose(first, end) {
                tracing::warn!(first, end, %error, "a segment that nobody needs stays on the disk: it cannot be removed");
            }
            let mut listed = self.lock();
            listed.began.remove(&first);
            listed.damaged.remove(&first);
            listed.kept.remove(&first);
            tracing::debug!(first, end, "segment consumed");
            removed.segments += 1;
        }
        // Once for all of them: each sync makes the file system commit what it has changed.
        if removed.segments > 0 {
            storage::sync_dir(&*self.disk, &self.dir)?;
        }
        Ok(removed)
    }

    fn dispose(&self, first: u64, end: u64) -> Result<(), StorageError> {
        let path = self.path(first);
        if self.lock().kept.contains(&first) {
            let reason = "damaged; what was intact in it is needed no longer";
            match self.quarantine.take(&path, reason, Some((first, Some(end)))) {
                Ok(()) => return Ok(()),
                // A full disk must not keep what nobody waits for.
                Err(error) => tracing::warn!(%error, "a damaged segment is removed: it cannot be set aside"),
            }
        }
        self.disk.remove(&path).map_err(failed("remove", &path))
    }

    /// Chunks from the one that holds `from` or, if it is not there, the next that exists. `None`: nothing is left.
    pub(crate) fn read(
        &self,
        mut from: u64,
        max_bytes: usize,
        handle: &mut ReadHandle,
    ) -> Result<Option<Read>, SegmentsError> {
        loop {
            if let Some(read) = self.read_journaled(from, max_bytes) {
                return Ok(Some(read));
            }
            let Holder { segment, journaled } = self.holder(from);
            let mut next = None;
            if let Some((first, open, following)) = segment {
                let read = if open {
                    let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
                    // Sealed in between: look again.
                    let Some(open) = open.as_ref().filter(|open| open.meta.first == first) else {
                        continue;
                    };
                    self.read_open(open, from, max_bytes)?
                } else {
                    self.read_sealed(first, following, from, max_bytes, handle)?
                };
                if !read.chunks.is_empty() {
                    self.succeeded(first, from);
                    return Ok(Some(read));
                }
                next = following;
            }
            // Nothing was there. What was in the journal before that look is by now there or in a segment.
            match next.or(journaled.filter(|journaled| *journaled > from)) {
                Some(next) => from = from.max(next),
                None => return Ok(None),
            }
        }
    }

    fn holder(&self, from: u64) -> Holder {
        let listed = self.lock();
        let at = listed.segments.range(..=from).next_back();
        let segment = at.or_else(|| listed.segments.range(from..).next()).map(|(first, _)| {
            let is_open = listed.open.is_some_and(|(open, _)| open == *first);
            (*first, is_open, listed.next(*first))
        });
        Holder {
            segment,
            journaled: listed.journaled.first().map(|chunk| chunk.first),
        }
    }

    /// Where the chunk after the one at `first` begins, as far as any is there.
    pub(crate) fn chunk_after(&self, first: u64, handle: &mut ReadHandle) -> Result<Option<u64>, SegmentsError> {
        let mut max_bytes = 1 << 20;
        loop {
            let Some(read) = self.read(first, max_bytes, handle)? else {
                return Ok(None);
            };
            if let Some(after) = read.chunks.iter().find(|chunk| chunk.first > first) {
                return Ok(Some(after.first));
            }
            let Holder { segment, journaled } = self.holder(first);
            let next = segment.and_then(|(_, _, next)| next);
            let next = next.or(journaled.filter(|journaled| *journaled > first));
            if max_bytes > 4 << 20 || next.is_some() {
                return Ok(next);
            }
            max_bytes *= 4;
        }
    }
}
