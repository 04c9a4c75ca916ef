//! The writer: the one thread that numbers records, commits them, and only then releases their acks.
//!
//! After a failed write or sync nothing is acknowledged any more: the thread ends with the error and the daemon stops.
//! It is also the only one that saves cursors, and unlinks segments after the cursors that permit it are on the disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cursor::{CursorError, CursorFile, Saved};
use super::dead_letters::DeadLetters;
use super::inlet::{Item, Refusal, Submission};
use super::segment::{CHUNK_BYTES, Chunk};
use super::segments::SegmentsError;
use super::{Settings, Shared};
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

/// How often cursors are saved and consumed segments removed.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Bytes of one commit, within the size of a segment.
const BATCH_BYTES: usize = 4 << 20;
/// Numbers that are reserved at a time. A start after a crash skips what is left of them.
const RESERVE: u64 = 1 << 16;
/// What a commit can take on the disk beyond its payload: redb's own pages.
const COMMIT_OVERHEAD: u64 = 128 << 10;

pub(crate) struct Writer {
    pub shared: Arc<Shared>,
    pub settings: Settings,
    pub cursors: CursorFile,
    pub saved: Saved,
    pub dead_letters: DeadLetters,
    pub next: u64,
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
        let batch_bytes = BATCH_BYTES.min(self.settings.segment_size as usize);
        let mut housekeeping = Instant::now() + HOUSEKEEPING;
        loop {
            self.shared.beat();
            let Some(batch) = self
                .shared
                .inlet
                .take(batch_bytes, self.settings.commit_delay, housekeeping)
            else {
                return self.finish();
            };
            if !batch.is_empty() {
                self.commit(batch)?;
            }
            if Instant::now() >= housekeeping {
                self.housekeep()?;
                housekeeping = Instant::now() + HOUSEKEEPING;
            }
        }
    }

    fn commit(&mut self, batch: Vec<Submission>) -> Result<(), WriterError> {
        let (void, batch): (Vec<_>, Vec<_>) = batch.into_iter().partition(Submission::is_void);
        drop(void);
        let chunks = self.encode(&batch);
        let coming: u64 = chunks.iter().map(|chunk| chunk.bytes.len() as u64).sum();
        if coming > 0 && !self.has_room(coming)? {
            if !self.shared.inlet.set_full(true) {
                tracing::warn!(
                    used = self.shared.segments.disk_bytes(),
                    limit = self.settings.max_bytes,
                    "queue full: vehicles are refused and keep their records until a destination takes what is queued"
                );
            }
            self.shared.counts.refused(batch.len());
            self.shared.inlet.refuse(batch, Refusal::Full);
            return Ok(());
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
        let records = batch.len() - letters.len();
        if let Some(end) = chunks.last().map(|chunk| chunk.end) {
            if end > self.saved.reserved {
                self.save_cursors(end)?;
            }
            self.shared
                .segments
                .append(&chunks, self.saved.queue, self.settings.segment_size)?;
            self.next = end;
            let mut tail = self.shared.tail();
            chunks.into_iter().for_each(|chunk| tail.push(chunk));
            drop(tail);
            self.shared.committed.send_replace(end);
        }
        self.shared.counts.committed(records, coming);
        self.shared.inlet.committed(batch);
        Ok(())
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

    /// Whether a commit of so many bytes stays within the limit, after removing what may be removed.
    fn has_room(&mut self, coming: u64) -> Result<bool, WriterError> {
        // redb copies pages on write and grows its file in steps: twice the payload, and its own pages.
        let needed = 2 * coming + COMMIT_OVERHEAD;
        let fits = |writer: &Self| writer.shared.segments.disk_bytes() + needed <= writer.settings.max_bytes;
        if fits(self) {
            return Ok(true);
        }
        self.remove_consumed()?;
        while !fits(self) {
            let Some((first, end)) = self.shared.segments.oldest_sealed() else {
                return Ok(false);
            };
            if self.shared.positions.drop_optional(first, end) == 0 {
                return Ok(false);
            }
            if self.remove_consumed()? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn housekeep(&mut self) -> Result<(), WriterError> {
        self.remove_consumed()?;
        let low_water = self.settings.max_bytes - self.settings.max_bytes / 8;
        if self.shared.inlet.is_full() && self.shared.segments.disk_bytes() <= low_water {
            self.shared.inlet.set_full(false);
            tracing::info!("queue has room again: vehicles are accepted");
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
        };
        if saved != self.saved {
            self.cursors.save(&saved)?;
            self.saved = saved;
        }
        Ok(())
    }

    /// The last act of an orderly stop: no number stays reserved.
    fn finish(&mut self) -> Result<(), WriterError> {
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
