//! A directory of segments: at most one open for appending, the others sealed, in the order of their numbers.
//!
//! Shared by the writer, which appends, seals and removes, and the readers. Reading never stops the writer: a segment
//! that cannot be read is set aside in `quarantine/`, with a note, and its numbers are logged as lost.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use super::segment::{self, Chunk, Meta, OpenSegment, RawChunk, SealedSegment, SegmentError};
use super::storage::{self, StorageError, failed};
use crate::record::stored::QueueId;

/// Why the directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SegmentsError {
    /// The file system refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// One segment failed.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

pub(crate) struct Segments {
    dir: PathBuf,
    quarantine: PathBuf,
    listed: Mutex<Listed>,
    open: RwLock<Option<OpenSegment>>,
}

#[derive(Default)]
struct Listed {
    /// Bytes on the disk, by first number.
    segments: BTreeMap<u64, u64>,
    /// The one that is appended to, and the bytes put into it.
    open: Option<(u64, u64)>,
    /// One more than the last record that can be read.
    end: u64,
}

/// What one read gave.
pub(crate) struct Read {
    pub chunks: Vec<RawChunk>,
    /// Of the segment that they are from.
    pub meta: Meta,
}

/// A reader's open sealed segment: most reads go on in the one before.
#[derive(Default)]
pub(crate) struct ReadHandle(Option<(u64, SealedSegment)>);

impl Segments {
    /// Takes stock of a directory: settles the segment that was open when the last process ended, sets aside what is
    /// no segment. Gives the queue id found in the newest one.
    pub(crate) fn recover(
        dir: &Path,
        quarantine: &Path,
        expected: Option<QueueId>,
    ) -> Result<(Self, Option<QueueId>), SegmentsError> {
        storage::create_dir(dir)?;
        let this = Self {
            dir: dir.to_owned(),
            quarantine: quarantine.to_owned(),
            listed: Mutex::default(),
            open: RwLock::new(None),
        };
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(dir).map_err(failed("list", dir))? {
            let path = entry.map_err(failed("list", dir))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match segment::first_of(&name) {
                Some(first) if path.is_file() => {
                    found.insert(first, path);
                }
                // Never had a record: it is renamed before its first commit.
                _ if name.ends_with(".tmp") && path.is_file() => storage::remove(&path)?,
                _ => this.set_aside(&path, "not a segment of waystation", None)?,
            }
        }
        let mut queue = expected;
        let mut end = None;
        while let Some((first, path)) = found.pop_last() {
            match segment::settle(&path) {
                Ok((meta, _)) if expected.is_some_and(|expected| expected != meta.queue) => {
                    let reason = format!("belongs to queue {}", meta.queue);
                    this.set_aside(&path, &reason, None)?;
                }
                Ok((meta, settled)) if settled == meta.first => {
                    queue = queue.or(Some(meta.queue));
                    end = end.max(Some(meta.follows));
                    storage::remove(&path)?;
                }
                Ok((meta, settled)) => {
                    queue = queue.or(Some(meta.queue));
                    end = end.max(Some(settled));
                    found.insert(first, path);
                    break;
                }
                // Nothing is wrong with the file, or with this build's right to judge it: nothing is changed.
                Err(error @ SegmentError::Newer { .. }) => return Err(error.into()),
                Err(error) if is_passing(&error) => return Err(error.into()),
                Err(error) => this.set_aside(&path, &error.to_string(), Some((first, None)))?,
            }
        }
        {
            let mut listed = this.lock();
            listed.end = end.unwrap_or_default();
            for (first, path) in &found {
                listed.segments.insert(*first, storage::disk_bytes(path)?);
            }
        }
        Ok((this, queue))
    }

