//! Letting go of the open segment: when a commit to it has failed, or when a reader finds in it what was not written.
//!
//! It is then one of the sealed ones, whose readers find what is intact. Only the writer lets go of it, between two
//! commits; a reader that cannot read it says so, and comes again. After any failed read redb fails every call, so that
//! the next commit would fail as well.
//!
//! Invariant: up to where the records of the journal begin, all that was committed is in the segment's file, durably.

use std::path::Path;
use std::sync::PoisonError;

use super::meta::Meta;
use super::segment::{self, OpenSegment, SegmentError};
use super::segments::{Read, Segments, SegmentsError};
use super::storage;

impl Segments {
    /// Chunks of the open segment, held against what was committed to it as those of a sealed one are.
    pub(super) fn read_open(&self, open: &OpenSegment, from: u64, max_bytes: usize) -> Result<Read, SegmentError> {
        let meta = open.meta;
        // Before the rows are read: of a commit that is under way meanwhile nothing is expected.
        let (from, bound) = (from.max(meta.first), self.lock().stored());
        let read = || -> Result<_, SegmentError> {
            if from >= bound {
                return Ok(Vec::new());
            }
            let mut chunks = open.read(from, max_bytes)?;
            chunks.retain(|chunk| (meta.first..bound).contains(&chunk.first));
            match segment::unbroken(&chunks, meta.queue, from) {
                Some(_) => Ok(chunks),
                None => {
                    let reason = format!("its rows from record {from} on are not what was written");
                    Err(segment::damaged(&open.path, reason))
                }
            }
        };
        let chunks = read().inspect_err(|_| self.lock().doubtful = Some(meta.first))?;
        Ok(Read {
            chunks,
            meta: Some(meta),
            is_checked: true,
        })
    }

    /// Lets go of the open segment if a reader could not read it as it was written.
    pub(crate) fn let_go_if_doubtful(&self) {
        let doubtful = self.lock().doubtful.take();
        if let Some(first) = doubtful {
            self.let_go(|open| open.meta.first == first);
        }
    }

    /// After a failed commit: lets go of the open segment if nothing but reading it has failed, and it has a record.
    pub(super) fn let_go_if_all_written(&self) -> bool {
        let stored = self.lock().stored();
        self.let_go(|open| !open.file.has_failed() && open.meta.first < stored)
    }

    fn let_go(&self, whether: impl FnOnce(&OpenSegment) -> bool) -> bool {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let Some(abandoned) = open.take_if(|open| whether(open)) else {
            return false;
        };
        let (first, path) = (abandoned.meta.first, abandoned.abandon());
        tracing::warn!(segment = %path.display(), "cannot be read as it was written: the next records go into another one");
        self.measure(first, &path);
        self.lock().open = None;
        true
    }

    /// After a failed commit: lets go of the open segment and takes stock of what the disk has of it. What was committed
    /// before is there, and perhaps what failed.
    pub(super) fn retreat(&self) -> Result<(), SegmentsError> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let Some(abandoned) = open.take() else { return Ok(()) };
        let (meta, path) = (abandoned.meta, abandoned.abandon());
        let taken = self.take_stock(meta, &path);
        // Not before: a reader must not take the file for a sealed one while nobody knows what is in it.
        self.lock().open = None;
        taken
    }

    fn take_stock(&self, meta: Meta, path: &Path) -> Result<(), SegmentsError> {
        let first = meta.first;
        let (_, end) = segment::settle(&*self.disk, path)?;
        if end <= first {
            return self.remove_empty(meta, path);
        }
        let used = storage::used(&*self.disk, path)?;
        let mut listed = self.lock();
        listed.segments.insert(first, used);
        listed.journaled.retain(|chunk| chunk.first >= end);
        listed.end = listed.end.max(end);
        Ok(())
    }

    /// Notes what a segment takes on the disk. Where that cannot be had, what was known of it stays.
    pub(super) fn measure(&self, first: u64, path: &Path) {
        match storage::used(&*self.disk, path) {
            Ok(used) => drop(self.lock().segments.insert(first, used)),
            Err(error) => tracing::warn!(%error, "the size of a segment is not known"),
        }
    }
}
