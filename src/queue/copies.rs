//! Segments that are made of what is intact in other files.
//!
//! Invariant: one is whole, closed, checked and on the disk before it gets a segment's name, and the files that it was made
//! of are there until then.

use std::ops::Range;
use std::path::PathBuf;

use super::journal;
use super::meta::Meta;
use super::salvage::Salvage;
use super::segment::{Chunk, OpenSegment, SealedSegment};
use super::segments::{Segments, SegmentsError};
use super::storage::{Access, DiskFile, failed};

/// Bytes that are copied at once.
const COPIED: usize = 256 << 10;

/// Where intact frames are, and the file that they are in.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) frames: &'a Salvage,
    pub(super) file: &'a dyn DiskFile,
}

impl Segments {
    /// Puts the newest two segments into one, if the newer is not much smaller and both are intact: each copying is of what
    /// doubles at least, however often the newest is sealed. `false`: there is nothing to do. Nobody may erase meanwhile.
    pub(super) fn join_newest(&self, max_bytes: u64) -> Result<bool, SegmentsError> {
        let (first, second, end) = {
            let listed = self.lock();
            let mut newest = listed.segments.iter().rev();
            let (Some((second, newer)), Some((first, older))) = (newest.next(), newest.next()) else {
                return Ok(false);
            };
            let is_open = listed.open.is_some() || !listed.journaled.is_empty();
            if is_open || older + newer > max_bytes || *older > 2 * newer {
                return Ok(false);
            }
            (*first, *second, listed.end)
        };
        let Some(queue) = self.queue.get() else {
            return Ok(false);
        };
        let (older, newer) = (self.path(first), self.path(second));
        let open = |path| self.disk.open(path, Access::Read).map_err(failed("open", path));
        let files = [open(&older)?, open(&newer)?];
        let numbers = [first..second, second..end];
        let found = [
            Salvage::of(&*self.disk, &older, *queue, numbers[0].clone())?,
            Salvage::of(&*self.disk, &newer, *queue, numbers[1].clone())?,
        ];
        let is_whole = |(found, numbers): (&Salvage, &Range<u64>)| found.missing(numbers.start, numbers.end).is_empty();
        let meta = SealedSegment::open(&*self.disk, &older).map(|sealed| sealed.meta);
        let Some(meta) = meta.ok().filter(|_| found.iter().zip(&numbers).all(is_whole)) else {
            return Ok(false);
        };
        let [of_older, of_newer] = [0, 1].map(|at| Source {
            frames: &found[at],
            file: &*files[at],
        });
        let copy = self.copy(&[of_older, of_newer], meta, end)?;
        self.replace(first, &copy, false)?;
        // If the power goes before this, its records are in both, and the older one is read up to where this begins.
        self.remove_one(second)?;
        Ok(true)
    }

    /// Makes a segment of what is intact in these files, under a name that the next start removes.
    pub(super) fn copy(&self, sources: &[Source<'_>], meta: Meta, end: u64) -> Result<PathBuf, SegmentsError> {
        let temporary = self.dir.join(journal::NAME).with_extension("tmp");
        let made = OpenSegment::begin(&*self.disk, &temporary, meta)?;
        let mut at = meta.first;
        let mut write = || -> Result<(), SegmentsError> {
            while at < end {
                let chunks = self.next(sources, at)?;
                at = chunks.last().map_or(end, |last| last.end);
                made.append(&chunks)?;
            }
            Ok(())
        };
        if let Err(error) = write() {
            made.undo(&*self.disk);
            return Err(error);
        }
        made.seal(&*self.disk, end)?;
        Ok(temporary)
    }

    /// Consecutive chunks from a number on, or from the next one that is in any of the files; none behind the last.
    fn next(&self, sources: &[Source<'_>], from: u64) -> Result<Vec<Chunk>, SegmentsError> {
        let has = |source: &Source<'_>| source.frames.first_of(from..u64::MAX);
        let nearest = sources.iter().filter_map(|source| Some((has(source)?, source)));
        let Some((mut at, source)) = nearest.min_by_key(|(first, _)| *first) else {
            return Ok(Vec::new());
        };
        let read = source.frames.read(source.file, at, COPIED);
        let mut chunks = Vec::new();
        for raw in read.map_err(failed("read", &self.dir))? {
            let chunk = Chunk::from(raw).starting_at(at);
            // Another file may have what lies between.
            if chunk.first != at {
                break;
            }
            at = chunk.end;
            chunks.push(chunk);
        }
        Ok(chunks)
    }
}
