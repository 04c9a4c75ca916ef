//! Reading a file of which parts cannot be read: what can be is there, the rest is zeros, and it is known which.

use std::io;
use std::ops::Range;

use super::recovery::may_pass;
use super::storage::DiskFile;

/// What a disk reads whole or not at all.
pub(super) const SECTOR: usize = 4096;
/// Sectors that cannot be read, after which the rest of the file is not tried: each can take a disk seconds.
const UNREADABLE: usize = 256;

/// The beginning of a file, with zeros where it cannot be read.
pub(super) fn read_readable(file: &dyn DiskFile, at_most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; file.length()?.min(at_most) as usize];
    Source::new(file).read(&mut bytes, 0)?;
    Ok(bytes)
}

/// A file of which parts may be unreadable.
pub(super) struct Source<'a> {
    file: &'a dyn DiskFile,
    /// What could not be read, and was not tried.
    unread: Vec<Range<u64>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a dyn DiskFile) -> Self {
        Self {
            file,
            unread: Vec::new(),
        }
    }

    pub(super) fn has_read(&self, bytes: &Range<u64>) -> bool {
        let unread = |part: &Range<u64>| part.start < bytes.end && bytes.start < part.end;
        !self.unread.iter().any(unread)
    }

    pub(super) fn is_partly_read(&self) -> bool {
        !self.unread.is_empty()
    }

    pub(super) fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    /// Reads what can be read; the rest stays zeros.
    pub(super) fn read(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        if self.unread.len() >= UNREADABLE {
            self.unread.push(offset..offset + buffer.len() as u64);
            return Ok(());
        }
        match self.file.read_at(buffer, offset) {
            Ok(()) => Ok(()),
            Err(error) if may_pass(&error) => Err(error),
            Err(_) if buffer.len() <= SECTOR => {
                self.unread.push(offset..offset + buffer.len() as u64);
                buffer.fill(0);
                Ok(())
            }
            Err(_) => {
                // A failed read may have filled some of it.
                buffer.fill(0);
                let middle = (buffer.len() / 2).next_multiple_of(SECTOR).min(buffer.len() - 1);
                let (low, high) = buffer.split_at_mut(middle);
                self.read(low, offset)?;
                self.read(high, offset + middle as u64)
            }
        }
    }
}
