//! `quarantine/`: what cannot be used, kept for a person to look at, each with a note.
//!
//! Nothing is ever deleted that may hold a record, and nothing that lies in the way keeps the daemon from starting.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::recovery::may_pass;
use super::storage::{self, Access, Disk, StorageError, failed};

/// Part of the name of what stayed beside the others.
const BESIDE: &str = ".aside.";

#[derive(Clone)]
pub(crate) struct Quarantine {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl Quarantine {
    pub(crate) fn new(disk: &Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self {
            disk: Arc::clone(disk),
            dir,
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes a directory; what lies under its name and is none is moved away.
    pub(crate) fn directory(&self, path: &Path) -> Result<(), StorageError> {
        match storage::create_dir(&*self.disk, path) {
            Err(error) if error.source.kind() == ErrorKind::AlreadyExists => {
                self.take_away(path, "not a directory", None)?;
                storage::create_dir(&*self.disk, path)
            }
            other => other,
        }
    }

    /// Moves a file or directory here. `lost` are the numbers of the records in it, as far as they are known.
    pub(crate) fn take(&self, path: &Path, reason: &str, lost: Option<(u64, Option<u64>)>) -> Result<(), StorageError> {
        self.directory(&self.dir)?;
        let target = self.free_name(path);
        if !self.rename(path, &target, reason, lost)? {
            return Ok(());
        }
        let mut note = target.into_os_string();
        note.push(".txt");
        self.write(Path::new(&note), &format!("{reason}\n{}\n", numbers(path, lost)));
        Ok(())
    }

    /// The same for what lies in the way of a start or of delivery. Where it cannot be moved here, on a full disk, it stays
    /// beside the others under a name that is nobody's.
    pub(crate) fn take_away(
        &self,
        path: &Path,
        reason: &str,
        lost: Option<(u64, Option<u64>)>,
    ) -> Result<(), StorageError> {
        // Nothing is in the way: nothing has to be made for it. Not by opening it: a pipe would wait for a writer.
        let above = path.parent().unwrap_or(Path::new("."));
        if self
            .disk
            .list(above)
            .is_ok_and(|there| there.iter().all(|(found, _)| found != path))
        {
            return Ok(());
        }
        let taken = match path == self.dir {
            true => Err(failed("create", path)(ErrorKind::AlreadyExists.into())),
            false => self.take(path, reason, lost),
        };
        taken.or_else(|error| {
            tracing::warn!(%error, "what is set aside stays beside the others, under another name");
            match self.rename(path, &self.beside(path), reason, lost)? {
                true => Ok(()),
                // It is gone from its place, and whether that is durable nobody knows.
                false => Err(error),
            }
        })
    }

    /// The same for what may stay in its place when not even that can be done, as a damaged file system has it. Returns
    /// whether it is gone.
    pub(crate) fn take_away_or_leave(
        &self,
        path: &Path,
        reason: &str,
        lost: Option<(u64, Option<u64>)>,
    ) -> Result<bool, StorageError> {
        match self.take_away(path, reason, lost) {
            Err(error) if !may_pass(&error.source) => {
                let numbers = numbers(path, lost);
                tracing::error!(file = %path.display(), reason, %error,
                    "stays in its place unused, for it cannot be set aside: {numbers}; stop the gateway and let fsck look at the disk");
                Ok(false)
            }
            taken => taken.map(|()| true),
        }
    }

    /// Whether a file stayed beside the others.
    pub(crate) fn is_beside(path: &Path) -> bool {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().contains(BESIDE))
    }

    /// Whether there was something.
    fn rename(
        &self,
        path: &Path,
        target: &Path,
        reason: &str,
        lost: Option<(u64, Option<u64>)>,
    ) -> Result<bool, StorageError> {
        match storage::rename(&*self.disk, path, target) {
            Err(error) if error.source.kind() == ErrorKind::NotFound => return Ok(false),
            renamed => renamed?,
        }
        let numbers = numbers(path, lost);
        let (file, moved_to) = (path.display(), target.display());
        match lost {
            // How far it went is known to nobody.
            Some((_, None)) => tracing::error!(%file, %moved_to, reason, "set aside: {numbers}"),
            // Which records are lost is said by whoever misses them.
            _ => tracing::warn!(%file, %moved_to, reason, "set aside: {numbers}"),
        }
        Ok(true)
    }

    /// Where a file goes: nothing that is here already is written over.
    fn free_name(&self, path: &Path) -> PathBuf {
        self.free(&self.dir, &label(path))
    }

    /// Where a file goes that cannot go here. In a directory of segments, the next start finds that it is none.
    fn beside(&self, path: &Path) -> PathBuf {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.free(
            path.parent().unwrap_or(Path::new(".")),
            &format!("{name}{}", BESIDE.trim_end_matches('.')),
        )
    }

    fn free(&self, dir: &Path, name: &str) -> PathBuf {
        // A list that cannot be had keeps nothing from starting: the time alone is nearly as good.
        let taken = self.disk.list(dir).unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut number = now.as_millis();
        loop {
            let target = dir.join(format!("{name}.{number}"));
            if taken.iter().all(|(path, _)| *path != target) {
                return target;
            }
            number += 1;
        }
    }

    /// Leaves a note on a segment that comes here later: something in it can still be read where it is.
    pub(crate) fn announce(&self, path: &Path, text: &str) {
        match storage::create_dir(&*self.disk, &self.dir) {
            Ok(()) => self.write(&self.dir.join(announcement(path)), text),
            Err(error) => tracing::warn!(%error, "cannot leave a note on a damaged segment"),
        }
    }

    /// Takes such a note away: the segment is as good as any now.
    pub(crate) fn retract(&self, path: &Path) {
        match self.disk.remove(&self.dir.join(announcement(path))) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%error, segment = %path.display(), "its note stays in quarantine");
            }
            _ => {}
        }
    }

    /// The files of a directory, of some, that are announced.
    pub(crate) fn announced<'a>(&self, paths: impl Iterator<Item = (u64, &'a Path)>) -> BTreeSet<u64> {
        // Without the list a damaged segment is removed when it is consumed, as an intact one is.
        let notes = self.disk.list(&self.dir).unwrap_or_default();
        let notes: BTreeSet<_> = notes.into_iter().map(|(note, _)| note).collect();
        let announced = paths.filter(|(_, path)| notes.contains(&self.dir.join(announcement(path))));
        announced.map(|(first, _)| first).collect()
    }

    fn write(&self, note: &Path, text: &str) {
        // The log has said the same.
        let written = self.disk.open(note, Access::Create);
        if let Err(error) = written.and_then(|file| file.write_at(text.as_bytes(), 0)) {
            tracing::warn!(%error, note = %note.display(), "cannot write the note");
        }
    }
}

fn numbers(path: &Path, lost: Option<(u64, Option<u64>)>) -> String {
    match lost {
        Some((first, Some(end))) => format!("it held records {first} to {}", end.saturating_sub(1)),
        Some((first, None)) => format!("it held records from {first} on, or none"),
        None if Quarantine::is_beside(path) => "what it held was said when it was set aside first".to_owned(),
        None => "it held no record of this queue".to_owned(),
    }
}

fn announcement(path: &Path) -> String {
    format!("{}.txt", label(path))
}

/// With its folder: segments and dead letters have files of the same names.
fn label(path: &Path) -> String {
    let name = |path: Option<&OsStr>| path.unwrap_or_default().to_string_lossy().into_owned();
    let (dir, file) = (name(path.parent().and_then(Path::file_name)), name(path.file_name()));
    format!("{dir}.{file}")
}
