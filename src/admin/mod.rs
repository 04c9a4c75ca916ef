//! The local port: `/status` for health checks, `/status.json` for programs, `/metrics` for Prometheus; and in
//! `control` the socket for the commands of this machine's operator.
//!
//! The port only reads what others publish.

mod accept;
pub mod control;
mod metrics;
mod server;
mod words;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

pub use server::serve;

use crate::forwarder::{Status, StatusSnapshot};
use crate::listener::{Counters, CountersSnapshot};
use crate::queue::{Queue, Snapshot};

/// What the parts of a gateway publish about themselves.
pub struct Published {
    /// When it started.
    pub started: Instant,
    /// The queue.
    pub queue: Queue,
    /// The listener.
    pub listener: Arc<Counters>,
    /// The destinations.
    pub destinations: Vec<Arc<Status>>,
    /// Why the last reload changed nothing, if it did not.
    pub reload_error: Mutex<Option<String>>,
}

/// Everything at one moment, as `/status.json` shows it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Report {
    /// Version of this build.
    pub version: &'static str,
    /// Seconds since the start.
    pub uptime: u64,
    /// The queue's id.
    pub queue_id: String,
    /// The queue.
    pub queue: Snapshot,
    /// The listener.
    pub listener: CountersSnapshot,
    /// The destinations.
    pub destinations: Vec<DestinationReport>,
    /// Why the last reload changed nothing, if it did not.
    pub reload_error: Option<String>,
}

/// One destination in a [`Report`].
#[derive(Debug, Clone, serde::Serialize)]
pub struct DestinationReport {
    /// What its pump says.
    #[serde(flatten)]
    pub status: StatusSnapshot,
    /// The first record that it has not confirmed.
    pub cursor: u64,
    /// Records from the cursor to the newest, those that are not routed to it included.
    pub backlog: u64,
    /// Records that it lost to lack of space since the start.
    pub dropped: u64,
}

impl Published {
    /// Notes how a reload ended.
    pub fn reloaded(&self, error: Option<String>) {
        *self.reload_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// Why the last reload changed nothing, if it did not.
    pub fn reload_error(&self) -> Option<String> {
        self.reload_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything now.
    pub fn report(&self) -> Report {
        let queue = self.queue.snapshot();
        let destinations = self.destinations.iter().map(|status| {
            let status = status.snapshot();
            let cursor = self.queue.cursor(&status.name);
            DestinationReport {
                cursor,
                backlog: self.queue.backlog(cursor),
                dropped: self.queue.dropped(&status.name),
                status,
            }
        });
        Report {
            version: env!("CARGO_PKG_VERSION"),
            uptime: self.started.elapsed().as_secs(),
            queue_id: self.queue.id().to_string(),
            destinations: destinations.collect(),
            listener: self.listener.snapshot(),
            reload_error: self.reload_error(),
            queue,
        }
    }
}
