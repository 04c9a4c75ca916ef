//! One session with a broker, whatever the version of the protocol: what is in flight, in what order, and what the
//! broker's answers mean for records.
//!
//! Client, event loop and window are made anew for each session, with a clean start: what the broker or the library
//! remember of an earlier one is not relied on.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};
use tokio_util::task::AbortOnDropHandle;

use super::ending::End;
use super::link::{Acknowledged, Client, Ended, Message, OFFLINE, Unanswered};
use super::messages;
use crate::config;
use crate::destination::{Confirmation, News, Outcome, Rejected, Sent, Session, SessionError};
use crate::queue::Queued;

/// Bytes in flight, whatever the window: on a narrow line a ping goes behind all of them, and has to be answered in time.
const WINDOW_BYTES: usize = 256 << 10;
/// A broker that answers pings and none of what it was sent for so long is left: some of them never answer what they had
/// too much of, and what comes again may be taken. Long enough for the largest record on a slow link.
const UNANSWERED: Duration = Duration::from_secs(180);
/// For each of the two words of a goodbye.
const GOODBYE: Duration = Duration::from_millis(500);

pub(super) struct Publishing {
    pub(super) name: String,
    config: config::Mqtt,
    pub(super) status_topic: Option<String>,
    pub(super) status_refused: Arc<AtomicBool>,
    pub(super) client: Box<dyn Client>,
    _events: AbortOnDropHandle<()>,
    pub(super) end: End,
    pub(super) window: usize,
    /// Whether the broker has taken a record of this session. Until it has, one goes at a time: what it forbids at its first
    /// is not overtaken by what was sent behind it.
    has_taken: bool,
    pub(super) max_packet: usize,
    /// Messages that wait for room in the window, with their record's number; `true` for a record's last.
    unsent: VecDeque<(u64, bool, Message)>,
    /// Messages without an answer, in the order of their sending.
    in_flight: VecDeque<Flying>,
    /// Of those, topics and payloads.
    bytes: usize,
    /// The oldest record in flight, if an earlier message of it was refused, and why; told when its last is answered.
    refused: Option<(u64, String)>,
    /// When a message was answered last, or the first of those in flight sent.
    heard_at: Instant,
    /// When that is looked at next: one timer for the session, and not one for each time that it waits.
    overdue: Pin<Box<Sleep>>,
    /// The record whose message will have no answer, and why; told when those before it are.
    broken: Option<(u64, Unanswered)>,
}

/// A message without an answer.
struct Flying {
    /// Its record's number.
    number: u64,
    /// Whether it is the record's last.
    last: bool,
    bytes: usize,
    /// `None`: a record that became no message at all.
    acknowledged: Option<Acknowledged>,
}

fn unanswered() -> SessionError {
    SessionError(format!(
        "the broker has confirmed nothing for {} s, and keeps the connection; if this lasts, see whether it limits this \
         client's messages",
        UNANSWERED.as_secs()
    ))
}

impl Session for Publishing {
    fn is_up(&self) -> bool {
        true
    }

    fn has_room(&self) -> bool {
        self.unsent.is_empty() && !self.is_full() && (self.has_taken || self.in_flight.is_empty())
    }

    fn send(&mut self, queued: &Queued, payload: &[u8]) -> Result<Sent, Rejected> {
        let number = queued.id.number;
        let (messages, inexpressible) = messages::of(queued, payload, &self.config).map_err(Rejected::ForGood)?;
        let too_large = |message: &&Message| messages::packet_bytes(message) > self.max_packet;
        if let Some(large) = messages.iter().find(too_large) {
            let reason = format!(
                "{} bytes on {} are more than the broker's maximum packet size of {}",
                large.payload.len(),
                large.topic,
                self.max_packet
            );
            return Err(Rejected::ForGood(reason));
        }
        let bytes = messages.iter().map(Message::bytes).sum();
        let last = messages.len().checked_sub(1);
        if last.is_none() {
            self.in_flight.push_back(Flying {
                number,
                last: true,
                bytes: 0,
                acknowledged: None,
            });
        }
        for (at, message) in messages.into_iter().enumerate() {
            self.unsent.push_back((number, Some(at) == last, message));
        }
        self.fill().map_err(Rejected::SessionLost)?;
        Ok(Sent { bytes, inexpressible })
    }

    fn news(&mut self) -> BoxFuture<'_, Result<News, SessionError>> {
        Box::pin(async move {
            let heard = self.listen().await;
            let is_over = heard.as_ref().map_or(true, |news| {
                news.confirmations
                    .iter()
                    .any(|one| matches!(one.outcome, Outcome::Doubted(_)))
            });
            match self.refused.take_if(|_| is_over) {
                // The broker's word on it stands, whatever became of its other messages.
                Some((number, reason)) => Ok(News {
                    confirmations: vec![Confirmation {
                        number,
                        outcome: Outcome::Refused(reason),
                    }],
                    over: true,
                    ..News::default()
                }),
                None => heard,
            }
        })
    }

    fn close(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let said = tokio::time::timeout(GOODBYE, self.announce(OFFLINE)).await;
            if !matches!(said, Ok(Ok(()))) {
                // Without a DISCONNECT the broker publishes the will, which says the same.
                return;
            }
            // A DISCONNECT, so that the broker does not take this for a lost connection; it need not arrive.
            if self.client.disconnect().await {
                let ended = tokio::time::timeout(GOODBYE, self.end.wait()).await;
                tracing::debug!(in_time = ended.is_ok(), "mqtt disconnected");
            }
        })
    }
}

