//! What the queue asks of the file system: the seam at which tests cut the power and make operations fail.
//!
//! Every rename and unlink here is followed by a sync of its directory before the call returns.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file operation that failed: what was tried, on which file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct StorageError {
    /// What was tried, as a verb: `create`, `rename`, `sync`.
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl StorageError {
    /// Whether the disk, or our share of it, has no room.
    pub(crate) fn is_no_space(&self) -> bool {
        is_no_space(&self.source)
    }
}

/// Whether the disk, or our share of it, has no room.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It is there, and only read.
    Read,
    /// It is there.
    Write,
    /// It is made, or emptied.
    Create,
}

/// A file system. Nothing is durable before it is synced: a file's content by the file's `sync`, its name by
/// `sync_dir`.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Makes a directory, unless it is there, and those above it; their names are durable when this returns.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// What is in a directory: paths, and whether each is a file.
    fn list(&self, dir: &Path) -> io::Result<Vec<(PathBuf, bool)>>;
    /// Opens a file.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Two files of one directory exchange their names, both or neither.
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()>;
    /// Unlinks a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Which directory is under this name: another one has another.
    fn identity(&self, dir: &Path) -> io::Result<(u64, u64)>;
    /// Bytes that can still be written to the file system of a directory.
    fn free(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file.
pub trait DiskFile: Debug + Send + Sync + 'static {
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Bytes that it takes on the disk. redb preallocates sparse files, so the length says nothing.
    fn used(&self) -> io::Result<u64>;
    /// Fills a buffer from a position on.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of a buffer at a position.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts it, or lengthens it with zeros.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Makes its content durable.
    fn sync(&self) -> io::Result<()>;
    /// Drops what memory holds of it, so that the next read shows what the disk has. After a failed sync the page
    /// cache may call pages clean that never reached the disk.
    fn forget(&self) -> io::Result<()>;
}

/// Names the action and the file in an error.
pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| StorageError { action, path, source }
}

pub(crate) fn create_dir(disk: &dyn Disk, path: &Path) -> Result<(), StorageError> {
    disk.create_dir(path).map_err(failed("create", path))
}

pub(crate) fn sync_dir(disk: &dyn Disk, path: &Path) -> Result<(), StorageError> {
    disk.sync_dir(path).map_err(failed("sync", path))
}

/// Renames, then syncs both directories.
pub(crate) fn rename(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), StorageError> {
    disk.rename(from, to).map_err(failed("rename", from))?;
    let (old, new) = (from.parent(), to.parent());
    if let Some(new) = new {
        sync_dir(disk, new)?;
    }
    if let Some(old) = old.filter(|_| old != new) {
        sync_dir(disk, old)?;
    }
    Ok(())
}

/// Unlinks, then syncs the directory.
pub(crate) fn remove(disk: &dyn Disk, path: &Path) -> Result<(), StorageError> {
    disk.remove(path).map_err(failed("remove", path))?;
    path.parent().map_or(Ok(()), |dir| sync_dir(disk, dir))
}

/// Opens a file that may hold what never reached the disk, and shows what did.
pub(crate) fn open_after_crash(
    disk: &dyn Disk,
    path: &Path,
    access: Access,
) -> Result<Arc<dyn DiskFile>, StorageError> {
    let file = disk.open(path, access).map_err(failed("open", path))?;
    file.sync().map_err(failed("sync", path))?;
    file.forget().map_err(failed("drop the cache of", path))?;
    Ok(file)
}

pub(crate) fn used(disk: &dyn Disk, path: &Path) -> Result<u64, StorageError> {
    disk.open(path, Access::Read)
        .and_then(|file| file.used())
        .map_err(failed("stat", path))
}
