//! The writer: the one thread that numbers records, commits them, and only then releases their acks.
//!
//! After a failed write or sync nothing is acknowledged any more: the thread ends with the error and the daemon stops.
//! Only lack of space is no such failure: what there is no room for is refused. It is also the only one that saves cursors.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::chunks::cut;
use super::cursor::{CursorError, CursorFile, RESERVE, Saved};
use super::dead_letters::DeadLetters;
use super::duplicates::{Duplicates, Fresh};
use super::inlet::{Item, Submission};
use super::release::Release;
use super::segment::Chunk;
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

impl WriterError {
    pub(super) fn is_no_space(&self) -> bool {
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

/// Everything that writes to the queue's directory.
pub struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) settings: Settings,
    pub(super) cursors: CursorFile,
    pub(super) saved: Saved,
    pub(super) dead_letters: DeadLetters,
    pub(super) duplicates: Duplicates,
    pub(super) next: u64,
    pub(super) release: Release,
    /// When a write failed for lack of space, and what the disk said was free then.
    pub(super) no_space: Option<(Instant, u64)>,
    /// When the disk was asked last and had much more room than is needed.
    pub(super) plenty: Option<Instant>,
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
        // Also when it panics: nobody may wait for an ack that cannot come. What it has taken refuses itself.
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
        self.shared.heartbeat.beat();
        let batch_bytes = BATCH_BYTES.min(self.settings.segment_size as usize);
        let taken = self
            .shared
            .inlet
            .take(batch_bytes, self.settings.commit_delay, deadline);
        let Some(batch) = taken else { return Ok(false) };
        self.shared.segments.let_go_if_doubtful();
        if !batch.is_empty() {
            self.commit(batch)?;
        }
        for given in self.shared.inlet.take_orders() {
            self.obey(given)?;
        }
        Ok(true)
    }

    fn commit(&mut self, mut batch: Vec<Submission>) -> Result<(), WriterError> {
        batch.retain(|submission| !submission.is_void());
        let fresh = self.duplicates.mark(&mut batch);
        match self.store(&batch) {
            Ok(None) => {
                self.count_duplicates(&fresh);
                self.shared.inlet.committed(batch);
                return Ok(());
            }
            Ok(Some(reason)) => self.fill(reason),
            Err(error) if error.is_no_space() => {
                // With what is on its way the next one may have room, whatever the file system says is free.
                self.no_space = (!self.release.finish()).then(|| (Instant::now(), self.free()));
                self.fill(error.to_string());
                // Perhaps the batch is on the disk all the same: then its numbers are used.
                self.next = self.next.max(self.shared.segments.used());
                self.shared.committed.send_replace(self.shared.segments.end());
            }
            Err(error) => return Err(error),
        }
        self.duplicates.forget(&fresh);
        let records = batch.iter().filter(|submission| submission.record().is_some());
        self.shared.counts.refused(records.count());
        self.shared.inlet.refuse(batch);
        Ok(())
    }

    /// Puts on the disk what of a batch is not there yet; why not, if there is no room for it.
    fn store(&mut self, batch: &[Submission]) -> Result<Option<String>, WriterError> {
        let has_records = batch.iter().any(|submission| submission.record().is_some());
        // Once full, until the low-water mark: a vehicle that is let in for one record would only be refused the next.
        if let Some(reason) = self.full_reason().filter(|_| has_records) {
            return Ok(Some(reason));
        }
        let first = self.next;
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
                Item::Sent(_) | Item::Record(_) => None,
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
        // Nothing is written for what is there already.
        if coming > 0 || !letters.is_empty() {
            self.shared.counts.committed(self.next - first);
        }
        Ok(None)
    }

    fn count_duplicates(&self, fresh: &Fresh) {
        if fresh.duplicates > 0 {
            self.shared.counts.duplicates(fresh.duplicates);
            tracing::debug!(
                records = fresh.duplicates,
                "sent again and stored already: acknowledged again"
            );
        }
    }

    /// The batch's records as chunks, numbered from `next` on.
    fn encode(&self, batch: &[Submission]) -> Vec<Chunk> {
        let records = batch.iter().filter(|submission| submission.record().is_some());
        let mut frames = Vec::with_capacity(records.map(|submission| submission.bytes).sum());
        let mut ends = Vec::with_capacity(batch.len());
        for (number, record) in (self.next..).zip(batch.iter().filter_map(Submission::record)) {
            append_frame(&mut frames, self.saved.queue, number, record);
            ends.push(frames.len());
        }
        // The chunks stay in memory for a while, with all of what was allocated for them.
        frames.shrink_to_fit();
        cut(self.next, frames.into(), &ends)
    }

    /// Saves the cursors, with numbers reserved beyond `end`, unless the file says all that already.
    pub(super) fn save_cursors(&mut self, end: u64) -> Result<(), WriterError> {
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
        let records = self.shared.segments.put_away();
        self.stays_in_journal(records)?;
        let letters = self.dead_letters.close();
        self.stays_in_journal(letters)?;
        let end = self.next;
        let oldest = self.shared.positions.oldest();
        self.save(end)?;
        if let Some(oldest) = oldest {
            self.shared.segments.remove_below(oldest, usize::MAX)?;
        }
        Ok(())
    }

    /// At a stop, what there is no space for in a segment is as safe where it is, and the next start deals with it.
    fn stays_in_journal(&self, put_away: Result<(), SegmentsError>) -> Result<(), WriterError> {
        match put_away {
            Err(error) if error.is_no_space() => {
                tracing::warn!(%error, "the newest records stay in the journal: there is no space for them in a segment");
                Ok(())
            }
            other => Ok(other?),
        }
    }
}
