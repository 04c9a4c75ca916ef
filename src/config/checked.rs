//! From the text of a configuration file to a [`Config`], or to every mistake in it.
//!
//! Invariant: a [`Config`] comes out only if there was nothing wrong at all. What may be meant but looks odd is a warning.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tracing_subscriber::filter::Targets;

use super::paths::Base;
use super::reader::{Document, Field, Table};
use super::{Config, Listener, Queue, WhenFull, delivery, destinations, identities, routes, units};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const MIN_AGE: Duration = Duration::from_secs(60);
const MAX_AGE: Duration = Duration::from_secs(3650 * 86_400);
const GIB: u64 = 1 << 30;
const DAY: Duration = Duration::from_secs(86_400);
/// Vehicles whose signals may be counted each for itself: as many as Tesla's server takes.
const SIGNAL_VINS: usize = 20;

/// One thing that is wrong in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Line of the file, from 1.
    pub line: usize,
    /// The whole dotted key; empty where the file is not TOML at all.
    pub key: String,
    /// What is wrong with which value, and what is allowed.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.line, self.message),
            key => write!(f, "{}: {key}: {}", self.line, self.message),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}; name another file with --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file says something wrong. Displayed as one line per mistake.
    #[error("{}", shown(path, mistakes))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong, in the order of the file. Never empty.
        mistakes: Vec<Mistake>,
    },
}

fn shown(path: &Path, mistakes: &[Mistake]) -> String {
    let lines: Vec<String> = mistakes
        .iter()
        .map(|mistake| format!("{}:{mistake}", path.display()))
        .collect();
    lines.join("\n")
}

/// Reads and checks a configuration file.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    checked(&read(path)?, path, true)
}

/// The same for who delivers nothing: secrets that are credentials of the service are there only while that runs, and may
/// be missing.
pub fn load_for_queue(path: &Path) -> Result<Config, ConfigError> {
    checked(&read(path)?, path, false)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Checks the text of a configuration file. Its path is where relative paths in it start, and is named in errors.
pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    checked(text, path, true)
}

fn checked(text: &str, path: &Path, delivers: bool) -> Result<Config, ConfigError> {
    let document = Document::new(text);
    let config = document.parse().and_then(|entries| {
        let named = RefCell::default();
        let base = Base::new(path, &named, delivers);
        let config = config(&document.root(&entries), base);
        config.map(|config| Config {
            named: named.into_inner(),
            ..config
        })
    });
    let mistakes = document.into_mistakes();
    match config {
        Some(config) if mistakes.is_empty() => Ok(config),
        _ => Err(ConfigError::Invalid {
            path: path.to_owned(),
            mistakes,
        }),
    }
}

/// Every section is read before the first `?`, so that mistakes in all of them are found.
fn config(root: &Table<'_>, base: Base<'_>) -> Option<Config> {
    let mut warnings = Vec::new();
    let listener = listener(root.table("listener"), base, &mut warnings);
    let queue = queue(root.table("queue"), base);
    let section = root.table("destinations");
    let names: BTreeSet<&str> = section.entries().map(|(name, _)| name).collect();
    let routes = routes::read(&root.table("records"), &names, &mut warnings);
    let destinations = destinations::read(
        &section,
        base,
        queue.as_ref().map(|queue| queue.segment_size),
        &mut warnings,
    );
    let identity = identities::read(&root.table("identity"));
    let (admin, signal_vins) = admin(
        root.table("admin"),
        listener.as_ref().map(|listener| listener.bind),
        &mut warnings,
    );
    let taken = [
        ("listener.bind", listener.as_ref().map(|listener| listener.bind)),
        ("admin.bind", admin.flatten()),
    ];
    destinations::ports_apart(&section, destinations.as_deref().unwrap_or_default(), &taken);
    let log_level = log_level(root.table("log"));
    let shutdown_grace = match root.field("shutdown_grace") {
        Some(field) => field.duration(Duration::ZERO..=Duration::from_secs(3_600)),
        None => Some(Duration::from_secs(10)),
    };
    root.finish();
    let (routes, destinations) = (routes?, destinations?);
    routes::without_topics(&routes, &destinations, &mut warnings);
    Some(Config {
        listener: listener?,
        identity,
        queue: queue?,
        routes,
        destinations,
        admin: admin?,
        signal_vins: signal_vins?,
        log_level: log_level?,
        shutdown_grace: shutdown_grace?,
        named: Vec::new(),
        warnings,
    })
}

