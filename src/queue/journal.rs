//! Small commits go here first: one write to blocks that the file has already, one sync, nothing of redb's trees. Their
//! records go into the open segment together, when many of them wait.
//!
//! Invariant: a block that holds a committed record is not written again before that record is in a segment on the disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::meta::FORMAT;
use super::readable::read_readable;
use super::recovery::may_pass;
use super::salvage::Salvage;
use super::sealed::ATTEMPTS;
use super::segment::{Chunk, SegmentError};
use super::storage::{self, Access, Disk, DiskFile, StorageError, failed};
use crate::record::stored::{QueueId, checksum};

/// Its name beside the segments.
pub(super) const NAME: &str = "journal";
/// A commit with more than this costs less in a segment: redb's own pages are about as much.
pub(super) const SMALL: usize = 32 << 10;
/// Room for records until they go into the segment: the more of them, the less redb's own pages count, and the fewer wait
/// for that. What is in it is in memory too, which bounds it.
const ROOM: u64 = 4 << 20;
/// Another version's journal may have more room: so much of one is looked at.
const LONGEST: u64 = 16 * ROOM;
/// Bytes before the frames of a commit.
const HEAD: usize = 8 + 4 + 8;
const MAGIC: &[u8; 8] = b"journal\0";
/// What a disk writes whole or not at all.
const BLOCK: usize = 4096;

/// The file, for as long as its process appends to it.
pub(super) struct Journal {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    queue: QueueId,
    room: u64,
    /// Where the next commit begins.
    at: u64,
}

impl Journal {
    /// Makes it, in place of any that is there. Its blocks are written once, so that a commit later changes nothing but them.
    pub(super) fn create(
        disk: &dyn Disk,
        dir: &Path,
        queue: QueueId,
        segment_bytes: u64,
    ) -> Result<Self, StorageError> {
        let path = dir.join(NAME);
        let temporary = path.with_extension("tmp");
        let room = (segment_bytes / 8).clamp(2 * SMALL as u64, ROOM);
        let file = disk
            .open(&temporary, Access::Create)
            .map_err(failed("create", &temporary))?;
        let zeros = vec![0; SMALL];
        let written = (0..room)
            .step_by(SMALL)
            .try_for_each(|at| file.write_at(&zeros[..SMALL.min((room - at) as usize)], at))
            .and_then(|()| file.write_at(&head(queue), 0))
            .and_then(|()| file.sync())
            .map_err(failed("write", &temporary));
        let made = written.and_then(|()| storage::rename(disk, &temporary, &path));
        made.inspect_err(|_| {
            // It would take the space that is lacking. The next start removes it otherwise.
            if let Err(error) = disk.remove(&temporary) {
                tracing::debug!(%error, "an unfinished journal stays until the next start");
            }
        })?;
        Ok(Self {
            path,
            file,
            queue,
            room,
            at: BLOCK as u64,
        })
    }

    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.at + (HEAD + bytes).next_multiple_of(BLOCK) as u64 <= self.room
    }

    /// Commits chunks. `Ok` means that they are on the disk.
    pub(super) fn append(&mut self, chunks: &[Chunk]) -> Result<(), StorageError> {
        let mut blocks = commit(chunks, self.queue);
        blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
        let written = self.file.write_at(&blocks, self.at);
        written.map_err(failed("write", &self.path))?;
        self.file.sync().map_err(failed("sync", &self.path))?;
        self.at += blocks.len() as u64;
        Ok(())
    }

    /// What is in it is in a segment now.
    pub(super) fn begin_anew(&mut self) {
        self.at = BLOCK as u64;
    }

    pub(super) fn remove(self, disk: &dyn Disk) -> Result<(), StorageError> {
        storage::remove(disk, &self.path)
    }
}

