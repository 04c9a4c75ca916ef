//! The writer: the one thread that numbers records, commits them, and only then releases their acks.
//!
//! After a failed write or sync nothing is acknowledged any more: the thread ends with the error and the daemon stops.
//! It is also the only one that saves cursors, and unlinks segments after the cursors that permit it are on the disk.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::cursor::{CursorError, CursorFile, RESERVE, Saved};
use super::dead_letters::DeadLetters;
use super::inlet::{Item, Refusal, Submission};
use super::segment::{CHUNK_BYTES, Chunk};
use super::segments::SegmentsError;
use super::{Settings, Shared, WhenFull};
use crate::record::stored::append_frame;

/// Why the writer stopped.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// The segments could not be written.
    #[error("the queue cannot be written, nothing more is acknowledged: {0}")]
    Segments(#[from] SegmentsError),
    /// The cursors could not be saved.
    #[error("the cursors cannot be saved, nothing more is acknowledged: {0}")]
    Cursors(#[from] CursorError),
}

impl WriterError {
    fn is_no_space(&self) -> bool {
        match self {
            Self::Segments(error) => error.is_no_space(),
            Self::Cursors(error) => error.is_no_space(),
        }
    }
}

/// How often cursors are saved and consumed segments removed.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Milliseconds of running time after which it is saved for its own sake, where ages count.
const SAVE_RUNNING: u64 = 600_000;
/// Bytes of one commit, within the size of a segment.
const BATCH_BYTES: usize = 4 << 20;
/// What a commit can take on the disk beyond its payload: redb's own pages.
const COMMIT_OVERHEAD: u64 = 128 << 10;
/// Bytes that the disk has free beyond the floor before a full queue takes records again.
const LOW_WATER: u64 = 1 << 20;
/// When space was lacking though the disk said that it is there (a quota), it is tried again after so long.
const NO_SPACE_RETRY: Duration = Duration::from_secs(10);

/// Everything that writes to the queue's directory.
pub struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) settings: Settings,
    pub(super) cursors: CursorFile,
    pub(super) saved: Saved,
    pub(super) dead_letters: DeadLetters,
    pub(super) next: u64,
    /// When a write failed for lack of space, and what the disk said was free then.
    pub(super) no_space: Option<(Instant, u64)>,
    pub(super) started: Instant,
    /// Running time of earlier gateways on this queue, in milliseconds.
    pub(super) ran_before: u64,
}

struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.inlet.fail();
    }
}

impl Writer {
    /// Runs until the inlet is closed and empty, or something fails.
    pub(crate) fn run(mut self) -> Result<(), WriterError> {
        // Also when it panics: nobody may wait for an ack that cannot come.
        let _refuses_the_rest = Ended(Arc::clone(&self.shared));
        let result = self.work();
        if let Err(error) = &result {
            tracing::error!(%error, "queue writer stopped");
        }
        result
    }

    fn work(&mut self) -> Result<(), WriterError> {
        let mut housekeeping = Instant::now() + HOUSEKEEPING;
        while self.turn(housekeeping)? {
            if Instant::now() >= housekeeping {
                self.housekeep()?;
                housekeeping = Instant::now() + HOUSEKEEPING;
            }
        }
        self.finish()
    }

    /// Waits until records wait, or `deadline`, and commits them. `false`: the inlet is closed, and nothing is left.
    pub fn turn(&mut self, deadline: Instant) -> Result<bool, WriterError> {
        self.shared.beat();
        let batch_bytes = BATCH_BYTES.min(self.settings.segment_size as usize);
        let taken = self
            .shared
            .inlet
            .take(batch_bytes, self.settings.commit_delay, deadline);
        let Some(batch) = taken else { return Ok(false) };
        if !batch.is_empty() {
            self.commit(batch)?;
        }
        Ok(true)
    }

    fn commit(&mut self, batch: Vec<Submission>) -> Result<(), WriterError> {
        let (void, batch): (Vec<_>, Vec<_>) = batch.into_iter().partition(Submission::is_void);
        drop(void);
        match self.store(&batch) {
            Ok(None) => {
                self.shared.inlet.committed(batch);
                return Ok(());
            }
            Ok(Some(reason)) => self.fill(reason),
            Err(error) if error.is_no_space() => {
                self.no_space = Some((Instant::now(), self.free()));
                self.fill(error.to_string());
                // Perhaps the batch is on the disk all the same: then its numbers are used.
                self.next = self.next.max(self.shared.segments.end());
                self.shared.committed.send_replace(self.shared.segments.end());
            }
            Err(error) => return Err(error),
        }
        self.shared.counts.refused(batch.len());
        self.shared.inlet.refuse(batch, Refusal::Full);
        Ok(())
    }