fn listener(table: Table<'_>, base: Base<'_>, warnings: &mut Vec<String>) -> Option<Listener> {
    let bind = match table.field("bind") {
        Some(field) => address(&field, "[::]:443"),
        None => Some(SocketAddr::from(([0_u16; 8], 443))),
    };
    let certificate = table.required(
        "certificate",
        "name the PEM file with the server certificate and its chain",
    );
    let certificate = certificate.and_then(|field| base.path(&field));
    let private_key = table.required(
        "private_key",
        "name the PEM file with the server certificate's private key",
    );
    let private_key = private_key.and_then(|field| base.path(&field));
    let vehicle_ca = table.required(
        "vehicle_ca",
        "name the PEM file with the authorities that sign vehicle certificates",
    );
    let vehicle_ca = vehicle_ca.and_then(|field| {
        let files: Vec<PathBuf> = field.strings().iter().filter_map(|(_, file)| base.path(file)).collect();
        if files.is_empty() {
            field.mistake("names no file; without an authority no vehicle can be verified");
        }
        Some(files).filter(|files| !files.is_empty())
    });
    let vehicle_crl = or(&table, "vehicle_crl", Some(Vec::new()), |field| {
        field.strings().iter().map(|(_, file)| base.path(file)).collect()
    });
    let public_key = table.field("public_key").map(|field| base.path(&field));
    let allow_vins = table
        .field("allow_vins")
        .map(|field| delivery::device_ids(&field, warnings))
        .unwrap_or_default();
    let messages_per_second = or(&table, "messages_per_second", Some(100), |field| {
        field.integer(1..=1_000_000)
    });
    let max_connections = or(&table, "max_connections", Some(1_024), |field| {
        field.integer(1..=1_000_000)
    });
    let handshake_timeout = or(&table, "handshake_timeout", Some(Duration::from_secs(10)), |field| {
        field.duration(Duration::from_millis(100)..=Duration::from_secs(300))
    });
    let idle_timeout = or(&table, "idle_timeout", Some(Duration::from_secs(120)), |field| {
        field.duration(Duration::from_millis(100)..=DAY)
    });
    let max_waiting_bytes = or(&table, "max_waiting_bytes", Some(4 * MIB), |field| {
        field.size(2 * MIB..=GIB)
    });
    table.finish();
    Some(Listener {
        bind: bind?,
        certificate: certificate?,
        private_key: private_key?,
        vehicle_ca: vehicle_ca?,
        vehicle_crl: vehicle_crl?,
        public_key: match public_key {
            Some(path) => Some(path?),
            None => None,
        },
        allow_vins,
        messages_per_second: u32::try_from(messages_per_second?).ok()?,
        max_connections: usize::try_from(max_connections?).ok()?,
        handshake_timeout: handshake_timeout?,
        idle_timeout: idle_timeout?,
        max_waiting_bytes: usize::try_from(max_waiting_bytes?).ok()?,
    })
}

fn queue(table: Table<'_>, base: Base<'_>) -> Option<Queue> {
    let path = or(
        &table,
        "path",
        Some(PathBuf::from("/var/lib/waystation/queue")),
        |field| base.path(field),
    );
    let segment_size = or(&table, "segment_size", Some(32 * MIB), |field| {
        field.size(MIB..=48 * MIB)
    });
    let max_bytes = table.field("max_bytes");
    let max_bytes = match (&max_bytes, segment_size) {
        (None, _) => Some(4 * GIB),
        (Some(field), None) => field.size(MIB..=u64::MAX),
        (Some(field), Some(segment)) => field.size(0..=u64::MAX).filter(|bytes| {
            if *bytes < 4 * segment {
                field.refuse(format_args!(
                    "is less than four segments of {}; write at least \"{}\", or make queue.segment_size smaller",
                    units::show_size(segment),
                    units::show_size(4 * segment)
                ));
            }
            *bytes >= 4 * segment
        }),
    };
    let commit_delay = or(&table, "commit_delay", Some(Duration::from_millis(50)), |field| {
        field.duration(Duration::ZERO..=Duration::from_secs(5))
    });
    let when_full = or(&table, "when_full", Some(WhenFull::Refuse), |field| {
        field.choice(&[("refuse", WhenFull::Refuse), ("drop-oldest", WhenFull::DropOldest)])
    });
    let keep_free = or(&table, "keep_free", Some(64 * MIB), |field| field.size(0..=u64::MAX));
    let max_age = or(&table, "max_age", Some(None), |field| match field.string() {
        Some("off") => Some(None),
        _ => field.duration(MIN_AGE..=MAX_AGE).map(Some),
    });
    // A record of the largest size has to fit, with what is noted about it.
    let dead_letter_bytes = or(&table, "dead_letter_bytes", Some(64 * MIB), |field| {
        field.size(2 * MIB..=u64::MAX)
    });
    let duplicate_window = or(&table, "duplicate_window", Some(4 * MIB), |field| {
        match field.string()? {
            "off" => Some(0),
            _ => field.size(64 * KIB..=256 * MIB),
        }
    });
    table.finish();
    Some(Queue {
        path: path?,
        max_bytes: max_bytes?,
        segment_size: segment_size?,
        commit_delay: commit_delay?,
        when_full: when_full?,
        keep_free: keep_free?,
        max_age: max_age?,
        dead_letter_bytes: dead_letter_bytes?,
        duplicate_window: duplicate_window?,
    })
}

