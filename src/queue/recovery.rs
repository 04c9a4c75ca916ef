//! What a start finds in a directory of segments: the newest is settled, or read by what is intact in it; what is no
//! segment is set aside.
//!
//! Nothing is deleted that may hold a record.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use super::journal;
use super::meta::{self, Meta};
use super::misplaced;
use super::quarantine::Quarantine;
use super::salvage::Salvage;
use super::sealed::{ATTEMPTS, Damaged};
use super::segment::{self, Chunk, OpenSegment, SealedSegment, SegmentError};
use super::segments::{Segments, SegmentsError};
use super::storage::{self, Disk, DiskFile, failed};
use crate::record::stored::QueueId;

/// Bytes of a journal that are copied at once.
const COPIED: usize = 256 << 10;

impl Segments {
    /// Takes stock of a directory: settles the segment that was open when the last process ended, sets aside what is
    /// no segment. Gives the queue id found in the newest one. Records before `committed` are known to be there.
    pub(crate) fn recover(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        quarantine: &Quarantine,
        expected: Option<QueueId>,
        committed: u64,
    ) -> Result<(Self, Option<QueueId>), SegmentsError> {
        quarantine.directory(dir)?;
        let this = Self {
            disk: Arc::clone(disk),
            dir: dir.to_owned(),
            identity: disk.identity(dir).ok(),
            quarantine: quarantine.clone(),
            listed: Mutex::default(),
            open: RwLock::new(None),
            queue: OnceLock::new(),
            salvaging: Mutex::default(),
            journal: Mutex::default(),
        };
        let mut found = BTreeMap::new();
        for (path, is_file) in disk.list(dir).map_err(failed("list", dir))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match meta::first_of(&name) {
                Some(first) if is_file => {
                    found.insert(first, path);
                }
                None if name == journal::NAME && is_file => {}
                // Never had a record: it is renamed before its first commit.
                _ if name.ends_with(".tmp") && is_file => storage::remove(&**disk, &path)?,
                _ => {
                    let reason = "not a segment of waystation";
                    let taken = match Quarantine::is_beside(&path) {
                        true => quarantine.take(&path, reason, None),
                        false => quarantine.take_away(&path, reason, None),
                    };
                    if let Err(error) = taken {
                        tracing::warn!(%error, "what is not a segment stays in its place: it cannot be set aside");
                    }
                }
            }
        }
        let mut queue = expected.or_else(|| queue_of(&**disk, &found));
        journal::settle(&**disk, dir);
        let journal = journal::look_through(&**disk, dir, queue, committed)?;
        queue = queue.or(journal.queue);
        // What is in the journal need not be in a segment.
        let mut committed = journal.records.reaches_back(committed);
        let mut end = None;
        // What a segment without a record said of itself.
        let mut empty = None;
        while let Some((first, path)) = found.pop_last() {
            let settled = match settle(&**disk, &path) {
                Ok((meta, _)) if queue.is_some_and(|queue| queue != meta.queue) => {
                    let reason = format!("belongs to queue {}", meta.queue);
                    quarantine.take_away(&path, &reason, None)?;
                    continue;
                }
                // Nothing is wrong with the file, or with this build's right to judge it: nothing is changed.
                Err(error @ SegmentError::Newer { .. }) => return Err(error.into()),
                Err(error) if is_passing(&error) => return Err(error.into()),
                settled => settled,
            };
            if settled.is_err()
                && let Some(meta) = misplaced::holds(&**disk, dir, first).filter(|meta| Some(meta.queue) == queue)
            {
                let there = found.contains_key(&meta.first);
                if !misplaced::is_itself(&**disk, dir, meta.first)
                    && misplaced::rename(&**disk, dir, first, meta.first, there)?
                {
                    storage::sync_dir(&**disk, dir)?;
                    found.insert(meta.first, dir.join(meta::file_name(meta.first)));
                    found.extend(there.then_some((first, path)));
                    continue;
                }
            }
            queue = queue.or(settled.as_ref().ok().map(|(meta, _)| meta.queue));
            if let Some(queue) = queue
                && let Some(saved) = this.save(first, &path, queue, &settled, committed)?
            {
                end = end.max(Some(saved));
                found.insert(first, path);
                break;
            }
            match settled {
                Ok((meta, settled)) if settled == meta.first => {
                    end = end.max(Some(meta.follows));
                    committed = committed.min(meta.follows);
                    empty = Some(meta);
                    storage::remove(&**disk, &path)?;
                }
                Ok((_, settled)) => {
                    end = end.max(Some(settled));
                    found.insert(first, path);
                    break;
                }
                Err(error) => quarantine.take_away(&path, &error.to_string(), Some((first, None)))?,
            }
        }
        if let Some(queue) = queue {
            this.queue.get_or_init(|| queue);
        }
        {
            let mut listed = this.lock();
            listed.end = end.unwrap_or_default();
            for (first, path) in &found {
                let used = storage::used(&**disk, path);
                // Whoever reads it tries again, and deals with it.
                let used = used.inspect_err(|error| tracing::warn!(%error, "the size of a segment is not known"));
                listed.segments.insert(*first, used.unwrap_or_default());
            }
            let found = found.iter().map(|(first, path)| (*first, path.as_path()));
            listed.kept.extend(quarantine.announced(found));
        }
        this.recover_journal(journal, empty)?;
        Ok((this, queue))
    }

    /// What is in the journal and in no segment becomes a segment of its own.
    fn recover_journal(&self, found: journal::Found, empty: Option<Meta>) -> Result<(), SegmentsError> {
        let (disk, path) = (&*self.disk, self.dir.join(journal::NAME));
        let set_aside = |reason: &str| self.quarantine.take_away(&path, reason, Some((self.end(), None)));
        if let Some(error) = found.error {
            return Ok(set_aside(&error.to_string())?);
        }
        let Some(file) = found.file else { return Ok(()) };
        let Some(queue) = self.queue.get() else {
            return Ok(set_aside("nothing says whose journal this is")?);
        };
        if let Some(other) = found.queue.filter(|other| other != queue) {
            let reason = format!("belongs to queue {other}");
            return Ok(self.quarantine.take_away(&path, &reason, None)?);
        }
        let hidden = self.hidden(&found.records);
        let found = found.records.beyond(self.end());
        let put_away = || match hidden {
            None if found.is_partly_read() => set_aside("not all of the journal can be read"),
            None => storage::remove(disk, &path),
            Some((lacks, last)) => {
                let reason = format!("a damaged segment has record {last} and lacks {lacks}, which is in here");
                self.quarantine.take_away(&path, &reason, Some((lacks, Some(last + 1))))
            }
        };
        let (Some(first), Some(end)) = (found.first(), found.end()) else {
            return Ok(put_away()?);
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
        match self.copy(&found, &*file, meta, end) {
            Ok(used) => {
                let mut listed = self.lock();
                listed.segments.insert(first, used);
                listed.end = end;
                drop(listed);
                tracing::info!(
                    from = first,
                    to = end - 1,
                    "records of the journal are in a segment now"
                );
                put_away()?;
            }
            // As it is it can be read too, and that takes no space.
            Err(error) if error.is_no_space() => {
                let segment = self.path(first);
                storage::rename(disk, &path, &segment)?;
                let used = storage::used(disk, &segment)?;
                let mut listed = self.lock();
                listed.segments.insert(first, used);
                listed.end = end;
                drop(listed);
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

    /// A number of the journal that the newest segment lacks, though it has later ones: damage. And its last one.
    fn hidden(&self, journal: &Salvage) -> Option<(u64, u64)> {
        let listed = self.lock();
        let (first, damaged) = listed.damaged.last_key_value()?;
        let missing = damaged.salvage.missing(*first, listed.end);
        let lacks = missing.into_iter().find_map(|numbers| journal.first_of(numbers))?;
        Some((lacks, listed.end.saturating_sub(1)))
    }

    /// Makes a segment of what is intact in a journal. Returns the bytes that it takes.
    fn copy(&self, found: &Salvage, file: &dyn DiskFile, meta: Meta, end: u64) -> Result<u64, SegmentsError> {
        let path = self.dir.join(journal::NAME);
        let temporary = path.with_extension("tmp");
        let made = OpenSegment::begin(&*self.disk, &temporary, meta)?;
        let mut at = meta.first;
        let mut write = || -> Result<(), SegmentsError> {
            while at < end {
                let chunks = found.read(file, at, COPIED).map_err(failed("read", &path))?;
                let chunks: Vec<_> = chunks.into_iter().map(|raw| Chunk::from(raw).starting_at(at)).collect();
                at = chunks.last().map_or(end, |last| last.end);
                made.append(&chunks)?;
            }
            Ok(())
        };
        if let Err(error) = write() {
            made.undo(&*self.disk);
            return Err(error);
        }
        made.seal(&*self.disk, end)?;
        let used = storage::used(&*self.disk, &temporary)?;
        storage::rename(&*self.disk, &temporary, &self.path(meta.first))?;
        Ok(used)
    }

    /// Looks for what is intact in the newest segment, if it cannot be settled or lacks what was committed. Returns one
    /// more than the last number, if the segment is to be read that way.
    fn save(
        &self,
        first: u64,
        path: &Path,
        queue: QueueId,
        settled: &Result<(Meta, u64), SegmentError>,
        committed: u64,
    ) -> Result<Option<u64>, SegmentsError> {
        let (meta, reason, at_least) = match settled {
            Ok((_, end)) if *end >= committed => return Ok(None),
            Ok((meta, end)) => (Some(*meta), format!("its rows end before record {end}"), *end),
            Err(error) => (None, error.to_string(), first),
        };
        // What was a journal once ends with its last whole commit: nothing behind that was acknowledged.
        let bound = journal::bound(&*self.disk, path, queue).map(|end| end.max(committed));
        let salvage = Salvage::of(&*self.disk, path, queue, first..bound.unwrap_or(u64::MAX))?;
        let Some(end) = salvage.end().filter(|end| *end > at_least) else {
            return Ok(None);
        };
        let meta = meta.or_else(|| SealedSegment::open(&*self.disk, path).ok().map(|sealed| sealed.meta));
        let meta = meta.filter(|meta| meta.first == first);
        self.go_on_with(first, end, Damaged { salvage, meta }, &reason);
        Ok(Some(end))
    }
}

/// The queue of the newest segment that says it.
fn queue_of(disk: &dyn Disk, found: &BTreeMap<u64, PathBuf>) -> Option<QueueId> {
    let mut newest_first = found.values().rev();
    newest_first.find_map(|path| Some(SealedSegment::open(disk, path).ok()?.meta.queue))
}

/// A segment that cannot be read is read again before it is given up: a card has its moments.
fn settle(disk: &dyn Disk, path: &Path) -> Result<(Meta, u64), SegmentError> {
    for _ in 1..ATTEMPTS {
        match segment::settle(disk, path) {
            Err(error) if error.io().is_some() && !is_passing(&error) => {
                tracing::warn!(%error, "cannot read the newest segment, trying again");
            }
            other => return other,
        }
    }
    segment::settle(disk, path)
}

/// An error that may pass by itself: nothing is wrong with the segment.
pub(super) fn is_passing(error: &SegmentError) -> bool {
    error.io().is_some_and(may_pass)
}

/// An error that says nothing about what is in the file. A file that somebody else made can be opened once it is given to
/// the user that the gateway runs as; until then nothing in it counts as lost.
pub(super) fn may_pass(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let passing = [
        Errno::ACCESS,
        Errno::PERM,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOSPC,
        Errno::DQUOT,
        Errno::INTR,
        Errno::ROFS,
    ];
    Errno::from_io_error(error).is_some_and(|errno| passing.contains(&errno))
}
