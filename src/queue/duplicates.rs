//! What a vehicle sends twice is stored once: by VIN, record type, transaction id and payload, all four.
//!
//! Who sends a record again is told that it is on the disk, so none stays known whose commit has failed. The window
//! belongs to the writer's thread and is gone with it; a start fills it anew from the newest segments, with nothing that
//! was not verified.

use std::collections::BTreeMap;
use std::ops::Range;

use xxhash_rust::xxh3::Xxh3;

use super::backlog;
use super::chunks::count_unchecked;
use super::inlet::{Item, Submission};
use super::segment::{RawChunk, SegmentError};
use super::segments::{ReadHandle, Segments};
use super::window::Window;
use crate::record::Record;
use crate::record::stored::{QueueId, next_frame, read_record};

/// Bytes on the disk that a start looks through at most for records to know again; the newest segment in any case.
const LOOKED_THROUGH: u64 = 64 << 20;
/// Bytes that are read at once.
const READ: usize = 256 << 10;

/// How records become fingerprints in this process.
#[derive(Debug, Clone, Copy)]
pub struct Fingerprints {
    /// Random, so that nobody can make a record that passes for another vehicle's.
    seed: u64,
}

impl Fingerprints {
    /// With a seed of its own.
    pub fn new() -> Self {
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        // Each half has a few bits that are always the same, at other places.
        Self {
            seed: high ^ low.rotate_left(32),
        }
    }

    /// A record's: the same for two records only if a vehicle sent one of them twice.
    pub fn of(&self, record: &Record) -> u128 {
        let mut hash = Xxh3::with_seed(self.seed);
        for part in [
            record.vin.as_bytes(),
            record.record_type.as_bytes(),
            &record.txid,
            &record.payload,
        ] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.digest128()
    }
}

impl Default for Fingerprints {
    fn default() -> Self {
        Self::new()
    }
}

/// The fingerprints of records that are on the disk.
#[derive(Debug)]
pub(super) struct Duplicates {
    known: Window,
}

/// What a batch adds, until it is known whether it is stored.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    added: usize,
    /// How many of its submissions are not to be stored.
    pub(super) duplicates: usize,
}

impl Duplicates {
    /// None yet, and room for what takes so many bytes.
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            known: Window::new(max_bytes),
        }
    }

    /// Marks what is on the disk already, and what is in the batch before. What is neither is known from here on, unless
    /// it is forgotten again: nobody is told of a duplicate before its batch is on the disk, and this is the only thread.
    pub(super) fn mark(&mut self, batch: &mut [Submission]) -> Fresh {
        let mut fresh = Fresh::default();
        if self.known.limit() == 0 {
            return fresh;
        }
        self.known
            .fetch(batch.iter().filter_map(|submission| submission.fingerprint));
        for submission in batch {
            if let Some(fingerprint) = submission.fingerprint {
                submission.duplicate = !self.known.insert(fingerprint);
                fresh.duplicates += usize::from(submission.duplicate);
                fresh.added += usize::from(!submission.duplicate);
            }
        }
        fresh
    }

    /// The batch is not on the disk.
    pub(super) fn forget(&mut self, fresh: &Fresh) {
        self.known.take_back(fresh.added);
    }

    /// Takes another size; of what it knows, the newest stay.
    pub(super) fn resize(&mut self, max_bytes: u64) {
        let mut known = Window::new(max_bytes);
        if known.limit() == self.known.limit() {
            return;
        }
        let too_many = self.known.len().saturating_sub(known.limit());
        self.known.iter().skip(too_many).for_each(|fingerprint| {
            known.insert(fingerprint);
        });
        self.known = known;
    }

    /// Fills it from the newest segments, for a start. What cannot be read is passed over: it is found, and dealt with,
    /// by who has to deliver it.
    pub(super) fn recall(&mut self, segments: &Segments, queue: QueueId, skipped: &[Range<u64>], by: Fingerprints) {
        if self.known.limit() == 0 {
            return;
        }
        let listed = segments.lock().segments.clone();
        let mut handle = ReadHandle::default();
        for first in newest(&listed, segments.end(), self.known.limit() as u64, skipped) {
            if let Err(error) = self.look_through(segments, queue, first, by, &mut handle) {
                tracing::info!(%error, "records of this segment that vehicles send again will be stored again");
            }
        }
        tracing::debug!(
            records = self.known.len(),
            "records that are known when they are sent again"
        );
    }

    fn look_through(
        &mut self,
        segments: &Segments,
        queue: QueueId,
        first: u64,
        by: Fingerprints,
        handle: &mut ReadHandle,
    ) -> Result<(), SegmentError> {
        let end = segments.sealed_end(first)?;
        let mut from = first;
        while from < end {
            let chunks = segments.peek(first, from, READ, handle)?;
            if chunks.is_empty() {
                break;
            }
            for chunk in chunks {
                from = count_unchecked(&chunk).max(from + 1);
                self.recall_chunk(chunk, &(first..end), queue, by);
            }
        }
        Ok(())
    }

    /// The records of a chunk up to the first that is not intact. One that nobody would be handed is not known either.
    fn recall_chunk(&mut self, chunk: RawChunk, numbers: &Range<u64>, queue: QueueId, by: Fingerprints) {
        let mut bytes = chunk.bytes;
        for number in chunk.first..numbers.end {
            if bytes.is_empty() || !numbers.contains(&number) {
                return;
            }
            let Ok(message) = next_frame(&mut bytes, queue, number) else {
                return;
            };
            let record = read_record(message, number).ok().flatten();
            if let Some(record) = record.filter(|record| record.origin.is_none() && record.only.is_none()) {
                self.known.insert(by.of(&record));
            }
        }
    }
}