/// Where the port is, if there is one, and whose signals are counted.
fn admin(
    table: Table<'_>,
    listener: Option<SocketAddr>,
    warnings: &mut Vec<String>,
) -> (Option<Option<SocketAddr>>, Option<BTreeSet<String>>) {
    let field = table.field("bind");
    let bind = match &field {
        Some(field) if field.string() == Some("off") => Some(None),
        Some(field) => address(field, "127.0.0.1:8780").map(Some),
        None => Some(Some(SocketAddr::from(([127, 0, 0, 1], 8780)))),
    };
    if let (Some(listener), Some(Some(address))) = (listener, bind)
        && overlap(listener, address)
    {
        let message = format!("{address} is taken by listener.bind = \"{listener}\"; write another port");
        field.map_or_else(|| table.mistake(&message), |field| field.mistake(&message));
    }
    if let Some(Some(address)) = bind
        && !address.ip().to_canonical().is_loopback()
    {
        warnings.push(format!(
            "admin.bind: {address} can be reached from other machines and asks for no password"
        ));
    }
    let signal_vins = or(&table, "signal_vins", Some(BTreeSet::new()), |field| {
        let vins = delivery::device_ids(field, warnings);
        if vins.len() > SIGNAL_VINS {
            field.mistake(format_args!(
                "names {} vehicles, and each is a metric of its own; write at most {SIGNAL_VINS}",
                vins.len()
            ));
        }
        Some(vins).filter(|vins| vins.len() <= SIGNAL_VINS)
    });
    table.finish();
    (bind, signal_vins)
}

/// Whether only one of two addresses can be listened on. `[::]` is every address, IPv4 included.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    let covers = |wide: IpAddr, narrow: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4());
    one.port() == other.port() && one.port() != 0 && (a == b || covers(a, b) || covers(b, a))
}

fn log_level(table: Table<'_>) -> Option<String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let level = or(&table, "level", Some("info".to_owned()), |field| {
        let filter = field.text()?;
        // A lone word that is no level would be taken for the name of a module, and everything else silenced.
        let stray = filter
            .split(',')
            .map(str::trim)
            .find(|part| !part.contains('=') && !LEVELS.contains(part));
        if stray.is_some() || filter.parse::<Targets>().is_err() {
            field.refuse(format_args!(
                "is not a log filter; write one of {}, or for example \"info,waystation::queue=debug\"",
                LEVELS.join(", ")
            ));
            return None;
        }
        Some(filter.to_owned())
    });
    table.finish();
    level
}

fn address(field: &Field<'_>, example: &str) -> Option<SocketAddr> {
    let address = field.string()?.parse().ok();
    if address.is_none() {
        field.refuse(format_args!(
            "is not an address; write ip:port, for example \"{example}\""
        ));
    }
    address
}

/// The value of a key as `read` makes it, or its default where the key is absent.
pub(super) fn or<'d, T>(
    table: &Table<'d>,
    name: &'static str,
    default: Option<T>,
    read: impl FnOnce(&Field<'d>) -> Option<T>,
) -> Option<T> {
    match table.field(name) {
        Some(field) => read(&field),
        None => default,
    }
}
