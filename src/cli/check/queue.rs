//! The queue's directory: whether a gateway has it, and whether what is in it can be written.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::directory;
use super::findings::Findings;
use crate::queue::Queue;

/// Whether a running gateway has the queue.
pub(super) fn check(path: &Path, findings: &mut Findings) -> bool {
    let shown = path.display();
    let in_use = match Queue::in_use(path) {
        Ok(in_use) => in_use,
        Err(error) => {
            findings.bad(format!(
                "queue.path: {error}; make all of {shown} the service user's: chown -R"
            ));
            return false;
        }
    };
    if in_use {
        findings.note(format!("queue.path: {shown} is in use by a running gateway"));
        return true;
    }
    directory("queue.path", path, findings);
    written(path, findings);
    false
}

/// Whether this user may write what a gateway writes in a queue that is there. Of what is another user's one thing is
/// named: the fix is the same for all.
fn written(path: &Path, findings: &mut Findings) {
    let closed = parts(path).into_iter().find_map(|part| {
        let rights = match part.is_dir() {
            true => Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK,
            false => Access::READ_OK | Access::WRITE_OK,
        };
        Some((rustix::fs::access(&part, rights).err()?, part))
    });
    if let Some((error, part)) = closed {
        findings.bad(format!(
            "queue.path: cannot write {}: {error}; make all of {} the service user's: chown -R",
            part.display(),
            path.display()
        ));
    }
}

/// What a gateway writes in a queue, as far as it is there: its folders, the cursors, the journals and the newest segments.
pub(super) fn parts(queue: &Path) -> Vec<PathBuf> {
    let folders = ["segments", "dead-letters"].map(|name| queue.join(name));
    let newest = folders.iter().filter_map(|folder| {
        let entries = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
        entries
            .filter(|path| path.extension().is_some_and(|end| end == "redb"))
            .max()
    });
    let journals = folders.iter().map(|folder| folder.join("journal"));
    let files = [queue.join("cursors")].into_iter().chain(journals).chain(newest);
    let all = folders.iter().cloned().chain(files);
    all.filter(|part| part.exists()).collect()
}
