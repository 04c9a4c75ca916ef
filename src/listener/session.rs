//! One vehicle's connection, from its upgrade to its end: messages in, records to the queue, acks out.
//!
//! An ack for a stored record is sent only when the queue's progress says that it is on the disk. What waits for that
//! is bounded: beyond the limit, or over the vehicle's rate, the socket is read no further and nothing is dropped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_util::io::InspectReader;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Verdict, Why};
use super::counters::Counters;
use super::ending::{End, REPLACED_PATIENCE, replaced_for};
use super::http::Upgraded;
use super::notes::describe;
use super::rate::Rate;
use super::server::Settings;
use crate::queue::{DeadLetter, Item, Queue, Submitter};
use crate::record::envelope::{self, MAX_MESSAGE_BYTES};
use crate::record::identity::Identity;
use crate::record::payload::ConnectivityStatus;
use crate::record::{Record, epoch_ms};

/// A message up to here is read to its end and answered; a longer one ends the connection after its error reply.
const LONGEST_READ: usize = 2 * MAX_MESSAGE_BYTES;
pub(super) const READ_BUFFER: usize = 4 << 10;
const WRITE_BUFFER: usize = 4 << 10;
/// Replies that may wait for a vehicle to read them; beyond this the connection ends.
const MAX_WRITE_BUFFER: usize = 3 << 20;
/// Messages that are taken in a row before anything else is looked at.
const AT_ONCE: usize = 32;
/// What an entry costs beyond its message, so that many small ones are bounded too.
const ENTRY_BYTES: usize = 256;
/// A reply that the vehicle has not taken by then ends the connection.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Notes what is read, beside passing it on.
pub(super) type Stream = InspectReader<TlsStream<TcpStream>, Box<dyn FnMut(&[u8]) + Send>>;

/// What a session needs of the gateway.
pub(crate) struct Surroundings {
    pub queue: Queue,
    pub settings: Arc<Settings>,
    pub counters: Arc<Counters>,
    /// The gateway is stopping: finish what was read.
    pub draining: CancellationToken,
}

pub(crate) struct Session {
    pub(super) around: Surroundings,
    pub(super) identity: Identity,
    pub(super) connection_id: Arc<str>,
    pub(super) network_interface: String,
    pub(super) client_version: Arc<str>,
    pub(super) socket: WebSocketStream<Stream>,
    /// Whether something was read since the last message.
    heard: Arc<AtomicBool>,
    pub(super) submitter: Submitter,
    /// What waits for its commit, in the order of submission.
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) waiting_bytes: usize,
    /// How many submissions were answered.
    pub(super) released: u64,
    rate: Rate,
    last_heard: Instant,
    pinged: bool,
    held: Held,
    /// What was logged already: once per connection and kind.
    logged: Vec<&'static str>,
}

pub(super) struct Waiting {
    reply: Option<Bytes>,
    bytes: usize,
    pub(super) stored: bool,
}

/// Why the socket is not read at the moment.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    /// Too many bytes wait for their commit.
    full: bool,
    /// The vehicle is over its rate.
    fast: bool,
}

impl Session {
    pub(crate) async fn new(around: Surroundings, identity: Identity, upgraded: Upgraded, rate: Rate) -> Box<Self> {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(MAX_WRITE_BUFFER)
            .max_message_size(Some(LONGEST_READ))
            .max_frame_size(Some(LONGEST_READ));
        let Upgraded { stream, read, request } = upgraded;
        // A copy: what is read into is as large as a whole request may be.
        let heard = Arc::<AtomicBool>::default();
        let hears = Arc::clone(&heard);
        let stream = Stream::new(stream, Box::new(move |_: &[u8]| hears.store(true, Ordering::Relaxed)));
        let socket = WebSocketStream::from_partially_read(stream, read.to_vec(), Role::Server, Some(config)).await;
        Box::new(Self {
            submitter: around.queue.submitter(),
            rate,
            around,
            identity,
            connection_id: request.connection_id.into(),
            network_interface: request.network_interface,
            client_version: request.client_version.into(),
            socket,
            heard,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            released: 0,
            last_heard: Instant::now(),
            pinged: false,
            held: Held::default(),
            logged: Vec::new(),
        })
    }

