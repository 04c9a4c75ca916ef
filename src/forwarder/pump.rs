//! One destination's pump: read from the cursor, keep a bounded window in flight, move the cursor over contiguous
//! confirmations, and after any error begin again at the cursor.
//!
//! While its rules hold it, by a pause or a schedule, no session is open.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::course::Course;
use super::flow::{self, Held};
use super::rules::Rules;
use super::status::Status;
use super::transfer::Transfer;
use crate::destination::Destination;
use crate::queue::{DeadLetter, Item, Queue};
use crate::record::epoch_ms;
use crate::record::legible::legible;

/// One destination's pump.
pub struct Pump {
    pub(super) queue: Queue,
    pub(super) name: String,
    pub(super) rules: watch::Receiver<Arc<Rules>>,
    pub(super) destination: Box<dyn Destination>,
    pub(super) status: Arc<Status>,
}

/// Why a session ended.
pub(super) enum End {
    /// It was asked to.
    Stopped,
    /// Begin the next one, at once unless [`Course::waits_until`] says later.
    Again,
    /// Begin the next one later.
    Lost(String),
}

impl Pump {
    /// A pump for a destination that has registered with the queue. Its rules may change while it runs.
    pub fn new(
        queue: Queue,
        name: &str,
        kind: &'static str,
        rules: watch::Receiver<Arc<Rules>>,
        destination: Box<dyn Destination>,
    ) -> Self {
        let status = Arc::new(Status::new(name, kind));
        Self {
            queue,
            name: name.to_owned(),
            rules,
            destination,
            status,
        }
    }

    /// What it publishes about itself.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// Runs until `stop`, then settles what is in flight until `abort`.
    pub async fn run(self, stop: CancellationToken, abort: CancellationToken) {
        let (stop, abort) = (&stop, &abort);
        let mut course = Course::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.held() => {}
            }
            // A panic, of a client library for instance, ends the session like any error and nothing else.
            let session = AssertUnwindSafe(self.session(stop, abort, &mut course)).catch_unwind();
            let end = session.await.unwrap_or_else(|panic| {
                self.status.in_flight(0);
                End::Lost(format!("the forwarder panicked: {}", message_of(&*panic)))
            });
            let next = match end {
                End::Stopped => return,
                End::Again => course.waits_until(),
                End::Lost(reason) => {
                    let wait = course.backoff.wait();
                    self.status.failed();
                    self.interrupted(&reason);
                    Some(Instant::now() + wait)
                }
            };
            if let Some(next) = next {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep_until(next) => {}
                }
            }
        }
    }

    /// Says whether and why nothing is sent, when that is news.
    pub(super) fn tell_held(&self, held: Option<&Held>) {
        let why = held.map(|held| held.why.clone());
        if self.status.held(why.clone()) {
            match &why {
                Some(why) => {
                    tracing::info!(destination = %self.name, cursor = self.queue.cursor(&self.name), "held, records stay queued: {why}")
                }
                None => tracing::info!(destination = %self.name, "held no longer"),
            }
        }
    }

    /// Waits while nothing is to be sent and no session is to be open.
    async fn held(&self) {
        if self.destination.keeps_open() {
            return;
        }
        let mut rules = self.rules.clone();
        loop {
            let held = flow::held(&rules.borrow_and_update().flow);
            self.tell_held(held.as_ref());
            let Some(held) = held else { return };
            tokio::select! {
                () = changed(&mut rules) => {}
                () = tokio::time::sleep(held.again) => {}
            }
        }
    }

    async fn session(&self, stop: &CancellationToken, abort: &CancellationToken, course: &mut Course) -> End {
        let connected = tokio::select! {
            biased;
            () = stop.cancelled() => return End::Stopped,
            connected = self.destination.connect() => connected,
        };
        let mut session = match connected {
            Ok(session) => session,
            Err(error) => {
                self.status.not_reached();
                return End::Lost(error.to_string());
            }
        };
        if session.is_up() && self.status.reached() {
            self.tell_delivering();
        }
        let reader = self.queue.reader(&self.name);
        course.passed(reader.position());
        let mut transfer = Transfer::new(self, course, reader.position());
        let end = transfer.run(&mut *session, reader, stop, abort).await;
        // What was confirmed just before the end is not delivered again.
        self.queue.advance(&self.name, transfer.cursor());
        transfer.remember();
        self.status.in_flight(0);
        session.close().await;
        end
    }

    pub(super) fn tell_delivering(&self) {
        tracing::info!(destination = %self.name, "delivering");
    }

    pub(super) fn interrupted(&self, reason: &str) {
        if self.status.down(reason) {
            tracing::warn!(destination = %self.name, cursor = self.queue.cursor(&self.name),
                "delivery interrupted, records stay queued and it is tried again: {reason}");
        }
    }

    /// Keeps a record that the destination will never take as a dead letter, durably. Nobody keeps it meanwhile, and it is read
    /// anew. Returns whose it is.
    pub(super) async fn give_up(&self, number: u64, reason: &str) -> Result<Option<Arc<str>>, End> {
        let queued = match self.queue.record(&self.name, number).await {
            Ok(Some(queued)) => queued,
            Ok(None) => {
                tracing::warn!(destination = %self.name, number, reason,
                    "record refused for good, and the queue has it no longer: no dead letter is kept of it");
                return Ok(None);
            }
            Err(error) => return Err(End::Lost(format!("the queue cannot be read: {error}"))),
        };
        let record = &queued.record;
        tracing::warn!(destination = %self.name, vin = %legible(&record.vin), record_type = %legible(&record.record_type),
            txid = %legible(&String::from_utf8_lossy(&record.txid)), record = %queued.stable_id(), reason, "record refused for good: kept as a dead letter");
        let letter = DeadLetter {
            origin: self.name.clone(),
            reason: reason.to_owned(),
            at: epoch_ms(),
            vin: record.vin.to_string(),
            record_type: record.record_type.to_string(),
            txid: record.txid.clone(),
            raw: record.payload.clone(),
            record: Some(queued.stable_id()),
            received_at: record.received_at,
            client_version: record.client_version.to_string(),
        };
        self.status.refused();
        let stored = self.queue.submitter().store(Item::DeadLetter(letter)).await;
        stored.map_err(|refusal| End::Lost(format!("a dead letter cannot be stored: {refusal}")))?;
        Ok(Some(queued.record.vin))
    }
}

fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// Waits for other rules.
pub(super) async fn changed(rules: &mut watch::Receiver<Arc<Rules>>) {
    if rules.changed().await.is_err() {
        // Nobody can change them any more.
        std::future::pending().await
    }
}
