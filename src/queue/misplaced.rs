//! Segments under each other's names: a file says what it holds, and gets its own name back.
//!
//! A name is taken from nothing that is under its own.

use std::path::Path;

use super::meta::{Meta, file_name};
use super::segment::SealedSegment;
use super::segments::Segments;
use super::storage::{self, Disk, StorageError, failed};

/// What the file of the segment `first` holds, if that is another segment's.
pub(super) fn holds(disk: &dyn Disk, dir: &Path, first: u64) -> Option<Meta> {
    let sealed = SealedSegment::open(disk, &dir.join(file_name(first))).ok()?;
    Some(sealed.meta).filter(|meta| meta.first != first)
}

/// Whether the file of a segment is there and holds that segment.
pub(super) fn is_itself(disk: &dyn Disk, dir: &Path, first: u64) -> bool {
    SealedSegment::open(disk, &dir.join(file_name(first))).is_ok_and(|sealed| sealed.meta.first == first)
}

/// Gives the file of the segment `first` the name of the one that it `holds`. When a file is `there` under that, they
/// exchange their names; it must not have the right to it.
pub(super) fn rename(disk: &dyn Disk, dir: &Path, first: u64, holds: u64, there: bool) -> Result<bool, StorageError> {
    let (path, own) = (dir.join(file_name(first)), dir.join(file_name(holds)));
    if !there {
        disk.rename(&path, &own).map_err(failed("rename", &path))?;
    } else if let Err(error) = disk.exchange(&path, &own) {
        // Not every file system can.
        tracing::warn!(%error, segment = %path.display(), "segments are under each other's names, and stay so");
        return Ok(false);
    }
    tracing::warn!(segment = %path.display(), "it held records from {holds} on, and has the name for that now");
    Ok(true)
}

impl Segments {
    /// Puts the file of a sealed segment right, if it holds another one's. `true`: look again.
    pub(super) fn put_right(&self, first: u64) -> Result<bool, StorageError> {
        let meta = holds(&*self.disk, &self.dir, first);
        let Some(meta) = meta.filter(|meta| self.queue.get() == Some(&meta.queue)) else {
            return Ok(false);
        };
        if is_itself(&*self.disk, &self.dir, meta.first) {
            return Ok(false);
        }
        {
            // Nobody may remove one of the two meanwhile.
            let mut listed = self.lock();
            let there = listed.segments.contains_key(&meta.first);
            if !listed.segments.contains_key(&first) || listed.open.is_some_and(|(open, _)| open == meta.first) {
                return Ok(false);
            }
            if !rename(&*self.disk, &self.dir, first, meta.first, there)? {
                return Ok(false);
            }
            let (bytes, others) = (listed.segments.remove(&first), listed.segments.remove(&meta.first));
            listed.segments.extend(bytes.map(|bytes| (meta.first, bytes)));
            listed.segments.extend(others.map(|bytes| (first, bytes)));
            for number in [first, meta.first] {
                listed.damaged.remove(&number);
                listed.failures.remove(&number);
            }
            listed.rewritten += 1;
        }
        storage::sync_dir(&*self.disk, &self.dir)?;
        Ok(true)
    }
}
