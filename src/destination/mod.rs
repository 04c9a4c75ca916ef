//! Places that records are delivered to: one file for each kind, behind one trait.
//!
//! A session confirms a record only when the destination itself has confirmed it. After any error it is dropped and a
//! new one begins at the cursor: nothing that a client library remembers is trusted.

pub mod kafka;
mod kafka_client;
mod kafka_probe;
mod kafka_reports;
pub mod log;
mod log_file;
pub mod mqtt;
pub mod mqtt_fields;
mod prompt;
pub mod zmq;
mod zmq_keys;

use futures_util::future::BoxFuture;

use crate::config;
use crate::queue::Queued;

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The destination has it.
    Delivered,
    /// It will never take it, whatever was sent with it; why.
    Refused(String),
    /// It will never take it, or never something that was sent with it; why. The session is over.
    Doubted(String),
    /// It did not take it now, and may later; why. The session is over.
    Failed(String),
}

/// A destination's word on one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmation {
    /// The record's number.
    pub number: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// What a session has to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    /// Word on records.
    pub confirmations: Vec<Confirmation>,
    /// Why nothing arrives at present; the session tries on by itself.
    pub trouble: Option<String>,
    /// With a refusal the session is over, whatever else was on its way.
    pub over: bool,
}

impl From<Vec<Confirmation>> for News {
    fn from(confirmations: Vec<Confirmation>) -> Self {
        Self {
            confirmations,
            ..Self::default()
        }
    }
}

/// Why a session could not begin, or ended. Trying again may help.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SessionError(pub String);

/// A configured destination.
pub trait Destination: Send + Sync {
    /// Begins a session.
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, SessionError>>;

    /// Whether a broker on the other side confirms what it is sent, so that a backlog may drain to it.
    fn has_broker(&self) -> bool {
        false
    }

    /// Whether its sessions outlast a hold: subscribers on this machine would have to come back after each, and miss what
    /// is sent before they have.
    fn keeps_open(&self) -> bool {
        false
    }
}

/// A connection to a destination, with records in flight.
pub trait Session: Send {
    /// Whether the destination itself has answered by now.
    fn is_up(&self) -> bool;

    /// Whether it takes another record now.
    fn has_room(&self) -> bool;

    /// Hands a record over, never waiting: `payload` is what of it is to leave the gateway. Every record that is taken is
    /// confirmed, in any order, or the session ends with an error. `Err` says why the record itself
    /// will never be taken, or that the session is lost.
    ///
    /// What is in the record may be slices of a whole chunk of the queue: who keeps one beyond this call copies it, or keeps
    /// the chunk.
    fn send(&mut self, queued: &Queued, payload: &[u8]) -> Result<Sent, Rejected>;

    /// Waits for news, or the session's end. To be polled even when nothing is in flight. Cancel-safe.
    fn news(&mut self) -> BoxFuture<'_, Result<News, SessionError>>;

    /// Ends the session; what is still in flight stays unconfirmed.
    fn close(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// A record that was taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Bytes of what was made of it.
    pub bytes: usize,
    /// Values in it that the destination's form cannot express, sent as nothing: NaN and infinity in JSON.
    pub inexpressible: usize,
}

/// A record that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejected {
    /// It will never be taken.
    ForGood(String),
    /// The session cannot go on.
    SessionLost(String),
}

/// Makes a destination of its configuration. `queue` names this gateway towards brokers that want a client id.
pub fn build(destination: &config::Destination, queue: &str) -> Result<Box<dyn Destination>, BuildError> {
    let failed = |reason: String| BuildError {
        name: destination.name.clone(),
        reason,
    };
    Ok(match &destination.kind {
        config::DestinationKind::Kafka(kafka) => Box::new(kafka::Kafka::new(&destination.name, kafka).map_err(failed)?),
        config::DestinationKind::Mqtt(mqtt) => {
            Box::new(mqtt::Mqtt::new(&destination.name, mqtt, queue).map_err(failed)?)
        }
        config::DestinationKind::Zmq(zmq) => Box::new(zmq::Zmq::new(zmq).map_err(failed)?),
        config::DestinationKind::Log(log) => Box::new(log::Log::new(log)),
    })
}

/// Files and connections that a destination may have open at once: to every broker of a cluster, or of every subscriber.
pub fn descriptors(destination: &config::Destination) -> usize {
    match &destination.kind {
        config::DestinationKind::Kafka(_) | config::DestinationKind::Zmq(_) => 64,
        config::DestinationKind::Mqtt(_) | config::DestinationKind::Log(_) => 8,
    }
}

/// Tries whether a destination can be reached as it is configured, without a record and under another name than the
/// gateway's, so that one that runs does not notice. Ends with what answered and what is wrong with it for records of these
/// types, or why nothing did; blocks for seconds.
pub fn probe(
    destination: &config::Destination,
    types: &[&str],
    runtime: &tokio::runtime::Runtime,
) -> Result<(String, Vec<String>), String> {
    let answered = |what: &str| (what.to_owned(), Vec::new());
    match &destination.kind {
        config::DestinationKind::Kafka(kafka) => {
            let topics: Vec<_> = types.iter().map(|name| format!("{}_{name}", kafka.namespace)).collect();
            let (brokers, lacks) = kafka_client::Settings::new(kafka)?.probe(&topics)?;
            Ok((format!("the cluster answers, brokers: {brokers}"), lacks))
        }
        config::DestinationKind::Mqtt(mqtt) => {
            let broker = mqtt::Mqtt::asking(&destination.name, mqtt)?;
            runtime.block_on(async {
                let session = broker.connect().await.map_err(|error| error.to_string())?;
                session.close().await;
                Ok(answered("the broker lets the gateway in"))
            })
        }
        config::DestinationKind::Zmq(_) | config::DestinationKind::Log(_) => Ok(answered("is on this machine")),
    }
}

/// A destination that its configuration does not make.
#[derive(Debug, thiserror::Error)]
#[error("destination {name:?}: {reason}")]
pub struct BuildError {
    name: String,
    reason: String,
}
