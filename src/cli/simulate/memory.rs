//! What vehicles remember beyond their process: the transaction ids that were acknowledged, a line each, in a file that
//! is only appended to. The next run goes on behind them.
//!
//! A line is there once its ack has come and the kernel has it: it survives the process, not a power cut. What has no
//! line is sent again under its old id.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// An open file of acknowledged transaction ids.
#[derive(Debug)]
pub struct Memory {
    file: File,
    /// By vehicle: one more than its highest acknowledged number.
    next: HashMap<String, u64>,
}

impl Memory {
    /// Opens the file, making it if it is not there. What a kill cut off of its last line is taken away.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let mut file = File::options().create(true).append(true).read(true).open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        if whole < text.len() {
            file.set_len(whole as u64)?;
        }
        let mut next = HashMap::new();
        for (vin, number) in text[..whole].lines().filter_map(numbered) {
            let next = next.entry(vin.to_owned()).or_insert(0);
            *next = number.saturating_add(1).max(*next);
        }
        Ok(Self { file, next })
    }

    /// The number of a vehicle's first record in this run.
    pub(super) fn next(&self, vin: &str) -> u64 {
        self.next.get(vin).copied().unwrap_or_default()
    }

    /// Notes an ack.
    pub(super) fn note(&self, txid: &str) -> std::io::Result<()> {
        // In one write: vehicles share the file.
        (&self.file).write_all(format!("{txid}\n").as_bytes())
    }
}

/// The parts of a transaction id `{VIN}-{number}`.
pub(super) fn numbered(txid: &str) -> Option<(&str, u64)> {
    let (vin, number) = txid.rsplit_once('-')?;
    Some((vin, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_goes_on_behind_what_was_acknowledged_and_a_torn_line_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acks");
        let memory = Memory::open(&path).unwrap();
        assert_eq!(memory.next("A"), 0);
        ["A-0", "B-0", "A-1"]
            .into_iter()
            .for_each(|txid| memory.note(txid).unwrap());
        (&memory.file).write_all(b"A-2").unwrap();
        let memory = Memory::open(&path).unwrap();
        assert_eq!((memory.next("A"), memory.next("B")), (2, 1));
        memory.note("A-2").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "A-0\nB-0\nA-1\nA-2\n");
    }
}