    /// Runs until the connection ends, for whatever reason, and not much of what came over it waits for the disk. Returns
    /// what the vehicle may send then.
    pub(crate) async fn run(mut self: Box<Self>, replaced: CancellationToken) -> Rate {
        tracing::info!(vin = %self.identity.device_id, connection_id = %self.connection_id,
            client_type = %self.identity.client_type, client_version = %self.client_version, "vehicle connected");
        self.around.counters.connections.add();
        let end = match self.announce(ConnectivityStatus::Connected).await {
            // A message that is dropped here was not acknowledged, and comes again on the newer connection.
            Ok(()) => tokio::select! {
                biased;
                () = replaced.cancelled() => End::Replaced,
                end = self.serve() => end,
            },
            Err(refusal) => End::Refused(refusal),
        };
        let draining = self.around.draining.clone();
        tokio::select! {
            () = self.part(&end) => {}
            // The newer one waits for this.
            () = replaced_for(&replaced, REPLACED_PATIENCE) => {}
            () = draining.cancelled(), if matches!(end, End::Violation(..)) => {}
        }
        self.around.counters.connections.sub();
        tracing::info!(vin = %self.identity.device_id, connection_id = %self.connection_id, end = ?end, "vehicle disconnected");
        self.settle().await;
        self.say_goodbye().await;
        self.rate
    }

