//! One destination's pump: read from the cursor, keep a bounded window in flight, move the cursor over contiguous
//! confirmations, and after any error begin again at the cursor.
//!
//! A record that fails is a suspect: until it has passed, records are sent one at a time. Only when the destination
//! refuses it alone and for good is it given up, and then it is durably in the dead letters before the cursor passes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::flight::Flight;
use super::status::Status;
use crate::config::Routes;
use crate::destination::{Confirmation, Destination, News, Outcome, Rejected, Session};
use crate::queue::{Batch, DeadLetter, Item, Queue, Queued, ReadError, Reader};
use crate::record::Record;

/// At a stop, a destination that confirms nothing for this long is not waited for any longer.
const SETTLE_SILENCE: Duration = Duration::from_secs(3);
const AFTER_PANIC: Duration = Duration::from_secs(1);
/// Bytes that are read from the queue at a time.
const READ_BYTES: usize = 256 << 10;

/// Which record types a destination gets.
#[derive(Debug, Clone)]
struct Wanted {
    by_type: BTreeMap<String, bool>,
    others: bool,
}

impl Wanted {
    fn new(routes: &Routes, name: &str) -> Self {
        let has = |names: &BTreeSet<String>| names.contains(name);
        let by_type = routes
            .by_type
            .iter()
            .map(|(record_type, names)| (record_type.clone(), has(names)))
            .collect();
        Self {
            by_type,
            others: has(&routes.others),
        }
    }

    fn has(&self, record_type: &str) -> bool {
        self.by_type.get(record_type).copied().unwrap_or(self.others)
    }
}

/// One destination's pump.
pub struct Pump {
    queue: Queue,
    name: String,
    wanted: Wanted,
    destination: Box<dyn Destination>,
    status: Arc<Status>,
}

/// Why a session ended.
enum End {
    /// It was asked to.
    Stopped,
    /// Begin the next one at once.
    Again,
    /// Begin the next one later.
    Lost(String),
}

type Reading = BoxFuture<'static, (Reader, Result<Batch, ReadError>)>;

impl Pump {
    /// A pump for a destination that has registered with the queue.
    pub fn new(
        queue: Queue,
        name: &str,
        kind: &'static str,
        routes: &Routes,
        destination: Box<dyn Destination>,
    ) -> Self {
        let status = Arc::new(Status::new(name, kind));
        Self {
            queue,
            name: name.to_owned(),
            wanted: Wanted::new(routes, name),
            destination,
            status,
        }
    }

    fn wants(&self, record: &Record) -> bool {
        match &record.only {
            Some(only) => **only == *self.name,
            None => self.wanted.has(&record.record_type),
        }
    }

    /// What it publishes about itself.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// Runs until `stop`, then settles what is in flight until `abort`.
    ///
    /// A panic, of a client library for instance, ends the session like any error and nothing else.
    pub async fn run(self, stop: CancellationToken, abort: CancellationToken) {
        while let Err(panic) = AssertUnwindSafe(self.sessions(&stop, &abort)).catch_unwind().await {
            let reason = panic.downcast_ref::<String>().map_or("no message", String::as_str);
            tracing::error!(destination = %self.name, reason, "the forwarder panicked and begins again at its cursor");
            if stop.is_cancelled() {
                return;
            }
            tokio::time::sleep(AFTER_PANIC).await;
        }
    }

