//! What a producer's threads say, on its way to the session that listens.
//!
//! Invariant: there is room for a report of every record in flight, so that none is ever lost while somebody listens.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::Outcome;
use super::kafka::WINDOW_RECORDS;

/// What a producer says.
pub(super) enum Report {
    /// Of the record in a place of those in flight.
    Delivery { place: usize, outcome: Outcome },
    /// The producer is of no more use.
    Fatal(String),
    /// No broker can be reached; the producer tries on.
    Trouble(String),
}

/// What was said and has not been listened to.
#[derive(Default)]
pub(super) struct Reports {
    waiting: Mutex<Vec<Report>>,
    first: Notify,
    enough: Notify,
}

/// Reports come one by one, and many: who listens is woken for the first, and takes those that come meanwhile with it,
/// or as soon as they are a good part of what may be in flight.
const MEANWHILE: Duration = Duration::from_millis(1);
const ENOUGH: usize = WINDOW_RECORDS / 8;

impl Reports {
    /// All that are there, once one is. Cancel-safe.
    pub(super) async fn next(&self) -> Vec<Report> {
        loop {
            let reports = std::mem::take(&mut *self.lock());
            if !reports.is_empty() {
                return reports;
            }
            self.first.notified().await;
            // Whichever comes first.
            tokio::time::timeout(MEANWHILE, self.enough.notified())
                .await
                .unwrap_or_default();
        }
    }

    pub(super) fn say(&self, report: Report) {
        let mut waiting = self.lock();
        // One for each record in flight, and troubles beside them. Full only when the session has ended; then nobody asks
        // any more.
        if waiting.len() < 2 * WINDOW_RECORDS {
            waiting.push(report);
        }
        match waiting.len() {
            1 => self.first.notify_one(),
            ENOUGH => self.enough.notify_one(),
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Report>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