impl Publishing {
    /// With nothing in flight, no status, and no limit but the configuration's.
    pub(super) fn new(
        name: &str,
        config: config::Mqtt,
        client: Box<dyn Client>,
        events: AbortOnDropHandle<()>,
        end: oneshot::Receiver<Ended>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            window: usize::from(config.max_inflight),
            config,
            status_topic: None,
            status_refused: Arc::default(),
            client,
            _events: events,
            end: End::new(end),
            has_taken: false,
            max_packet: usize::MAX,
            unsent: VecDeque::new(),
            in_flight: VecDeque::new(),
            bytes: 0,
            refused: None,
            heard_at: Instant::now(),
            overdue: Box::pin(tokio::time::sleep(UNANSWERED)),
            broken: None,
        }
    }

    /// What the broker answers, or why it answers no more. Cancel-safe.
    async fn listen(&mut self) -> Result<News, SessionError> {
        if self.broken.is_some() {
            return self.tell_broken().await;
        }
        // Nothing is awaited once there is something in it: a call that is given up loses nothing.
        let (mut confirmations, mut over) = (Vec::new(), false);
        loop {
            self.fill().map_err(SessionError)?;
            let Some(oldest) = self.in_flight.front_mut() else {
                break;
            };
            let (number, last, bytes) = (oldest.number, oldest.last, oldest.bytes);
            let answer = match &mut oldest.acknowledged {
                None => Ok(Outcome::Delivered),
                // What has been answered besides is told at once.
                Some(acknowledged) if !confirmations.is_empty() => match acknowledged.now_or_never() {
                    Some(answer) => answer,
                    None => break,
                },
                Some(acknowledged) => tokio::select! {
                    biased;
                    answer = acknowledged => answer,
                    ended = self.end.wait() => return ended.means(Some(number)),
                    () = &mut self.overdue => {
                        let until = self.heard_at + UNANSWERED;
                        if until <= Instant::now() {
                            return Err(unanswered());
                        }
                        self.overdue.as_mut().reset(until);
                        continue;
                    }
                },
            };
            self.heard_at = Instant::now();
            let outcome = match answer {
                Ok(outcome) => outcome,
                Err(why) => {
                    self.broken = Some((number, why));
                    match confirmations.is_empty() {
                        true => return self.tell_broken().await,
                        false => break,
                    }
                }
            };
            self.in_flight.pop_front();
            self.bytes -= bytes;
            // A record that became no message at all proves nothing.
            self.has_taken |= last && bytes > 0 && outcome == Outcome::Delivered;
            let outcome = match outcome {
                // Its other messages go out all the same, and are answered before it is told.
                Outcome::Refused(reason) => {
                    self.refused.get_or_insert((number, reason));
                    None
                }
                Outcome::Delivered => None,
                bad => Some(bad),
            };
            let is_over = outcome.is_some();
            if !last && !is_over {
                continue;
            }
            let refused = self.refused.take().map(|(_, reason)| Outcome::Refused(reason));
            over = is_over && refused.is_some();
            let outcome = refused.or(outcome).unwrap_or(Outcome::Delivered);
            confirmations.push(Confirmation { number, outcome });
            if is_over {
                break;
            }
        }
        match confirmations.is_empty() {
            false => Ok(News {
                confirmations,
                over,
                ..News::default()
            }),
            true => self.end.wait().await.means(None),
        }
    }

    /// Why a record's message has no answer. Cancel-safe: what is broken stays so, and its answer is not asked for again.
    async fn tell_broken(&mut self) -> Result<News, SessionError> {
        match &self.broken {
            Some((_, Unanswered::Failed(reason))) => Err(SessionError(reason.clone())),
            broken => {
                let number = broken.as_ref().map(|(number, _)| *number);
                self.end.wait().await.means(number)
            }
        }
    }

    /// Never with nothing in flight: a message of any size goes then.
    fn is_full(&self) -> bool {
        self.in_flight.len() >= self.window || self.bytes >= WINDOW_BYTES
    }

    fn fill(&mut self) -> Result<(), String> {
        while !self.is_full()
            && let Some((number, last, message)) = self.unsent.pop_front()
        {
            let bytes = message.bytes();
            let Some(acknowledged) = self.client.publish(message)? else {
                // The connection has ended; `news` says why.
                self.unsent.clear();
                return Ok(());
            };
            if self.in_flight.is_empty() {
                self.heard_at = Instant::now();
            }
            self.in_flight.push_back(Flying {
                number,
                last,
                bytes,
                acknowledged: Some(acknowledged),
            });
            self.bytes += bytes;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
