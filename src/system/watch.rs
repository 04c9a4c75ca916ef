//! Files that somebody else renews: noticed when they have changed, whatever way that was done.
//!
//! A change counts once nothing has changed for one more look, so that a file is not read while it is being written.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What tells one state of a file from another, through all links: where it is, its length, when it was written, and when
/// its owner or mode was changed.
type Stamp = Option<(u64, u64, u64, [i64; 4])>;

/// The files as they were when somebody last acted on them, and when they were last looked at.
pub struct Watch {
    acted: BTreeMap<PathBuf, Stamp>,
    looked: BTreeMap<PathBuf, Stamp>,
}

impl Watch {
    /// Watches these from their present state on.
    pub fn new(files: Vec<PathBuf>) -> Self {
        let acted = stamps(files);
        Self {
            looked: acted.clone(),
            acted,
        }
    }

    /// The files that have changed since they were acted on, and not since the last look.
    pub fn look(&mut self) -> Vec<PathBuf> {
        let now = stamps(self.acted.keys().cloned().collect());
        let before = std::mem::replace(&mut self.looked, now);
        let mut changed = Vec::new();
        for (path, stamp) in &self.looked {
            let settled = before.get(path) == Some(stamp);
            if settled && self.acted.get(path) != Some(stamp) {
                self.acted.insert(path.clone(), *stamp);
                changed.push(path.clone());
            }
        }
        changed
    }
}

fn stamps(files: Vec<PathBuf>) -> BTreeMap<PathBuf, Stamp> {
    files.into_iter().map(|path| (path.clone(), stamp(&path))).collect()
}

fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok()?;
    let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
    Some((found.dev(), found.ino(), found.len(), times))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_change_counts_once_and_only_when_it_has_settled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        fs::write(&path, "one").unwrap();
        let mut watch = Watch::new(vec![path.clone()]);
        assert!(watch.look().is_empty());
        fs::write(&path, "one and").unwrap();
        assert!(watch.look().is_empty(), "it may still be written");
        fs::write(&path, "one and two").unwrap();
        assert!(watch.look().is_empty(), "it was");
        assert_eq!(watch.look(), [path]);
        assert!(watch.look().is_empty());
    }

    #[test]
    fn one_that_is_always_being_written_hides_no_other_and_a_new_mode_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let [busy, quiet] = ["busy", "quiet"].map(|name| dir.path().join(name));
        fs::write(&busy, "").unwrap();
        fs::write(&quiet, "").unwrap();
        let mut watch = Watch::new(vec![busy.clone(), quiet.clone()]);
        fs::set_permissions(&quiet, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&busy, "a").unwrap();
        assert!(watch.look().is_empty());
        fs::write(&busy, "ab").unwrap();
        assert_eq!(watch.look(), [quiet]);
    }

    #[test]
    fn a_link_that_leads_elsewhere_is_a_change_and_so_is_a_file_that_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two, link] = ["one", "two", "link"].map(|name| dir.path().join(name));
        fs::write(&one, "certificate").unwrap();
        fs::write(&two, "certificate").unwrap();
        symlink(&one, &link).unwrap();
        let mut watch = Watch::new(vec![link.clone()]);
        fs::remove_file(&link).unwrap();
        symlink(&two, &link).unwrap();
        assert!(watch.look().is_empty());
        assert_eq!(watch.look(), std::slice::from_ref(&link));
        fs::remove_file(&two).unwrap();
        assert!(watch.look().is_empty());
        assert_eq!(watch.look(), [link]);
    }
}
