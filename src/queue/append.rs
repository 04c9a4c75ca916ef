//! How the writer adds to the segments: a small commit in the journal, a large one in the open segment together with all
//! that waits in the journal.
//!
//! Invariant: the records that are in the journal alone are in memory too, and they are the newest.

use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::chunks::{cut, frame_ends, up_to};
use super::journal::{Journal, SMALL};
use super::meta::Meta;
use super::segment::{Chunk, OpenSegment, SegmentError};
use super::segments::{Read, Segments, SegmentsError};
use super::storage;
use crate::record::stored::QueueId;

impl Segments {
    /// Commits chunks, in a new segment when the open one has its `segment_bytes`. `Ok` means on the disk. When there is
    /// no space for them, `end` says afterwards whether they are there all the same.
    pub(crate) fn append(
        &self,
        chunks: &[Chunk],
        queue: QueueId,
        segment_bytes: u64,
        now: u64,
    ) -> Result<(), SegmentsError> {
        let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else {
            return Ok(());
        };
        self.queue.get_or_init(|| queue);
        let open = {
            let mut listed = self.lock();
            listed.newest = now;
            listed.open
        };
        // Where numbers were passed over, a new segment says so.
        if open.is_none_or(|(_, written)| written >= segment_bytes) || first.first != self.end() {
            self.seal()?;
            self.begin(first.first, self.end())?;
        }
        let bytes: u64 = chunks.iter().map(|chunk| chunk.bytes.len() as u64).sum();
        if !self.journal(chunks, bytes as usize, segment_bytes)? {
            self.store(chunks)?;
        }
        let mut listed = self.lock();
        if let Some((_, written)) = listed.open.as_mut() {
            *written += bytes;
        }
        listed.end = last.end;
        Ok(())
    }

    fn id(&self) -> QueueId {
        *self.queue.get().expect("the first append says whose records these are")
    }

    /// Makes the open segment.
    fn begin(&self, first: u64, follows: u64) -> Result<(), SegmentsError> {
        let queue = self.id();
        let began = self.lock().newest;
        let meta = Meta {
            queue,
            first,
            follows,
            began,
        };
        let created = OpenSegment::create(&*self.disk, &self.dir, meta)?;
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Some(created);
        let mut listed = self.lock();
        listed.open = Some((first, 0));
        listed.abandoned = None;
        // What may have been known of another file of this name.
        listed.damaged.remove(&first);
        listed.kept.remove(&first);
        listed.failures.remove(&first);
        listed.segments.insert(first, 0);
        listed.began.insert(first, began);
        Ok(())
    }

