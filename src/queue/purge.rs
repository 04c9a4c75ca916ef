//! A vehicle's records are erased: every file that holds its VIN is written anew without them, and the old one goes.
//!
//! What stays keeps its number and its bytes. An erased record leaves its number, so that nobody takes it for lost.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use memchr::memmem;
use prost::Message;

use super::meta::Meta;
use super::salvage::Salvage;
use super::segment::{Chunk, OpenSegment, RawChunk, SealedSegment, SegmentError, count_unchecked};
use super::segments::{Segments, SegmentsError};
use super::storage::{self, Access, Disk, DiskFile, StorageError, failed};
use super::{OrderError, Queue, Shared};
use crate::record::proto::store::{StoredDeadLetter, StoredRecord};
use crate::record::stored::{QueueId, append_erased, next_frame};

/// What was erased.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Purged {
    /// Records of the queue.
    pub records: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Records and dead letters in quarantine, as far as they could be read.
    pub quarantined: u64,
    /// Files that hold the VIN still: in what belongs to another vehicle.
    pub left: Vec<PathBuf>,
}

/// Why not everything was erased.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// A search for nothing would find everything.
    #[error("the VIN is empty")]
    Empty,
    /// The open segment could not be ended.
    #[error("the open segment: {0}")]
    Order(#[from] OrderError),
    /// A file could not be read or written anew. It is as it was.
    #[error(transparent)]
    Segments(#[from] SegmentsError),
    /// The process is ending.
    #[error("given up: {0}")]
    Ended(#[from] tokio::task::JoinError),
}

/// Bytes that are searched, and written, at once.
const WINDOW: usize = 1 << 20;
/// The fields of `protos/store.proto` that say so.
const RECORD_ERASED: u32 = 10;
const LETTER_ERASED: u32 = 12;
/// Of a segment that cannot say it: what was before it does not get old by it.
const BEGAN_UNKNOWN: u64 = u64::MAX / 2;

impl Queue {
    /// Erases what the queue, the dead letters and the quarantine hold of a vehicle now. What is on its way to a
    /// destination already may still arrive there.
    pub async fn purge(&self, vin: &str) -> Result<Purged, PurgeError> {
        if vin.is_empty() {
            return Err(PurgeError::Empty);
        }
        self.seal().await?;
        let (shared, vin) = (Arc::clone(&self.0), vin.to_owned());
        tokio::task::spawn_blocking(move || shared.purge(&vin)).await?
    }
}

impl Shared {
    fn purge(&self, vin: &str) -> Result<Purged, PurgeError> {
        let _one_at_a_time = self.purging.lock().unwrap_or_else(PoisonError::into_inner);
        let finder = memmem::Finder::new(vin);
        let eraser = Eraser {
            queue: self.id,
            which: Which::Vehicle(vin, &finder),
        };
        let mut purged = Purged::default();
        purged.records = self.segments.erase(&eraser, &mut purged.left)?;
        self.tail().clear();
        purged.dead_letters = self.dead_letters.erase(&eraser, &mut purged.left)?;
        let segments = &self.segments;
        purged.quarantined = eraser.quarantine(&*segments.disk, segments.quarantine.dir(), &mut purged.left)?;
        Ok(purged)
    }

    /// Erases dead letters by their numbers. Returns how many.
    pub(super) fn erase_letters(&self, numbers: &BTreeSet<u64>) -> Result<u64, PurgeError> {
        let _one_at_a_time = self.purging.lock().unwrap_or_else(PoisonError::into_inner);
        let eraser = Eraser {
            queue: self.id,
            which: Which::Letters(numbers),
        };
        Ok(self.dead_letters.erase(&eraser, &mut Vec::new())?)
    }
}

struct Eraser<'a> {
    queue: QueueId,
    which: Which<'a>,
}

/// What is to go.
enum Which<'a> {
    /// Everything of a vehicle.
    Vehicle(&'a str, &'a memmem::Finder<'a>),
    /// Dead letters with these numbers.
    Letters(&'a BTreeSet<u64>),
}

impl Segments {
    fn erase(&self, eraser: &Eraser<'_>, left: &mut Vec<PathBuf>) -> Result<u64, SegmentsError> {
        let firsts: Vec<_> = {
            let listed = self.lock();
            let open = listed.open.map(|(open, _)| open);
            let sealed = listed.segments.keys().copied();
            sealed.filter(|first| Some(*first) != open).collect()
        };
        let mut erased = 0;
        for first in firsts {
            erased += self.erase_in(first, eraser, left)?;
        }
        Ok(erased)
    }

    fn erase_in(&self, first: u64, eraser: &Eraser<'_>, left: &mut Vec<PathBuf>) -> Result<u64, SegmentsError> {
        let path = self.path(first);
        let numbers = first..self.sealed_end(first)?;
        let concerns = |file: &Arc<dyn DiskFile>| match &eraser.which {
            Which::Vehicle(..) => eraser.is_named_in(&**file),
            Which::Letters(letters) => letters.range(numbers.clone()).next().is_some(),
        };
        let Some(file) = open(&*self.disk, &path)?.filter(concerns) else {
            return Ok(0);
        };
        let salvage = Salvage::find(&*file, eraser.queue, numbers).map_err(failed("look through", &path))?;
        let meta = SealedSegment::open(&*self.disk, &path).map_or(
            Meta {
                queue: eraser.queue,
                first,
                follows: first,
                began: BEGAN_UNKNOWN,
            },
            |sealed| sealed.meta,
        );
        let temporary = path.with_extension("tmp");
        let made = OpenSegment::begin(&*self.disk, &temporary, meta)?;
        let erased = match eraser.rewrite(&made, &salvage, &*file, &path) {
            Ok(erased) => erased,
            Err(error) => {
                made.undo(&*self.disk);
                return Err(error.into());
            }
        };
        match salvage.end() {
            Some(end) => made.seal(&*self.disk, end)?,
            None => drop(made),
        }
        if !self.replace(first, &temporary, salvage.end().is_some())? {
            // Consumed meanwhile, with all that was in it.
            return Ok(0);
        }
        if open(&*self.disk, &path)?.is_some_and(|file| eraser.is_named_in(&*file)) {
            left.push(path);
        }
        Ok(erased)
    }

    /// Puts a new file in the place of a segment's, or nothing when nothing is in it. `false`: the segment is gone.
    fn replace(&self, first: u64, temporary: &Path, anything: bool) -> Result<bool, SegmentsError> {
        let used = storage::used(&*self.disk, temporary)?;
        // What a reader finds in the old file is not to be looked for in the new one.
        let _nobody_looks = self.salvaging.lock().unwrap_or_else(PoisonError::into_inner);
        // Held all the while: nobody removes the old file, or sets it aside, between the look and the change.
        let mut listed = self.lock();
        if !listed.segments.contains_key(&first) || !anything {
            storage::remove(&*self.disk, temporary)?;
            if listed.segments.remove(&first).is_some() {
                storage::remove(&*self.disk, &self.path(first))?;
                return Ok(true);
            }
            return Ok(false);
        }
        storage::rename(&*self.disk, temporary, &self.path(first))?;
        listed.segments.insert(first, used);
        listed.damaged.remove(&first);
        listed.kept.remove(&first);
        listed.failures.remove(&first);
        listed.rewritten += 1;
        Ok(true)
    }
}

impl Eraser<'_> {
    /// Whether the VIN is in a file. What cannot be read may hold it.
    fn is_named_in(&self, file: &dyn DiskFile) -> bool {
        match &self.which {
            Which::Vehicle(vin, finder) => search(file, vin, finder).unwrap_or(true),
            Which::Letters(_) => false,
        }
    }

    /// Puts what stays into a new segment. Returns how many were erased.
    fn rewrite(
        &self,
        made: &OpenSegment,
        salvage: &Salvage,
        file: &dyn DiskFile,
        path: &Path,
    ) -> Result<u64, SegmentError> {
        let (mut at, mut erased) = (made.meta.first, 0);
        loop {
            let chunks = salvage.read(file, at, WINDOW).map_err(failed("read", path))?;
            let chunks: Vec<_> = chunks.into_iter().map(|raw| self.without(raw, &mut erased)).collect();
            let Some(last) = chunks.last() else { return Ok(erased) };
            at = last.end;
            made.append(&chunks)?;
        }
    }

    fn without(&self, raw: RawChunk, erased: &mut u64) -> Chunk {
        let first = raw.first;
        let (mut kept, mut end) = (Vec::with_capacity(raw.bytes.len()), first);
        for (number, frame, message) in frames(raw, self.queue) {
            end = number + 1;
            match self.kind_of(number, &message) {
                None => {
                    kept.extend_from_slice(&frame);
                    continue;
                }
                Some(Kind::Record) => append_erased(&mut kept, self.queue, number, RECORD_ERASED),
                Some(Kind::DeadLetter) => append_erased(&mut kept, self.queue, number, LETTER_ERASED),
            }
            *erased += 1;
        }
        Chunk {
            first,
            end,
            bytes: kept.into(),
        }
    }

    /// What a message is, if it is to go.
    fn kind_of(&self, number: u64, message: &Bytes) -> Option<Kind> {
        match &self.which {
            Which::Letters(letters) => letters.contains(&number).then_some(Kind::DeadLetter),
            Which::Vehicle(vin, finder) => {
                finder.find(message)?;
                // Neither can be read as the other: their fourth and fifth fields differ in kind.
                if let Ok(record) = StoredRecord::decode(message.clone()) {
                    return (record.vin == *vin).then_some(Kind::Record);
                }
                let letter = StoredDeadLetter::decode(message.clone()).ok()?;
                (letter.vin == *vin).then_some(Kind::DeadLetter)
            }
        }
    }

    /// Files that were set aside keep the intact messages of other vehicles, one behind the other.
    fn quarantine(&self, disk: &dyn Disk, dir: &Path, left: &mut Vec<PathBuf>) -> Result<u64, SegmentsError> {
        let entries = match disk.list(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            entries => entries.map_err(failed("list", dir))?,
        };
        let mut erased = 0;
        for (path, is_file) in entries {
            erased += match is_file {
                true => self.set_aside(disk, &path, left)?,
                false => self.quarantine(disk, &path, left)?,
            };
        }
        Ok(erased)
    }

    fn set_aside(&self, disk: &dyn Disk, path: &Path, left: &mut Vec<PathBuf>) -> Result<u64, SegmentsError> {
        let Some(file) = open(disk, path)?.filter(|file| self.is_named_in(&**file)) else {
            return Ok(0);
        };
        // It may be another queue's.
        let queue = SealedSegment::open(disk, path).map_or(self.queue, |sealed| sealed.meta.queue);
        let salvage = Salvage::find(&*file, queue, 0..u64::MAX).map_err(failed("look through", path))?;
        let temporary = path.with_extension("tmp");
        let made = disk
            .open(&temporary, Access::Create)
            .map_err(failed("create", &temporary))?;
        let (mut at, mut written, mut erased) = (0, 0, 0);
        loop {
            let chunks = salvage.read(&*file, at, WINDOW).map_err(failed("read", path))?;
            let Some(last) = chunks.last() else { break };
            at = count_unchecked(last);
            for (number, frame, message) in chunks.into_iter().flat_map(|raw| frames(raw, queue)) {
                if self.kind_of(number, &message).is_some() {
                    erased += 1;
                    continue;
                }
                made.write_at(&frame, written).map_err(failed("write", &temporary))?;
                written += frame.len() as u64;
            }
        }
        if written == 0 {
            storage::remove(disk, &temporary)?;
            storage::remove(disk, path)?;
            return Ok(erased);
        }
        made.sync().map_err(failed("sync", &temporary))?;
        storage::rename(disk, &temporary, path)?;
        if open(disk, path)?.is_some_and(|file| self.is_named_in(&*file)) {
            left.push(path.to_owned());
        }
        Ok(erased)
    }
}

enum Kind {
    Record,
    DeadLetter,
}

/// The frames of a chunk that is intact: number, all of its bytes, its message.
fn frames(raw: RawChunk, queue: QueueId) -> impl Iterator<Item = (u64, Bytes, Bytes)> {
    let mut rest = raw.bytes;
    (raw.first..).map_while(move |number| {
        let before = rest.clone();
        let message = next_frame(&mut rest, queue, number).ok()?;
        Some((number, before.slice(..before.len() - rest.len()), message))
    })
}

fn search(file: &dyn DiskFile, vin: &str, finder: &memmem::Finder<'_>) -> std::io::Result<bool> {
    let length = file.length()?;
    let overlap = vin.len() as u64;
    let mut buffer = vec![0; WINDOW];
    let mut at = 0;
    while at < length {
        let window = &mut buffer[..(length - at).min(WINDOW as u64) as usize];
        file.read_at(window, at)?;
        if finder.find(window).is_some() {
            return Ok(true);
        }
        if at + window.len() as u64 == length {
            break;
        }
        at += window.len() as u64 - overlap.min(window.len() as u64 - 1);
    }
    Ok(false)
}

/// A file, unless it has gone.
fn open(disk: &dyn Disk, path: &Path) -> Result<Option<Arc<dyn DiskFile>>, StorageError> {
    match disk.open(path, Access::Read) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some).map_err(failed("open", path)),
    }
}