    async fn sessions(&self, stop: &CancellationToken, abort: &CancellationToken) {
        let mut backoff = Backoff::new();
        let mut suspect = None;
        loop {
            match self.session(stop, abort, &mut backoff, &mut suspect).await {
                End::Stopped => return,
                End::Again => {}
                End::Lost(reason) => {
                    let wait = backoff.wait();
                    self.status.failed();
                    self.interrupted(&reason);
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
        }
    }

    async fn session(
        &self,
        stop: &CancellationToken,
        abort: &CancellationToken,
        backoff: &mut Backoff,
        suspect: &mut Option<u64>,
    ) -> End {
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
        if session.is_up() {
            self.status.reached();
        }
        let reader = self.queue.reader(&self.name);
        if suspect.is_some_and(|suspect| suspect < reader.position()) {
            *suspect = None;
        }
        let mut transfer = Transfer {
            pump: self,
            flight: Flight::new(reader.position()),
            read: VecDeque::new(),
            read_end: reader.position(),
            sent: VecDeque::new(),
        };
        let end = transfer.run(&mut *session, reader, stop, abort, backoff, suspect).await;
        // What was confirmed just before the end is not delivered again.
        self.queue.advance(&self.name, transfer.flight.cursor());
        self.status.in_flight(0);
        session.close().await;
        end
    }

    fn interrupted(&self, reason: &str) {
        if self.status.down(reason) {
            tracing::warn!(destination = %self.name, cursor = self.queue.cursor(&self.name),
                "delivery interrupted, records stay queued and it is tried again: {reason}");
        }
    }

    async fn give_up(&self, queued: &Queued, reason: &str) -> Result<(), End> {
        let record = &queued.record;
        tracing::warn!(destination = %self.name, vin = %record.vin, record_type = %record.record_type,
            txid = %String::from_utf8_lossy(&record.txid), record = %queued.stable_id(), reason, "record refused for good: kept as a dead letter");
        let letter = DeadLetter {
            origin: self.name.clone(),
            reason: reason.to_owned(),
            at: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_millis() as u64,
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
        stored.map_err(|refusal| End::Lost(format!("a dead letter cannot be stored: {refusal}")))
    }
}

/// One session's records on their way.
struct Transfer<'a> {
    pump: &'a Pump,
    flight: Flight,
    /// Read, not handed over.
    read: VecDeque<Queued>,
    /// One more than the last number that was read.
    read_end: u64,
    /// Handed over, not confirmed; in the order of their numbers.
    sent: VecDeque<Queued>,
}

impl Transfer<'_> {
    async fn run(
        &mut self,
        session: &mut dyn Session,
        reader: Reader,
        stop: &CancellationToken,
        abort: &CancellationToken,
        backoff: &mut Backoff,
        suspect: &mut Option<u64>,
    ) -> End {
        let mut stopping = false;
        let mut give_up_at = Instant::now();
        let mut reading = read(reader);
        loop {
            if !stopping && let Err(end) = self.hand_over(session, suspect).await {
                return end;
            }
            self.pump.queue.advance(&self.pump.name, self.flight.cursor());
            self.pump.status.in_flight(self.flight.unconfirmed());
            if stopping && self.flight.unconfirmed() == 0 {
                return End::Stopped;
            }
            tokio::select! {
                biased;
                () = abort.cancelled() => return End::Stopped,
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    give_up_at = Instant::now() + SETTLE_SILENCE;
                }
                news = session.news() => match news {
                    Ok(News { mut confirmations, trouble }) => {
                        if confirmations.iter().any(|confirmation| confirmation.outcome == Outcome::Delivered) {
                            if self.pump.status.up() {
                                tracing::info!(destination = %self.pump.name, "delivering");
                            }
                            backoff.succeeded();
                            give_up_at = Instant::now() + SETTLE_SILENCE;
                        }
                        // What was delivered counts, whatever ends the session.
                        confirmations.sort_by_key(|confirmation| match confirmation.outcome {
                            Outcome::Delivered => 0,
                            Outcome::Refused(_) => 1,
                            Outcome::Failed(_) => 2,
                        });
                        for confirmation in confirmations {
                            if let Err(end) = self.settle(confirmation, suspect).await {
                                return end;
                            }
                        }
                        if let Some(reason) = trouble {
                            self.pump.interrupted(&reason);
                        }
                    }
                    Err(error) => return End::Lost(error.to_string()),
                },
                () = tokio::time::sleep_until(give_up_at), if stopping => {
                    tracing::warn!(destination = %self.pump.name, unconfirmed = self.flight.unconfirmed(),
                        "the destination confirms nothing; what it has not confirmed stays queued");
                    return End::Stopped;
                }
                (reader, batch) = &mut reading, if !stopping && self.read.is_empty() => match batch {
                    Ok(batch) => {
                        self.read.extend(batch.records);
                        self.read_end = batch.end;
                        reading = read(reader);
                    }
                    Err(error) => return End::Lost(format!("the queue cannot be read: {error}")),
                },
            }
        }
    }

