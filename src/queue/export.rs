//! Every record of a queue's directory, in order, from outside: whether a gateway runs on it or not. It changes nothing.
//!
//! A gateway that runs is to end its open segment first: what it writes to meanwhile is not looked at.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;

use super::inspect::{InspectError, firsts};
use super::meta::file_name;
use super::real_disk::RealDisk;
use super::segment::{SealedSegment, SegmentError, count_unchecked};
use crate::record::stored::{QueueId, RecordId, next_frame, read_record};

use super::Queued;

/// What a walk comes across.
#[derive(Debug)]
pub enum Step {
    /// A record.
    Record(Queued),
    /// Records that cannot be read, and why.
    Missing(Range<u64>, String),
    /// Records that went while the walk was on its way to them: every destination has them, or they were set aside.
    Gone(Range<u64>),
    /// So many segments of so many are done.
    Segment(usize, usize),
}

/// Walks over the records with these numbers until `visit` has an error of its own.
pub fn walk<E: From<InspectError>>(
    dir: &Path,
    numbers: Range<u64>,
    mut visit: impl FnMut(Step) -> Result<(), E>,
) -> Result<(), E> {
    let segments = dir.join("segments");
    if !segments.is_dir() {
        return Err(InspectError::NoQueue(dir.to_owned()).into());
    }
    let firsts = firsts(&RealDisk, &segments).map_err(InspectError::from)?;
    let mut walk = Walk {
        end: 0,
        bound: 0,
        numbers,
    };
    for (at, first) in firsts.iter().enumerate() {
        walk.bound = firsts.get(at + 1).copied().unwrap_or(u64::MAX);
        if walk.numbers.start < walk.bound && *first < walk.numbers.end {
            walk.segment(&segments.join(file_name(*first)), *first, &mut visit)?;
        }
        visit(Step::Segment(at + 1, firsts.len()))?;
    }
    Ok(())
}

struct Walk {
    /// One more than the last number that was passed.
    end: u64,
    /// Where the next segment begins.
    bound: u64,
    numbers: Range<u64>,
}

impl Walk {
    fn segment<E: From<InspectError>>(
        &mut self,
        path: &Path,
        first: u64,
        visit: &mut impl FnMut(Step) -> Result<(), E>,
    ) -> Result<(), E> {
        let begin = self.end;
        self.end = self.end.max(first);
        let (sealed, mut at) = match SealedSegment::open(&RealDisk, path) {
            Ok(sealed) => (sealed, first),
            Err(error) if is_gone(&error) => {
                let gone = self.end..self.bound;
                self.end = self.bound;
                return visit(Step::Gone(gone));
            }
            Err(error) => return self.rest_is_missing(&error, visit),
        };
        if begin > 0 {
            self.missing(begin..sealed.meta.follows, "no segment holds them", visit)?;
        }
        at = at.max(self.numbers.start);
        self.end = at;
        loop {
            let chunks = match sealed.read(at, 1 << 20) {
                Ok(chunks) => chunks,
                Err(error) => return self.rest_is_missing(&error, visit),
            };
            let Some(last) = chunks.last() else { return Ok(()) };
            at = count_unchecked(last).max(at + 1);
            for raw in chunks {
                if raw.first >= self.bound.min(self.numbers.end) {
                    return Ok(());
                }
                self.missing(self.end..raw.first, "no row holds them", visit)?;
                self.chunk(raw.first, raw.bytes, sealed.meta.queue, visit)?;
            }
        }
    }

    fn chunk<E>(
        &mut self,
        first: u64,
        mut bytes: bytes::Bytes,
        queue: QueueId,
        visit: &mut impl FnMut(Step) -> Result<(), E>,
    ) -> Result<(), E> {
        for number in first.. {
            if bytes.is_empty() || number >= self.numbers.end {
                break;
            }
            let read = next_frame(&mut bytes, queue, number).and_then(|message| match number >= self.end {
                true => read_record(message, number),
                false => Ok(None),
            });
            // The numbers up to the next row are missed there.
            let Ok(read) = read else { break };
            self.end = self.end.max(number + 1);
            if let Some(record) = read {
                let id = RecordId { queue, number };
                visit(Step::Record(Queued { id, record }))?;
            }
        }
        Ok(())
    }

    fn rest_is_missing<E>(
        &mut self,
        error: &SegmentError,
        visit: &mut impl FnMut(Step) -> Result<(), E>,
    ) -> Result<(), E> {
        self.missing(self.end..self.bound, &error.to_string(), visit)
    }

    fn missing<E>(
        &mut self,
        range: Range<u64>,
        why: &str,
        visit: &mut impl FnMut(Step) -> Result<(), E>,
    ) -> Result<(), E> {
        let range = range.start.max(self.numbers.start)..range.end.min(self.numbers.end);
        if range.start >= range.end {
            return Ok(());
        }
        self.end = range.end;
        visit(Step::Missing(range, why.to_owned()))
    }
}

fn is_gone(error: &SegmentError) -> bool {
    error.io().is_some_and(|error| error.kind() == ErrorKind::NotFound)
}