impl Submission {
    /// The record that is to be stored, if it is one and not stored already.
    pub(super) fn record(&self) -> Option<&Record> {
        match &self.item {
            Item::Sent(_) if self.duplicate => None,
            Item::Sent(record) | Item::Record(record) => Some(record),
            Item::DeadLetter(_) => None,
        }
    }
}

/// The newest segments that hold so many records, oldest first; fewer if they are large.
fn newest(listed: &BTreeMap<u64, u64>, end: u64, records: u64, skipped: &[Range<u64>]) -> Vec<u64> {
    let mut bytes = 0;
    let mut newest = Vec::new();
    for (first, used) in listed.iter().rev() {
        bytes += used;
        if !newest.is_empty() && bytes > LOOKED_THROUGH {
            break;
        }
        newest.push(*first);
        if backlog(*first, *first, end, skipped) >= records {
            break;
        }
    }
    newest.reverse();
    newest
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record() -> Record {
        Record {
            vin: "5YJ3E1EA7KF000001".into(),
            record_type: "V".into(),
            txid: Bytes::from_static(b"txid"),
            received_at: 1,
            client_version: "1".into(),
            payload: Bytes::from_static(b"payload"),
            origin: None,
            only: None,
        }
    }

    #[test]
    fn what_the_gateway_adds_is_no_part_of_it_and_everything_that_the_vehicle_sent_is() {
        let by = Fingerprints::new();
        let same = Record {
            received_at: 2,
            client_version: "2".into(),
            ..record()
        };
        assert_eq!(by.of(&record()), by.of(&same));
        let (vin, record_type) = ("5YJ3E1EA7KF000002".into(), "v".into());
        let (txid, payload) = (Bytes::from_static(b"txi"), Bytes::from_static(b"dpayload"));
        let others = [
            Record { vin, ..record() },
            Record {
                record_type,
                ..record()
            },
            Record {
                txid: txid.clone(),
                ..record()
            },
            Record {
                payload: payload.clone(),
                ..record()
            },
            // The same bytes in a row, parted elsewhere.
            Record {
                txid,
                payload,
                ..record()
            },
        ];
        for other in others {
            assert_ne!(by.of(&record()), by.of(&other), "{other:?}");
        }
        assert_ne!(by.of(&record()), Fingerprints::new().of(&record()));
    }

    #[test]
    fn a_start_looks_through_the_newest_segments_as_far_as_they_are_needed() {
        let segments = |bytes: u64| BTreeMap::from([(0, bytes), (100, bytes), (70_000, bytes)]);
        let skipped = 200..70_000;
        let newest =
            |bytes: u64, records: u64| newest(&segments(bytes), 70_010, records, std::slice::from_ref(&skipped));
        assert_eq!(newest(1 << 20, 1000), [0, 100, 70_000]);
        assert_eq!(newest(1 << 20, 110), [100, 70_000]);
        assert_eq!(newest(1 << 20, 10), [70_000]);
        assert_eq!(newest(40 << 20, 1000), [70_000]);
        assert_eq!(newest(80 << 20, 1000), [70_000]);
        assert_eq!(newest(32 << 20, 1000), [100, 70_000]);
    }
}
