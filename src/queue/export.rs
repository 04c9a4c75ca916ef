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
use super::journal;
use super::meta::{Meta, file_name};
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

/// What is to be walked over.
struct Span<'a> {
    disk: &'a dyn Disk,
    /// The queue's directory, and the folder in it.
    dir: &'a Path,
    folder: &'a str,
    /// The numbers that are wanted.
    numbers: Range<u64>,
    /// The numbers of which something must be there, by the cursors.
    needed: fn(&Saved) -> Range<u64>,
}

/// The id of the queue in a directory, if anything says it.
pub fn queue_id(dir: &Path) -> Result<Option<QueueId>, InspectError> {
    let saved = CursorFile::peek(&RealDisk, &dir.join("cursors"))?;
    let files = files(&RealDisk, &dir.join("segments"))?;
    Ok(saved
        .map(|saved| saved.queue)
        .or_else(|| files.iter().rev().find_map(|file| Some(file.meta?.queue))))
}

/// Walks over the records with these numbers until `visit` has an error of its own. While a gateway runs they must lie
/// in segments that nobody writes to any more.
pub fn walk<E: From<InspectError>>(
    dir: &Path,
    numbers: Range<u64>,
    mut visit: impl FnMut(Step<Queued>) -> Result<(), E>,
) -> Result<(), E> {
    let decode = |message, id: RecordId| {
        let record = read_record(message, id.number)?;
        Ok(record.map(|record| Queued { id, record }))
    };
    // What everybody has had may be gone.
    let needed = |saved: &Saved| {
        let oldest = saved.positions.values().copied().min().unwrap_or(saved.committed);
        oldest..saved.committed
    };
    let span = Span {
        disk: &RealDisk,
        dir,
        folder: "segments",
        numbers,
        needed,
    };
    walk_in(&span, decode, &mut visit)
}

/// Walks over all dead letters below `end`.
pub fn walk_dead_letters<E: From<InspectError>>(
    dir: &Path,
    end: u64,
    visit: impl FnMut(Step<(u64, DeadLetter)>) -> Result<(), E>,
) -> Result<(), E> {
    walk_dead_letters_on(&RealDisk, dir, end, visit)
}

/// Walks over all dead letters below `end`, on any disk.
pub fn walk_dead_letters_on<E: From<InspectError>>(
    disk: &dyn Disk,
    dir: &Path,
    end: u64,
    mut visit: impl FnMut(Step<(u64, DeadLetter)>) -> Result<(), E>,
) -> Result<(), E> {
    let decode = |message, id: RecordId| {
        let letter = dead_letters::read(message, id)?;
        Ok(letter.map(|letter| (id.number, letter)))
    };
    let span = Span {
        disk,
        dir,
        folder: "dead-letters",
        numbers: 0..end,
        // The oldest go when they need space.
        needed: |_| 0..0,
    };
    walk_in(&span, decode, &mut visit)
}

/// A segment's file, by the number of the first record in it: as it says itself or, if it cannot, by its name.
struct File {
    first: u64,
    path: PathBuf,
    meta: Option<Meta>,
}

fn files(disk: &dyn Disk, folder: &Path) -> Result<Vec<File>, InspectError> {
    let firsts = match firsts(disk, folder) {
        Err(error) if error.source.kind() == ErrorKind::NotFound => {
            return Err(InspectError::NoQueue(folder.parent().unwrap_or(folder).to_owned()));
        }
        firsts => firsts?,
    };
    let file = |first| {
        let path = folder.join(file_name(first));
        let meta = SealedSegment::open(disk, &path).ok().map(|sealed| sealed.meta);
        File {
            first: meta.map_or(first, |meta| meta.first),
            path,
            meta,
        }
    };
    let mut files: Vec<_> = firsts.into_iter().map(file).collect();
    files.sort_by_key(|file| file.first);
    Ok(files)
}

