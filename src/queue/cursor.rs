//! The cursors file: where each destination is, and which numbers may already have been used.
//!
//! Two slots, each with a checksum, overwritten in place by turns: a torn write leaves the other one. The file never
//! grows, so saving needs no free space. What it says is never ahead of what was confirmed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use xxhash_rust::xxh3::xxh3_64;

use super::quarantine::Quarantine;
use super::recovery::may_pass;
use super::sealed::ATTEMPTS;
use super::storage::{self, Access, Disk, DiskFile, StorageError, failed};
use crate::record::proto::store::{Cursors, Skipped};
use crate::record::stored::QueueId;

const SLOT: usize = 32 << 10;
const HEADER: usize = 4 + 8;
/// Numbers that are reserved at a time. A start after a crash skips what is left of them.
pub(crate) const RESERVE: u64 = 1 << 16;

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Saved {
    pub queue: QueueId,
    /// One more than the highest number known to be committed.
    pub committed: u64,
    /// One more than the highest number that may have been given out: after an unclean stop numbering goes on here.
    pub reserved: u64,
    /// By destination: number of the first record that it has not confirmed.
    pub positions: BTreeMap<String, u64>,
    /// One more than the highest dead letter number.
    pub dead_letter_next: u64,
    /// Numbers that starts after a crash passed over, oldest first: they are nobody's backlog.
    pub skipped: Vec<Range<u64>>,
    /// How long gateways have run on this queue, in milliseconds; as of this save.
    pub running: u64,
    /// Destinations that are not required.
    pub optional: BTreeSet<String>,
}

/// The open file.
pub(crate) struct CursorFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Option<Arc<dyn DiskFile>>,
    sequence: u64,
}

/// Why the cursors could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    /// The file system refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// More destinations than a slot holds.
    #[error("the cursors of {destinations} destinations do not fit into {}: `waystation queue forget` old ones", path.display())]
    TooMany {
        /// How many there are.
        destinations: usize,
        /// The file.
        path: PathBuf,
    },
}

impl CursorError {
    /// Whether the disk, or our share of it, has no room.
    pub(crate) fn is_no_space(&self) -> bool {
        matches!(self, Self::Storage(error) if error.is_no_space())
    }
}

