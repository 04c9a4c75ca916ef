//! The configuration after it has been checked: every value here is in range and names only things that exist.
//!
//! `load` reads a TOML file into [`Config`] or gives every mistake in it at once. Nothing outside this folder sees TOML.

mod checked;
mod delivery;
mod destinations;
mod dotted;
mod identities;
pub(crate) mod kafka_properties;
mod mqtt;
mod nearest;
mod paths;
mod reader;
mod redacted;
mod routes;
pub(crate) mod secret;
mod units;
mod zmq;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use omq_tokio::CurvePublicKey;

pub use checked::{ConfigError, Mistake, load, load_for_queue, parse};
pub use delivery::{Delivery, Flow, RecordFormat, Start, VinFilter, VinList, Window, no_device_id, vin_meant};
pub use mqtt::{Mqtt, MqttLayout, MqttPassword, MqttProtocol, MqttTls, Qos};
pub(crate) use nearest::nearest;
pub(crate) use paths::is_credential;

use crate::record::identity::IssuerTable;

/// A whole, checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The port that vehicles connect to.
    pub listener: Listener,
    /// Which certificate issuers stand for which kind of client.
    pub identity: IssuerTable,
    /// The durable queue.
    pub queue: Queue,
    /// Which record types go where.
    pub routes: Routes,
    /// Every destination, in the order of its name.
    pub destinations: Vec<Destination>,
    /// The local status and metrics port, if there is one.
    pub admin: Option<SocketAddr>,
    /// Device ids whose signals are counted each for itself.
    pub signal_vins: BTreeSet<String>,
    /// Log filter, in `tracing` syntax: `info`, `debug`, `waystation::queue=debug,info`.
    pub log_level: String,
    /// How long a stop waits for what is in flight.
    pub shutdown_grace: Duration,
    /// The files and folders that it names, with their keys, but for those among Kafka's properties.
    pub named: Vec<(String, PathBuf)>,
    /// What is allowed but probably not meant, one sentence each, to be logged at the start and shown by `check`.
    pub warnings: Vec<String>,
}

/// The port that vehicles connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Address to listen on.
    pub bind: SocketAddr,
    /// PEM file with the server certificate and its chain, leaf first.
    pub certificate: PathBuf,
    /// PEM file with the server certificate's private key.
    pub private_key: PathBuf,
    /// PEM files with the authorities that sign vehicle certificates. Never empty.
    pub vehicle_ca: Vec<PathBuf>,
    /// PEM files with lists of vehicle certificates that their authorities have revoked.
    pub vehicle_crl: Vec<PathBuf>,
    /// PEM file served at `/.well-known/appspecific/com.tesla.3p.public-key.pem`.
    pub public_key: Option<PathBuf>,
    /// Device ids that may connect; empty: every verified vehicle.
    pub allow_vins: BTreeSet<String>,
    /// Records a second that are read from one vehicle.
    pub messages_per_second: u32,
    /// Open connections in all.
    pub max_connections: usize,
    /// Time for TLS and the HTTP request together.
    pub handshake_timeout: Duration,
    /// A connection that says nothing for this long, pings unanswered, is closed.
    pub idle_timeout: Duration,
    /// Bytes of one vehicle's records that may wait for their commit before its socket is read no further.
    pub max_waiting_bytes: usize,
}

/// The durable queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its directory.
    pub path: PathBuf,
    /// Disk space that it may use, in bytes.
    pub max_bytes: u64,
    /// Stored bytes after which a segment is sealed and the next one begun.
    pub segment_size: u64,
    /// How long a commit waits for company when little is waiting.
    pub commit_delay: Duration,
    /// What happens when there is no room.
    pub when_full: WhenFull,
    /// Bytes of the file system that are left free.
    pub keep_free: u64,
    /// Running time after which records go, delivered or not.
    pub max_age: Option<Duration>,
    /// Bytes of dead letters that are kept.
    pub dead_letter_bytes: u64,
    /// Bytes of memory for knowing records that vehicles send again; 0: each is stored each time.
    pub duplicate_window: u64,
}

/// What happens when the queue is at its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Vehicles get no ack and keep their data.
    Refuse,
    /// The oldest records go, whoever still needs them.
    DropOldest,
}

/// Record type → names of destinations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    /// By record type, as vehicles name it (`V`, `alerts`, …).
    pub by_type: BTreeMap<String, BTreeSet<String>>,
    /// For every record type that is not named (`"*"` in the file).
    pub others: BTreeSet<String>,
}

impl Routes {
    /// Whether any destination gets this record type.
    pub fn is_routed(&self, record_type: &str) -> bool {
        self.destinations(record_type).next().is_some()
    }

    /// The destinations of a record type.
    pub fn destinations(&self, record_type: &str) -> impl Iterator<Item = &str> {
        self.by_type
            .get(record_type)
            .unwrap_or(&self.others)
            .iter()
            .map(String::as_str)
    }
}

/// One place that records are delivered to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Its name in the configuration; 1–64 characters of `a-z A-Z 0-9 _ -`.
    pub name: String,
    /// Whether it may fill the queue until vehicles are refused. One that is not loses its oldest records instead.
    pub required: bool,
    /// What it is sent, and how fast.
    pub delivery: Delivery,
    /// What it is.
    pub kind: DestinationKind,
}

/// The kinds of destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DestinationKind {
    /// A Kafka cluster.
    Kafka(Kafka),
    /// An MQTT broker.
    Mqtt(Mqtt),
    /// A ZMQ socket.
    Zmq(Zmq),
    /// JSON lines.
    Log(Log),
}

/// A Kafka cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct Kafka {
    /// Topics are `{namespace}_{record type}`.
    pub namespace: String,
    /// librdkafka properties, by their own names; those that would break a promise are not among them.
    pub properties: BTreeMap<String, String>,
    /// Properties whose values are secrets that stand in files; each session reads them anew.
    pub secret_files: BTreeMap<String, PathBuf>,
}

/// A ZMQ socket that publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zmq {
    /// `tcp://IP:PORT` or `ipc://PATH`.
    pub bind: String,
    /// The first frame is `{namespace}_{record type}`.
    pub namespace: String,
    /// Messages that may wait for one subscriber; more are dropped for it.
    pub high_water_mark: u32,
    /// Whether a third frame says VIN, transaction id, record id and time as JSON.
    pub metadata: bool,
    /// Encryption and authentication.
    pub curve: Option<Curve>,
}

impl Zmq {
    /// The address, if it listens on a port.
    pub fn tcp(&self) -> Option<SocketAddr> {
        self.bind.strip_prefix("tcp://")?.parse().ok()
    }

    /// The socket's path, if it has one.
    pub fn ipc(&self) -> Option<&Path> {
        self.bind.strip_prefix("ipc://").map(Path::new)
    }
}

/// CURVE, as libzmq has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Curve {
    /// File with the server's secret key.
    pub server_key: PathBuf,
    /// Who may subscribe.
    pub allowed: AllowedClients,
}

/// Clients that may subscribe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedClients {
    /// Each that knows the server's public key.
    Everybody,
    /// Those with these public keys.
    Keys(Vec<CurvePublicKey>),
    /// Those whose public keys are in a file.
    File(PathBuf),
}

/// JSON lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The file to append to; none: standard output.
    pub path: Option<PathBuf>,
}
