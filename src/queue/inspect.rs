//! A look at a queue's directory from outside, with or without a gateway that runs on it. It changes nothing.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::backlog;
use super::cursor::CursorFile;
use super::lost::Lost;
use super::meta::{self, file_name};
use super::real_disk::{self, RealDisk};
use super::segment::{RawChunk, SealedSegment, SegmentError, count_unchecked, intact_frames};
use super::storage::{self, Disk, StorageError, failed};
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

/// Looks at a queue's directory. `progress` is told how many segments of how many are done.
pub fn inspect(dir: &Path, depth: Depth, mut progress: impl FnMut(usize, usize)) -> Result<Inspection, InspectError> {
    let disk = RealDisk;
    if !dir.join("segments").is_dir() {
        return Err(InspectError::NoQueue(dir.to_owned()));
    }
    let in_use = real_disk::is_locked(&dir.join("lock"))?;
    let saved = CursorFile::peek(&disk, &dir.join("cursors"))?;
    let firsts = firsts(&disk, &dir.join("segments"))?;
    let mut look = Look {
        depth,
        end: firsts.first().copied().unwrap_or_default(),
        records: 0,
        missing: Vec::new(),
        queue: saved.as_ref().map(|saved| saved.queue),
    };
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
        let oldest = look.segment(&disk, &path, firsts.get(at + 1).copied(), attempts);
        segments.push(SegmentReport {
            path,
            first: *first,
            disk_bytes,
            oldest: oldest.as_ref().ok().copied().flatten(),
            fault: oldest.err().map(|error| error.to_string()),
        });
        progress(at + 1, firsts.len());
    }
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
            oldest: received_at(&disk, &segments, cursor.max(first)),
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
}

impl Look {
    /// Looks at one segment. Returns when its first record was received.
    fn segment(
        &mut self,
        disk: &dyn Disk,
        path: &Path,
        next: Option<u64>,
        attempts: u32,
    ) -> Result<Option<u64>, SegmentError> {
        let mut sealed = SealedSegment::open(disk, path);
        for _ in 1..attempts {
            if sealed.is_err() {
                std::thread::sleep(Duration::from_millis(100));
                sealed = SealedSegment::open(disk, path);
            }
        }
        let sealed = sealed?;
        let queue = *self.queue.get_or_insert(sealed.meta.queue);
        self.missing.push(self.end..sealed.meta.follows);
        self.end = sealed.meta.first;
        let bound = next.unwrap_or(u64::MAX);
        let oldest = sealed
            .read(sealed.meta.first, 1)?
            .first()
            .and_then(|raw| received(raw, queue, raw.first));
        if self.depth == Depth::Outline {
            let last = sealed.last_chunk()?.filter(|raw| raw.first < bound);
            self.end = self.end.max(last.map_or(0, |raw| intact_frames(&raw, queue).0));
            return Ok(oldest);
        }
        let mut at = sealed.meta.first;
        loop {
            let chunks = sealed.read(at, 1 << 20)?;
            let Some(last) = chunks.last() else { return Ok(oldest) };
            at = count_unchecked(last).max(at + 1);
            for raw in chunks.iter().filter(|raw| raw.first < bound) {
                let (intact, _) = intact_frames(raw, queue);
                if intact > raw.first {
                    self.missing.push(self.end..raw.first);
                    self.records += intact - raw.first;
                    self.end = self.end.max(intact);
                }
            }
        }
    }
}

/// When the record with a number was received.
fn received_at(disk: &dyn Disk, segments: &[SegmentReport], number: u64) -> Option<u64> {
    let holder = segments.iter().rev().find(|segment| segment.first <= number)?;
    let sealed = SealedSegment::open(disk, &holder.path).ok()?;
    let chunks = sealed.read(number, 1).ok()?;
    let raw = chunks.first()?;
    received(raw, sealed.meta.queue, number.max(raw.first))
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
