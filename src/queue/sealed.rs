//! Reading sealed segments: by their rows while these are what was written, else by what is intact in the file.
//!
//! A damaged segment stays where it is and is only read, so that neither a power cut nor a full disk can come between
//! its intact records and their destinations. It goes to `quarantine/` when every destination has passed it, or at once
//! when nothing in it is intact. Nothing is given up for an error that may pass.

use std::io::ErrorKind;
use std::sync::{Arc, PoisonError};

use super::meta::Meta;
use super::recovery::is_passing;
use super::salvage::Salvage;
use super::segment::{self, RawChunk, SealedSegment, SegmentError};
use super::segments::{Read, Segments, SegmentsError};
use super::storage::{Access, failed};

/// A reader's open sealed segment: most reads go on in the one before.
#[derive(Default)]
pub(crate) struct ReadHandle(Option<Held>);

struct Held {
    first: u64,
    /// How many segments had been rewritten when it was opened.
    rewritten: u64,
    sealed: SealedSegment,
}

/// A segment that is read by what is intact in it.
pub(super) struct Damaged {
    pub(super) salvage: Salvage,
    /// As far as that can be read.
    pub(super) meta: Option<Meta>,
}

/// Failed reads in a row after which a segment is taken for damaged.
pub(super) const ATTEMPTS: u32 = 3;

impl Segments {
    /// Chunks of the sealed segment `first`, before which `next` begins; none when it has nothing from `from` on.
    pub(super) fn read_sealed(
        &self,
        first: u64,
        next: Option<u64>,
        from: u64,
        max_bytes: usize,
        handle: &mut ReadHandle,
    ) -> Result<Read, SegmentsError> {
        loop {
            let damaged = self.damaged(first);
            let read = match &damaged {
                Some(damaged) => self.read_damaged(first, damaged, from, max_bytes),
                None => self.read_rows(first, from, max_bytes, handle).map(Some),
            };
            let error = match read {
                Ok(None) => continue,
                Ok(Some(read)) => return Ok(read),
                Err(error) if is_passing(&error) || self.is_elsewhere(&error) => return Err(error.into()),
                Err(error) => error,
            };
            handle.0 = None;
            if error.io().is_some() && self.failed_again(first, from) < ATTEMPTS {
                return Err(error.into());
            }
            // What follows is another way of reading, or none.
            self.lock().failures.remove(&first);
            if damaged.is_some() || !self.salvage(first, &error, handle)? {
                self.give_up(first, next.unwrap_or_else(|| self.lock().stored()), &error)?;
                return Ok(Read {
                    chunks: Vec::new(),
                    meta: None,
                    is_checked: true,
                });
            }
        }
    }

    /// Chunks of the sealed segment `first` from `from` on, for who can do without: an error is no news of the segment, and
    /// nothing comes of it. Nothing in them is checked, the numbers included.
    pub(super) fn peek(
        &self,
        first: u64,
        from: u64,
        max_bytes: usize,
        handle: &mut ReadHandle,
    ) -> Result<Vec<RawChunk>, SegmentError> {
        if let Some(damaged) = self.damaged(first) {
            let read = self.read_damaged(first, &damaged, from, max_bytes)?;
            return Ok(read.map_or(Vec::new(), |read| read.chunks));
        }
        self.opened(first, handle)?.read(from, max_bytes)
    }

