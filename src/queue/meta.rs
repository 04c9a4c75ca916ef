//! What a segment says about itself, and its file's name.
//!
//! redb does not verify pages on an ordinary read, so the rows have checksums of their own.

use std::path::Path;

use redb::{ReadableDatabase, TableDefinition, TableError, WriteTransaction};
use xxhash_rust::xxh3::xxh3_64;

use super::segment::{SegmentError, damaged, named};
use crate::record::stored::QueueId;

/// The format that this build writes.
pub(crate) const FORMAT: u64 = 1;

/// When a segment began that cannot say it any more.
pub(crate) const BEGAN_UNKNOWN: u64 = u64::MAX;

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

/// What a segment says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    pub queue: QueueId,
    /// Number of its first record.
    pub first: u64,
    /// One more than the last record that was there when it was created. Numbers from here to `first` were skipped
    /// at a start and never stood for a record.
    pub follows: u64,
    /// How long gateways had run on this queue when it was created, in milliseconds.
    pub began: u64,
}

impl Meta {
    /// Puts it into a new segment.
    pub(crate) fn write(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        let mut table = transaction.open_table(META)?;
        table.insert("format", format_row(FORMAT).as_slice())?;
        table.insert("queue", self.queue.0.as_slice())?;
        table.insert("first", self.first.to_le_bytes().as_slice())?;
        table.insert("follows", self.follows.to_le_bytes().as_slice())?;
        table.insert("began", self.began.to_le_bytes().as_slice())?;
        table.insert("checksum", self.checksum().to_le_bytes().as_slice())?;
        Ok(())
    }

    /// What a segment says of itself, if that is what was written.
    pub(crate) fn read(database: &impl ReadableDatabase, path: &Path) -> Result<Self, SegmentError> {
        let transaction = database.begin_read().map_err(|error| named(path)(error.into()))?;
        let table = match transaction.open_table(META) {
            Err(TableError::TableDoesNotExist(_)) => {
                return Err(damaged(path, "not a segment of waystation".to_owned()));
            }
            other => other.map_err(|error| named(path)(error.into()))?,
        };
        let bytes = |key: &str| -> Result<Vec<u8>, SegmentError> {
            let value = table.get(key).map_err(|error| named(path)(error.into()))?;
            value
                .map(|value| value.value().to_vec())
                .ok_or_else(|| damaged(path, format!("its meta table lacks {key:?}")))
        };
        let number = |key: &str| -> Result<u64, SegmentError> {
            let bytes = bytes(key)?
                .try_into()
                .map_err(|_| damaged(path, format!("its {key:?} is not a number")))?;
            Ok(u64::from_le_bytes(bytes))
        };
        let row = bytes("format")?;
        let found = row.first_chunk().copied().map_or(0, u64::from_le_bytes);
        if row != format_row(found) {
            return Err(damaged(path, "its format is not what was written".to_owned()));
        }
        if found > FORMAT {
            return Err(SegmentError::Newer {
                path: path.to_owned(),
                found,
            });
        }
        let queue =
            QueueId::from_slice(&bytes("queue")?).ok_or_else(|| damaged(path, "its queue id is cut".to_owned()))?;
        let meta = Self {
            queue,
            first: number("first")?,
            follows: number("follows")?,
            began: number("began")?,
        };
        match number("checksum")? == meta.checksum() {
            true => Ok(meta),
            false => Err(damaged(path, "its meta table is not what was written".to_owned())),
        }
    }

    fn checksum(&self) -> u64 {
        let numbers = [FORMAT, self.first, self.follows, self.began].map(u64::to_le_bytes);
        xxh3_64(&[&self.queue.0[..], &numbers.concat()].concat())
    }
}

/// File name of the segment whose first record has this number.
pub(crate) fn file_name(first: u64) -> String {
    format!("{first:020}.redb")
}

/// The number in a segment's file name.
pub(crate) fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".redb").filter(|digits| digits.len() == 20)?;
    digits.parse().ok()
}

/// A format number with its checksum, the same in every format: a flipped bit must not look like a newer build's queue,
/// which would be left alone.
fn format_row(format: u64) -> Vec<u8> {
    let number = format.to_le_bytes();
    [number, xxh3_64(&number).to_le_bytes()].concat()
}
