//! Records from another gateway's queue into this one: the numbers are new, the identity that consumers know them by stays.

use bytes::BytesMut;

use super::inlet::{Item, Refusal, Submitter};
use crate::record::portable::{self, PortableError};

/// Why an import ended before its end. The records before are committed.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// What is not an export.
    #[error("at byte {at}: {source}; only files of `waystation queue export --format protobuf` can be imported")]
    Unreadable {
        /// Where.
        at: u64,
        /// What is wrong.
        source: PortableError,
    },
    /// A record is cut off.
    #[error("at byte {at}: the last record is not whole, the file was cut off")]
    Cut {
        /// Where it begins.
        at: u64,
    },
    /// The queue takes no more.
    #[error("{0}")]
    Refused(#[from] Refusal),
}

/// An import under way.
pub struct Import {
    submitter: Submitter,
    input: BytesMut,
    /// Records that are still to be passed over.
    skip: u64,
    submitted: u64,
    /// Bytes of whole records that were read.
    at: u64,
}

impl Import {
    /// Begins one, without the first `skip` records.
    pub fn new(submitter: Submitter, skip: u64) -> Self {
        Self {
            submitter,
            input: BytesMut::new(),
            skip,
            submitted: 0,
            at: 0,
        }
    }

    /// The next bytes of the file. Waits while the queue has enough to do.
    pub async fn feed(&mut self, bytes: &[u8]) -> Result<(), ImportError> {
        self.input.extend_from_slice(bytes);
        loop {
            let before = self.input.len();
            let next = portable::next(&mut self.input);
            let next = next.map_err(|source| ImportError::Unreadable { at: self.at, source })?;
            let Some(record) = next else { return Ok(()) };
            self.at += (before - self.input.len()) as u64;
            match self.skip.checked_sub(1) {
                Some(left) => self.skip = left,
                None => {
                    self.submitter.submit(Item::Record(record)).await?;
                    self.submitted += 1;
                }
            }
        }
    }

    /// Waits until everything that was read is on the disk, and says whether that was the end of the file.
    pub async fn finish(&mut self) -> Result<(), ImportError> {
        if let Some(last) = self.submitted.checked_sub(1) {
            self.submitter.advanced(last).await?;
        }
        match self.input.is_empty() {
            true => Ok(()),
            false => Err(ImportError::Cut { at: self.at }),
        }
    }

    /// Records that are on the disk.
    pub fn committed(&self) -> u64 {
        self.submitter.committed()
    }
}