    async fn serve(&mut self) -> End {
        let draining = self.around.draining.clone();
        let idle = self.around.settings.config.idle_timeout;
        let mut ticks = tokio::time::interval((idle / 4).max(Duration::from_millis(10)));
        loop {
            let now = Instant::now();
            let full = self.is_full();
            let pause = self.rate.pause(now);
            let fast = pause.is_some();
            self.hold(Held { full, fast }, now);
            let outcome = tokio::select! {
                biased;
                advanced = self.submitter.advanced(self.released), if !self.waiting.is_empty() => match advanced {
                    Ok(committed) => self.release(committed).await,
                    Err(refusal) => Err(End::Refused(refusal)),
                },
                () = draining.cancelled() => Err(End::Draining),
                message = self.socket.next(), if !full && pause.is_none() => self.take_ready(message).await,
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => Ok(()),
                _ = ticks.tick() => self.check_idle(idle).await,
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    /// Notes whether the socket is read now. Every time that it ceases to be is counted, the first of a kind logged.
    fn hold(&mut self, held: Held, now: Instant) {
        let before = std::mem::replace(&mut self.held, held);
        if held.full && !before.full {
            self.around.counters.backpressured.add();
            if self.first_time("backpressure") {
                tracing::warn!(vin = %self.identity.device_id, connection_id = %self.connection_id, limit = self.around.settings.config.max_waiting_bytes,
                    "too much of this vehicle waits for its commit: its socket is read no further for now");
            }
        }
        if held.fast && !before.fast {
            self.around.counters.rate_limited.add();
            if self.first_time("rate") {
                tracing::warn!(vin = %self.identity.device_id, connection_id = %self.connection_id, limit = self.around.settings.config.messages_per_second,
                    "this vehicle sends more messages a second than its limit: its socket is read no faster, nothing is dropped");
            }
        }
        if held.full || held.fast {
            // Whom nobody listens to is not silent.
            self.last_heard = now;
        }
    }

    fn is_full(&self) -> bool {
        self.waiting_bytes >= self.around.settings.config.max_waiting_bytes
    }

    /// Takes a message, and those behind it that are here already.
    async fn take_ready(&mut self, first: Option<Result<Message, WsError>>) -> Result<(), End> {
        self.take(first).await?;
        for _ in 1..AT_ONCE {
            if self.is_full() || self.rate.pause(self.last_heard).is_some() {
                break;
            }
            match self.socket.next().now_or_never() {
                Some(next) => self.take(next).await?,
                None => break,
            }
        }
        Ok(())
    }

    async fn take(&mut self, message: Option<Result<Message, WsError>>) -> Result<(), End> {
        self.hears();
        match message {
            Some(Ok(Message::Binary(bytes))) => {
                self.rate.spend(self.last_heard);
                self.judge(bytes).await
            }
            Some(Ok(Message::Text(_))) => Err(End::Violation(
                CloseCode::Unsupported,
                "records come in binary messages",
            )),
            // tungstenite queues the pong itself; the next write or read sends it.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(()),
            Some(Ok(Message::Close(_))) | None => Err(End::Closed),
            Some(Err(WsError::Capacity(CapacityError::MessageTooLong { size, .. }))) => {
                self.note(Why::TooBig, || format!("{size} bytes"));
                self.reply(envelope::error_reply(b"")).await?;
                Err(End::Violation(CloseCode::Size, "messages are at most 1000000 bytes"))
            }
            Some(Err(WsError::ConnectionClosed | WsError::AlreadyClosed)) => Err(End::Closed),
            Some(Err(error)) => Err(End::Socket(error.to_string())),
        }
    }

    async fn judge(&mut self, message: Bytes) -> Result<(), End> {
        let received_at = epoch_ms();
        let size = message.len();
        let seen = message.clone();
        match answer::judge(message, &self.identity, &self.around.settings.routes) {
            Verdict::Store {
                stream,
                record_type,
                signals,
            } => {
                let counters = &self.around.counters;
                counters.record(&record_type, stream.payload.len());
                counters.signals.add(&record_type, &self.identity.device_id, signals);
                let reply = envelope::ack(&stream.txid, &stream.topic);
                let record = Record {
                    vin: Arc::clone(&self.identity.device_id),
                    record_type,
                    txid: stream.txid,
                    received_at,
                    client_version: Arc::clone(&self.client_version),
                    payload: stream.payload,
                    origin: None,
                    only: None,
                };
                self.submit(Item::Sent(record), Some(reply), size).await
            }
            Verdict::DeadLetter {
                reason,
                reply,
                txid,
                record_type,
                raw,
                why,
            } => {
                self.note(why, || format!("{reason}; {}", describe(&seen)));
                let letter = DeadLetter {
                    origin: "listener".to_owned(),
                    reason,
                    at: received_at,
                    vin: self.identity.device_id.to_string(),
                    record_type,
                    txid,
                    raw,
                    record: None,
                    received_at,
                    client_version: self.client_version.to_string(),
                };
                self.submit(Item::DeadLetter(letter), Some(reply), size).await
            }
            Verdict::Answer { reply, why } => {
                self.note(why, || describe(&seen));
                self.reply(reply).await
            }
        }
    }

    pub(super) async fn submit(&mut self, item: Item, reply: Option<Bytes>, bytes: usize) -> Result<(), End> {
        let stored = !matches!(item, Item::DeadLetter(_));
        if let Err(refusal) = self.submitter.submit(item).await {
            self.around.counters.not_acked.add_many(stored.into());
            return Err(End::Refused(refusal));
        }
        let bytes = bytes + ENTRY_BYTES;
        self.waiting_bytes += bytes;
        self.waiting.push_back(Waiting { reply, bytes, stored });
        Ok(())
    }

    /// Sends the replies of everything that is on the disk now, in one write.
    pub(super) async fn release(&mut self, committed: u64) -> Result<(), End> {
        let (mut replies, mut acked) = (Vec::new(), 0);
        while self.released < committed
            && let Some(waiting) = self.waiting.pop_front()
        {
            self.released += 1;
            self.waiting_bytes -= waiting.bytes;
            if let Some(reply) = waiting.reply {
                replies.push(reply);
                acked += u64::from(waiting.stored);
            }
        }
        let socket = &mut self.socket;
        let write = async {
            for reply in replies {
                socket.feed(Message::Binary(reply)).await?;
            }
            socket.flush().await
        };
        written(timeout(WRITE_TIMEOUT, write).await)?;
        self.around.counters.acked.add_many(acked);
        Ok(())
    }

    async fn reply(&mut self, reply: Bytes) -> Result<(), End> {
        written(timeout(WRITE_TIMEOUT, self.socket.send(Message::Binary(reply))).await)
    }

    fn hears(&mut self) {
        self.last_heard = Instant::now();
        self.pinged = false;
        self.heard.store(false, Ordering::Relaxed);
    }

    async fn check_idle(&mut self, idle: Duration) -> Result<(), End> {
        // In the middle of a message, on a slow link, no pong can come.
        if self.heard.load(Ordering::Relaxed) {
            self.hears();
        }
        let silent = self.last_heard.elapsed();
        if silent >= idle {
            self.around.counters.idle_closed.add();
            return Err(End::Idle);
        }
        if silent >= idle / 2 && !self.pinged {
            self.pinged = true;
            return written(timeout(WRITE_TIMEOUT, self.socket.send(Message::Ping(Bytes::new()))).await);
        }
        Ok(())
    }

    pub(super) fn first_time(&mut self, kind: &'static str) -> bool {
        let new = !self.logged.contains(&kind);
        if new {
            self.logged.push(kind);
        }
        new
    }
}

fn written(result: Result<Result<(), WsError>, tokio::time::error::Elapsed>) -> Result<(), End> {
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(WsError::ConnectionClosed | WsError::AlreadyClosed)) => Err(End::Closed),
        Ok(Err(error)) => Err(End::Socket(error.to_string())),
        Err(_) => Err(End::Socket("the vehicle does not read its acks".to_owned())),
    }
}