/// A commit as it is written: one more than its last number, its length, its checksum; its frames.
fn commit(chunks: &[Chunk], queue: QueueId) -> Vec<u8> {
    let length: usize = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
    let end = chunks.last().map_or(0, |chunk| chunk.end);
    let mut bytes = Vec::with_capacity((HEAD + length).next_multiple_of(BLOCK));
    bytes.extend_from_slice(&end.to_le_bytes());
    bytes.extend_from_slice(&(length as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    chunks.iter().for_each(|chunk| bytes.extend_from_slice(&chunk.bytes));
    let checksum = checksum_of(&bytes[HEAD..], queue, end);
    bytes[HEAD - 8..HEAD].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// No frame's: a length of frames may begin like the message of one, and a commit must not be taken for a record.
fn checksum_of(frames: &[u8], queue: QueueId, end: u64) -> u64 {
    checksum(frames, queue, !end)
}

/// One more than the last number in a whole commit, of any age: each begins with a block.
fn commits_end(file: &dyn DiskFile, queue: QueueId) -> io::Result<u64> {
    let bytes = read_readable(file, LONGEST)?;
    let whole = (BLOCK..bytes.len()).step_by(BLOCK).filter_map(|at| {
        let (end, rest) = bytes[at..].split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (expected, rest) = rest.split_first_chunk()?;
        let end = u64::from_le_bytes(*end);
        let frames = rest.get(..u32::from_le_bytes(*length) as usize)?;
        (checksum_of(frames, queue, end) == u64::from_le_bytes(*expected)).then_some(end)
    });
    Ok(whole.max().unwrap_or_default())
}

/// A journal as a start, or somebody outside, finds it.
#[derive(Default)]
pub(super) struct Found {
    /// `None`: there is none, or it cannot be opened.
    pub(super) file: Option<Arc<dyn DiskFile>>,
    /// Why it cannot be opened.
    pub(super) error: Option<StorageError>,
    /// Whose it says that it is.
    pub(super) queue: Option<QueueId>,
    /// Its records: also what has long been in a segment.
    pub(super) records: Salvage,
}

/// Makes what a crash left of it in memory what is on the disk: a commit that has been read may count as one.
pub(super) fn settle(disk: &dyn Disk, dir: &Path) {
    let Ok(file) = disk.open(&dir.join(NAME), Access::Read) else {
        // There is none, or whoever reads it says what is wrong.
        return;
    };
    // After a failed sync too: what then can be read is what the disk has.
    for (done, action) in [(file.sync(), "sync"), (file.forget(), "drop the cache of")] {
        if let Err(error) = done {
            tracing::warn!(%error, action, "a journal that a crash left may not be as it can be read");
        }
    }
}

/// One more than the last number in a whole commit of what was a journal before a start made it a segment.
pub(super) fn bound(disk: &dyn Disk, path: &Path, queue: QueueId) -> Option<u64> {
    let file = disk.open(path, Access::Read).ok()?;
    let mut head = vec![0; BLOCK];
    file.read_at(&mut head, 0).ok()?;
    let whose = read_head(&head, path).ok()?;
    whose.and_then(|_| commits_end(&*file, queue).ok())
}

/// Looks through the journal beside some segments, if there is one. `queue` counts more than what it says itself.
///
/// Of what is behind the last whole commit nothing was acknowledged, unless it is before `committed`.
pub(super) fn look_through(
    disk: &dyn Disk,
    dir: &Path,
    queue: Option<QueueId>,
    committed: u64,
) -> Result<Found, SegmentError> {
    let path = dir.join(NAME);
    let mut found = Found::default();
    for _ in 0..ATTEMPTS {
        match disk.open(&path, Access::Read) {
            Ok(file) => {
                found.file = Some(file);
                found.error = None;
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::default()),
            Err(error) => found.error = Some(failed("open", &path)(error)),
        }
    }
    if let Some(error) = found.error.take_if(|error| may_pass(&error.source)) {
        return Err(error.into());
    }
    if let Some(file) = &found.file {
        let mut head = vec![0; BLOCK];
        // The records in it are found without it, where the queue is known.
        if file.read_at(&mut head, 0).is_ok() {
            found.queue = read_head(&head, &path)?;
        }
        if let Some(queue) = queue.or(found.queue) {
            let looked =
                commits_end(&**file, queue).and_then(|end| Salvage::find(&**file, queue, 0..committed.max(end)));
            found.records = looked.map_err(failed("look through", &path))?;
        }
    }
    Ok(found)
}

/// The first block: whose journal this is.
fn head(queue: QueueId) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&FORMAT.to_le_bytes());
    head.extend_from_slice(&queue.0);
    head.extend_from_slice(&xxh3_64(&head).to_le_bytes());
    head.resize(BLOCK, 0);
    head
}

/// The queue in a first block, if that is what was written.
fn read_head(block: &[u8], path: &Path) -> Result<Option<QueueId>, SegmentError> {
    let length = MAGIC.len() + 8 + 16;
    let (said, rest) = block.split_at(length);
    let checksum = rest.first_chunk().copied().map(u64::from_le_bytes);
    if !said.starts_with(MAGIC) || checksum != Some(xxh3_64(said)) {
        return Ok(None);
    }
    let (format, queue) = said[MAGIC.len()..].split_at(8);
    let found = format
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte));
    match found > FORMAT {
        true => Err(SegmentError::Newer {
            path: path.to_owned(),
            found,
        }),
        false => Ok(QueueId::from_slice(queue)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::queue::RealDisk;
    use crate::record::Record;
    use crate::record::salvage::next_intact;
    use crate::record::stored::append_frame;

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let (queue, path) = (QueueId::random(), Path::new("journal"));
        let sound = head(queue);
        assert_eq!(read_head(&sound, path).unwrap(), Some(queue));
        let said = MAGIC.len() + 8 + 16;
        let mut newer = sound.clone();
        newer[MAGIC.len()] += 1;
        assert_eq!(read_head(&newer, path).unwrap(), None, "its checksum is not right");
        let checksum = xxh3_64(&newer[..said]).to_le_bytes();
        newer[said..said + 8].copy_from_slice(&checksum);
        assert!(matches!(read_head(&newer, path), Err(SegmentError::Newer { .. })));
    }

    #[test]
    fn a_journal_with_more_room_is_looked_at_to_its_end() {
        let (queue, dir) = (QueueId::random(), tempfile::tempdir().unwrap());
        let chunk = Chunk {
            first: 7,
            end: 8,
            bytes: vec![1; 50].into(),
        };
        let file = RealDisk.open(&dir.path().join(NAME), Access::Create).unwrap();
        file.write_at(&head(queue), 0).unwrap();
        file.write_at(&commit(&[chunk], queue), 2 * ROOM).unwrap();
        assert_eq!(commits_end(&*file, queue).unwrap(), 8);
    }

    /// A frame of 264 bytes has a length that begins like a message with a number.
    #[test]
    fn the_head_of_a_commit_is_never_taken_for_a_frame() {
        let queue = QueueId::random();
        for number in 0..3 {
            for payload in 0..2000 {
                let mut frames = Vec::new();
                let record = Record {
                    vin: "5YJ3E1EA7KF000001".into(),
                    record_type: "V".into(),
                    txid: "txid".into(),
                    received_at: 1,
                    client_version: "1.2.0".into(),
                    payload: vec![0; payload].into(),
                    origin: None,
                    only: None,
                };
                append_frame(&mut frames, queue, number, &record);
                let chunk = Chunk {
                    first: number,
                    end: number + 1,
                    bytes: frames.into(),
                };
                let bytes = commit(&[chunk], queue);
                let found = next_intact(&bytes, 0..bytes.len(), queue, &(0..u64::MAX)).unwrap();
                assert_eq!((found.number, found.bytes), (number, HEAD..bytes.len()));
            }
        }
    }
}
