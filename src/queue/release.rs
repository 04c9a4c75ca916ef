//! Where the space of unlinked segments is given back: by a thread of its own, because that takes as long as several
//! commits for each, and acks would wait for it.
//!
//! Invariant: a file that is handed in has lost its name already; when this thread comes to it changes nothing but how
//! soon its blocks are free, and a queue that lacks space waits for that before anything else goes. Until then at most
//! three times [`AT_ONCE`] segments are on the disk beyond what counts towards `max_bytes`.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::setpriority_process;

use super::storage::DiskFile;

/// Segments that were unlinked. The blocks of `files` are free when those are dropped, of the others at once.
#[derive(Default)]
pub(crate) struct Removed {
    /// How many.
    pub(crate) segments: usize,
    /// Some of them, open.
    pub(crate) files: Vec<Arc<dyn DiskFile>>,
}

/// As many may wait while the disk rests between one and the next.
pub(super) const AT_ONCE: usize = 16;
/// How much it gives way to what serves vehicles.
const NICENESS: i32 = 10;
/// The disk rests so many times as long as the last one took: syncs wait for a file system that frees blocks, several times
/// as long with `discard`, and not one ack in a hundred is to notice.
const RESTS: u32 = 300;
/// So that all of them are free within minutes, however slow the disk is.
const LONGEST_REST: Duration = Duration::from_secs(10);
/// Before the first one: what has come in behind a short outage has drained by then.
const FIRST_REST: Duration = Duration::from_secs(5);

/// The thread, while there is one, and what waits for it.
#[derive(Default)]
pub(super) struct Release {
    line: Arc<Line>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Line {
    waiting: Mutex<Waiting>,
    hurries: Condvar,
}

#[derive(Default)]
struct Waiting {
    files: VecDeque<Arc<dyn DiskFile>>,
    /// Whether the thread looks at them again before it ends.
    served: bool,
    /// No rests.
    hurry: bool,
}

impl Release {
    /// Frees the blocks soon; now, as far as too many wait.
    pub(super) fn soon(&mut self, removed: Removed) {
        if removed.files.is_empty() {
            return;
        }
        let mut waiting = self.line.lock();
        waiting.files.extend(removed.files);
        let keep = waiting.files.len().min(2 * AT_ONCE);
        let too_many = waiting.files.split_off(keep);
        let served = std::mem::replace(&mut waiting.served, true);
        drop(waiting);
        self.line.hurries.notify_one();
        drop(too_many);
        if !served {
            let line = Arc::clone(&self.line);
            let started = Builder::new()
                .name("queue-release".to_owned())
                .spawn(move || line.serve());
            match started {
                // The one before has nothing to do but to end.
                Ok(thread) => join(self.thread.replace(thread)),
                Err(_) => self.line.clear(),
            }
        }
    }

    /// Waits until the blocks of all that was handed in are free. Returns whether some were not.
    pub(super) fn finish(&mut self) -> bool {
        self.line.lock().hurry = true;
        self.line.hurries.notify_one();
        let some = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        join(self.thread.take());
        self.line.clear();
        some
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        self.finish();
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if thread.is_some_and(|thread| thread.join().is_err()) {
        tracing::error!("the thread that frees blocks has panicked");
    }
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        if let Err(error) = setpriority_process(None, NICENESS) {
            tracing::trace!(%error, "freeing blocks does not give way to others");
        }
        let mut rest = FIRST_REST;
        loop {
            let may_rest = |waiting: &mut Waiting| !waiting.hurry && waiting.files.len() <= AT_ONCE;
            let rested = self.hurries.wait_timeout_while(self.lock(), rest, may_rest);
            let (mut waiting, _) = rested.unwrap_or_else(PoisonError::into_inner);
            if waiting.files.is_empty() {
                waiting.served = false;
                return;
            }
            // More than may wait go in one row, which costs less than as many by themselves.
            let due = waiting.files.len().saturating_sub(AT_ONCE).max(1);
            let files: Vec<_> = waiting.files.drain(..due).collect();
            drop(waiting);
            let begun = Instant::now();
            drop(files);
            rest = (RESTS * begun.elapsed() / due as u32).min(LONGEST_REST);
        }
    }

    /// Without a thread: nothing waits any longer.
    fn clear(&self) {
        let left = std::mem::take(&mut *self.lock());
        drop(left);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Weak;

    use super::*;
    use crate::queue::RealDisk;
    use crate::queue::storage::{Access, Disk};

    fn removed(dir: &tempfile::TempDir, segments: usize) -> (Removed, Vec<Weak<dyn DiskFile>>) {
        let open = |n| RealDisk.open(&dir.path().join(format!("{n}")), Access::Create).unwrap();
        let files: Vec<_> = (0..segments).map(open).collect();
        let seen = files.iter().map(Arc::downgrade).collect();
        (Removed { segments, files }, seen)
    }

    fn held(seen: &[Weak<dyn DiskFile>]) -> usize {
        seen.iter().filter(|file| file.strong_count() > 0).count()
    }

    #[test]
    fn what_waits_is_free_as_soon_as_somebody_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut release = Release::default();
        for _ in 0..2 {
            let (some, seen) = removed(&dir, 3);
            release.soon(some);
            assert_eq!(held(&seen), 3, "the disk rests first");
            release.finish();
            assert_eq!(held(&seen), 0);
        }
        let (some, seen) = removed(&dir, 1);
        release.soon(some);
        drop(release);
        assert_eq!(held(&seen), 0);
    }

    #[test]
    fn no_more_wait_than_may() {
        let dir = tempfile::tempdir().unwrap();
        let mut release = Release::default();
        let (some, seen) = removed(&dir, 2 * AT_ONCE + 5);
        release.soon(some);
        assert!(held(&seen) <= 2 * AT_ONCE, "{}", held(&seen));
        release.finish();
        assert_eq!(held(&seen), 0);
    }
}
