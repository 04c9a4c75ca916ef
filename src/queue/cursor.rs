//! The cursors file: where each destination is, and which numbers may already have been used.
//!
//! Two slots, each with a checksum, overwritten in place by turns: a torn write leaves the other one. The file never
//! grows, so saving needs no free space. What it says is never ahead of what was confirmed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use prost::Message;
use xxhash_rust::xxh3::xxh3_64;

use super::storage::{self, StorageError, failed};
use crate::record::proto::store::{Cursors, Skipped};
use crate::record::stored::QueueId;

const SLOT: usize = 32 << 10;
const HEADER: usize = 4 + 8;

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
}

/// The open file.
pub(crate) struct CursorFile {
    path: PathBuf,
    file: File,
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

impl CursorFile {
    /// Opens the file, or makes it. `None` for the content: there is none that can be trusted.
    pub(crate) fn open(path: &Path) -> Result<(Self, Option<Saved>), CursorError> {
        let existing = match File::options().read(true).write(true).open(path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed("open", path)(error).into()),
        };
        if let Some(file) = existing {
            let newest = (0..2)
                .filter_map(|slot| read_slot(&file, slot))
                .max_by_key(|cursors| cursors.sequence);
            let sequence = newest.as_ref().map_or(0, |cursors| cursors.sequence);
            let saved = newest.and_then(|cursors| {
                Some(Saved {
                    queue: QueueId::from_slice(&cursors.queue_id)?,
                    committed: cursors.committed,
                    reserved: cursors.reserved,
                    positions: cursors.positions.into_iter().collect(),
                    dead_letter_next: cursors.dead_letter_next,
                    skipped: cursors.skipped.iter().map(|range| range.from..range.to).collect(),
                })
            });
            return Ok((
                Self {
                    path: path.to_owned(),
                    file,
                    sequence,
                },
                saved,
            ));
        }
        let temporary = path.with_extension("tmp");
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&temporary)
            .map_err(failed("create", &temporary))?;
        // Written out, not only sized: later saves then need no block that is not there yet.
        file.write_all_at(&vec![0; 2 * SLOT], 0)
            .map_err(failed("write", &temporary))?;
        file.sync_all().map_err(failed("sync", &temporary))?;
        storage::rename(&temporary, path)?;
        Ok((
            Self {
                path: path.to_owned(),
                file,
                sequence: 0,
            },
            None,
        ))
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
        self.file
            .write_all_at(&slot, offset)
            .map_err(failed("write", &self.path))?;
        self.file.sync_data().map_err(failed("sync", &self.path))?;
        self.sequence = sequence;
        Ok(())
    }
}

fn read_slot(file: &File, slot: u64) -> Option<Cursors> {
    let mut bytes = vec![0; SLOT];
    file.read_exact_at(&mut bytes, slot * SLOT as u64).ok()?;
    let (length, rest) = bytes.split_first_chunk::<4>()?;
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

    fn saved(n: u64) -> Saved {
        Saved {
            queue: QueueId([7; 16]),
            committed: n,
            reserved: n + 100,
            positions: [("cloud".to_owned(), n)].into(),
            dead_letter_next: 3,
            skipped: vec![n..n + 50, n + 60..n + 70],
        }
    }

    #[test]
    fn the_newest_intact_slot_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cursors");
        let (mut file, nothing) = CursorFile::open(&path).unwrap();
        assert_eq!(nothing, None);
        for n in 1..=5 {
            file.save(&saved(n)).unwrap();
            assert_eq!(CursorFile::open(&path).unwrap().1, Some(saved(n)));
        }
        // Sequence 5 is in slot 1; a torn write there leaves 4.
        file.file.write_all_at(&[0xff; 100], SLOT as u64 + 20).unwrap();
        assert_eq!(CursorFile::open(&path).unwrap().1, Some(saved(4)));
        file.file.write_all_at(&[0xff; 100], 20).unwrap();
        assert_eq!(CursorFile::open(&path).unwrap().1, None);
    }

    #[test]
    fn a_save_after_damage_goes_to_the_slot_that_is_not_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cursors");
        CursorFile::open(&path).unwrap().0.save(&saved(1)).unwrap();
        let (mut file, _) = CursorFile::open(&path).unwrap();
        file.save(&saved(2)).unwrap();
        assert_eq!(read_slot(&file.file, 1).unwrap().committed, 1);
        assert_eq!(read_slot(&file.file, 0).unwrap().committed, 2);
    }

    #[test]
    fn too_many_destinations_are_an_error_and_the_old_cursors_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cursors");
        let (mut file, _) = CursorFile::open(&path).unwrap();
        file.save(&saved(1)).unwrap();
        let many = Saved {
            positions: (0..2000).map(|n| (format!("destination-{n}"), n)).collect(),
            ..saved(2)
        };
        assert!(matches!(file.save(&many), Err(CursorError::TooMany { .. })));
        assert_eq!(CursorFile::open(&path).unwrap().1, Some(saved(1)));
    }
}
