//! A look at a queue's directory from outside, with or without a gateway that runs on it. It changes nothing.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::backlog;
use super::cursor::CursorFile;
use super::journal;
use super::lost::Lost;
use super::meta::{self, Meta, file_name};
use super::real_disk::{self, RealDisk};
use super::salvage::Salvage;
use super::segment::{RawChunk, SealedSegment, SegmentError, damaged, intact_frames, unbroken};
use super::storage::{self, Access, Disk, StorageError, failed};
use crate::record::stored::{QueueId, next_frame, read_record};

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// At the edges of each segment.
    Outline,
    /// At every record.
    Everything,
}

/// Why the directory could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is no queue.
    #[error("there is no queue in {}; name its directory with --path, or the configuration that does with --config", .0.display())]
    NoQueue(PathBuf),
    /// The file system refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The journal is a newer build's.
    #[error(transparent)]
    Journal(#[from] SegmentError),
}

/// One segment.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SegmentReport {
    /// Its file.
    pub path: PathBuf,
    /// Number of its first record.
    pub first: u64,
    /// Bytes that it takes on the disk.
    pub disk_bytes: u64,
    /// When the gateway received its first record, milliseconds since the epoch.
    pub oldest: Option<u64>,
    /// Why it cannot be read, if it cannot.
    pub fault: Option<String>,
}

/// One destination's place.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Place {
    /// Number of the first record that it has not confirmed.
    pub cursor: u64,
    /// Records from there on.
    pub backlog: u64,
    /// When the gateway received the first of them, milliseconds since the epoch.
    pub oldest: Option<u64>,
}

/// What is in the directory.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Inspection {
    /// The queue's id, part of every record's.
    pub queue: Option<String>,
    /// Whether a gateway runs on it.
    pub in_use: bool,
    /// The segments, oldest first.
    pub segments: Vec<SegmentReport>,
    /// One more than the number of the newest record.
    pub end: u64,
    /// Bytes that the file system has free.
    pub free: u64,
    /// The destinations, as of the last time that the cursors were saved.
    pub destinations: BTreeMap<String, Place>,
    /// Records that were looked at.
    pub records: u64,
    /// Numbers whose records cannot be read, of those that some destination still needs.
    pub missing: Vec<Range<u64>>,
}

/// Fails unless there is a queue in a directory.
pub fn look_for(dir: &Path) -> Result<(), InspectError> {
    match std::fs::metadata(dir.join("segments")) {
        Ok(found) if found.is_dir() => Ok(()),
        // It may be there for another user.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(failed("look into", dir)(error).into()),
        _ => Err(InspectError::NoQueue(dir.to_owned())),
    }
}

