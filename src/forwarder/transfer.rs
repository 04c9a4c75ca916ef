//! One session's records on their way: handed over as fast as the rules and the destination allow, confirmed in any order.
//!
//! A record that fails, or that was refused in company, is a suspect, and sent alone. It is given up only when the
//! destination refuses for good it and nothing else, or it while it is alone, and then it is durably in the dead letters
//! before the cursor passes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::course::Course;
use super::flight::Flight;
use super::flow;
use super::pump::{End, Pump, changed};
use super::rules::{Room, Rules};
use crate::destination::{Confirmation, News, Outcome, Rejected, Session};
use crate::queue::{Batch, Queued, ReadError, Reader};

/// At a stop, a destination that confirms nothing for this long is not waited for any longer.
const SETTLE_SILENCE: Duration = Duration::from_secs(3);
const FOREVER: Duration = Duration::from_secs(365 * 86_400);
/// Bytes that are read from the queue at a time.
const READ_BYTES: usize = 256 << 10;

/// Records that are handed over in a row.
const AT_ONCE: usize = 128;

type Reading = BoxFuture<'static, (Reader, Result<Batch, ReadError>)>;

/// One session's records on their way.
pub(super) struct Transfer<'a> {
    pump: &'a Pump,
    course: &'a mut Course,
    rules: Arc<Rules>,
    flight: Flight,
    /// Read, handed over up to `done`.
    read: Vec<Queued>,
    done: usize,
    /// One more than the last number that was read.
    read_end: u64,
    /// On its way by itself, and not settled yet.
    alone: Option<u64>,
    room: Room,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(pump: &'a Pump, course: &'a mut Course, cursor: u64) -> Self {
        Self {
            pump,
            course,
            rules: Arc::clone(&pump.rules.borrow()),
            flight: Flight::new(cursor),
            read: Vec::new(),
            done: 0,
            read_end: cursor,
            alone: None,
            room: Room::default(),
        }
    }

    fn follow(&mut self, rules: &Arc<Rules>) {
        self.rules = Arc::clone(rules);
        self.course.flow.obey(&rules.flow);
    }

    pub(super) fn cursor(&self) -> u64 {
        self.flight.cursor()
    }

    /// What the next session need not send again is remembered.
    pub(super) fn remember(&mut self) {
        self.course.settled.extend(self.flight.settled());
        self.course.passed(self.flight.cursor());
    }

    pub(super) async fn run(
        &mut self,
        session: &mut dyn Session,
        reader: Reader,
        stop: &CancellationToken,
        abort: &CancellationToken,
    ) -> End {
        let mut rules = self.pump.rules.clone();
        self.follow(&rules.borrow_and_update());
        // How it is to end, once what is in flight has settled.
        let mut ending = None;
        let mut give_up_at = Instant::now();
        // What is on its way when a hold begins may still be answered, but not for as long as answers come.
        let mut hold_until = Instant::now() + FOREVER;
        let mut reading = read_after(Duration::ZERO, reader);
        let mut unread = Backoff::new();
        loop {
            let held = flow::held(&self.rules.flow);
            if self.pump.destination.keeps_open() {
                self.pump.tell_held(held.as_ref());
            } else if held.is_some() && ending.is_none() {
                ending = Some(End::Again);
                give_up_at = Instant::now() + SETTLE_SILENCE;
                hold_until = give_up_at;
            }
            let mut wait = None;
            if ending.is_none() && held.is_none() {
                match self.hand_over(session).await {
                    Ok(until) => wait = until,
                    // What was handed over before may still be confirmed, and would be sent again otherwise.
                    Err(end) => {
                        ending = Some(end);
                        give_up_at = Instant::now() + SETTLE_SILENCE;
                    }
                }
            }
            self.pump.queue.advance(&self.pump.name, self.flight.cursor());
            self.course.passed(self.flight.cursor());
            self.pump.status.in_flight(self.flight.unconfirmed());
            if self.flight.unconfirmed() == 0
                && let Some(end) = ending
            {
                return end;
            }
            // With a backlog there is always more to do here; `hand_over` gives way within a batch, this between them.
            tokio::task::yield_now().await;
            let look_again = flow::look_again(&self.rules.flow);
            tokio::select! {
                biased;
                () = abort.cancelled() => return End::Stopped,
                () = stop.cancelled(), if !matches!(ending, Some(End::Stopped)) => {
                    ending = Some(End::Stopped);
                    hold_until = Instant::now() + FOREVER;
                    give_up_at = Instant::now() + SETTLE_SILENCE;
                }
                () = changed(&mut rules) => self.follow(&rules.borrow_and_update()),
                news = session.news() => match news {
                    Ok(News { mut confirmations, trouble, over }) => {
                        let takes = confirmations.iter().any(|confirmation| confirmation.outcome == Outcome::Delivered);
                        if takes {
                            if self.pump.status.up() {
                                self.pump.tell_delivering();
                            }
                            self.course.delivered();
                            give_up_at = Instant::now() + SETTLE_SILENCE;
                        }
                        // What was delivered counts, whatever ends the session.
                        confirmations.sort_by_key(|confirmation| match confirmation.outcome {
                            Outcome::Delivered => 0,
                            Outcome::Refused(_) => 1,
                            Outcome::Doubted(_) => 2,
                            Outcome::Failed(_) => 3,
                        });
                        let (doubted, failed) = self.not_taken(&confirmations);
                        self.course.suspects.extend(failed);
                        for confirmation in confirmations {
                            if let Err(end) = self.settle(confirmation, takes, &doubted).await {
                                return end;
                            }
                        }
                        if over {
                            return End::Again;
                        }
                        if let Some(reason) = trouble {
                            self.pump.interrupted(&reason);
                        }
                    }
                    Err(error) => {
                        // What was on its way may have been the reason: that is over when some of it has arrived.
                        if self.flight.unconfirmed() == 0 {
                            self.pump.status.not_reached();
                        }
                        return End::Lost(error.to_string());
                    }
                },
                () = tokio::time::sleep_until(give_up_at.min(hold_until)), if ending.is_some() => {
                    tracing::warn!(destination = %self.pump.name, unconfirmed = self.flight.unconfirmed(),
                        "the destination confirms nothing; what it has not confirmed stays queued");
                    return ending.unwrap_or(End::Stopped);
                }
                () = tokio::time::sleep_until(wait.unwrap_or_else(Instant::now)), if wait.is_some() => {}
                () = tokio::time::sleep(look_again.unwrap_or_default()), if look_again.is_some() => {}
                (reader, batch) = &mut reading, if ending.is_none() && self.done == self.read.len() => match batch {
                    Ok(batch) => {
                        unread.succeeded();
                        (self.read, self.done) = (batch.records, 0);
                        self.read_end = batch.end;
                        reading = read_after(Duration::ZERO, reader);
                    }
                    // The session has no part in that, and to end it would have what is on its way sent again.
                    Err(error) => {
                        self.pump.interrupted(&format!("the queue cannot be read: {error}"));
                        reading = read_after(unread.wait(), reader);
                    }
                },
            }
        }
    }

    /// Hands over what was read while the session takes it and the rules let it go, and while what is behind the oldest
    /// unconfirmed record can be accounted for; a suspect, or what comes behind a refusal, only when no answer to anything
    /// else is to be expected. Returns until when the next one waits, if it does.
    async fn hand_over(&mut self, session: &mut dyn Session) -> Result<Option<Instant>, End> {
        if let Some(until) = self.course.waits_until() {
            return Ok(Some(until));
        }
        let (mut handed, began) = (0, Instant::now());
        while session.has_room() && !self.flight.is_long() {
            let Some(queued) = self.read.get(self.done) else {
                // Nothing of it is kept until more comes, which may be long.
                (self.read, self.done, self.room) = (Vec::new(), 0, Room::default());
                self.flight.pass(self.read_end);
                return Ok(None);
            };
            let number = queued.id.number;
            if !self.rules.want(&queued.record) || self.course.settled.contains(&number) {
                self.flight.pass(number + 1);
                self.done += 1;
                continue;
            }
            let is_alone = self.course.is_wary() || self.course.suspects.contains(&number);
            if (is_alone || self.alone.is_some())
                && let Some(until) = self.flight.busy_until()
            {
                return Ok(Some(until));
            }
            if self
                .course
                .flow
                .is_enough(self.flight.unconfirmed(), self.flight.bytes())
            {
                return Ok(None);
            }
            let now = self.course.flow.has_limits().then(Instant::now);
            if let Some(until) = now.and_then(|now| self.course.flow.waits_until(now)) {
                return Ok(Some(until));
            }
            // Whatever else this processor has to do comes in between, and not only after the hundred batches that the
            // runtime would allow.
            handed += 1;
            if handed % AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
            self.done += 1;
            let taken = match self.rules.payload(&queued.record, &mut self.room) {
                Ok(None) => {
                    self.flight.pass(number + 1);
                    continue;
                }
                Ok(Some(payload)) => session.send(queued, payload),
                Err(reason) => Err(Rejected::ForGood(reason)),
            };
            match taken {
                Ok(taken) => {
                    if let Some(now) = now {
                        self.course.flow.spend(taken.bytes, now);
                    }
                    self.pump.status.sent(taken.bytes, taken.inexpressible);
                    self.flight.sent(number, taken.bytes, &queued.record.vin, began);
                    self.alone = is_alone.then_some(number);
                }
                Err(Rejected::ForGood(reason)) => {
                    self.give_up(number, &reason).await?;
                    self.flight.pass(number + 1);
                }
                Err(Rejected::SessionLost(reason)) => return Err(End::Lost(reason)),
            }
        }
        Ok(None)
    }

    /// What was refused together, and what failed.
    fn not_taken(&self, confirmations: &[Confirmation]) -> (Vec<u64>, Vec<u64>) {
        let (mut doubted, mut failed) = (Vec::new(), Vec::new());
        for one in confirmations {
            match one.outcome {
                Outcome::Doubted(_) if self.flight.holds(one.number) => doubted.push(one.number),
                Outcome::Failed(_) if self.flight.holds(one.number) => failed.push(one.number),
                // Nearly all of them, and that is enough to know of those.
                _ => {}
            }
        }
        (doubted, failed)
    }

    /// `takes`: something was delivered beside it. `doubted`: all that were refused with it.
    async fn settle(&mut self, confirmation: Confirmation, takes: bool, doubted: &[u64]) -> Result<(), End> {
        let Confirmation { number, outcome } = confirmation;
        let was_alone = self.alone.take_if(|alone| *alone == number).is_some();
        match outcome {
            Outcome::Delivered => {
                if let Some(bytes) = self.flight.confirm(number) {
                    self.pump.status.confirmed(bytes);
                }
                self.course.suspects.remove(&number);
                Ok(())
            }
            _ if !self.flight.holds(number) => Ok(()),
            Outcome::Refused(reason) => self.refused(number, &reason, takes).await,
            Outcome::Doubted(reason) if doubted == [number] && (was_alone || self.flight.unconfirmed() == 1) => {
                self.refused(number, &reason, takes).await?;
                Err(End::Again)
            }
            // Until it passes nothing is sent beside it: what the destination does take would come again with each try.
            Outcome::Failed(reason) => {
                self.pump.queue.advance(&self.pump.name, self.flight.cursor());
                Err(End::Lost(reason))
            }
            Outcome::Doubted(_) => {
                // Perhaps only because of its company: a Kafka batch is refused as a whole.
                self.course.doubt(doubted, self.flight.on_their_way());
                self.pump.queue.advance(&self.pump.name, self.flight.cursor());
                Err(End::Again)
            }
        }
    }

    /// What else is on its way stays there.
    async fn refused(&mut self, number: u64, reason: &str, takes: bool) -> Result<(), End> {
        let vin = self.give_up(number, reason).await?;
        if !takes && vin.is_some_and(|vin| self.course.refused(&vin)) {
            self.pump
                .interrupted(&format!("it takes nothing of what it is sent: {reason}"));
        }
        self.flight.confirm(number);
        self.course.suspects.remove(&number);
        self.pump.queue.advance(&self.pump.name, self.flight.cursor());
        Ok(())
    }

    /// Once, though the cursor may be behind it and the session may end. Returns whose it is.
    async fn give_up(&mut self, number: u64, reason: &str) -> Result<Option<Arc<str>>, End> {
        let vin = self.pump.give_up(number, reason).await?;
        self.course.settled.insert(number);
        Ok(vin)
    }
}

fn read_after(wait: Duration, mut reader: Reader) -> Reading {
    Box::pin(async move {
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        reader.ready().await;
        let batch = reader.next(READ_BYTES).await;
        (reader, batch)
    })
}

#[cfg(test)]
#[path = "refusal_tests.rs"]
mod tests;