    fn lock(&self) -> MutexGuard<'_, Listed> {
        // Every change under it is a single insert, remove or assignment.
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, first: u64) -> PathBuf {
        self.dir.join(segment::file_name(first))
    }

    /// One more than the last record that can be read.
    pub(crate) fn end(&self) -> u64 {
        self.lock().end
    }

    /// Number of the first record of the oldest segment.
    pub(crate) fn first(&self) -> Option<u64> {
        self.lock().segments.keys().next().copied()
    }

    /// How many segments there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().segments.len()
    }

    /// Bytes that all of them take on the disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.lock().segments.values().sum()
    }

    /// Commits chunks, in a new segment when the open one has its `segment_bytes`. `Ok` means on the disk.
    pub(crate) fn append(&self, chunks: &[Chunk], queue: QueueId, segment_bytes: u64) -> Result<(), SegmentsError> {
        let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else {
            return Ok(());
        };
        let open = self.lock().open;
        if open.is_none_or(|(_, written)| written >= segment_bytes) {
            self.seal()?;
            let meta = Meta {
                queue,
                first: first.first,
                follows: self.end(),
            };
            let created = OpenSegment::create(&self.dir, meta)?;
            *self.open.write().unwrap_or_else(PoisonError::into_inner) = Some(created);
            let mut listed = self.lock();
            listed.open = Some((meta.first, 0));
            listed.segments.insert(meta.first, 0);
        }
        let disk = {
            let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
            let open = open
                .as_ref()
                .expect("a segment was opened above, and only this thread closes it");
            open.append(chunks)?;
            storage::disk_bytes(&open.path)?
        };
        let mut listed = self.lock();
        if let Some((first, written)) = listed.open.as_mut() {
            *written += chunks.iter().map(|chunk| chunk.bytes.len() as u64).sum::<u64>();
            let first = *first;
            listed.segments.insert(first, disk);
        }
        listed.end = last.end;
        Ok(())
    }

    /// Closes the open segment and checks it. Readers of it wait meanwhile, and then find it among the sealed.
    pub(crate) fn seal(&self) -> Result<(), SegmentsError> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let Some(closing) = open.take() else { return Ok(()) };
        let (path, first, end) = (closing.path.clone(), closing.meta.first, self.end());
        if end <= first {
            drop(closing);
            self.lock().segments.remove(&first);
            storage::remove(&path)?;
        } else {
            let sealed = closing.seal(end);
            if let Err(error) = sealed {
                // Readers must not wait for an open segment that is not there.
                self.lock().open = None;
                return Err(error.into());
            }
            let disk = storage::disk_bytes(&path)?;
            self.lock().segments.insert(first, disk);
        }
        self.lock().open = None;
        Ok(())
    }

    /// The numbers of the oldest segment that is not appended to: its first, and where the next one begins.
    pub(crate) fn oldest_sealed(&self) -> Option<(u64, u64)> {
        let listed = self.lock();
        let (first, _) = listed.segments.first_key_value()?;
        if listed.open.is_some_and(|(open, _)| open == *first) {
            return None;
        }
        let next = listed
            .segments
            .range((Bound::Excluded(*first), Bound::Unbounded))
            .next();
        Some((*first, next.map_or(listed.end, |(next, _)| *next)))
    }

    /// Unlinks the sealed segments that hold nothing at or after `number`. Returns how many.
    pub(crate) fn remove_below(&self, number: u64) -> Result<usize, SegmentsError> {
        let mut removed = 0;
        while let Some((first, end)) = self.oldest_sealed().filter(|(_, end)| *end <= number) {
            // Unlisted first: a reader must not take a file that is gone for a loss.
            let bytes = self.lock().segments.remove(&first);
            if let Err(error) = storage::remove(&self.path(first)) {
                self.lock().segments.extend(bytes.map(|bytes| (first, bytes)));
                return Err(error.into());
            }
            tracing::debug!(first, end, "segment consumed");
            removed += 1;
        }
        Ok(removed)
    }

    /// Chunks from the one that holds `from` or, if it is not there, the next that exists. `None`: nothing is left.
    pub(crate) fn read(
        &self,
        mut from: u64,
        max_bytes: usize,
        handle: &mut ReadHandle,
    ) -> Result<Option<Read>, SegmentsError> {
        loop {
            let Some((first, open, next)) = self.holder(from) else {
                return Ok(None);
            };
            let read = if open {
                let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
                // Sealed in between: look again.
                let Some(open) = open.as_ref().filter(|open| open.meta.first == first) else {
                    continue;
                };
                open.read(from, max_bytes).map(|chunks| Read {
                    chunks,
                    meta: open.meta,
                })
            } else {
                self.read_sealed(first, from, max_bytes, handle)
            };
            match (read, next) {
                (Ok(read), _) if !read.chunks.is_empty() => return Ok(Some(read)),
                (Ok(_), Some(next)) => from = next,
                (Ok(_), None) => return Ok(None),
                (Err(error), _) if open || is_passing(&error) => return Err(error.into()),
                (Err(error), next) => {
                    handle.0 = None;
                    let end = next.unwrap_or_else(|| self.end());
                    self.give_up(first, end, &error)?;
                    from = from.max(end);
                }
            }
        }
    }

    /// The segment that holds `from`, or the next one: its first number, whether it is open, where the one after it
    /// begins.
    fn holder(&self, from: u64) -> Option<(u64, bool, Option<u64>)> {
        let listed = self.lock();
        let at = listed.segments.range(..=from).next_back();
        let (first, _) = at.or_else(|| listed.segments.range(from..).next())?;
        let next = listed
            .segments
            .range((Bound::Excluded(*first), Bound::Unbounded))
            .next();
        Some((
            *first,
            listed.open.is_some_and(|(open, _)| open == *first),
            next.map(|(next, _)| *next),
        ))
    }

    fn read_sealed(
        &self,
        first: u64,
        from: u64,
        max_bytes: usize,
        handle: &mut ReadHandle,
    ) -> Result<Read, SegmentError> {
        if handle.0.as_ref().is_none_or(|(opened, _)| *opened != first) {
            // The old one is closed first: a reader has one file open at most.
            handle.0 = None;
            handle.0 = Some((first, SealedSegment::open(&self.path(first))?));
        }
        let (_, sealed) = handle.0.as_ref().expect("it was set just above");
        let chunks = sealed.read(from, max_bytes)?;
        Ok(Read {
            chunks,
            meta: sealed.meta,
        })
    }

    /// Where the chunk after the one at `first` begins, as far as any is there.
    pub(crate) fn chunk_after(&self, first: u64, handle: &mut ReadHandle) -> Result<Option<u64>, SegmentsError> {
        let mut max_bytes = 1 << 20;
        loop {
            let Some(read) = self.read(first, max_bytes, handle)? else {
                return Ok(None);
            };
            if let Some(after) = read.chunks.iter().find(|chunk| chunk.first > first) {
                return Ok(Some(after.first));
            }
            let next = self.holder(first).and_then(|(_, _, next)| next);
            if max_bytes > 4 << 20 || next.is_some() {
                return Ok(next);
            }
            max_bytes *= 4;
        }
    }

    fn give_up(&self, first: u64, end: u64, error: &SegmentError) -> Result<(), SegmentsError> {
        let Some(bytes) = self.lock().segments.remove(&first) else {
            return Ok(()); // another reader was here first, or it was consumed
        };
        self.set_aside(&self.path(first), &error.to_string(), Some((first, Some(end))))
            // What could not be set aside is still there, and no cursor may pass it.
            .inspect_err(|_| self.lock().segments.extend([(first, bytes)]))
    }

    /// Moves what cannot be used to `quarantine/`, with a note beside it.
    fn set_aside(&self, path: &Path, reason: &str, lost: Option<(u64, Option<u64>)>) -> Result<(), SegmentsError> {
        storage::create_dir(&self.quarantine)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        let target = self.quarantine.join(format!("{name}.{now}"));
        let numbers = match lost {
            Some((first, Some(end))) => format!("records {first} to {} are missing", end.saturating_sub(1)),
            Some((first, None)) => format!("records from {first} on are missing"),
            None => "no record is missing".to_owned(),
        };
        match lost {
            Some(_) => {
                tracing::error!(file = %path.display(), moved_to = %target.display(), reason, "segment set aside: {numbers}")
            }
            None => {
                tracing::warn!(file = %path.display(), moved_to = %target.display(), reason, "file set aside: {numbers}")
            }
        }
        match storage::rename(path, &target) {
            Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        }
        let note = self.quarantine.join(format!("{name}.{now}.txt"));
        std::fs::write(&note, format!("{reason}\n{numbers}\n")).map_err(failed("write", &note))?;
        Ok(())
    }
}

/// An error that may pass by itself: nothing is wrong with the segment.
fn is_passing(error: &SegmentError) -> bool {
    use rustix::io::Errno;
    let passing = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOSPC,
        Errno::DQUOT,
        Errno::INTR,
        // Nothing is wrong with the file, only with our right to it.
        Errno::ACCESS,
        Errno::PERM,
        Errno::ROFS,
    ];
    let is = |error: &std::io::Error| Errno::from_io_error(error).is_some_and(|errno| passing.contains(&errno));
    match error {
        SegmentError::Storage(error) => is(&error.source),
        SegmentError::Database { source, .. } => match source.as_ref() {
            redb::Error::Io(error) => is(error),
            // Another reader has it open for its repair.
            redb::Error::DatabaseAlreadyOpen => true,
            _ => false,
        },
        _ => false,
    }
}
