//! What the queue asks of the file system: the operations whose order decides what a power cut leaves behind.
//!
//! Every rename and unlink here is followed by a sync of its directory before the call returns.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

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

/// Names the action and the file in an error.
pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| StorageError { action, path, source }
}

pub(crate) fn create_dir(path: &Path) -> Result<(), StorageError> {
    fs::create_dir_all(path).map_err(failed("create", path))
}

pub(crate) fn sync_dir(path: &Path) -> Result<(), StorageError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("sync", path))
}

/// Renames, then syncs both directories.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), StorageError> {
    fs::rename(from, to).map_err(failed("rename", from))?;
    let (old, new) = (from.parent(), to.parent());
    if let Some(new) = new {
        sync_dir(new)?;
    }
    if let Some(old) = old.filter(|_| old != new) {
        sync_dir(old)?;
    }
    Ok(())
}

/// Unlinks, then syncs the directory.
pub(crate) fn remove(path: &Path) -> Result<(), StorageError> {
    fs::remove_file(path).map_err(failed("remove", path))?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Puts what the kernel still holds of a file on the disk, then drops it from the page cache, so that the next read
/// shows what the disk has. After a failed fsync the cache may call pages clean that never reached it.
pub(crate) fn flush_and_forget(path: &Path) -> Result<(), StorageError> {
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(failed("open", path))?;
    file.sync_all().map_err(failed("sync", path))?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
        .map_err(|errno| failed("drop the cache of", path)(errno.into()))
}

/// Bytes that a file takes on the disk. redb preallocates sparse files, so the length says nothing.
pub(crate) fn disk_bytes(path: &Path) -> Result<u64, StorageError> {
    Ok(fs::metadata(path).map_err(failed("stat", path))?.blocks() * 512)
}

/// Takes the lock file that keeps a second daemon out of a queue directory.
pub(crate) fn lock(path: &Path) -> Result<File, StorageError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(failed("open", path))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(failed("lock", path))?;
    Ok(file)
}

/// Whether a process holds the lock file. One that is not there is held by nobody.
pub(crate) fn is_locked(path: &Path) -> Result<bool, StorageError> {
    match File::options()
        .write(true)
        .open(path)
        .and_then(|file| flock(&file, FlockOperation::NonBlockingLockShared))
    {
        Ok(()) => Ok(false),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => Ok(true),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(false),
            _ => Err(failed("open", path)(error)),
        },
    }
}

fn flock(file: &File, operation: FlockOperation) -> io::Result<()> {
    Ok(rustix::fs::flock(file, operation)?)
}
