//! One segment: a redb file with the rows of consecutive chunks, each under the number of its first frame.
//!
//! A segment is appended to only by the process that created it. Before its first row it exists under its name, with
//! its directory synced; once sealed it has been closed, opened again and checked, and nothing writes to it any more.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::backend::{Direct, Overlay};
use super::chunks::{count_unchecked, frame_ends};
use super::guarded::{Guarded, caught};
use super::meta::{FORMAT, Meta, file_name};
use super::storage::{self, Access, Disk, DiskFile, StorageError, failed};
use crate::record::stored::{QueueId, next_frame};

/// A chunk ends with the record that takes it past this: one row for a whole commit costs the least per record,
/// and rows of at most 16 pages keep redb's allocator from searching.
pub(crate) const CHUNK_BYTES: usize = 64_000;

const CHUNKS: TableDefinition<u64, &[u8]> = TableDefinition::new("chunks");

const OPEN_CACHE: usize = 2 << 20;
const SEALED_CACHE: usize = 1 << 20;

/// Consecutive frames as one row holds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Number of the first frame.
    pub first: u64,
    /// One more than the number of the last.
    pub end: u64,
    /// The frames.
    pub bytes: Bytes,
}

impl Chunk {
    /// Without the frames before a number.
    pub(super) fn starting_at(mut self, number: u64) -> Self {
        if let Some(before) = number.checked_sub(self.first + 1) {
            let cut = frame_ends(&self.bytes).get(before as usize).copied();
            self.bytes = self.bytes.slice(cut.unwrap_or_default()..);
            self.first = number;
        }
        self
    }
}

impl From<RawChunk> for Chunk {
    fn from(raw: RawChunk) -> Self {
        Self {
            first: raw.first,
            end: count_unchecked(&raw),
            bytes: raw.bytes,
        }
    }
}

