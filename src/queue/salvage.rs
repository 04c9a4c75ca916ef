//! What is intact in a segment's file that redb cannot read, or not all of: found frame by frame, wherever it lies.
//!
//! The file is read, and never changed. What comes out is in the order of its numbers, each once, and was stored under
//! them: stale copies that redb left in free pages are as good as the rows.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;

use super::readable::Source;
use super::recovery::may_pass;
use super::segment::{CHUNK_BYTES, RawChunk};
use super::storage::{Access, Disk, DiskFile, StorageError, failed};
use crate::record::salvage::{LARGEST_FRAME, next_intact};
use crate::record::stored::QueueId;

/// Bytes that are read at once. With one frame that begins in them and ends behind, this is all that is in memory.
const WINDOW: usize = 2 << 20;

/// Where the intact frames of a file are.
#[derive(Debug, Default)]
pub(crate) struct Salvage {
    /// By the number of the first frame of each.
    runs: BTreeMap<u64, Run>,
    records: u64,
    /// Not all of the file could be read.
    partly: bool,
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
        let mut source = Source::new(file);
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
                let bytes = base + frame.bytes.start as u64..base + at as u64;
                // Of zeros for what cannot be read a frame may be made that had zeros there.
                if source.has_read(&bytes) {
                    found.add(frame.number, bytes);
                }
            }
            if at_end {
                found.partly = source.is_partly_read();
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

    /// Whether some of the file could not be read: there may be more in it.
    pub(crate) fn is_partly_read(&self) -> bool {
        self.partly
    }

    /// How many records there are.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// One more than the number of the last of them.
    pub(crate) fn end(&self) -> Option<u64> {
        self.runs.last_key_value().map(|(_, run)| run.end)
    }

    /// The number from which on every record up to `end` is here; `end` itself when the last of them is not.
    pub(crate) fn reaches_back(&self, end: u64) -> u64 {
        let mut at = end;
        while let Some((first, _)) = self.runs.range(..at).next_back().filter(|(_, run)| run.end >= at) {
            at = *first;
        }
        at
    }

    /// Without what is before a number.
    pub(crate) fn beyond(mut self, number: u64) -> Self {
        self.runs.retain(|_, run| run.end > number);
        let counts = self.runs.iter().map(|(first, run)| run.end - number.max(*first));
        self.records = counts.sum();
        self
    }

    /// The number of the first of them.
    pub(crate) fn first(&self) -> Option<u64> {
        self.runs.first_key_value().map(|(first, _)| *first)
    }

    /// The first of these numbers that is here.
    pub(crate) fn first_of(&self, numbers: Range<u64>) -> Option<u64> {
        let before = self.runs.range(..=numbers.start).next_back();
        match before.filter(|(_, run)| run.end > numbers.start) {
            Some(_) if !numbers.is_empty() => Some(numbers.start),
            _ => self.runs.range(numbers).next().map(|(first, _)| *first),
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;
    use crate::queue::readable::SECTOR;
    use crate::record::Record;
    use crate::record::stored::{append_frame, next_frame};

    const QUEUE: QueueId = QueueId(*b"one queue of two");

    /// A file in memory with sectors that cannot be read.
    #[derive(Debug, Default)]
    struct Bytes {
        content: Vec<u8>,
        unreadable: BTreeSet<u64>,
    }

    impl Bytes {
        fn append(&mut self, number: u64, payload: usize) {
            let record = Record {
                vin: "5YJ3E1EA7KF000001".into(),
                record_type: "V".into(),
                txid: bytes::Bytes::from_static(b"txid"),
                received_at: number,
                client_version: "1".into(),
                payload: vec![number as u8; payload].into(),
                origin: None,
                only: None,
            };
            append_frame(&mut self.content, QUEUE, number, &record);
        }
    }

    impl DiskFile for Bytes {
        fn length(&self) -> io::Result<u64> {
            Ok(self.content.len() as u64)
        }

        fn used(&self) -> io::Result<u64> {
            self.length()
        }

        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            let sectors = offset / SECTOR as u64..(offset + buffer.len() as u64).div_ceil(SECTOR as u64);
            if self.unreadable.range(sectors).next().is_some() {
                return Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()));
            }
            let start = offset as usize;
            let bytes = self.content.get(start..start + buffer.len());
            buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }

        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }

        fn forget(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn numbers(file: &Bytes, salvage: &Salvage, from: u64) -> Vec<u64> {
        let mut numbers = Vec::new();
        for raw in salvage.read(file, from, usize::MAX).unwrap() {
            let mut bytes = raw.bytes;
            let mut number = raw.first;
            while !bytes.is_empty() {
                next_frame(&mut bytes, QUEUE, number).unwrap();
                numbers.push(number);
                number += 1;
            }
        }
        numbers
    }

    #[test]
    fn stale_copies_count_once_and_the_order_is_that_of_the_numbers() {
        let mut file = Bytes::default();
        for number in [7, 8, 5, 6, 7, 300, 9, 5] {
            file.append(number, 50);
            file.content.extend([0; 100]);
        }
        let salvage = Salvage::find(&file, QUEUE, 0..300).unwrap();
        assert_eq!(numbers(&file, &salvage, 0), [5, 6, 7, 8, 9]);
        assert_eq!(numbers(&file, &salvage, 8), [8, 9]);
        assert_eq!((salvage.records(), salvage.end()), (5, Some(10)));
        assert_eq!(salvage.missing(3, 12), [3..5, 10..12]);
    }

    #[test]
    fn frames_across_the_borders_of_windows_are_found() {
        let mut file = Bytes::default();
        // About 14 MB in frames of up to the largest, at odd places.
        for number in 0..40 {
            file.append(number, [1_000_000, 77, 300_001, 90_000][number as usize % 4]);
            file.content.extend(vec![8; number as usize * 13]);
        }
        let salvage = Salvage::find(&file, QUEUE, 0..u64::MAX).unwrap();
        assert_eq!(numbers(&file, &salvage, 0), (0..40).collect::<Vec<_>>());
    }

    #[test]
    fn one_frame_of_a_run_can_be_asked_for() {
        let mut file = Bytes::default();
        (10..1000).for_each(|number| file.append(number, 400));
        let salvage = Salvage::find(&file, QUEUE, 0..u64::MAX).unwrap();
        assert!(salvage.runs.len() < 10, "consecutive frames are one run");
        let chunks = salvage.read(&file, 500, 1).unwrap();
        let [chunk] = chunks.as_slice() else {
            panic!("{}", chunks.len())
        };
        assert!(chunk.first <= 500 && chunk.bytes.len() < 2 * CHUNK_BYTES);
        assert_eq!(numbers(&file, &salvage, 999).last(), Some(&999));
        assert!(salvage.read(&file, 1000, 1).unwrap().is_empty());
    }

    #[test]
    fn sectors_that_cannot_be_read_cost_what_is_in_them() {
        let mut file = Bytes::default();
        let mut holders = Vec::new();
        for number in 0..2000 {
            let start = file.content.len() as u64;
            file.append(number, 2000);
            holders.push(start / SECTOR as u64..=(file.content.len() as u64 - 1) / SECTOR as u64);
        }
        file.unreadable = [0, 17, 18, 600].into();
        let salvage = Salvage::find(&file, QUEUE, 0..u64::MAX).unwrap();
        let readable = |number: &u64| {
            let sectors = holders[*number as usize].clone();
            file.unreadable.range(sectors).next().is_none()
        };
        let expected: Vec<_> = (0..2000).filter(readable).collect();
        assert!(expected.len() > 1980 && expected.len() < 2000);
        assert_eq!(numbers(&file, &salvage, 0), expected);
    }

    #[test]
    fn zeros_in_a_record_are_not_there_when_they_cannot_be_read() {
        let mut file = Bytes::default();
        for number in [1, 0, 2] {
            file.append(number, 20_000);
        }
        // In the middle of record 0, whose payload is of zeros.
        file.unreadable = [7].into();
        let salvage = Salvage::find(&file, QUEUE, 0..3).unwrap();
        assert_eq!(numbers(&file, &salvage, 0), [1, 2]);
    }

    #[test]
    fn a_file_that_cannot_be_read_at_all_is_given_up_soon() {
        let mut file = Bytes::default();
        file.append(0, 100);
        file.content.resize(30 << 20, 0);
        file.unreadable = (0..(30 << 20) / SECTOR as u64).collect();
        assert_eq!(Salvage::find(&file, QUEUE, 0..u64::MAX).unwrap().records(), 0);
    }
}
