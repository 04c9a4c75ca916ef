//! What a start finds, and what cannot be used: the newest segment is settled, what is no segment is set aside.
//!
//! Nothing is ever deleted that may hold a record: it is moved to `quarantine/`, with a note, and its numbers are logged
//! as lost.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use super::segment::{self, Meta, SegmentError};
use super::segments::{ATTEMPTS, Segments, SegmentsError};
use super::storage::{self, Access, Disk, failed};
use crate::record::stored::QueueId;

impl Segments {
    /// Takes stock of a directory: settles the segment that was open when the last process ended, sets aside what is
    /// no segment. Gives the queue id found in the newest one.
    pub(crate) fn recover(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        quarantine: &Path,
        expected: Option<QueueId>,
    ) -> Result<(Self, Option<QueueId>), SegmentsError> {
        storage::create_dir(&**disk, dir)?;
        let this = Self {
            disk: Arc::clone(disk),
            dir: dir.to_owned(),
            quarantine: quarantine.to_owned(),
            listed: Mutex::default(),
            open: RwLock::new(None),
        };
        let mut found = BTreeMap::new();
        for (path, is_file) in disk.list(dir).map_err(failed("list", dir))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match segment::first_of(&name) {
                Some(first) if is_file => {
                    found.insert(first, path);
                }
                // Never had a record: it is renamed before its first commit.
                _ if name.ends_with(".tmp") && is_file => storage::remove(&**disk, &path)?,
                _ => this.set_aside(&path, "not a segment of waystation", None)?,
            }
        }
        let mut queue = expected;
        let mut end = None;
        while let Some((first, path)) = found.pop_last() {
            match settle(&**disk, &path) {
                Ok((meta, _)) if expected.is_some_and(|expected| expected != meta.queue) => {
                    let reason = format!("belongs to queue {}", meta.queue);
                    this.set_aside(&path, &reason, None)?;
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
                Err(error) => this.set_aside(&path, &error.to_string(), Some((first, None)))?,
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

    /// Moves what cannot be used to `quarantine/`, with a note beside it.
    pub(super) fn set_aside(
        &self,
        path: &Path,
        reason: &str,
        lost: Option<(u64, Option<u64>)>,
    ) -> Result<(), SegmentsError> {
        storage::create_dir(&*self.disk, &self.quarantine)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        let target = self.quarantine.join(format!("{name}.{now}"));
        let numbers = match lost {
            Some((first, Some(end))) => format!("records {first} to {} are missing", end.saturating_sub(1)),
            Some((first, None)) => format!("records from {first} on are missing"),
            None => "no record is missing".to_owned(),
        };
        match lost {
            Some(_) => {
                tracing::error!(file = %path.display(), moved_to = %target.display(), reason, "segment set aside: {numbers}")
            }
            None => {
                tracing::warn!(file = %path.display(), moved_to = %target.display(), reason, "file set aside: {numbers}")
            }
        }
        match storage::rename(&*self.disk, path, &target) {
            Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        }
        let note = self.quarantine.join(format!("{name}.{now}.txt"));
        let text = format!("{reason}\n{numbers}\n");
        // The log has said the same.
        let written = self.disk.open(&note, Access::Create);
        if let Err(error) = written.and_then(|file| file.write_at(text.as_bytes(), 0)) {
            tracing::warn!(%error, note = %note.display(), "cannot write the note beside it");
        }
        Ok(())
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
    use rustix::io::Errno;
    let passing = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOSPC,
        Errno::DQUOT,
        Errno::INTR,
        // Nothing is wrong with the file, only with our right to it.
        Errno::ACCESS,
        Errno::PERM,
        Errno::ROFS,
    ];
    error
        .io()
        .and_then(Errno::from_io_error)
        .is_some_and(|errno| passing.contains(&errno))
}
