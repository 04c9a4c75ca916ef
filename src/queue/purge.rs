//! A vehicle's records are erased: every file that holds its VIN is written anew without them, and the old one goes.
//!
//! What stays keeps its number and its bytes. An erased record leaves its number, so that nobody takes it for lost. What
//! cannot be read is left as it is, and named.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use memchr::memmem;

use super::eraser::{Eraser, Which, open};
use super::meta::{BEGAN_UNKNOWN, Meta};
use super::quarantine::Quarantine;
use super::salvage::Salvage;
use super::segment::{OpenSegment, SealedSegment};
use super::segments::{Segments, SegmentsError};
use super::storage::{self, failed};
use super::{OrderError, Queue, Shared};

/// What was erased.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Purged {
    /// Records of the queue.
    pub records: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Records and dead letters in quarantine, as far as they could be read.
    pub quarantined: u64,
    /// Files that are gone whole: the VIN was in them, and nothing of another vehicle that could be read.
    pub removed: Vec<PathBuf>,
    /// Files that may hold the VIN still: they cannot be read, or other vehicles' records name it.
    pub left: Vec<PathBuf>,
}

/// Why not everything was erased.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// A search for nothing would find everything.
    #[error("the VIN is empty")]
    Empty,
    /// The open segment could not be ended.
    #[error("the open segment: {0}")]
    Order(#[from] OrderError),
    /// A file could not be written anew. It is as it was.
    #[error(transparent)]
    Segments(#[from] SegmentsError),
    /// The queue is closing. What was done is done whole, file by file.
    #[error("the gateway is stopping; repeat it when it runs again")]
    Stopping,
    /// The process is ending.
    #[error("given up: {0}")]
    Ended(#[from] tokio::task::JoinError),
}

impl Queue {
    /// Erases what the queue, the dead letters and the quarantine hold of a vehicle now. What is on its way to a
    /// destination already may still arrive there.
    pub async fn purge(&self, vin: &str) -> Result<Purged, PurgeError> {
        if vin.is_empty() {
            return Err(PurgeError::Empty);
        }
        self.seal().await?;
        let (shared, vin) = (Arc::clone(&self.0), vin.to_owned());
        tokio::task::spawn_blocking(move || shared.purge(&vin)).await?
    }
}

impl Shared {
    fn purge(&self, vin: &str) -> Result<Purged, PurgeError> {
        let _one_at_a_time = self.purging.lock().unwrap_or_else(PoisonError::into_inner);
        let finder = memmem::Finder::new(vin);
        let mut purged = Purged::default();
        let eraser = Eraser {
            queue: self.id,
            which: Which::Vehicle(vin, &finder),
        };
        let done = self.purge_with(&eraser, &mut purged);
        tracing::warn!(
            vin,
            records = purged.records,
            dead_letters = purged.dead_letters,
            quarantined = purged.quarantined,
            removed = ?purged.removed,
            left = ?purged.left,
            "vehicle purged"
        );
        done.map(|()| purged)
    }

    fn purge_with(&self, eraser: &Eraser<'_>, purged: &mut Purged) -> Result<(), PurgeError> {
        purged.records = self.erase(&self.segments, eraser, purged)?;
        self.tail().clear();
        purged.dead_letters = self.erase(&self.dead_letters, eraser, purged)?;
        let segments = &self.segments;
        let dir = segments.quarantine.dir();
        let disk = &*segments.disk;
        purged.quarantined = eraser.quarantine(disk, dir, &mut purged.removed, &mut purged.left)?;
        let above = dir.parent().unwrap_or(dir);
        for dir in [above, &segments.dir, &self.dead_letters.dir] {
            let there = disk.list(dir).map_err(failed("list", dir));
            for (path, is_file) in there.map_err(SegmentsError::from)? {
                if !Quarantine::is_beside(&path) {
                    continue;
                }
                let (removed, left) = (&mut purged.removed, &mut purged.left);
                purged.quarantined += match is_file {
                    true => eraser.set_aside(disk, &path, removed, left)?,
                    false => eraser.quarantine(disk, &path, removed, left)?,
                };
            }
        }
        Ok(())
    }

    /// Erases dead letters by their numbers. Returns how many.
    pub(super) fn erase_letters(&self, numbers: &BTreeSet<u64>) -> Result<u64, PurgeError> {
        let _one_at_a_time = self.purging.lock().unwrap_or_else(PoisonError::into_inner);
        let eraser = Eraser {
            queue: self.id,
            which: Which::Letters(numbers),
        };
        self.erase(&self.dead_letters, &eraser, &mut Purged::default())
    }

    fn erase(&self, segments: &Segments, eraser: &Eraser<'_>, purged: &mut Purged) -> Result<u64, PurgeError> {
        let mut erased = 0;
        for first in segments.sealed() {
            if self.closing.load(Ordering::Relaxed) {
                return Err(PurgeError::Stopping);
            }
            erased += segments.erase_in(first, eraser, purged)?;
        }
        Ok(erased)
    }
}

impl Segments {
    /// First numbers of the sealed segments.
    fn sealed(&self) -> Vec<u64> {
        let listed = self.lock();
        let open = listed.open.map(|(open, _)| open);
        let sealed = listed.segments.keys().copied();
        sealed.filter(|first| Some(*first) != open).collect()
    }

    fn erase_in(&self, first: u64, eraser: &Eraser<'_>, purged: &mut Purged) -> Result<u64, SegmentsError> {
        // Under another one's name it would look empty.
        while self.put_right(first)? {}
        let path = self.path(first);
        let Some(file) = open(&*self.disk, &path)? else {
            return Ok(0);
        };
        let numbers = first..self.sealed_end(first)?;
        match eraser.concerns(&*file, &numbers) {
            Some(true) => {}
            Some(false) => return Ok(0),
            None => {
                purged.left.push(path);
                return Ok(0);
            }
        }
        let salvage = Salvage::find(&*file, eraser.queue, numbers).map_err(failed("look through", &path))?;
        if salvage.is_partly_read() {
            purged.left.push(path);
            return Ok(0);
        }
        let Some(end) = salvage.end() else {
            self.remove_one(first)?;
            purged.removed.push(path);
            return Ok(0);
        };
        let unknown = Meta {
            queue: eraser.queue,
            first,
            follows: first,
            began: BEGAN_UNKNOWN,
        };
        let meta = SealedSegment::open(&*self.disk, &path).map_or(unknown, |sealed| sealed.meta);
        let temporary = path.with_extension("tmp");
        let made = OpenSegment::begin(&*self.disk, &temporary, meta)?;
        let written = eraser.rewrite(&made, &salvage, &*file, &path);
        let sealed = written.and_then(|erased| made.seal(&*self.disk, end).map(|()| erased));
        let replaced = sealed.map_err(SegmentsError::from).and_then(|erased| {
            // What is damaged in it may be another vehicle's, and is looked at by nobody who retries letters.
            let keeps = matches!(eraser.which, Which::Letters(_)) && !salvage.missing(first, end).is_empty();
            let replaced = self.replace(first, &temporary, keeps)?;
            Ok(erased.min(if replaced { u64::MAX } else { 0 }))
        });
        let erased = replaced.inspect_err(|_| {
            // It would take the space that is lacking. The next start removes it otherwise.
            if let Err(error) = self.disk.remove(&temporary) {
                tracing::debug!(%error, "an unfinished segment stays until the next start");
            }
        })?;
        if let Some(file) = open(&*self.disk, &path)?
            && eraser.is_named_in(&*file) != Some(false)
        {
            purged.left.push(path);
        }
        Ok(erased)
    }

    /// Puts a new file in the place of a segment's, and the old one into quarantine where it is to be kept. `false`: the
    /// segment is gone meanwhile, with all that was in it.
    pub(super) fn replace(&self, first: u64, temporary: &Path, keeps: bool) -> Result<bool, SegmentsError> {
        let used = storage::used(&*self.disk, temporary)?;
        let path = self.path(first);
        {
            // What a reader finds in the old file is not to be looked for in the new one.
            let _nobody_looks = self.salvaging.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody removes the old file, or sets it aside, between the look and the change.
            let mut listed = self.lock();
            if !listed.segments.contains_key(&first) {
                drop(listed);
                storage::remove(&*self.disk, temporary)?;
                return Ok(false);
            }
            let replaced = match keeps {
                true => self.disk.exchange(temporary, &path),
                false => self.disk.rename(temporary, &path),
            };
            replaced.map_err(failed("rename", temporary))?;
            listed.segments.insert(first, used);
            listed.damaged.remove(&first);
            listed.kept.remove(&first);
            listed.failures.remove(&first);
            listed.rewritten += 1;
        }
        storage::sync_dir(&*self.disk, &self.dir)?;
        if keeps {
            let reason = "damaged; what was intact in it is in another of its name";
            self.quarantine.take(temporary, reason, Some((first, None)))?;
        }
        self.quarantine.retract(&path);
        Ok(true)
    }

    pub(super) fn remove_one(&self, first: u64) -> Result<(), SegmentsError> {
        let bytes = self.lock().segments.remove(&first);
        if bytes.is_some() {
            let removed = storage::remove(&*self.disk, &self.path(first));
            removed.inspect_err(|_| self.lock().segments.extend(bytes.map(|bytes| (first, bytes))))?;
        }
        Ok(())
    }
}