    /// Commits chunks in the journal. `false`: they are too many for it, or there is none.
    fn journal(&self, chunks: &[Chunk], bytes: usize, segment_bytes: u64) -> Result<bool, SegmentsError> {
        if bytes > SMALL || self.has_no_journal.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let mut place = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_none() {
            match Journal::create(&*self.disk, &self.dir, self.id(), segment_bytes) {
                Ok(made) => *place = Some(made),
                // A segment may have the room that a journal would have to be given first.
                Err(error) if error.is_no_space() => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        let Some(journal) = place.as_mut().filter(|journal| journal.has_room_for(bytes)) else {
            return Ok(false);
        };
        let appended = journal.append(chunks);
        appended.inspect_err(|_| self.take_for_used(chunks))?;
        let mut listed = self.lock();
        listed.journaled.extend_from_slice(chunks);
        if let Some((first, _)) = listed.open {
            *listed.segments.entry(first).or_default() += bytes as u64;
        }
        Ok(true)
    }

    /// Chunks that failed may be on the disk all the same, and no number stands for two records.
    fn take_for_used(&self, chunks: &[Chunk]) {
        let mut listed = self.lock();
        listed.used = chunks.last().map_or(listed.used, |last| last.end);
    }

    /// Commits chunks in the open segment, behind those of the journal, which begins anew.
    fn store(&self, chunks: &[Chunk]) -> Result<(), SegmentsError> {
        let journaled = self.lock().journaled.clone();
        let rows = match journaled.is_empty() {
            true => chunks.to_vec(),
            false => joined(&[&journaled, chunks].concat()),
        };
        let mut appended = self.append_rows(&rows);
        if appended.is_err() {
            self.take_for_used(chunks);
            if self.let_go_if_all_written() {
                // Only what was read has failed, and what the journal has and what comes can go elsewhere. Under the same
                // numbers: what there may be of them in the other segment is beyond its end, and the same.
                let stored = self.lock().stored();
                self.begin(stored, stored)?;
                appended = self.append_rows(&rows);
            }
        }
        let (first, used) = match appended {
            Ok(appended) => appended,
            Err(error) => {
                let error = SegmentsError::from(error);
                // redb writes no more after an error, and what was committed can still be read.
                if error.is_no_space() {
                    self.retreat()?;
                }
                return Err(error);
            }
        };
        let mut listed = self.lock();
        listed.segments.insert(first, used);
        listed.journaled.clear();
        drop(listed);
        if let Some(journal) = &mut *self.journal.lock().unwrap_or_else(PoisonError::into_inner) {
            journal.begin_anew();
        }
        Ok(())
    }

    /// Commits rows in the open segment. Returns its first number and the bytes that it takes.
    fn append_rows(&self, rows: &[Chunk]) -> Result<(u64, u64), SegmentError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let open = open
            .as_ref()
            .expect("whoever calls this has made one, and only this thread closes it");
        open.append(rows)?;
        Ok((open.meta.first, open.used()?))
    }

    /// Puts what is in the journal into a segment.
    fn flush(&self) -> Result<(), SegmentsError> {
        let (waits, first, open, abandoned) = {
            let listed = self.lock();
            (
                !listed.journaled.is_empty(),
                listed.stored(),
                listed.open,
                listed.abandoned,
            )
        };
        if !waits {
            return Ok(());
        }
        // The one that they were for may have been let go of.
        if open.is_none() {
            let same = abandoned.filter(|meta| meta.first == first);
            self.begin(first, same.map_or(first, |meta| meta.follows))?;
        }
        self.store(&[])
    }

    /// Puts what is in the journal into the open segment, closes that and checks it. Readers of it wait meanwhile, and then
    /// find it among the sealed. When there is no space for what is in the journal it stays there, and that is the error.
    pub(crate) fn seal(&self) -> Result<(), SegmentsError> {
        self.let_go_if_doubtful();
        // After an error there is none to close, or nothing is written any more.
        self.flush()?;
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let Some(closing) = open.take() else { return Ok(()) };
        let closed = self.close(closing);
        // Whatever came of it: readers must not wait for an open segment that is not there.
        self.lock().open = None;
        closed
    }

    fn close(&self, closing: OpenSegment) -> Result<(), SegmentsError> {
        let (path, meta, end) = (closing.path.clone(), closing.meta, self.lock().stored());
        let first = meta.first;
        if end <= first {
            drop(closing);
            return self.remove_empty(meta, &path);
        }
        let file = closing.file.clone();
        match closing.seal(&*self.disk, end) {
            // Each commit was on the disk before: its readers find what is intact.
            Err(error) if !file.has_failed() => {
                tracing::warn!(%error, "a segment cannot be read as it was written, or not for now");
            }
            sealed => sealed?,
        }
        self.measure(first, &path);
        Ok(())
    }

    /// Removes a segment without a record; the records of the journal may be behind numbers that it said are passed over.
    pub(super) fn remove_empty(&self, meta: Meta, path: &Path) -> Result<(), SegmentsError> {
        let mut listed = self.lock();
        listed.segments.remove(&meta.first);
        listed.abandoned = Some(meta);
        // Another file will have the name: nobody may go on with this one.
        listed.rewritten += 1;
        drop(listed);
        Ok(storage::remove(&*self.disk, path)?)
    }

    /// Seals, and removes the journal: all that is committed lies in files that nobody writes to, and nowhere else.
    pub(crate) fn put_away(&self) -> Result<(), SegmentsError> {
        self.seal()?;
        match self.journal.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(journal) => Ok(journal.remove(&*self.disk)?),
            None => Ok(()),
        }
    }

    /// Chunks from the one that holds `from`, if that is in the journal alone.
    pub(super) fn read_journaled(&self, from: u64, max_bytes: usize) -> Option<Read> {
        let chunks = {
            let listed = self.lock();
            if listed.journaled.is_empty() || from < listed.stored() {
                return None;
            }
            let wanted = listed.journaled.iter().filter(|chunk| chunk.end > from);
            up_to(wanted, max_bytes).collect::<Vec<_>>()
        };
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let meta = open.as_ref().map(|open| open.meta).or(self.lock().abandoned);
        (!chunks.is_empty()).then_some(Read {
            chunks,
            meta,
            is_checked: false,
        })
    }
}

/// The same frames in rows that fill their pages: commits were as long as they happened to be.
fn joined(chunks: &[Chunk]) -> Vec<Chunk> {
    let frames = chunks.iter().map(|chunk| &*chunk.bytes).collect::<Vec<_>>().concat();
    let ends = frame_ends(&frames);
    let first = chunks.first().map_or(0, |chunk| chunk.first);
    cut(first, frames.into(), &ends)
}
