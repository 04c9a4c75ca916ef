//! Files without what is to be erased: the intact messages in one are copied, those that are to go leave their numbers.
//!
//! Nothing is written over: a file is replaced by a rename when the new one is whole and on the disk.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;
use prost::Message;

use super::chunks::count_unchecked;
use super::salvage::Salvage;
use super::sealed::ATTEMPTS;
use super::segment::{Chunk, OpenSegment, RawChunk, SealedSegment, SegmentError, damaged};
use super::segments::SegmentsError;
use super::storage::{self, Access, Disk, DiskFile, StorageError, failed};
use crate::record::proto::store::{StoredDeadLetter, StoredRecord};
use crate::record::stored::{QueueId, append_erased, next_frame};

pub(super) struct Eraser<'a> {
    pub(super) queue: QueueId,
    pub(super) which: Which<'a>,
}

/// What is to go.
pub(super) enum Which<'a> {
    /// Everything of a vehicle.
    Vehicle(&'a str, &'a memmem::Finder<'a>),
    /// Dead letters with these numbers.
    Letters(&'a BTreeSet<u64>),
}

enum Kind {
    Record,
    DeadLetter,
}

/// Bytes that are searched, and written, at once.
const WINDOW: usize = 1 << 20;
/// The fields of `protos/store.proto` that say so.
const RECORD_ERASED: u32 = 10;
const LETTER_ERASED: u32 = 12;
/// Folders in folders that somebody put into quarantine.
const DEEPEST: u32 = 8;

impl Eraser<'_> {
    /// Whether a file with these numbers is to be looked through. `None`: it cannot be read.
    pub(super) fn concerns(&self, file: &dyn DiskFile, numbers: &Range<u64>) -> Option<bool> {
        match &self.which {
            Which::Vehicle(..) => self.is_named_in(file),
            Which::Letters(letters) => Some(letters.range(numbers.clone()).next().is_some()),
        }
    }

    /// Whether the VIN is in a file. `None`: not all of it can be read, also when that is tried again.
    pub(super) fn is_named_in(&self, file: &dyn DiskFile) -> Option<bool> {
        let Which::Vehicle(vin, finder) = &self.which else {
            return Some(false);
        };
        (0..ATTEMPTS).find_map(|_| search(file, vin, finder).ok())
    }

    /// Puts what stays into a new segment. Returns how many were erased.
    pub(super) fn rewrite(
        &self,
        made: &OpenSegment,
        salvage: &Salvage,
        file: &dyn DiskFile,
        path: &Path,
    ) -> Result<u64, SegmentError> {
        let (mut at, mut erased) = (made.meta.first, 0);
        loop {
            let raw = salvage.read(file, at, WINDOW).map_err(failed("read", path))?;
            let Some(end) = raw.last().map(count_unchecked) else {
                return Ok(erased);
            };
            let chunks: Vec<_> = raw.into_iter().map(|raw| self.without(raw, &mut erased)).collect();
            if chunks.last().is_none_or(|last| last.end != end) {
                return Err(damaged(path, "it gave other bytes when it was read again".to_owned()));
            }
            at = end;
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

    /// Files that were set aside keep the intact messages of other vehicles, one behind the other. Returns how many
    /// messages were erased; names the files that are gone whole, and those that may hold the VIN still.
    pub(super) fn quarantine(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        removed: &mut Vec<PathBuf>,
        left: &mut Vec<PathBuf>,
    ) -> Result<u64, SegmentsError> {
        let (mut erased, mut folders) = (0, vec![(dir.to_owned(), 0)]);
        while let Some((dir, depth)) = folders.pop() {
            let entries = match disk.list(&dir) {
                // A device or a pipe holds nothing, and to open one may take for ever.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    continue;
                }
                entries => entries.map_err(failed("list", &dir))?,
            };
            for (path, is_file) in entries {
                if is_file {
                    erased += self.set_aside(disk, &path, removed, left)?;
                } else if depth < DEEPEST {
                    folders.push((path, depth + 1));
                }
            }
        }
        Ok(erased)
    }

    pub(super) fn set_aside(
        &self,
        disk: &dyn Disk,
        path: &Path,
        removed: &mut Vec<PathBuf>,
        left: &mut Vec<PathBuf>,
    ) -> Result<u64, SegmentsError> {
        let Some(file) = open(disk, path)? else { return Ok(0) };
        match self.is_named_in(&*file) {
            Some(true) => {}
            Some(false) => return Ok(0),
            None => {
                left.push(path.to_owned());
                return Ok(0);
            }
        }
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".rewritten");
        let temporary = PathBuf::from(temporary);
        let copied = self.copy_others(disk, &*file, path, &temporary);
        let copied = copied.inspect_err(|_| {
            if let Err(error) = disk.remove(&temporary) {
                tracing::debug!(%error, "an unfinished file stays in quarantine");
            }
        })?;
        let Some((erased, written)) = copied else {
            left.push(path.to_owned());
            return Ok(0);
        };
        if written == 0 {
            storage::remove(disk, &temporary)?;
            storage::remove(disk, path)?;
            removed.push(path.to_owned());
            return Ok(erased);
        }
        storage::rename(disk, &temporary, path)?;
        if let Some(file) = open(disk, path)?
            && self.is_named_in(&*file) != Some(false)
        {
            left.push(path.to_owned());
        }
        Ok(erased)
    }

    /// Returns how many messages were left out, and the bytes of those that were not. `None`: not all can be read.
    fn copy_others(
        &self,
        disk: &dyn Disk,
        file: &dyn DiskFile,
        path: &Path,
        temporary: &Path,
    ) -> Result<Option<(u64, u64)>, StorageError> {
        // It may be another queue's.
        let queue = SealedSegment::open(disk, path).map_or(self.queue, |sealed| sealed.meta.queue);
        let salvage = Salvage::find(file, queue, 0..u64::MAX).map_err(failed("look through", path))?;
        if salvage.is_partly_read() {
            return Ok(None);
        }
        let made = disk
            .open(temporary, Access::Create)
            .map_err(failed("create", temporary))?;
        let (mut at, mut erased, mut written) = (0, 0, 0);
        loop {
            let chunks = salvage.read(file, at, WINDOW).map_err(failed("read", path))?;
            let Some(last) = chunks.last() else { break };
            at = count_unchecked(last);
            for (number, frame, message) in chunks.into_iter().flat_map(|raw| frames(raw, queue)) {
                if self.kind_of(number, &message).is_some() {
                    erased += 1;
                    continue;
                }
                made.write_at(&frame, written).map_err(failed("write", temporary))?;
                written += frame.len() as u64;
            }
        }
        made.sync().map_err(failed("sync", temporary))?;
        Ok(Some((erased, written)))
    }
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

fn search(file: &dyn DiskFile, vin: &str, finder: &memmem::Finder<'_>) -> io::Result<bool> {
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
pub(super) fn open(disk: &dyn Disk, path: &Path) -> Result<Option<Arc<dyn DiskFile>>, StorageError> {
    match disk.open(path, Access::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some).map_err(failed("open", path)),
    }
}