    /// Hands over what was read while the session takes it; a suspect only when nothing else is in flight.
    async fn hand_over(&mut self, session: &mut dyn Session, suspect: &Option<u64>) -> Result<(), End> {
        while session.has_room()
            && (suspect.is_none_or(|suspect| suspect < self.flight.cursor()) || self.flight.unconfirmed() == 0)
        {
            let Some(mut queued) = self.read.pop_front() else {
                self.flight.pass(self.read_end);
                return Ok(());
            };
            let number = queued.id.number;
            if !self.pump.wants(&queued.record) {
                self.flight.pass(number + 1);
                continue;
            }
            self.flight.sent(number);
            // A slice would keep the whole chunk that it was read with for as long as the record is in flight.
            queued.record.payload = Bytes::copy_from_slice(&queued.record.payload);
            queued.record.txid = Bytes::copy_from_slice(&queued.record.txid);
            match session.send(&queued) {
                Ok(sent) => {
                    self.pump.status.sent(queued.record.payload.len(), sent.inexpressible);
                    self.sent.push_back(queued);
                }
                Err(Rejected::ForGood(reason)) => {
                    self.pump.give_up(&queued, &reason).await?;
                    self.flight.confirm(number);
                }
                Err(Rejected::SessionLost(reason)) => return Err(End::Lost(reason)),
            }
        }
        Ok(())
    }

    async fn settle(&mut self, confirmation: Confirmation, suspect: &mut Option<u64>) -> Result<(), End> {
        let Confirmation { number, outcome } = confirmation;
        let at = self.sent.partition_point(|queued| queued.id.number < number);
        if self.sent.get(at).is_none_or(|queued| queued.id.number != number) {
            return Ok(());
        }
        match outcome {
            Outcome::Delivered => {
                if let Some(queued) = self.sent.remove(at) {
                    self.pump.status.confirmed(queued.record.payload.len());
                }
                self.flight.confirm(number);
                if *suspect == Some(number) {
                    *suspect = None;
                }
                Ok(())
            }
            Outcome::Refused(reason) if self.flight.unconfirmed() == 1 => {
                if let Some(queued) = self.sent.remove(at) {
                    self.pump.give_up(&queued, &reason).await?;
                }
                self.flight.confirm(number);
                self.pump.queue.advance(&self.pump.name, self.flight.cursor());
                Err(End::Again)
            }
            // Until it passes nothing is sent beside it: what the destination does take would come again with each try.
            Outcome::Failed(reason) => {
                *suspect = (*suspect).max(Some(number));
                self.pump.queue.advance(&self.pump.name, self.flight.cursor());
                Err(End::Lost(reason))
            }
            Outcome::Refused(_) => {
                // Perhaps only because of its company: a Kafka batch is refused as a whole. All that was on the way with
                // it is tried alone, or a destination that takes no batch of this size would have a session for each.
                *suspect = self.sent.back().map(|queued| queued.id.number);
                self.pump.queue.advance(&self.pump.name, self.flight.cursor());
                Err(End::Again)
            }
        }
    }
}

fn read(mut reader: Reader) -> Reading {
    Box::pin(async move {
        reader.ready().await;
        let batch = reader.next(READ_BYTES).await;
        (reader, batch)
    })
}
