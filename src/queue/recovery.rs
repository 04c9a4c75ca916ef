//! What a start finds in a directory of segments: the newest is settled, what is no segment is set aside.
//!
//! Nothing is deleted that may hold a record.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

use super::meta::{self, Meta};
use super::quarantine::Quarantine;
use super::segment::{self, SegmentError};
use super::segments::{ATTEMPTS, Segments, SegmentsError};
use super::storage::{self, Disk, failed};
use crate::record::stored::QueueId;

impl Segments {
    /// Takes stock of a directory: settles the segment that was open when the last process ended, sets aside what is
    /// no segment. Gives the queue id found in the newest one.
    pub(crate) fn recover(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        quarantine: &Quarantine,
        expected: Option<QueueId>,
    ) -> Result<(Self, Option<QueueId>), SegmentsError> {
        quarantine.directory(dir)?;
        let this = Self {
            disk: Arc::clone(disk),
            dir: dir.to_owned(),
            quarantine: quarantine.clone(),
            listed: Mutex::default(),
            open: RwLock::new(None),
        };
        let mut found = BTreeMap::new();
        for (path, is_file) in disk.list(dir).map_err(failed("list", dir))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match meta::first_of(&name) {
                Some(first) if is_file => {
                    found.insert(first, path);
                }
                // Never had a record: it is renamed before its first commit.
                _ if name.ends_with(".tmp") && is_file => storage::remove(&**disk, &path)?,
                _ => quarantine.take(&path, "not a segment of waystation", None)?,
            }
        }
        let mut queue = expected;
        let mut end = None;
        while let Some((first, path)) = found.pop_last() {
            match settle(&**disk, &path) {
                Ok((meta, _)) if expected.is_some_and(|expected| expected != meta.queue) => {
                    let reason = format!("belongs to queue {}", meta.queue);
                    quarantine.take(&path, &reason, None)?;
                }
                Ok((meta, settled)) if settled == meta.first => {
                    queue = queue.or(Some(meta.queue));
                    end = end.max(Some(meta.follows));
                    storage::remove(&**disk, &path)?;
                }
                Ok((meta, settled)) => {
                    queue = queue.or(Some(meta.queue));
                    end = end.max(Some(settled));
                    found.insert(first, path);
                    break;
                }
                // Nothing is wrong with the file, or with this build's right to judge it: nothing is changed.
                Err(error @ SegmentError::Newer { .. }) => return Err(error.into()),
                Err(error) if is_passing(&error) => return Err(error.into()),
                Err(error) => quarantine.take(&path, &error.to_string(), Some((first, None)))?,
            }
        }
        {
            let mut listed = this.lock();
            listed.end = end.unwrap_or_default();
            for (first, path) in &found {
                listed.segments.insert(*first, storage::used(&**disk, path)?);
            }
        }
        Ok((this, queue))
    }
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

/// An error that says nothing about the file.
pub(super) fn may_pass(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let passing = [
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