fn walk_in<T, E: From<InspectError>>(
    span: &Span<'_>,
    decode: Decode<T>,
    visit: &mut impl FnMut(Step<T>) -> Result<(), E>,
) -> Result<(), E> {
    let saved = CursorFile::peek(span.disk, &span.dir.join("cursors")).map_err(InspectError::from)?;
    let files = files(span.disk, &span.dir.join(span.folder))?;
    let needed = saved.as_ref().map_or(0..0, span.needed);
    let wanted = &span.numbers;
    let begin = files.first().map_or(needed.end, |file| file.first).min(wanted.end);
    if wanted.start > 0 && wanted.start < begin {
        visit(Step::Gone(wanted.start..begin))?;
    }
    // Of the records' numbers; dead letters have their own.
    let skipped = match (&saved, span.folder) {
        (Some(saved), "segments") => saved.skipped.clone(),
        _ => Vec::new(),
    };
    let queue = saved
        .map(|saved| saved.queue)
        .or_else(|| files.iter().rev().find_map(|file| Some(file.meta?.queue)));
    let folder = span.dir.join(span.folder);
    let journal = journal::look_through(span.disk, &folder, queue, needed.end).map_err(InspectError::from)?;
    let (queue, journal) = (queue.or(journal.queue), journal.records);
    let mut walk = Walk {
        disk: span.disk,
        decode,
        queue,
        end: 0,
        bound: 0,
        // What is in the journal need not be in a segment.
        known: journal.reaches_back(needed.end),
        skipped,
        numbers: wanted.clone(),
    };
    for (at, file) in files.iter().enumerate() {
        let next = files.get(at + 1);
        let begins = next.map_or(u64::MAX, |next| next.first);
        if wanted.start < begins && file.first < wanted.end {
            // Beyond what the next one follows there may be what was never committed.
            walk.bound = next
                .and_then(|next| next.meta)
                .map_or(begins, |meta| meta.follows.min(begins));
            walk.segment(&file.path, file.first, visit)?;
        }
        visit(Step::Segment(at + 1, files.len()))?;
    }
    walk.bound = u64::MAX;
    walk.end = walk.end.max(wanted.start);
    let journal = journal.beyond(walk.end);
    walk.intact(&folder.join(journal::NAME), &journal, "no segment holds them", visit)?;
    walk.missing(walk.end.max(needed.start)..needed.end, "no segment holds them", visit)
}

struct Walk<'a, T> {
    disk: &'a dyn Disk,
    decode: Decode<T>,
    queue: Option<QueueId>,
    /// One more than the last number that was passed.
    end: u64,
    /// Where the records of this segment end, as far as the next one says it.
    bound: u64,
    /// Where the last one's records end at least.
    known: u64,
    /// Numbers that no record ever had.
    skipped: Vec<Range<u64>>,
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
                let gone = self.end..self.expected().max(self.end + 1);
                self.end = gone.end;
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
        match self.end < self.expected() {
            true => {
                let reason = format!("its rows end before record {}", self.end);
                self.damaged(path, &damaged(path, reason), visit)
            }
            false => Ok(()),
        }
    }

    /// One more than the last number that this segment must have, of those that are wanted.
    fn expected(&self) -> u64 {
        let expected = if self.bound == u64::MAX { self.known } else { self.bound };
        expected.min(self.numbers.end)
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
            return self.missing(self.end..self.expected(), &why, visit);
        };
        let wanted = self.end..self.bound.min(self.numbers.end);
        let salvage = Salvage::of(self.disk, path, queue, wanted).map_err(InspectError::from)?;
        self.intact(path, &salvage, &why, visit)?;
        self.missing(self.end..self.expected(), &why, visit)
    }

    /// What was found in a file from here on, and what is missing in between.
    fn intact<E: From<InspectError>>(
        &mut self,
        path: &Path,
        found: &Salvage,
        why: &str,
        visit: &mut impl FnMut(Step<T>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (Some(queue), Some(_)) = (self.queue, found.end()) else {
            return Ok(());
        };
        if self.end >= self.numbers.end {
            return Ok(());
        }
        let file = match self.disk.open(path, Access::Read) {
            // A gateway that runs has put it into a segment: it held nothing that is wanted, and that was sealed before.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            file => file.map_err(failed("open", path)).map_err(InspectError::from)?,
        };
        while self.end < self.numbers.end {
            let chunks = found.read(&*file, self.end, READ).map_err(failed("read", path));
            let chunks = chunks.map_err(InspectError::from)?;
            if chunks.is_empty() {
                break;
            }
            for raw in chunks {
                self.missing(self.end..raw.first, why, visit)?;
                self.chunk(raw, queue, visit)?;
            }
        }
        Ok(())
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
        // Numbers that were passed over stood for nothing.
        let mut from = range.start;
        for skipped in self
            .skipped
            .iter()
            .filter(|skipped| skipped.end > range.start && skipped.start < range.end)
        {
            if from < skipped.start {
                visit(Step::Missing(from..skipped.start, why.to_owned()))?;
            }
            from = from.max(skipped.end);
        }
        match from < range.end {
            true => visit(Step::Missing(from..range.end, why.to_owned())),
            false => Ok(()),
        }
    }
}

fn is_gone(error: &SegmentError) -> bool {
    error.io().is_some_and(|error| error.kind() == ErrorKind::NotFound)
}
