//! The disk as the operating system shows it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, FlockOperation, RenameFlags, renameat_with};

use super::recovery::may_pass;
use super::storage::{Access, Disk, DiskFile, StorageError, failed};

/// The lock file's name.
const LOCK: &str = "lock";

/// The operating system's file system.
#[derive(Debug)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => return Ok(()),
            // Where nobody can say what is there, nothing is made in its place.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let above = path.parent().filter(|above| !above.as_os_str().is_empty());
        if let Some(above) = above {
            self.create_dir(above)?;
        }
        match fs::create_dir(path) {
            // Somebody else was quicker.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
            made => made?,
        }
        give_to_owner(path, above);
        self.sync_dir(above.unwrap_or(Path::new(".")))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(PathBuf, bool)>> {
        fs::read_dir(dir)?
            .map(|entry| {
                let entry = entry?;
                let path = entry.path();
                let is_file = match entry.file_type() {
                    Ok(kind) if kind.is_symlink() => is_file(fs::metadata(&path)),
                    kind => kind.map_or(true, |kind| kind.is_file()),
                };
                Ok((path, is_file))
            })
            .collect()
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let file = File::options()
            .read(true)
            .write(access != Access::Read)
            .create(access == Access::Create)
            .truncate(access == Access::Create)
            .open(path)?;
        if access == Access::Create {
            give_to_owner(path, path.parent());
        }
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn identity(&self, dir: &Path) -> io::Result<(u64, u64)> {
        let found = fs::metadata(dir)?;
        Ok((found.dev(), found.ino()))
    }

    fn free(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// What root makes in another user's queue, with a command for instance, is that user's: its gateway has to open it.
fn give_to_owner(path: &Path, dir: Option<&Path>) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = dir.filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let given = fs::metadata(dir).and_then(|dir| match dir.uid() {
        0 => Ok(()),
        owner => std::os::unix::fs::lchown(path, Some(owner), Some(dir.gid())),
    });
    if let Err(error) = given {
        tracing::warn!(%error, file = %path.display(), "cannot be given to the user whose folder it is in");
    }
}

/// A disk that does not say what something is says nothing about what is in it: whoever opens it finds out.
fn is_file(asked: io::Result<fs::Metadata>) -> bool {
    match asked {
        Ok(metadata) => metadata.is_file(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn used(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.blocks() * 512)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn forget(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed)?)
    }
}

/// What keeps a second daemon out of a queue directory: its lock file and the directory itself, because a file can be
/// removed by whoever thinks that it is in the way.
pub(crate) struct Lock {
    _file: Option<File>,
    _dir: File,
}

/// Takes both, or neither.
pub(crate) fn lock(dir: &Path) -> Result<Lock, StorageError> {
    let path = dir.join(LOCK);
    let new = !path.exists();
    let opened = File::options().create(true).truncate(false).write(true).open(&path);
    if new && opened.is_ok() {
        give_to_owner(&path, Some(dir));
    }
    // Whatever lies there can be locked.
    let file = match opened.or_else(|_| File::open(&path)) {
        Ok(file) => Some(file),
        Err(error) if may_pass(&error) => return Err(failed("open", &path)(error)),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "the lock file cannot be opened: only the directory is locked");
            None
        }
    };
    if let Some(file) = &file {
        flock(file, FlockOperation::NonBlockingLockExclusive).map_err(failed("lock", &path))?;
    }
    let above = File::open(dir).map_err(failed("open", dir))?;
    match flock(&above, FlockOperation::NonBlockingLockExclusive) {
        // Not every file system locks directories.
        Err(error) if file.is_some() && error.kind() != io::ErrorKind::WouldBlock => {
            tracing::debug!(%error, "the queue's directory cannot be locked, its lock file is");
        }
        locked => locked.map_err(failed("lock", dir))?,
    }
    Ok(Lock {
        _file: file,
        _dir: above,
    })
}

/// Whether a process holds one of them. What is not there is held by nobody.
pub(crate) fn is_locked(dir: &Path) -> Result<bool, StorageError> {
    for path in [dir.to_owned(), dir.join(LOCK)] {
        let looked = File::open(&path).and_then(|file| flock(&file, FlockOperation::NonBlockingLockShared));
        match looked.map_err(|error| (error.kind(), error)) {
            Err((io::ErrorKind::WouldBlock, _)) => return Ok(true),
            Ok(()) | Err((io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, _)) => {}
            // Not every file system locks directories.
            Err(_) if path == dir => {}
            Err((_, error)) => return Err(failed("open", &path)(error)),
        }
    }
    Ok(false)
}

fn flock(file: &File, operation: FlockOperation) -> io::Result<()> {
    Ok(rustix::fs::flock(file, operation)?)
}
