//! What the queue keeps and for how long: room for a commit, the refusal while there is none, and what goes when every
//! destination has it, when it is too old, or when space is needed.
//!
//! A segment is unlinked only after the cursors that permit it are on the disk.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::WhenFull;
use super::release::{AT_ONCE, Removed};
use super::writer::{Writer, WriterError};

/// What a commit can take on the disk beyond its payload: redb's own pages.
const COMMIT_OVERHEAD: u64 = 128 << 10;
/// Bytes that the disk has free beyond the floor before a full queue takes records again.
const LOW_WATER: u64 = 1 << 20;
/// With so much more free than is needed the disk is not asked again for a while.
const PLENTY: u64 = 1 << 30;
const PLENTY_LASTS: Duration = Duration::from_millis(100);
/// When space was lacking though the disk said that it is there (a quota), it is tried again after so long.
const NO_SPACE_RETRY: Duration = Duration::from_secs(10);

impl Writer {
    pub(super) fn fill(&self, reason: String) {
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

    pub(super) fn free(&self) -> u64 {
        // A disk that does not say is taken to have room: a write will tell.
        self.shared.segments.free().unwrap_or(u64::MAX)
    }

    /// Makes room for a commit of so many bytes by removing what may be removed; why there is none, if it cannot.
    pub(super) fn make_room(&mut self, coming: u64) -> Result<Option<String>, WriterError> {
        // redb copies pages on write and grows its file in steps: twice the payload, and its own pages.
        let needed = 2 * coming + COMMIT_OVERHEAD;
        if self.lacks(needed, needed).is_none() {
            return Ok(None);
        }
        self.remove_consumed(usize::MAX)?;
        if self.lacks(needed, needed).is_some() {
            // What was removed before may be on its way still.
            self.release.finish();
        }
        let all = self.settings.when_full == WhenFull::DropOldest;
        while let Some(reason) = self.lacks(needed, needed) {
            // Lower limits may want hundreds of segments to go.
            self.shared.heartbeat.beat();
            let Some((first, end)) = self.shared.segments.oldest_sealed() else {
                // The one that is written to goes too, when nobody who may fill the queue needs it.
                let end = self.shared.segments.end();
                if self.shared.positions.is_needed_by_optional_alone(end) && self.shared.segments.is_open() {
                    self.shared.segments.seal()?;
                    continue;
                }
                return Ok(Some(reason));
            };
            if self
                .shared
                .positions
                .drop_before(first, end, all, &self.shared.skipped, &reason)
                == 0
                || self.remove_consumed(usize::MAX)?.segments == 0
            {
                return Ok(Some(reason));
            }
        }
        Ok(None)
    }

    /// Why there is no room for so many bytes within the limit, and so many on the disk.
    fn lacks(&mut self, within: u64, on_disk: u64) -> Option<String> {
        let (used, limit) = (self.shared.segments.disk_bytes(), self.settings.max_bytes);
        if used + within > limit {
            return Some(format!("{used} of the {limit} bytes of queue.max_bytes are in use"));
        }
        if self.plenty.is_some_and(|asked| asked.elapsed() < PLENTY_LASTS) {
            return None;
        }
        let (free, floor) = (self.free(), self.settings.keep_free);
        self.plenty = (free > floor.saturating_add(on_disk + PLENTY)).then(Instant::now);
        (free < floor.saturating_add(on_disk))
            .then(|| format!("the disk has {free} bytes free, and queue.keep_free is {floor}"))
    }

    pub(super) fn full_reason(&self) -> Option<String> {
        self.shared.full.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Saves the cursors, removes what is consumed or too old, and ends a refusal when there is room again.
    pub fn housekeep(&mut self) -> Result<(), WriterError> {
        match self.clear_up() {
            Err(error) if error.is_no_space() => self.fill(error.to_string()),
            other => other?,
        }
        if self.full_reason().is_some() {
            // Vehicles are refused: what is on its way is to count.
            self.release.finish();
        }
        self.reopen();
        Ok(())
    }

    fn clear_up(&mut self) -> Result<(), WriterError> {
        self.bound_backlogs();
        loop {
            let removed = self.remove_consumed(AT_ONCE)?;
            let more = removed.segments == AT_ONCE;
            self.release.soon(removed);
            // Acks wait meanwhile, unless vehicles are refused: then space is all that they wait for.
            if !more || self.full_reason().is_none() {
                break;
            }
            self.shared.heartbeat.beat();
        }
        self.expire()?;
        match self.full_reason() {
            Some(_) => self.drain_open(),
            None => Ok(()),
        }
    }

    /// Ends a refusal when there is room again.
    fn reopen(&mut self) {
        let retry = self.no_space.is_none_or(|(failed, free)| {
            failed.elapsed() >= NO_SPACE_RETRY || self.free() > free.saturating_add(COMMIT_OVERHEAD)
        });
        // An eighth more, so that it does not go on and off with every segment.
        let (within, on_disk) = (self.settings.max_bytes / 8, self.settings.keep_free / 8 + LOW_WATER);
        if retry && self.lacks(within, on_disk).is_none() {
            self.accept();
        }
    }

    fn accept(&mut self) {
        let was_full = self.shared.full.lock().unwrap_or_else(PoisonError::into_inner).take();
        if was_full.is_some() {
            self.no_space = None;
            self.shared.inlet.set_full(false);
            tracing::info!("queue has room again: vehicles are accepted");
        }
    }

    /// After a change of the limits: whether there is room now is decided anew.
    pub(super) fn judge(&mut self) -> Result<(), WriterError> {
        self.plenty = None;
        self.housekeep()?;
        match self.make_room(0)? {
            Some(reason) => self.fill(reason),
            None => self.accept(),
        }
        Ok(())
    }

    /// How long gateways have run on this queue, in milliseconds. Ages are counted in it: no step of a clock, and no time
    /// in a drawer, makes a record older.
    pub(super) fn running(&self) -> u64 {
        self.ran_before + self.started.elapsed().as_millis() as u64
    }

    /// Drops what is older than `max_age`, a segment at a time, and a few of them each time.
    fn expire(&mut self) -> Result<(), WriterError> {
        let Some(max_age) = self.settings.max_age else {
            return Ok(());
        };
        let (now, max_age) = (self.running(), max_age.as_millis() as u64);
        // A segment that is filled slowly is ended, or its first records would stay for ever.
        if self
            .shared
            .segments
            .unsealed_since()
            .is_some_and(|began| now > began + max_age / 4)
        {
            self.shared.segments.seal()?;
        }
        let mut left = AT_ONCE;
        while left > 0
            && let Some((first, end, ended)) = self.shared.segments.oldest_ended(self.ran_before)
            && now > ended + max_age
        {
            self.shared.positions.drop_before(
                first,
                end,
                true,
                &self.shared.skipped,
                "they are older than queue.max_age",
            );
            let removed = self.remove_consumed(left)?;
            if removed.segments == 0 {
                break;
            }
            left -= removed.segments;
            self.release.soon(removed);
        }
        Ok(())
    }

    /// Moves destinations on that hold more than they may, a segment at a time.
    fn bound_backlogs(&mut self) {
        for (name, next, max_bytes) in self.shared.positions.bounded() {
            if let Some((first, end)) = self.shared.segments.excess(next, max_bytes) {
                let why = format!("it may hold {max_bytes} bytes (max_backlog)");
                self.shared
                    .positions
                    .drop_of(&name, first, end, &self.shared.skipped, &why);
            }
        }
    }

    /// Of a full queue even the open segment goes, once everybody has passed all of it.
    fn drain_open(&mut self) -> Result<(), WriterError> {
        let end = self.shared.segments.end();
        if self.shared.positions.oldest().is_some_and(|oldest| oldest >= end) {
            self.shared.segments.seal()?;
            self.save_cursors(self.next)?;
            self.shared.segments.remove_below(end, AT_ONCE)?;
        }
        Ok(())
    }

    /// Saves the cursors if they moved, then unlinks what every destination has passed, so many segments at most.
    pub(super) fn remove_consumed(&mut self, at_most: usize) -> Result<Removed, WriterError> {
        // Before they are saved: they may move on meanwhile, and only what is on the disk counts.
        let oldest = self.shared.positions.oldest();
        self.save_cursors(self.next)?;
        // At a start, before the destinations are known, nobody has passed anything.
        let Some(oldest) = oldest else {
            return Ok(Removed::default());
        };
        Ok(self.shared.segments.remove_below(oldest, at_most)?)
    }
}
