//! redb over files that may be damaged: it panics on some damaged pages, when they are read and when it closes.
//!
//! No damaged segment takes the daemon with it.

use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::Database;

use super::segment::SegmentError;

/// A database whose closing panics nobody else.
pub(crate) struct Guarded(Option<Database>);

impl Guarded {
    pub(crate) fn new(database: Database) -> Self {
        Self(Some(database))
    }
}

impl Deref for Guarded {
    type Target = Database;

    fn deref(&self) -> &Database {
        self.0.as_ref().expect("it is taken out by `drop` alone")
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let Some(database) = self.0.take() else { return };
        if std::thread::panicking() {
            // A second panic would end the process. What it holds is lost memory, and not much.
            std::mem::forget(database);
        } else if catch_unwind(AssertUnwindSafe(|| drop(database))).is_err() {
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