/// Why a segment could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The file system refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// redb refused.
    #[error("segment {}: {source}", path.display())]
    Database {
        /// The segment's file.
        path: PathBuf,
        /// What redb said.
        source: Box<redb::Error>,
    },
    /// redb panicked, which it does on some damaged pages.
    #[error("segment {}: damaged, redb panicked: {message}", path.display())]
    Panicked {
        /// The segment's file.
        path: PathBuf,
        /// The panic's message.
        message: String,
    },
    /// Written by a build that knows more.
    #[error("segment {}: format {found} is newer than this build's {FORMAT}; install the newer version again", path.display())]
    Newer {
        /// The segment's file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// Not a segment, or not this queue's, or not all of it.
    #[error("segment {}: {reason}", path.display())]
    Damaged {
        /// The segment's file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl SegmentError {
    /// What the operating system said, if it is that. redb has I/O errors of its own for what is damaged.
    pub(crate) fn io(&self) -> Option<&std::io::Error> {
        let error = match self {
            Self::Storage(error) => Some(&error.source),
            Self::Database { source, .. } => match source.as_ref() {
                redb::Error::Io(error) => Some(error),
                _ => None,
            },
            Self::Panicked { .. } | Self::Newer { .. } | Self::Damaged { .. } => None,
        };
        error.filter(|error| error.raw_os_error().is_some())
    }
}

/// The segment that is being appended to.
pub(crate) struct OpenSegment {
    pub path: PathBuf,
    pub meta: Meta,
    database: Guarded,
    pub(super) file: Direct,
}

impl OpenSegment {
    /// Makes a new segment, on the disk under its name when this returns.
    pub(crate) fn create(disk: &dyn Disk, dir: &Path, meta: Meta) -> Result<Self, SegmentError> {
        let path = dir.join(file_name(meta.first));
        let made = Self::begin(disk, &path.with_extension("tmp"), meta)?;
        match storage::rename(disk, &made.path, &path) {
            Ok(()) => Ok(Self { path, ..made }),
            Err(error) => {
                made.undo(disk);
                Err(error.into())
            }
        }
    }

    /// Makes a segment under a name that the next start removes.
    pub(crate) fn begin(disk: &dyn Disk, temporary: &Path, meta: Meta) -> Result<Self, SegmentError> {
        let file = disk
            .open(temporary, Access::Create)
            .map_err(failed("create", temporary))?;
        let file = Direct::new(file);
        let make = || -> Result<Database, redb::Error> {
            let database = Database::builder()
                .set_cache_size(OPEN_CACHE)
                .create_with_backend(file.clone())?;
            let transaction = database.begin_write()?;
            meta.write(&transaction)?;
            transaction.open_table(CHUNKS)?;
            transaction.commit()?;
            Ok(database)
        };
        match make() {
            Ok(database) => Ok(Self {
                path: temporary.to_owned(),
                meta,
                database: Guarded::new(database),
                file,
            }),
            Err(error) => {
                file.abandon();
                remove_unfinished(disk, temporary);
                Err(named(temporary)(error))
            }
        }
    }

    /// Takes back one that was begun.
    pub(crate) fn undo(self, disk: &dyn Disk) {
        let path = self.abandon();
        remove_unfinished(disk, &path);
    }

    /// Bytes that it takes on the disk.
    pub(crate) fn used(&self) -> Result<u64, StorageError> {
        self.file.used().map_err(failed("stat", &self.path))
    }

    /// Lets go of it after a failure: what is on the disk stays as it is.
    pub(crate) fn abandon(self) -> PathBuf {
        self.file.abandon();
        // What redb would read for its last commit may be damaged.
        self.database.spoil();
        self.path
    }

    /// Commits chunks in one transaction. `Ok` means that they are on the disk.
    pub(crate) fn append(&self, chunks: &[Chunk]) -> Result<(), SegmentError> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            {
                let mut table = transaction.open_table(CHUNKS)?;
                for chunk in chunks {
                    table.insert(chunk.first, chunk.bytes.as_ref())?;
                }
            }
            Ok(transaction.commit()?)
        };
        caught(&self.path, || write().map_err(named(&self.path)))?;
        self.file.committed();
        Ok(())
    }

    pub(crate) fn read(&self, from: u64, max_bytes: usize) -> Result<Vec<RawChunk>, SegmentError> {
        caught(&self.path, || {
            read_chunks(&*self.database, from, max_bytes).map_err(named(&self.path))
        })
    }

    /// Closes it, and checks that what it holds up to `end` can be read by whoever opens it next.
    pub(crate) fn seal(self, disk: &dyn Disk, end: u64) -> Result<(), SegmentError> {
        let Self {
            path, meta, database, ..
        } = self;
        drop(database);
        let sealed = SealedSegment::open(disk, &path)?;
        let last = sealed.last_chunk()?;
        let found = last.map_or(meta.first, |raw| intact_frames(&raw, meta.queue).0);
        match found == end {
            true => Ok(()),
            false => Err(damaged(
                &path,
                format!("ends at {found} after closing, written up to {end}"),
            )),
        }
    }
}

/// On a full disk it would take the space that is waited for. The next start removes it otherwise.
fn remove_unfinished(disk: &dyn Disk, temporary: &Path) {
    if let Err(error) = disk.remove(temporary) {
        tracing::debug!(%error, "an unfinished segment stays until the next start");
    }
}

/// A row as it was read: nothing in it is checked yet.
#[derive(Debug, Clone)]
pub(crate) struct RawChunk {
    pub first: u64,
    pub bytes: Bytes,
}

/// A segment that nobody appends to any more.
pub(crate) struct SealedSegment {
    path: PathBuf,
    pub meta: Meta,
    database: Guarded,
}

impl SealedSegment {
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<Self, SegmentError> {
        let file = disk.open(path, Access::Read).map_err(failed("open", path))?;
        Self::of(file, path)
    }

    fn of(file: Arc<dyn DiskFile>, path: &Path) -> Result<Self, SegmentError> {
        let overlay = Overlay::new(file).map_err(failed("stat", path))?;
        if overlay.is_empty() {
            // redb would make an empty database of it.
            return Err(damaged(path, "an empty file".to_owned()));
        }
        caught(path, || {
            let database = Database::builder()
                .set_cache_size(SEALED_CACHE)
                .create_with_backend(overlay.clone())
                .map_err(|error| named(path)(error.into()))?;
            let database = Guarded::read_only(database, overlay);
            let meta = Meta::read(&*database, path)?;
            Ok(Self {
                path: path.to_owned(),
                meta,
                database,
            })
        })
    }