    /// Puts a batch on the disk; why not, if there is no room for it.
    fn store(&mut self, batch: &[Submission]) -> Result<Option<String>, WriterError> {
        let chunks = self.encode(batch);
        let coming: u64 = chunks.iter().map(|chunk| chunk.bytes.len() as u64).sum();
        if coming > 0
            && let Some(reason) = self.make_room(coming)?
        {
            return Ok(Some(reason));
        }
        let letters: Vec<_> = batch
            .iter()
            .filter_map(|submission| match &submission.item {
                Item::DeadLetter(letter) => Some(letter),
                Item::Record(_) => None,
            })
            .collect();
        if !letters.is_empty() {
            self.dead_letters.append(&letters)?;
        }
        if let Some(end) = chunks.last().map(|chunk| chunk.end) {
            if end > self.saved.reserved {
                self.save_cursors(end)?;
            }
            let began = self.running();
            self.shared
                .segments
                .append(&chunks, self.saved.queue, self.settings.segment_size, began)?;
            self.next = end;
            let mut tail = self.shared.tail();
            chunks.into_iter().for_each(|chunk| tail.push(chunk));
            drop(tail);
            self.shared.committed.send_replace(end);
        }
        self.shared.counts.committed(batch.len() - letters.len(), coming);
        Ok(None)
    }

    fn fill(&self, reason: String) {
        let mut full = self.shared.full.lock().unwrap_or_else(PoisonError::into_inner);
        if full.is_none() {
            tracing::warn!(
                used = self.shared.segments.disk_bytes(),
                free = self.free(),
                "queue full, vehicles are refused and keep their records: {reason}"
            );
        }
        *full = Some(reason);
        self.shared.inlet.set_full(true);
    }

    fn free(&self) -> u64 {
        // A disk that does not say is taken to have room: a write will tell.
        self.shared.segments.free().unwrap_or(u64::MAX)
    }

