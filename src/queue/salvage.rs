//! What is intact in a segment's file that redb cannot read, or not all of: found frame by frame, wherever it lies.
//!
//! The file is read, and never changed. What comes out is in the order of its numbers, each once, and was stored under
//! them: stale copies that redb left in free pages are as good as the rows.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;

use super::recovery::may_pass;
use super::segment::{CHUNK_BYTES, RawChunk};
use super::storage::{Access, Disk, DiskFile, StorageError, failed};
use crate::record::salvage::{LARGEST_FRAME, next_intact};
use crate::record::stored::QueueId;

/// Bytes that are read at once. With one frame that begins in them and ends behind, this is all that is in memory.
const WINDOW: usize = 2 << 20;
/// What a disk reads whole or not at all.
const SECTOR: usize = 4096;
/// Sectors that cannot be read, after which the rest of the file is not tried: each can take a disk seconds.
const UNREADABLE: usize = 256;

/// Where the intact frames of a file are.
#[derive(Debug, Default)]
pub(crate) struct Salvage {
    /// By the number of the first frame of each.
    runs: BTreeMap<u64, Run>,
    records: u64,
}

/// Frames of consecutive numbers, one behind the other in the file.
#[derive(Debug)]
struct Run {
    end: u64,
    bytes: Range<u64>,
}

impl Salvage {
    /// Looks through the file of a segment. One that cannot be opened holds nothing.
    pub(crate) fn of(disk: &dyn Disk, path: &Path, queue: QueueId, numbers: Range<u64>) -> Result<Self, StorageError> {
        let found = disk
            .open(path, Access::Read)
            .and_then(|file| Self::find(&*file, queue, numbers));
        match found {
            Err(error) if may_pass(&error) => Err(failed("look through", path)(error)),
            found => Ok(found.unwrap_or_default()),
        }
    }

    /// Looks through all of a file for a queue's frames with these numbers. What cannot be read holds none; only an
    /// error that says nothing about the file is one here.
    pub(crate) fn find(file: &dyn DiskFile, queue: QueueId, numbers: Range<u64>) -> io::Result<Self> {
        let mut found = Self::default();
        let mut source = Source { file, left: UNREADABLE };
        let length = source.length()?;
        // The first byte of the buffer is at `base` in the file.
        let (mut buffer, mut base) = (Vec::new(), 0);
        loop {
            let held = buffer.len();
            let more = (length - base - held as u64).min(WINDOW as u64) as usize;
            buffer.resize(held + more, 0);
            source.read(&mut buffer[held..], base + held as u64)?;
            let at_end = base + buffer.len() as u64 == length;
            // Whatever begins before this also ends in the buffer.
            let safe = match at_end {
                true => buffer.len(),
                false => buffer.len().saturating_sub(LARGEST_FRAME),
            };
            let mut at = 0;
            while let Some(frame) = next_intact(&buffer, at..safe, queue, &numbers) {
                at = frame.bytes.end;
                found.add(frame.number, base + frame.bytes.start as u64..base + at as u64);
            }
            if at_end {
                return Ok(found);
            }
            let done = at.max(safe);
            buffer.drain(..done);
            base += done as u64;
        }
    }

    fn add(&mut self, number: u64, bytes: Range<u64>) {
        let before = self.runs.range_mut(..=number).next_back().map(|(_, run)| run);
        match before {
            Some(run) if run.end > number => return,
            Some(run)
                if run.end == number
                    && run.bytes.end == bytes.start
                    && run.bytes.end - run.bytes.start < CHUNK_BYTES as u64 =>
            {
                (run.end, run.bytes.end) = (number + 1, bytes.end);
            }
            _ => {
                let run = Run { end: number + 1, bytes };
                self.runs.insert(number, run);
            }
        }
        self.records += 1;
    }

    /// How many records there are.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// One more than the number of the last of them.
    pub(crate) fn end(&self) -> Option<u64> {
        self.runs.last_key_value().map(|(_, run)| run.end)
    }

    /// The numbers of which there are none, up to `end`.
    pub(crate) fn missing(&self, first: u64, end: u64) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        let mut at = first;
        for (first, run) in &self.runs {
            missing.extend((at < *first).then_some(at..*first));
            at = run.end;
        }
        missing.extend((at < end).then_some(at..end));
        missing
    }

    /// Chunks from the one that holds `from` or, if it is not there, the next; up to `max_bytes`, but at least one.
    pub(crate) fn read(&self, file: &dyn DiskFile, from: u64, max_bytes: usize) -> io::Result<Vec<RawChunk>> {
        let holder = self.runs.range(..=from).next_back().map_or(from, |(first, _)| *first);
        let runs = self.runs.range(holder..).filter(|(_, run)| run.end > from);
        let mut chunks = Vec::new();
        let mut total = 0;
        for (first, run) in runs {
            let length = (run.bytes.end - run.bytes.start) as usize;
            total += length;
            if total > max_bytes && !chunks.is_empty() {
                break;
            }
            let mut bytes = vec![0; length];
            file.read_at(&mut bytes, run.bytes.start)?;
            chunks.push(RawChunk {
                first: *first,
                bytes: Bytes::from(bytes),
            });
        }
        Ok(chunks)
    }
}

/// A file of which parts may be unreadable.
struct Source<'a> {
    file: &'a dyn DiskFile,
    /// Sectors that may still fail.
    left: usize,
}

impl Source<'_> {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    /// Reads what can be read; the rest stays zeros.
    fn read(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(());
        }
        match self.file.read_at(buffer, offset) {
            Ok(()) => Ok(()),
            Err(error) if may_pass(&error) => Err(error),
            Err(_) if buffer.len() <= SECTOR => {
                self.left -= 1;
                buffer.fill(0);
                Ok(())
            }
            Err(_) => {
                // A failed read may have filled some of it.
                buffer.fill(0);
                let middle = (buffer.len() / 2).next_multiple_of(SECTOR).min(buffer.len() - 1);
                let (low, high) = buffer.split_at_mut(middle);
                self.read(low, offset)?;
                self.read(high, offset + middle as u64)
            }
        }
    }
}