    /// Whether a file is not found because the whole directory was moved away, and perhaps another put in its place: that
    /// says nothing about what is in it, and it may come back.
    fn is_elsewhere(&self, error: &SegmentError) -> bool {
        if error.io().is_none_or(|error| error.kind() != ErrorKind::NotFound) {
            return false;
        }
        match self.disk.identity(&self.dir) {
            Ok(now) => self.identity.is_some_and(|known| known != now),
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    }

    fn damaged(&self, first: u64) -> Option<Arc<Damaged>> {
        self.lock().damaged.get(&first).cloned()
    }

    /// `None`: look at the segment anew.
    fn read_damaged(
        &self,
        first: u64,
        damaged: &Arc<Damaged>,
        from: u64,
        max_bytes: usize,
    ) -> Result<Option<Read>, SegmentError> {
        let path = self.path(first);
        let file = self.disk.open(&path, Access::Read).map_err(failed("open", &path))?;
        // A file that was rewritten meanwhile is not the one that was looked through.
        if !self.damaged(first).is_some_and(|now| Arc::ptr_eq(&now, damaged)) {
            return Ok(None);
        }
        let chunks = damaged.salvage.read(&*file, from, max_bytes);
        Ok(Some(Read {
            chunks: chunks.map_err(failed("read", &path))?,
            meta: damaged.meta,
            is_checked: false,
        }))
    }

    /// Fails unless every record from `from` on is there, one behind the other, as far as this read goes.
    fn read_rows(
        &self,
        first: u64,
        from: u64,
        max_bytes: usize,
        handle: &mut ReadHandle,
    ) -> Result<Read, SegmentError> {
        let (from, bound) = (from.max(first), self.after(first).unwrap_or_else(|end| end));
        let sealed = self.opened(first, handle)?;
        let (mut chunks, meta) = (sealed.read(from, max_bytes)?, sealed.meta);
        // A damaged key must not hide what is intact behind this segment.
        chunks.retain(|chunk| (first..bound).contains(&chunk.first));
        let path = self.path(first);
        if chunks.is_empty() {
            let end = self.end_of(first, handle)?;
            if from < end && self.search(first, from, end)?.records() > 0 {
                return Err(segment::damaged(&path, format!("its rows lack record {from}")));
            }
        } else if segment::unbroken(&chunks, meta.queue, from).is_none() {
            let reason = format!("its rows from record {from} on are not what was written");
            return Err(segment::damaged(&path, reason));
        }
        Ok(Read {
            chunks,
            meta: Some(meta),
            // By what the file says of itself: one of another queue is found out by whoever reads its frames.
            is_checked: self.queue.get() == Some(&meta.queue),
        })
    }

    fn opened<'a>(&self, first: u64, handle: &'a mut ReadHandle) -> Result<&'a SealedSegment, SegmentError> {
        let rewritten = self.lock().rewritten;
        let held = handle.0.as_ref();
        if held.is_none_or(|held| (held.first, held.rewritten) != (first, rewritten)) {
            // The old one is closed first: a reader has one file open at most.
            handle.0 = None;
            let path = self.path(first);
            let sealed = SealedSegment::open(&*self.disk, &path)?;
            if sealed.meta.first != first {
                let reason = format!("holds records from {} on", sealed.meta.first);
                return Err(segment::damaged(&path, reason));
            }
            handle.0 = Some(Held {
                first,
                rewritten,
                sealed,
            });
        }
        let held = handle.0.as_ref().expect("it was set just above");
        Ok(&held.sealed)
    }

    /// Where the records of a sealed segment end.
    pub(super) fn sealed_end(&self, first: u64) -> Result<u64, SegmentError> {
        self.end_of(first, &mut ReadHandle::default())
    }

    /// Where the segment behind this one begins or, where there is none, the end of all that is in one: of one moment.
    /// Behind that there may be what a commit that failed has left.
    fn after(&self, first: u64) -> Result<u64, u64> {
        let listed = self.lock();
        listed.next(first).ok_or(listed.stored())
    }

    /// Where the records of a segment end, by what the next one says that it follows. Numbers between that and the next
    /// one's first may be in the file as well, and were never committed.
    fn end_of(&self, first: u64, handle: &mut ReadHandle) -> Result<u64, SegmentError> {
        let next = match self.after(first) {
            Ok(next) => next,
            Err(end) => return Ok(end),
        };
        let known = self.damaged(next);
        let meta = match known {
            Some(damaged) => damaged.meta,
            None => {
                let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
                open.as_ref().map(|open| open.meta).filter(|meta| meta.first == next)
            }
        };
        if let Some(meta) = meta {
            return Ok(meta.follows.min(next));
        }
        match self.opened(next, handle) {
            Ok(sealed) => Ok(sealed.meta.follows.min(next)),
            Err(error) if is_passing(&error) => Err(error),
            // That one's damage is found by whoever reads it.
            Err(_) => Ok(next),
        }
    }

    fn search(&self, first: u64, from: u64, end: u64) -> Result<Salvage, SegmentError> {
        match self.queue.get() {
            Some(queue) => Ok(Salvage::of(&*self.disk, &self.path(first), *queue, from..end)?),
            // No segment was readable yet: nothing is known to check against.
            None => Ok(Salvage::default()),
        }
    }

    /// Looks for what is intact in a segment that cannot be read by its rows. `true`: something is, or somebody else has
    /// dealt with it meanwhile.
    fn salvage(&self, first: u64, error: &SegmentError, handle: &mut ReadHandle) -> Result<bool, SegmentsError> {
        let _one_at_a_time = self.salvaging.lock().unwrap_or_else(PoisonError::into_inner);
        if self.damaged(first).is_some() || !self.lock().segments.contains_key(&first) {
            return Ok(true);
        }
        if matches!(error, SegmentError::Newer { .. }) {
            return Ok(false);
        }
        if self.put_right(first)? {
            return Ok(true);
        }
        let end = self.end_of(first, handle)?;
        let salvage = self.search(first, first, end)?;
        if salvage.records() == 0 {
            return Ok(false);
        }
        let meta = self.opened(first, handle).ok().map(|sealed| sealed.meta);
        handle.0 = None;
        self.go_on_with(first, end, Damaged { salvage, meta }, &error.to_string());
        Ok(true)
    }

    /// From here on the segment is read by what is intact in it.
    pub(super) fn go_on_with(&self, first: u64, end: u64, damaged: Damaged, reason: &str) {
        let path = self.path(first);
        let saved = damaged.salvage.records();
        let missing: u64 = damaged
            .salvage
            .missing(first, end)
            .iter()
            .map(|range| range.end - range.start)
            .sum();
        tracing::warn!(segment = %path.display(), reason, saved, missing, "segment damaged: what is intact in it is read");
        let note = format!(
            "{reason}\nof records {first} to {} {saved} can be read\n",
            end.saturating_sub(1)
        );
        self.quarantine.announce(&path, &note);
        let mut listed = self.lock();
        listed.damaged.insert(first, Arc::new(damaged));
        listed.kept.insert(first);
    }

    fn failed_again(&self, first: u64, from: u64) -> u32 {
        let mut listed = self.lock();
        let (at, times) = listed.failures.entry(first).or_default();
        (*at, *times) = (from, *times + 1);
        *times
    }

    /// A read that went well. One before the place that failed says nothing of it: whoever failed there begins again at
    /// its cursor.
    pub(super) fn succeeded(&self, first: u64, from: u64) {
        let mut listed = self.lock();
        if listed.failures.get(&first).is_some_and(|(at, _)| from >= *at) {
            listed.failures.remove(&first);
        }
    }

    fn give_up(&self, first: u64, end: u64, error: &SegmentError) -> Result<(), SegmentsError> {
        let Some(bytes) = self.lock().segments.remove(&first) else {
            return Ok(()); // another reader was here first, or it was consumed
        };
        let numbers = Some((first, Some(end)));
        let path = self.path(first);
        let taken = self.quarantine.take_away_or_leave(&path, &error.to_string(), numbers);
        // What cannot be set aside for the moment is still there, and no cursor may pass it.
        taken.inspect_err(|_| self.lock().segments.extend([(first, bytes)]))?;
        let mut listed = self.lock();
        listed.damaged.remove(&first);
        listed.kept.remove(&first);
        Ok(())
    }
}