    pub(crate) fn read(&self, from: u64, max_bytes: usize) -> Result<Vec<RawChunk>, SegmentError> {
        caught(&self.path, || {
            read_chunks(&*self.database, from, max_bytes).map_err(named(&self.path))
        })
    }

    pub(crate) fn last_chunk(&self) -> Result<Option<RawChunk>, SegmentError> {
        let read = || -> Result<Option<RawChunk>, redb::Error> {
            let table = self.database.begin_read()?.open_table(CHUNKS)?;
            let last = table.last()?;
            Ok(last.map(|(first, bytes)| RawChunk {
                first: first.value(),
                bytes: Bytes::copy_from_slice(bytes.value()),
            }))
        };
        caught(&self.path, || read().map_err(named(&self.path)))
    }
}

/// Settles a segment that was open when its process ended, or that a write to failed: what the disk has of it is made
/// durable and read through. Returns its meta and one more than its last number; fails if not every record is intact.
pub(crate) fn settle(disk: &dyn Disk, path: &Path) -> Result<(Meta, u64), SegmentError> {
    let sealed = SealedSegment::of(storage::open_after_crash(disk, path, Access::Read)?, path)?;
    if path.file_name() != Some(file_name(sealed.meta.first).as_ref()) {
        return Err(damaged(path, format!("holds records from {} on", sealed.meta.first)));
    }
    let mut end = sealed.meta.first;
    loop {
        let chunks = sealed.read(end, 1 << 20)?;
        if chunks.is_empty() {
            return Ok((sealed.meta, end));
        }
        end = unbroken(&chunks, sealed.meta.queue, end)
            .ok_or_else(|| damaged(path, format!("its rows from record {end} on are not what was written")))?;
    }
}

/// One more than the number of the last record, if the chunks hold every record from `from` on: intact, and one behind
/// the other.
pub(crate) fn unbroken(chunks: &[RawChunk], queue: QueueId, from: u64) -> Option<u64> {
    let mut at = chunks.first()?.first;
    if at > from {
        return None;
    }
    for raw in chunks {
        let (end, error) = intact_frames(raw, queue);
        if raw.first != at || error.is_some() {
            return None;
        }
        at = end;
    }
    (at > from).then_some(at)
}

/// One more than the number of the last frame up to which a chunk is intact, and why it is not to its end.
pub(crate) fn intact_frames(raw: &RawChunk, queue: QueueId) -> (u64, Option<crate::record::stored::FrameError>) {
    let mut bytes = raw.bytes.clone();
    let mut number = raw.first;
    while !bytes.is_empty() {
        if let Err(error) = next_frame(&mut bytes, queue, number) {
            return (number, Some(error));
        }
        number += 1;
    }
    (number, None)
}

/// Chunks from the one that holds `from`, up to `max_bytes` but at least one; in a read transaction of its own.
fn read_chunks(database: &impl ReadableDatabase, from: u64, max_bytes: usize) -> Result<Vec<RawChunk>, redb::Error> {
    let table = database.begin_read()?.open_table(CHUNKS)?;
    let holder = table.range(..=from)?.next_back().transpose()?;
    let start = holder.map_or(from, |(first, _)| first.value());
    let mut chunks = Vec::new();
    let mut total = 0;
    for row in table.range(start..)? {
        let (first, value) = row?;
        let raw = RawChunk {
            first: first.value(),
            bytes: Bytes::copy_from_slice(value.value()),
        };
        // The chunk before the asked number may end before it.
        if raw.first < from && count_unchecked(&raw) <= from {
            continue;
        }
        total += raw.bytes.len();
        if total > max_bytes && !chunks.is_empty() {
            break;
        }
        chunks.push(raw);
    }
    Ok(chunks)
}

pub(crate) fn damaged(path: &Path, reason: String) -> SegmentError {
    SegmentError::Damaged {
        path: path.to_owned(),
        reason,
    }
}

pub(super) fn named(path: &Path) -> impl FnOnce(redb::Error) -> SegmentError {
    let path = path.to_owned();
    move |source| SegmentError::Database {
        path,
        source: Box::new(source),
    }
}