/// Looks at a queue's directory. `progress` is told how many segments of how many are done.
pub fn inspect(dir: &Path, depth: Depth, mut progress: impl FnMut(usize, usize)) -> Result<Inspection, InspectError> {
    let disk = RealDisk;
    look_for(dir)?;
    let in_use = real_disk::is_locked(dir)?;
    let saved = CursorFile::peek(&disk, &dir.join("cursors"))?;
    let firsts = firsts(&disk, &dir.join("segments"))?;
    let mut look = Look {
        depth,
        end: firsts.first().copied().unwrap_or_default(),
        records: 0,
        missing: Vec::new(),
        queue: saved.as_ref().map(|saved| saved.queue),
        committed: saved.as_ref().map_or(0, |saved| saved.committed),
    };
    let paths = firsts.iter().map(|first| dir.join("segments").join(file_name(*first)));
    look.queue = look.queue.or_else(|| {
        paths
            .rev()
            .find_map(|path| Some(SealedSegment::open(&disk, &path).ok()?.meta.queue))
    });

    // Before the segments: what goes from here to there meanwhile is seen twice, and not missed.
    let folder = dir.join("segments");
    let journal = journal::look_through(&disk, &folder, look.queue, look.committed)?;
    look.queue = look.queue.or(journal.queue);
    let journal = journal.records;
    look.committed = journal.reaches_back(look.committed);

    let mut segments = Vec::new();
    for (at, first) in firsts.iter().enumerate() {
        let path = dir.join("segments").join(file_name(*first));
        let disk_bytes = match storage::used(&disk, &path) {
            // Consumed while we look.
            Err(error) if error.source.kind() == ErrorKind::NotFound => continue,
            other => other?,
        };
        // The gateway may be in the middle of a commit.
        let attempts = if in_use && at + 1 == firsts.len() { 5 } else { 1 };
        let next = firsts
            .get(at + 1)
            .map(|next| (*next, dir.join("segments").join(file_name(*next))));
        let (oldest, fault) = look.segment(&disk, &path, *first, next, attempts)?;
        segments.push(SegmentReport {
            path,
            first: *first,
            disk_bytes,
            oldest,
            fault,
        });
        progress(at + 1, firsts.len());
    }
    segments.extend(look.journal(&disk, &folder.join(journal::NAME), journal)?);
    let (skipped, committed) = saved
        .as_ref()
        .map_or((Vec::new(), 0), |saved| (saved.skipped.clone(), saved.committed));
    look.missing.push(look.end..committed);
    let first = segments.first().map_or(look.end, |segment| segment.first);
    let positions = saved.map(|saved| saved.positions).unwrap_or_default();
    let needed = positions.values().copied().min().unwrap_or_default();
    let mut known = Lost::never_used(&skipped);
    let missing = look.missing.iter().filter(|range| range.start < range.end);
    let missing = missing
        .flat_map(|range| known.add(range.start.max(needed)..range.end))
        .collect();
    let destinations = positions.into_iter().map(|(name, cursor)| {
        let place = Place {
            cursor,
            backlog: backlog(cursor, first, look.end, &skipped),
            oldest: received_at(&disk, &segments, look.queue, cursor.max(first)),
        };
        (name, place)
    });
    Ok(Inspection {
        queue: look.queue.map(|queue| queue.to_string()),
        in_use,
        end: look.end,
        free: disk.free(dir).map_err(failed("ask for the free space of", dir))?,
        destinations: destinations.collect(),
        records: look.records,
        missing,
        segments,
    })
}

