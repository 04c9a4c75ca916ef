//! Every record, or dead letter, of a queue's directory, in order, from outside: whether a gateway runs on it or not. It changes nothing.
//!
//! A gateway that runs is to end its open segment first: what it writes to meanwhile is not looked at.

use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::Queued;
use super::cursor::{CursorFile, Saved};
use super::dead_letters::{self, DeadLetter};
use super::inspect::{InspectError, firsts};
use super::meta::file_name;
use super::real_disk::RealDisk;
use super::salvage::Salvage;
use super::segment::{RawChunk, SealedSegment, SegmentError, damaged, unbroken};
use super::storage::{Access, Disk, failed};
use crate::record::stored::{FrameError, QueueId, RecordId, next_frame, read_record};

/// Bytes that are read at once.
const READ: usize = 1 << 20;

/// What a walk comes across.
#[derive(Debug)]
pub enum Step<T> {
    /// A record, or a dead letter.
    Found(T),
    /// Numbers of which nothing can be read, and why.
    Missing(Range<u64>, String),
    /// Numbers that went while the walk was on its way to them: every destination has them, or they were set aside.
    Gone(Range<u64>),
    /// So many segments of so many are done.
    Segment(usize, usize),
}

type Decode<T> = fn(Bytes, RecordId) -> Result<Option<T>, FrameError>;

/// Walks over the records with these numbers until `visit` has an error of its own.
pub fn walk<E: From<InspectError>>(
    dir: &Path,
    numbers: Range<u64>,
    mut visit: impl FnMut(Step<Queued>) -> Result<(), E>,
) -> Result<(), E> {
    let decode = |message, id: RecordId| {
        let record = read_record(message, id.number)?;
        Ok(record.map(|record| Queued { id, record }))
    };
    let committed = |saved: &Saved| saved.committed;
    walk_in(&RealDisk, dir, "segments", committed, numbers, decode, &mut visit)
}

/// Walks over all dead letters.
pub fn walk_dead_letters<E: From<InspectError>>(
    dir: &Path,
    visit: impl FnMut(Step<(u64, DeadLetter)>) -> Result<(), E>,
) -> Result<(), E> {
    walk_dead_letters_on(&RealDisk, dir, visit)
}

/// Walks over all dead letters, on any disk.
pub fn walk_dead_letters_on<E: From<InspectError>>(
    disk: &dyn Disk,
    dir: &Path,
    mut visit: impl FnMut(Step<(u64, DeadLetter)>) -> Result<(), E>,
) -> Result<(), E> {
    let decode = |message, id: RecordId| {
        let letter = dead_letters::read(message, id)?;
        Ok(letter.map(|letter| (id.number, letter)))
    };
    // The oldest go when they need space, and the newest before that is known.
    let committed = |_: &Saved| 0;
    walk_in(disk, dir, "dead-letters", committed, 0..u64::MAX, decode, &mut visit)
}

fn walk_in<T, E: From<InspectError>>(
    disk: &dyn Disk,
    dir: &Path,
    folder: &str,
    committed: fn(&Saved) -> u64,
    numbers: Range<u64>,
    decode: Decode<T>,
    visit: &mut impl FnMut(Step<T>) -> Result<(), E>,
) -> Result<(), E> {
    let folder = dir.join(folder);
    let firsts = match firsts(disk, &folder) {
        Err(error) if error.source.kind() == ErrorKind::NotFound => {
            return Err(InspectError::NoQueue(dir.to_owned()).into());
        }
        firsts => firsts.map_err(InspectError::from)?,
    };
    let saved = CursorFile::peek(disk, &dir.join("cursors")).map_err(InspectError::from)?;
    let paths: Vec<_> = firsts.iter().map(|first| folder.join(file_name(*first))).collect();
    let meta = |path: &PathBuf| Some(SealedSegment::open(disk, path).ok()?.meta);
    let mut walk = Walk {
        disk,
        decode,
        queue: saved
            .as_ref()
            .map(|saved| saved.queue)
            .or_else(|| Some(paths.iter().rev().find_map(meta)?.queue)),
        end: 0,
        bound: 0,
        numbers,
    };
    for (at, first) in firsts.iter().enumerate() {
        let next = firsts.get(at + 1).copied().unwrap_or(u64::MAX);
        if walk.numbers.start < next && *first < walk.numbers.end {
            // Beyond what the next one follows there may be what was never committed.
            walk.bound = match paths.get(at + 1) {
                Some(path) => meta(path).map_or(next, |meta| meta.follows.min(next)),
                None => u64::MAX,
            };
            walk.segment(&paths[at], *first, visit)?;
        }
        visit(Step::Segment(at + 1, firsts.len()))?;
    }
    let committed = saved.as_ref().map_or(0, committed);
    walk.missing(walk.end..committed, "no segment holds them", visit)
}

