//! redb over files that may be damaged: it panics on some damaged pages, when they are read and when it closes.
//!
//! No damaged segment takes the daemon with it.

use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::Database;

use super::backend::Overlay;
use super::segment::SegmentError;

/// A database whose closing panics nobody else.
pub(crate) struct Guarded {
    database: Option<Database>,
    /// Of a database that is only read: what it is read from.
    overlay: Option<Overlay>,
}

impl Guarded {
    pub(crate) fn new(database: Database) -> Self {
        Self {
            database: Some(database),
            overlay: None,
        }
    }

    /// Closes it without a commit. Its storage fails from here on.
    pub(crate) fn spoil(mut self) {
        let spoiled = catch_unwind(AssertUnwindSafe(|| self.database.as_mut().map(spoil)));
        if spoiled.is_err() {
            tracing::debug!("redb panicked before it closed a damaged segment");
        }
    }

    /// A database whose closing writes nothing.
    pub(crate) fn read_only(database: Database, overlay: Overlay) -> Self {
        Self {
            database: Some(database),
            overlay: Some(overlay),
        }
    }
}

/// redb would commit once more when it closes, over pages that may be damaged, and can panic there twice, which ends the
/// process. After a failed call it does not; this one fails before it looks at anything, because its storage does.
fn spoil(database: &mut Database) {
    if let Err(error) = database.check_integrity() {
        tracing::trace!(%error, "a segment is closed without a commit");
    }
}

impl Deref for Guarded {
    type Target = Database;

    fn deref(&self) -> &Database {
        self.database.as_ref().expect("it is taken out by `drop` alone")
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let Some(mut database) = self.database.take() else {
            return;
        };
        if std::thread::panicking() {
            // A second panic would end the process. What it holds is lost memory, and not much.
            std::mem::forget(database);
            return;
        }
        let closed = catch_unwind(AssertUnwindSafe(|| {
            if let Some(overlay) = &self.overlay {
                overlay.end();
                spoil(&mut database);
            }
            drop(database);
        }));
        if closed.is_err() {
            tracing::debug!("redb panicked when it closed a damaged segment");
        }
    }
}

/// A panic becomes an error.
pub(crate) fn caught<T>(path: &Path, read: impl FnOnce() -> Result<T, SegmentError>) -> Result<T, SegmentError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(SegmentError::Panicked {
            path: path.to_owned(),
            message: message.to_owned(),
        })
    })
}
