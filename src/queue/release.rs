//! Where the space of unlinked segments is given back: by a thread of its own, because that takes as long as several
//! commits for each, and acks would wait for it.
//!
//! Invariant: a file that is handed in has lost its name already; when this thread comes to it changes nothing but how
//! soon its blocks are free, and a queue that lacks space waits for that before anything else goes. Until then at most
//! [`AT_ONCE`] segments are on the disk beyond what counts towards `max_bytes`.

use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

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

/// No more than these are kept open.
pub(super) const AT_ONCE: usize = 16;
/// How much it gives way to what serves vehicles.
const NICENESS: i32 = 10;

/// The thread, while there is one.
#[derive(Default)]
pub(super) struct Release(Option<JoinHandle<()>>);

impl Release {
    /// Frees the blocks soon; now, when it has not caught up with the last ones.
    pub(super) fn soon(&mut self, removed: Removed) {
        if removed.files.is_empty() || self.0.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let free = move || {
            if let Err(error) = setpriority_process(None, NICENESS) {
                tracing::trace!(%error, "freeing blocks does not give way to others");
            }
            drop(removed);
        };
        // Without a thread the closure is dropped, and what is in it.
        let started = Builder::new().name("queue-release".to_owned()).spawn(free);
        self.finish();
        self.0 = started.ok();
    }

    /// Waits until the blocks of all that was handed in are free.
    pub(super) fn finish(&mut self) {
        if let Some(thread) = self.0.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that frees blocks has panicked");
        }
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        self.finish();
    }
}