impl CursorFile {
    /// Opens the file. `None` for the content: there is none that can be trusted.
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        path: &Path,
        quarantine: &Quarantine,
    ) -> Result<(Self, Option<Saved>), CursorError> {
        let mut opened = storage::open_after_crash(&**disk, path, Access::Write);
        for _ in 1..ATTEMPTS {
            if opened
                .as_ref()
                .is_err_and(|error| error.source.kind() != ErrorKind::NotFound)
            {
                opened = storage::open_after_crash(&**disk, path, Access::Write);
            }
        }
        let file = match opened {
            Ok(file) => Some(file),
            Err(error) if error.source.kind() == ErrorKind::NotFound => None,
            Err(error) if may_pass(&error.source) => return Err(error.into()),
            Err(error) => {
                quarantine.take_away(path, &error.to_string(), None)?;
                None
            }
        };
        let newest = file.as_deref().map_or(Ok(None), newest).map_err(failed("read", path))?;
        let this = Self {
            disk: Arc::clone(disk),
            path: path.to_owned(),
            // One of which nothing can be read is made anew, so that its old slots never count again.
            file: file.filter(|_| newest.is_some()),
            sequence: newest.as_ref().map_or(0, |(sequence, _)| *sequence),
        };
        Ok((this, newest.and_then(|(_, saved)| saved)))
    }

    /// What the file says, leaving it as it is.
    pub(crate) fn peek(disk: &dyn Disk, path: &Path) -> Result<Option<Saved>, StorageError> {
        match disk.open(path, Access::Read) {
            Ok(file) => {
                let newest = newest(&*file).map_err(failed("read", path))?;
                Ok(newest.and_then(|(_, saved)| saved))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("open", path)(error)),
        }
    }

    /// The file, made at the first save: a full disk keeps nobody from starting.
    fn file(&mut self) -> Result<Arc<dyn DiskFile>, CursorError> {
        if let Some(file) = &self.file {
            return Ok(Arc::clone(file));
        }
        let temporary = self.path.with_extension("tmp");
        let file = self
            .disk
            .open(&temporary, Access::Create)
            .map_err(failed("create", &temporary))?;
        // Written out, not only sized: later saves then need no block that is not there yet.
        file.write_at(&vec![0; 2 * SLOT], 0)
            .map_err(failed("write", &temporary))?;
        file.sync().map_err(failed("sync", &temporary))?;
        storage::rename(&*self.disk, &temporary, &self.path)?;
        self.file = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Puts the cursors on the disk. After an error the older slot still holds.
    pub(crate) fn save(&mut self, saved: &Saved) -> Result<(), CursorError> {
        let sequence = self.sequence + 1;
        let message = Cursors {
            sequence,
            queue_id: saved.queue.0.to_vec().into(),
            committed: saved.committed,
            reserved: saved.reserved,
            positions: saved.positions.clone().into_iter().collect(),
            dead_letter_next: saved.dead_letter_next,
            running_ms: saved.running,
            optional: saved.optional.iter().cloned().collect(),
            skipped: saved
                .skipped
                .iter()
                .map(|range| Skipped {
                    from: range.start,
                    to: range.end,
                })
                .collect(),
        }
        .encode_to_vec();
        let length = u32::try_from(message.len())
            .ok()
            .filter(|length| *length as usize + HEADER <= SLOT)
            .ok_or_else(|| CursorError::TooMany {
                destinations: saved.positions.len(),
                path: self.path.clone(),
            })?;
        let mut slot = Vec::with_capacity(HEADER + message.len());
        slot.extend_from_slice(&length.to_le_bytes());
        slot.extend_from_slice(&xxh3_64(&message).to_le_bytes());
        slot.extend_from_slice(&message);
        let offset = (sequence % 2) * SLOT as u64;
        let file = self.file()?;
        file.write_at(&slot, offset).map_err(failed("write", &self.path))?;
        file.sync().map_err(failed("sync", &self.path))?;
        self.sequence = sequence;
        Ok(())
    }
}

/// The newest intact slot: its sequence, and its content if that is of a queue.
fn newest(file: &dyn DiskFile) -> io::Result<Option<(u64, Option<Saved>)>> {
    let slots = [read_slot(file, 0)?, read_slot(file, 1)?];
    let damaged = slots.iter().any(|slot| matches!(slot, Slot::Damaged));
    let intact = slots.into_iter().filter_map(Slot::intact);
    let Some(cursors) = intact.max_by_key(|cursors| cursors.sequence) else {
        return Ok(None);
    };
    let saved = QueueId::from_slice(&cursors.queue_id).map(|queue| Saved {
        queue,
        committed: cursors.committed,
        // The damaged slot may have been the newer one, and reserved more.
        reserved: cursors.reserved + if damaged { 2 * RESERVE } else { 0 },
        positions: cursors.positions.into_iter().collect(),
        dead_letter_next: cursors.dead_letter_next,
        skipped: cursors.skipped.iter().map(|range| range.from..range.to).collect(),
        running: cursors.running_ms,
        optional: cursors.optional.into_iter().collect(),
    });
    Ok(Some((cursors.sequence, saved)))
}

enum Slot {
    /// Never written.
    Empty,
    Intact(Cursors),
    /// Torn by a power cut, or rotten.
    Damaged,
}

impl Slot {
    fn intact(self) -> Option<Cursors> {
        match self {
            Self::Intact(cursors) => Some(cursors),
            Self::Empty | Self::Damaged => None,
        }
    }
}

