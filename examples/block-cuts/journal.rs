//! What the load was told, and when in terms of the block log; written on another disk than the one that is logged.
//!
//! Each line begins with the number of log entries that was read at its moment. For "acknowledged" and "read" it is
//! read afterwards: it then includes the flush that made the record durable, so a cut at or behind it must have the
//! record; being read late only asks it of fewer cuts. For "sent" and "advancing" it is read before: the log had at
//! least so many entries then, so a cut before it cannot have heard of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{LazyLock, Mutex};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use waystation::record::Record;

use crate::DESTINATIONS;
use crate::block_log::entries_so_far;

/// A record by vehicle and its own count.
pub(crate) type Txid = (usize, u64);

/// Where the load writes it.
pub(crate) struct Journal {
    file: Mutex<File>,
    log: File,
}

impl Journal {
    /// Goes on with a journal or begins one.
    pub(crate) fn append(journal: &Path, log: &Path) -> std::io::Result<Self> {
        Ok(Self {
            file: File::options().create(true).append(true).open(journal)?.into(),
            log: File::open(log)?,
        })
    }

    pub(crate) fn entries(&self) -> u64 {
        entries_so_far(&self.log)
    }

    fn line(&self, words: &str) {
        // At once, so that a kill loses no line: the number is read first, the line is whole in the file after.
        let line = format!("{} {words}\n", self.entries());
        self.file.lock().unwrap().write_all(line.as_bytes()).unwrap();
    }

    pub(crate) fn opened(&self, queue: &str) {
        self.line(&format!("opened {queue}"));
    }

    pub(crate) fn sent(&self, (vehicle, count): Txid, bytes: usize) {
        self.line(&format!("sent {vehicle} {count} {bytes}"));
    }

    pub(crate) fn acknowledged(&self, (vehicle, count): Txid) {
        self.line(&format!("acknowledged {vehicle} {count}"));
    }

    pub(crate) fn read(&self, number: u64, (vehicle, count): Txid) {
        self.line(&format!("read {number} {vehicle} {count}"));
    }

    pub(crate) fn advancing(&self, destination: &str, next: u64) {
        self.line(&format!("advancing {destination} {next}"));
    }
}

/// What the journal says, for the checks. The first number of each pair is of log entries.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) queue: String,
    pub(crate) sent: HashMap<Txid, (u64, usize)>,
    pub(crate) acknowledged: BTreeSet<(u64, Txid)>,
    /// What each number stands for.
    pub(crate) numbers: BTreeMap<u64, (u64, Txid)>,
    pub(crate) number_of: HashMap<Txid, u64>,
    pub(crate) advancing: Vec<(u64, &'static str, u64)>,
}

impl Known {
    pub(crate) fn read(journal: &Path) -> Result<Self, String> {
        let text =
            std::fs::read_to_string(journal).map_err(|error| format!("cannot read {}: {error}", journal.display()))?;
        let mut known = Self::default();
        // A killed life may have left half a line, which told nobody anything.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            known
                .note(&line.split(' ').collect::<Vec<_>>())
                .map_err(|why| format!("{line:?} in {}: {why}", journal.display()))?;
        }
        Ok(known)
    }

    fn note(&mut self, words: &[&str]) -> Result<(), String> {
        let number = |word: &str| word.parse::<u64>().map_err(|error| error.to_string());
        let txid = |vehicle, count| Ok::<_, String>((number(vehicle)? as usize, number(count)?));
        match *words {
            [_, "opened", queue] if self.queue.is_empty() || self.queue == queue => queue.clone_into(&mut self.queue),
            [_, "opened", queue] => return Err(format!("the queue was {}, and is {queue}", self.queue)),
            [at, "sent", vehicle, count, bytes] => {
                let sent = (number(at)?, number(bytes)? as usize);
                self.sent.insert(txid(vehicle, count)?, sent);
            }
            [at, "acknowledged", vehicle, count] => {
                self.acknowledged.insert((number(at)?, txid(vehicle, count)?));
            }
            [at, "read", place, vehicle, count] => {
                let (at, place, txid) = (number(at)?, number(place)?, txid(vehicle, count)?);
                let (_, before) = *self.numbers.entry(place).or_insert((at, txid));
                let place_before = *self.number_of.entry(txid).or_insert(place);
                if before != txid || place_before != place {
                    return Err(format!(
                        "it stood for {before:?}, and the record had number {place_before}"
                    ));
                }
            }
            [at, "advancing", destination, next] => {
                let known = DESTINATIONS.into_iter().find(|known| *known == destination);
                let destination = known.ok_or("an unknown destination")?;
                self.advancing.push((number(at)?, destination, number(next)?));
            }
            _ => return Err("not understood".to_owned()),
        }
        Ok(())
    }

    /// The count that a vehicle goes on with.
    pub(crate) fn next_count(&self, vehicle: usize) -> u64 {
        let counts = self.sent.keys().filter(|(sender, _)| *sender == vehicle);
        counts.map(|(_, count)| count + 1).max().unwrap_or_default()
    }
}

/// Of which every payload is a piece.
static NOISE: LazyLock<Bytes> = LazyLock::new(|| {
    let mut bytes = vec![0; 1 << 20];
    StdRng::seed_from_u64(0).fill_bytes(&mut bytes);
    bytes.into()
});

/// A record whose every byte follows from its id and its length.
pub(crate) fn record((vehicle, count): Txid, bytes: usize) -> Record {
    let place = (vehicle as u64).wrapping_mul(70_001).wrapping_add(count * 1009) % (NOISE.len() - bytes) as u64;
    let place = place as usize;
    Record {
        vin: format!("vehicle-{vehicle}").into(),
        record_type: "V".into(),
        txid: format!("{vehicle}/{count}").into(),
        received_at: count,
        client_version: "1.2.0".into(),
        payload: NOISE.slice(place..place + bytes),
        origin: None,
        only: None,
    }
}

/// Whose record it is, if it is one of `record`'s.
pub(crate) fn txid(record: &Record) -> Option<Txid> {
    let text = std::str::from_utf8(&record.txid).ok()?;
    let (vehicle, count) = text.split_once('/')?;
    Some((vehicle.parse().ok()?, count.parse().ok()?))
}
