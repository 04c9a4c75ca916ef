//! What a start finds in a directory of segments: the newest is settled, or read by what is intact in it; what is no
//! segment is set aside.
//!
//! Nothing is deleted that may hold a record.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use super::journal;
use super::meta::{self, Meta};
use super::misplaced;
use super::quarantine::Quarantine;
use super::salvage::Salvage;
use super::sealed::{ATTEMPTS, Damaged};
use super::segment::{self, SealedSegment, SegmentError};
use super::segments::{Segments, SegmentsError};
use super::storage::{self, Disk, failed};
use crate::record::stored::QueueId;

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
            has_no_journal: AtomicBool::new(false),
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
                _ if name.ends_with(".tmp") && is_file => {
                    if let Err(error) = storage::remove(&**disk, &path) {
                        tracing::warn!(%error, "an unfinished file stays in its place");
                    }
                }
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
                    quarantine.take_away_or_leave(&path, &reason, None)?;
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
                Err(error) => {
                    quarantine.take_away_or_leave(&path, &error.to_string(), Some((first, None)))?;
                }
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
        this.replay(journal, empty)?;
        Ok((this, queue))
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