struct Walk<'a, T> {
    disk: &'a dyn Disk,
    decode: Decode<T>,
    queue: Option<QueueId>,
    /// One more than the last number that was passed.
    end: u64,
    /// Where the records of this segment end.
    bound: u64,
    numbers: Range<u64>,
}

impl<T> Walk<'_, T> {
    fn segment<E: From<InspectError>>(
        &mut self,
        path: &Path,
        first: u64,
        visit: &mut impl FnMut(Step<T>) -> Result<(), E>,
    ) -> Result<(), E> {
        let begin = self.end;
        self.end = self.end.max(first).max(self.numbers.start);
        let sealed = match SealedSegment::open(self.disk, path) {
            Ok(sealed) => sealed,
            Err(error) if is_gone(&error) => {
                let gone = self.end..self.bound;
                self.end = self.bound;
                return visit(Step::Gone(gone));
            }
            Err(error) => return self.damaged(path, &error, visit),
        };
        if begin > 0 {
            self.missing(begin..sealed.meta.follows, "no segment holds them", visit)?;
        }
        while self.end < self.bound.min(self.numbers.end) {
            let chunks = match sealed.read(self.end, READ) {
                Ok(chunks) if chunks.is_empty() => break,
                Ok(chunks) if unbroken(&chunks, sealed.meta.queue, self.end).is_some() => chunks,
                Ok(_) => {
                    let reason = format!("its rows from record {} on are not what was written", self.end);
                    return self.damaged(path, &damaged(path, reason), visit);
                }
                Err(error) => return self.damaged(path, &error, visit),
            };
            for raw in chunks {
                self.chunk(raw, sealed.meta.queue, visit)?;
            }
        }
        Ok(())
    }

    /// What is intact in a segment whose rows are not, from here on.
    fn damaged<E: From<InspectError>>(
        &mut self,
        path: &Path,
        error: &SegmentError,
        visit: &mut impl FnMut(Step<T>) -> Result<(), E>,
    ) -> Result<(), E> {
        let why = error.to_string();
        let Some(queue) = self.queue else {
            return self.missing(self.end..self.bound, &why, visit);
        };
        let wanted = self.end..self.bound.min(self.numbers.end);
        let salvage = Salvage::of(self.disk, path, queue, wanted).map_err(InspectError::from)?;
        if salvage.end().is_some() {
            let file = self.disk.open(path, Access::Read).map_err(failed("open", path));
            let file = file.map_err(InspectError::from)?;
            loop {
                let chunks = salvage.read(&*file, self.end, READ).map_err(failed("read", path));
                let chunks = chunks.map_err(InspectError::from)?;
                if chunks.is_empty() {
                    break;
                }
                for raw in chunks {
                    self.missing(self.end..raw.first, &why, visit)?;
                    self.chunk(raw, queue, visit)?;
                }
            }
        }
        match self.bound {
            u64::MAX => Ok(()),
            bound => self.missing(self.end..bound, &why, visit),
        }
    }

    fn chunk<E>(
        &mut self,
        raw: RawChunk,
        queue: QueueId,
        visit: &mut impl FnMut(Step<T>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut bytes = raw.bytes;
        for number in raw.first.. {
            if bytes.is_empty() || number >= self.numbers.end {
                break;
            }
            let read = next_frame(&mut bytes, queue, number).and_then(|message| match number >= self.end {
                true => (self.decode)(message, RecordId { queue, number }),
                false => Ok(None),
            });
            match read {
                Ok(found) => {
                    self.end = self.end.max(number + 1);
                    if let Some(found) = found {
                        visit(Step::Found(found))?;
                    }
                }
                // The frames of this chunk were checked: it is this one's content.
                Err(error) => self.missing(number..number + 1, &error.to_string(), visit)?,
            }
        }
        Ok(())
    }

    fn missing<E>(
        &mut self,
        range: Range<u64>,
        why: &str,
        visit: &mut impl FnMut(Step<T>) -> Result<(), E>,
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