    /// The batch's records as chunks, numbered from `next` on.
    fn encode(&self, batch: &[Submission]) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let mut bytes = Vec::with_capacity(CHUNK_BYTES + 4096);
        let mut first = self.next;
        let mut number = first;
        for submission in batch {
            let Item::Record(record) = &submission.item else {
                continue;
            };
            append_frame(&mut bytes, self.saved.queue, number, record);
            number += 1;
            if bytes.len() >= CHUNK_BYTES {
                let full = std::mem::replace(&mut bytes, Vec::with_capacity(CHUNK_BYTES + 4096));
                chunks.push(Chunk {
                    first,
                    end: number,
                    bytes: full.into(),
                });
                first = number;
            }
        }
        if number > first {
            chunks.push(Chunk {
                first,
                end: number,
                bytes: bytes.into(),
            });
        }
        chunks
    }

    /// Makes room for a commit of so many bytes by removing what may be removed; why there is none, if it cannot.
    fn make_room(&mut self, coming: u64) -> Result<Option<String>, WriterError> {
        // Once full, until the low-water mark: a vehicle that is let in for one record would only be refused the next.
        if let Some(reason) = self.full_reason() {
            return Ok(Some(reason));
        }
        // redb copies pages on write and grows its file in steps: twice the payload, and its own pages.
        let needed = 2 * coming + COMMIT_OVERHEAD;
        if self.lacks(needed, needed).is_none() {
            return Ok(None);
        }
        self.remove_consumed()?;
        let all = self.settings.when_full == WhenFull::DropOldest;
        while let Some(reason) = self.lacks(needed, needed) {
            let Some((first, end)) = self.shared.segments.oldest_sealed() else {
                return Ok(Some(reason));
            };
            if self.shared.positions.drop_before(first, end, all, &reason) == 0 || self.remove_consumed()? == 0 {
                return Ok(Some(reason));
            }
        }
        Ok(None)
    }

    /// Why there is no room for so many bytes within the limit, and so many on the disk.
    fn lacks(&self, within: u64, on_disk: u64) -> Option<String> {
        let (used, limit) = (self.shared.segments.disk_bytes(), self.settings.max_bytes);
        if used + within > limit {
            return Some(format!("{used} of the {limit} bytes of queue.max_bytes are in use"));
        }
        let (free, floor) = (self.free(), self.settings.keep_free);
        (free < floor.saturating_add(on_disk))
            .then(|| format!("the disk has {free} bytes free, and queue.keep_free is {floor}"))
    }

    fn full_reason(&self) -> Option<String> {
        self.shared.full.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Saves the cursors, removes what every destination has passed, and ends a refusal when there is room again.
    pub fn housekeep(&mut self) -> Result<(), WriterError> {
        match self.remove_consumed() {
            Err(error) if error.is_no_space() => self.fill(error.to_string()),
            other => drop(other?),
        }
        self.expire()?;
        if self.full_reason().is_some() {
            self.drain_open()?;
            let retry = self.no_space.is_none_or(|(failed, free)| {
                failed.elapsed() >= NO_SPACE_RETRY || self.free() > free.saturating_add(COMMIT_OVERHEAD)
            });
            // An eighth more, so that it does not go on and off with every segment.
            let (within, on_disk) = (self.settings.max_bytes / 8, self.settings.keep_free / 8 + LOW_WATER);
            if retry && self.lacks(within, on_disk).is_none() {
                self.no_space = None;
                *self.shared.full.lock().unwrap_or_else(PoisonError::into_inner) = None;
                self.shared.inlet.set_full(false);
                tracing::info!("queue has room again: vehicles are accepted");
            }
        }
        Ok(())
    }

    /// How long gateways have run on this queue, in milliseconds. Ages are counted in it: no step of a clock, and no time
    /// in a drawer, makes a record older.
    fn running(&self) -> u64 {
        self.ran_before + self.started.elapsed().as_millis() as u64
    }

    /// Drops what is older than `max_age`, a segment at a time.
    fn expire(&mut self) -> Result<(), WriterError> {
        let Some(max_age) = self.settings.max_age else {
            return Ok(());
        };
        let (now, max_age) = (self.running(), max_age.as_millis() as u64);
        // A segment that is filled slowly is ended, or its first records would stay for ever.
        if self
            .shared
            .segments
            .open_began()
            .is_some_and(|began| now > began + max_age / 4)
        {
            self.shared.segments.seal()?;
        }
        while let Some((first, end, ended)) = self.shared.segments.oldest_ended()
            && now > ended + max_age
        {
            self.shared
                .positions
                .drop_before(first, end, true, "they are older than queue.max_age");
            if self.remove_consumed()? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Of a full queue even the open segment goes, once everybody has passed all of it.
    fn drain_open(&mut self) -> Result<(), WriterError> {
        let end = self.shared.segments.end();
        if self.shared.positions.oldest().is_some_and(|oldest| oldest >= end) {
            self.shared.segments.seal()?;
            self.shared.segments.remove_below(end)?;
        }
        Ok(())
    }

    /// Saves the cursors if they moved, then unlinks what every destination has passed.
    fn remove_consumed(&mut self) -> Result<usize, WriterError> {
        self.save_cursors(self.next)?;
        // A segment in which everybody has passed everything need not wait until it is full.
        let oldest = self.shared.positions.oldest().unwrap_or(self.next);
        Ok(self.shared.segments.remove_below(oldest)?)
    }

    /// Saves the cursors, with numbers reserved beyond `end`, unless the file says all that already.
    fn save_cursors(&mut self, end: u64) -> Result<(), WriterError> {
        let reserved = match self.saved.reserved.checked_sub(end) {
            Some(left) if left >= RESERVE / 2 => self.saved.reserved,
            _ => end + RESERVE,
        };
        self.save(reserved)
    }

    fn save(&mut self, reserved: u64) -> Result<(), WriterError> {
        let saved = Saved {
            queue: self.saved.queue,
            committed: self.shared.segments.end(),
            reserved,
            positions: self.shared.positions.all(),
            dead_letter_next: self.dead_letters.next(),
            skipped: self.shared.skipped.clone(),
            running: self.saved.running,
            optional: self.shared.positions.optional(),
        };
        let running = self.running();
        let aged = self.settings.max_age.is_some() && running >= saved.running + SAVE_RUNNING;
        if saved != self.saved || aged {
            let saved = Saved { running, ..saved };
            self.cursors.save(&saved)?;
            self.saved = saved;
        }
        Ok(())
    }

    /// The last act of an orderly stop: no number stays reserved.
    pub fn finish(&mut self) -> Result<(), WriterError> {
        self.shared.segments.seal()?;
        self.dead_letters.close()?;
        let end = self.next;
        self.save(end)?;
        self.remove_consumed_at_end()
    }

    fn remove_consumed_at_end(&mut self) -> Result<(), WriterError> {
        let oldest = self.shared.positions.oldest().unwrap_or(self.next);
        self.shared.segments.remove_below(oldest)?;
        Ok(())
    }
}
