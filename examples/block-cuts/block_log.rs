//! The log of a disk's writes and flushes, in the format of Linux's dm-log-writes, as QEMU's `blklogwrites` keeps it.
//!
//! Little-endian. The first sector: magic, version and number of entries (u64 each), size of a sector (u32). Then for
//! each entry a sector with first sector, number of sectors, flags and length of inline data (u64 each), and behind it
//! the sectors themselves unless the entry is a discard.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

pub(crate) const SECTOR: usize = 512;
const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FORCED: u64 = 2;
const DISCARD: u64 = 4;

/// How many entries the log of a disk in use has, as its first sector says.
///
/// QEMU appends an entry when what it stands for is done, writes this number with every flush, and answers the flush
/// only then. So the number includes every flush that has returned, and may lack writes since: what is read is never
/// less than the entries up to the newest flush that somebody was told of, and never more than there are.
pub(crate) fn entries_so_far(log: &File) -> u64 {
    // Twice the same: a read may meet a write halfway.
    let mut before = None;
    loop {
        let mut bytes = [0; 8];
        log.read_exact_at(&mut bytes, 16).unwrap();
        let now = u64::from_le_bytes(bytes);
        if before.replace(now) == Some(now) {
            return now;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Write,
    Flush,
    /// What a discarded sector holds is anybody's guess; it is taken to be zeros.
    Discard,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) sector: u64,
    pub(crate) sectors: usize,
    data: u64,
}

/// A log that nobody writes to any more.
pub(crate) struct BlockLog {
    file: File,
    pub(crate) entries: Vec<Entry>,
}

impl BlockLog {
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let failed = |error| format!("cannot read {}: {error}", path.display());
        let file = File::open(path).map_err(failed)?;
        let mut first = [0; 28];
        file.read_exact_at(&mut first, 0).map_err(failed)?;
        let word = |at: usize| u64::from_le_bytes(first[at..at + 8].try_into().unwrap());
        let sector = u32::from_le_bytes(first[24..28].try_into().unwrap()) as usize;
        if word(0) != MAGIC || word(8) != 1 || sector != SECTOR {
            return Err(format!(
                "{} is no log of block writes that is known here",
                path.display()
            ));
        }
        let mut at = SECTOR as u64;
        let mut entries = Vec::new();
        for _ in 0..word(16) {
            let mut head = [0; 24];
            file.read_exact_at(&mut head, at).map_err(failed)?;
            let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
            let (sector, sectors, flags) = (word(0), word(8) as usize, word(16));
            let kind = match (flags, sectors) {
                (0, 1..) => Kind::Write,
                (FLUSH, 0) => Kind::Flush,
                (DISCARD, 1..) => Kind::Discard,
                (FORCED, _) => return Err("forced unit access is not expected from a loop device".to_owned()),
                _ => {
                    return Err(format!(
                        "entry {} has flags {flags:#x} and {sectors} sectors",
                        entries.len()
                    ));
                }
            };
            let data = at + SECTOR as u64;
            at = data;
            if kind == Kind::Write {
                at += (sectors * SECTOR) as u64;
            }
            entries.push(Entry {
                kind,
                sector,
                sectors,
                data,
            });
        }
        Ok(Self { file, entries })
    }

    /// What an entry left in its sectors.
    pub(crate) fn data(&self, entry: &Entry) -> Vec<u8> {
        let mut bytes = vec![0; entry.sectors * SECTOR];
        if entry.kind == Kind::Write {
            self.file.read_exact_at(&mut bytes, entry.data).unwrap();
        }
        bytes
    }
}