pub(super) fn firsts(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>, StorageError> {
    let files = disk.list(dir).map_err(failed("list", dir))?;
    let names = files.iter().filter_map(|(path, _)| path.file_name()?.to_str());
    let mut firsts: Vec<_> = names.filter_map(meta::first_of).collect();
    firsts.sort_unstable();
    Ok(firsts)
}

struct Look {
    depth: Depth,
    end: u64,
    records: u64,
    missing: Vec<Range<u64>>,
    queue: Option<QueueId>,
    committed: u64,
}

impl Look {
    /// Looks at one segment. Returns when its first record was received, and what is wrong with it.
    fn segment(
        &mut self,
        disk: &dyn Disk,
        path: &Path,
        first: u64,
        next: Option<(u64, PathBuf)>,
        attempts: u32,
    ) -> Result<(Option<u64>, Option<String>), StorageError> {
        let end = next.map(|(next, path)| {
            let sealed = SealedSegment::open(disk, &path)
                .ok()
                .filter(|sealed| sealed.meta.first == next);
            sealed.map_or(next, |sealed| sealed.meta.follows.min(next))
        });
        let mut rows = self.rows(disk, path, first, end);
        for _ in 1..attempts {
            if rows.is_err() {
                std::thread::sleep(Duration::from_millis(100));
                rows = self.rows(disk, path, first, end);
            }
        }
        let expected = end.unwrap_or(self.committed);
        if let Some(rows) = rows.as_ref().ok().filter(|rows| rows.end >= expected) {
            return Ok((self.sound(rows), None));
        }
        let salvage = match self.queue {
            Some(queue) => Salvage::of(disk, path, queue, first..end.unwrap_or(u64::MAX))?,
            None => Salvage::default(),
        };
        let error = match rows {
            // The rest was never in this segment.
            Ok(rows) if salvage.end() <= Some(rows.end) => return Ok((self.sound(&rows), None)),
            Ok(rows) => damaged(path, format!("its rows end before record {}", rows.end)),
            Err(error) => error,
        };
        let meta = SealedSegment::open(disk, path).ok().map(|sealed| sealed.meta);
        if let Some(meta) = meta.filter(|meta| meta.first == first) {
            self.missing.push(self.end..meta.follows);
            self.end = self.end.max(first);
        }
        self.missing.extend(salvage.missing(self.end, self.end));
        self.end = self.end.max(salvage.end().unwrap_or_default());
        self.records += salvage.records();
        let fault = match salvage.records() {
            0 => error.to_string(),
            saved => format!("{error}; {saved} of its records are intact and can be delivered"),
        };
        let chunks = disk
            .open(path, Access::Read)
            .and_then(|file| salvage.read(&*file, first, 1));
        let oldest = chunks.ok().and_then(|chunks| chunks.into_iter().next());
        let oldest = oldest.and_then(|raw| received(&raw, self.queue?, raw.first));
        Ok((oldest, Some(fault)))
    }

    /// Looks at what is in the journal and in no segment.
    fn journal(&mut self, disk: &dyn Disk, path: &Path, found: Salvage) -> Result<Option<SegmentReport>, StorageError> {
        let found = found.beyond(self.end);
        let (Some(queue), Some(first), Some(end)) = (self.queue, found.first(), found.end()) else {
            return Ok(None);
        };
        let first = first.max(self.end);
        self.missing.extend(found.missing(self.end, end));
        (self.end, self.records) = (end, self.records + found.records());
        let chunks = disk
            .open(path, Access::Read)
            .and_then(|file| found.read(&*file, first, 1));
        let oldest = chunks.ok().and_then(|chunks| received(chunks.first()?, queue, first));
        Ok(Some(SegmentReport {
            path: path.to_owned(),
            first,
            // A gateway that runs may just have put it into a segment.
            disk_bytes: match storage::used(disk, path) {
                Err(error) if error.source.kind() == ErrorKind::NotFound => 0,
                used => used?,
            },
            oldest,
            fault: None,
        }))
    }

    /// Reads a segment by its rows. Fails unless they are intact and without a gap, as far as they are looked at.
    fn rows(&self, disk: &dyn Disk, path: &Path, first: u64, end: Option<u64>) -> Result<Rows, SegmentError> {
        let sealed = SealedSegment::open(disk, path)?;
        let (meta, queue) = (sealed.meta, sealed.meta.queue);
        if meta.first != first {
            return Err(damaged(path, format!("holds records from {} on", meta.first)));
        }
        let begin = sealed.read(first, 1)?;
        let mut at = first;
        if self.depth == Depth::Outline {
            at = sealed.last_chunk()?.map_or(first, |raw| intact_frames(&raw, queue).0);
        }
        loop {
            let chunks = sealed.read(at, 1 << 20)?;
            if chunks.is_empty() {
                break;
            }
            at = unbroken(&chunks, queue, at)
                .filter(|after| end.is_none_or(|end| *after <= end))
                .ok_or_else(|| damaged(path, format!("its rows from record {at} on are not what was written")))?;
        }
        Ok(Rows {
            meta,
            end: at,
            oldest: begin.first().and_then(|raw| received(raw, queue, raw.first)),
        })
    }

    /// Counts a segment of which nothing is missing. Returns when its first record was received.
    fn sound(&mut self, rows: &Rows) -> Option<u64> {
        self.missing.push(self.end..rows.meta.follows);
        self.end = self.end.max(rows.end);
        self.records += rows.end - rows.meta.first;
        rows.oldest
    }
}

/// What a sound segment holds.
struct Rows {
    meta: Meta,
    end: u64,
    oldest: Option<u64>,
}

/// When the record with a number was received.
fn received_at(disk: &dyn Disk, segments: &[SegmentReport], queue: Option<QueueId>, number: u64) -> Option<u64> {
    let holder = segments.iter().rev().find(|segment| segment.first <= number)?;
    let chunks = match SealedSegment::open(disk, &holder.path) {
        Ok(sealed) => sealed.read(number, 1).ok()?,
        // Damaged, or the journal.
        Err(_) => {
            let found = Salvage::of(disk, &holder.path, queue?, number..u64::MAX).ok()?;
            let file = disk.open(&holder.path, Access::Read).ok()?;
            found.read(&*file, number, 1).ok()?
        }
    };
    let raw = chunks.first()?;
    received(raw, queue?, number.max(raw.first))
}

fn received(raw: &RawChunk, queue: QueueId, wanted: u64) -> Option<u64> {
    let mut bytes = raw.bytes.clone();
    for number in raw.first.. {
        let message = next_frame(&mut bytes, queue, number).ok()?;
        if number == wanted {
            return read_record(message, number)
                .ok()
                .flatten()
                .map(|record| record.received_at);
        }
    }
    None
}