/// One that cannot be read is read again before it counts as damaged; an error that says nothing about it is one here.
fn read_slot(file: &dyn DiskFile, slot: u64) -> io::Result<Slot> {
    let mut bytes = vec![0; SLOT];
    for _ in 0..ATTEMPTS {
        match file.read_at(&mut bytes, slot * SLOT as u64) {
            Ok(()) if bytes.iter().all(|byte| *byte == 0) => return Ok(Slot::Empty),
            Ok(()) => return Ok(decode(&bytes).map_or(Slot::Damaged, Slot::Intact)),
            Err(error) if may_pass(&error) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(Slot::Damaged)
}

fn decode(slot: &[u8]) -> Option<Cursors> {
    let (length, rest) = slot.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<8>()?;
    let message = rest
        .get(..u32::from_le_bytes(*length) as usize)
        .filter(|message| !message.is_empty())?;
    (xxh3_64(message) == u64::from_le_bytes(*checksum)).then(|| Cursors::decode(message).ok())?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::queue::real_disk::RealDisk;

    fn saved(n: u64) -> Saved {
        Saved {
            queue: QueueId([7; 16]),
            committed: n,
            reserved: n + 100,
            positions: [("cloud".to_owned(), n)].into(),
            dead_letter_next: 3,
            skipped: vec![n..n + 50, n + 60..n + 70],
            running: 7 * n,
            optional: ["file".to_owned()].into(),
        }
    }

    fn open(dir: &Path) -> (CursorFile, Option<Saved>) {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let quarantine = Quarantine::new(&disk, dir.join("quarantine"));
        CursorFile::open(&disk, &dir.join("cursors"), &quarantine).unwrap()
    }

    #[test]
    fn the_newest_intact_slot_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, nothing) = open(dir.path());
        assert_eq!(nothing, None);
        for n in 1..=5 {
            file.save(&saved(n)).unwrap();
            assert_eq!(open(dir.path()).1, Some(saved(n)));
        }
        // Sequence 5 is in slot 1; a torn write there leaves 4, and doubt about the numbers.
        let raw = file.file().unwrap();
        raw.write_at(&[0xff; 100], SLOT as u64 + 20).unwrap();
        let doubtful = Saved {
            reserved: saved(4).reserved + 2 * RESERVE,
            ..saved(4)
        };
        assert_eq!(open(dir.path()).1, Some(doubtful));
        raw.write_at(&[0xff; 100], 20).unwrap();
        assert_eq!(open(dir.path()).1, None);
    }

    #[test]
    fn a_file_of_which_nothing_can_be_read_never_counts_again() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, _) = open(dir.path());
        for n in 1..=9 {
            file.save(&saved(n)).unwrap();
        }
        let raw = file.file().unwrap();
        raw.write_at(&[0xff; 4], 0).unwrap();
        raw.write_at(&[0xff; 4], SLOT as u64).unwrap();
        let (mut file, _) = open(dir.path());
        file.save(&saved(20)).unwrap();
        assert_eq!(open(dir.path()).1, Some(saved(20)));
    }

    #[test]
    fn a_save_after_damage_goes_to_the_slot_that_is_not_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).0.save(&saved(1)).unwrap();
        let (mut file, _) = open(dir.path());
        file.save(&saved(2)).unwrap();
        let raw = file.file().unwrap();
        assert_eq!(read_slot(&*raw, 1).unwrap().intact().unwrap().committed, 1);
        assert_eq!(read_slot(&*raw, 0).unwrap().intact().unwrap().committed, 2);
    }

    #[test]
    fn too_many_destinations_are_an_error_and_the_old_cursors_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, _) = open(dir.path());
        file.save(&saved(1)).unwrap();
        let many = Saved {
            positions: (0..2000).map(|n| (format!("destination-{n}"), n)).collect(),
            ..saved(2)
        };
        assert!(matches!(file.save(&many), Err(CursorError::TooMany { .. })));
        assert_eq!(open(dir.path()).1, Some(saved(1)));
    }
}
