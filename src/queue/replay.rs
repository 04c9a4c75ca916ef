//! What a start finds in the journal goes into a segment.
//!
//! Invariant: the journal is there until the segment with its records is on the disk under its name.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::copies::Source;
use super::journal;
use super::meta::{self, Meta};
use super::sealed::Damaged;
use super::segments::{Segments, SegmentsError};
use super::storage::{self, Access, failed};
use crate::record::stored::QueueId;

impl Segments {
    /// Puts what is in the journal and in no segment into one. `empty` is what a segment without a record said of itself.
    pub(super) fn replay(&self, found: journal::Found, empty: Option<Meta>) -> Result<(), SegmentsError> {
        let (disk, path) = (&*self.disk, self.dir.join(journal::NAME));
        let take_away = |reason: &str, numbers: Option<(u64, Option<u64>)>| -> Result<(), SegmentsError> {
            if !self.quarantine.take_away_or_leave(&path, reason, numbers)? {
                // Under its name nothing can be made.
                self.has_no_journal.store(true, Ordering::Relaxed);
            }
            Ok(())
        };
        let set_aside = |reason: &str| take_away(reason, Some((self.end(), None)));
        if let Some(error) = found.error {
            return set_aside(&error.to_string());
        }
        let Some(file) = found.file else { return Ok(()) };
        let Some(queue) = self.queue.get() else {
            return set_aside("nothing says whose journal this is");
        };
        if let Some(other) = found.queue.filter(|other| other != queue) {
            return take_away(&format!("belongs to queue {other}"), None);
        }
        let journal = Source {
            frames: &found.records,
            file: &*file,
        };
        let lacks = self.lacking(&journal, *queue)?;
        let found = found.records.beyond(self.end());
        let put_away = || match lacks {
            None if found.is_partly_read() => set_aside("not all of the journal can be read"),
            None => Ok(storage::remove(disk, &path)?),
            Some(lacks) => {
                let reason = format!("a damaged segment has later records and lacks {lacks}, which is in here");
                take_away(&reason, Some((lacks, Some(self.end()))))
            }
        };
        let (Some(first), Some(end)) = (found.first(), found.end()) else {
            return put_away();
        };
        let first = first.max(self.end());
        // Numbers that it lacks are lost, unless they were passed over.
        let passed_over = empty.filter(|meta| meta.first == first);
        let meta = Meta {
            queue: *queue,
            first,
            follows: passed_over.map_or(first, |meta| meta.follows),
            began: meta::BEGAN_UNKNOWN,
        };
        let journal = Source {
            frames: &found,
            file: &*file,
        };
        match self.copy(&[journal], meta, end) {
            Ok(copy) => {
                storage::rename(disk, &copy, &self.path(first))?;
                self.list(first, end)?;
                tracing::info!(
                    from = first,
                    to = end - 1,
                    "records of the journal are in a segment now"
                );
                put_away()?;
            }
            // As it is it can be read too, and that takes no space.
            Err(error) if error.is_no_space() => {
                storage::rename(disk, &path, &self.path(first))?;
                self.list(first, end)?;
                let damaged = Damaged {
                    salvage: found,
                    meta: Some(meta),
                };
                self.go_on_with(first, end, damaged, &format!("it was the journal: {error}"));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The first number of the journal that the newest segment lacks though it has later ones, which is damage. Where there
    /// is room, one takes its place with what is intact in both, and nothing is lacking.
    fn lacking(&self, journal: &Source<'_>, queue: QueueId) -> Result<Option<u64>, SegmentsError> {
        let newest = {
            let listed = self.lock();
            let newest = listed.damaged.last_key_value();
            newest.map(|(first, damaged)| (*first, Arc::clone(damaged)))
        };
        let Some((first, damaged)) = newest else {
            return Ok(None);
        };
        let mut missing = damaged.salvage.missing(first, self.end()).into_iter();
        let Some(lacks) = missing.find_map(|numbers| journal.frames.first_of(numbers)) else {
            return Ok(None);
        };
        let path = self.path(first);
        let end = journal.frames.end().unwrap_or_default().max(self.end());
        let meta = damaged.meta.unwrap_or(Meta {
            queue,
            first,
            follows: first,
            began: meta::BEGAN_UNKNOWN,
        });
        let segment = self.disk.open(&path, Access::Read).map_err(failed("open", &path));
        let copied = segment.map_err(SegmentsError::from).and_then(|file| {
            let segment = Source {
                frames: &damaged.salvage,
                file: &*file,
            };
            self.copy(&[*journal, segment], meta, end)
        });
        let copy = match copied {
            Ok(copy) => copy,
            Err(error) => {
                tracing::warn!(%error, "what a damaged segment lacks and the journal has cannot be put together");
                return Ok(Some(lacks));
            }
        };
        // If the power goes here, the journal is still there; what only this one has is in the quarantine.
        let reason = "damaged; what is intact in it is in another of its name, with what the journal has";
        self.quarantine
            .take_away(&path, reason, Some((first, Some(self.end()))))?;
        self.quarantine.retract(&path);
        storage::rename(&*self.disk, &copy, &path)?;
        self.list(first, end)?;
        tracing::info!(
            from = first,
            to = end - 1,
            "what a damaged segment lacked is in it now: the journal had it"
        );
        Ok(None)
    }

    /// A newest segment that has its name now.
    fn list(&self, first: u64, end: u64) -> Result<(), SegmentsError> {
        let used = storage::used(&*self.disk, &self.path(first))?;
        let mut listed = self.lock();
        listed.segments.insert(first, used);
        listed.end = end;
        listed.damaged.remove(&first);
        listed.kept.remove(&first);
        Ok(())
    }
}
