//! A changed configuration on a gateway that runs: taken whole, or not at all.
//!
//! What can change without a connection or a delivery noticing does at once; what cannot is named.

use std::mem::discriminant;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;

use super::destinations::{self, DestinationErrors, Rulers};
use super::queue_settings;
use crate::config::{self, Config};
use crate::listener::tls::{self, TlsError};
use crate::queue::{OrderError, Queue};

/// Why everything stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Certificates, keys or authorities.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// What destinations are to be sent.
    #[error(transparent)]
    Destinations(#[from] DestinationErrors),
    /// The queue's writer.
    #[error("queue: {0}")]
    Queue(#[from] OrderError),
}

/// The files that a configuration names and that may be renewed while the gateway runs.
pub fn renewable(config: &Config) -> Vec<PathBuf> {
    let listener = &config.listener;
    let mut files = vec![listener.certificate.clone(), listener.private_key.clone()];
    files.extend(listener.vehicle_ca.iter().chain(&listener.vehicle_crl).cloned());
    files.extend(config.destinations.iter().flat_map(lists));
    files
}

/// The files with VINs of a destination.
fn lists(destination: &config::Destination) -> impl Iterator<Item = PathBuf> {
    let vins = &destination.delivery.vins;
    let lists = vins.allow.iter().chain([&vins.deny]);
    lists.filter_map(|list| list.file.clone())
}

/// The parts of a running gateway that can change.
pub struct Reloader {
    pub(super) current: Config,
    pub(super) queue: Queue,
    pub(super) tls: Arc<ArcSwap<ServerConfig>>,
    pub(super) rulers: Rulers,
    /// Those that the last configuration still has, as they run: what it changed of one that waits for a restart does not
    /// count yet.
    pub(super) live: Vec<config::Destination>,
    /// Whether some of these wait for a restart: their lists are read by `refresh`, and not with a reload.
    pub(super) waits: bool,
}

impl Reloader {
    /// Takes a configuration over: how the queue behaves, what destinations are sent and how fast, and the listener's
    /// certificate, key and authorities. All files that it names are read again. Connections stay. Returns the keys that
    /// changed and need a restart.
    pub async fn reload(&mut self, new: Config) -> Result<Vec<String>, ReloadError> {
        let loaded = tls::load(&new.listener)?;
        let staying: Vec<_> = new.destinations.iter().filter_map(|one| self.ruled_by(one)).collect();
        let rules = destinations::rules(&self.current.routes, &staying)?;
        self.queue.change(queue_settings(&new.queue)).await?;
        self.tls.store(loaded.server);
        for (destination, rules) in staying.iter().zip(rules) {
            destinations::settle(&self.queue, destination);
            if let Some(ruler) = self.rulers.get(&destination.name) {
                ruler.send_replace(Arc::new(rules));
            }
        }
        for warning in loaded.outdated.iter().chain(&loaded.warnings).chain(&new.warnings) {
            tracing::warn!("{warning}");
        }
        let kept = self.kept(&new);
        // What is kept stays in force, and is named again by the next reload.
        for current in &mut self.current.destinations {
            if let Some(new) = staying.iter().find(|new| new.name == current.name) {
                current.clone_from(new);
            }
        }
        self.live = self.running(&new).cloned().collect();
        self.waits = self.live.len() > staying.len();
        self.current.listener = self.with_files_of(&new.listener);
        self.current.queue = config::Queue {
            path: self.current.queue.path.clone(),
            ..new.queue
        };
        Ok(kept)
    }

    /// Whether destinations wait for a restart, whose lists are to be read again after a reload.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// Those that run and that a configuration has, by name.
    fn running(&self, new: &Config) -> impl Iterator<Item = &config::Destination> {
        let has = |name: &str| new.destinations.iter().any(|new| new.name == name);
        self.current
            .destinations
            .iter()
            .filter(move |current| has(&current.name))
    }

    /// The files that may be renewed once `new` is in force, as far as it can be.
    pub fn renewable_after(&self, new: &Config) -> Vec<PathBuf> {
        let mut files = renewable(new);
        files.extend(self.running(new).flat_map(lists));
        files
    }

    /// Reads the files that the configuration in force names again, and takes over each that can be used. `Err` says what
    /// is wrong with the others, a line each; for those everything is as it was.
    pub fn refresh(&mut self) -> Result<(), String> {
        let mut errors = Vec::new();
        match tls::load(&self.current.listener) {
            Ok(loaded) => {
                for warning in loaded.outdated.iter().chain(&loaded.warnings) {
                    tracing::warn!("{warning}");
                }
                self.tls.store(loaded.server);
            }
            Err(error) => errors.push(error.to_string()),
        }
        for destination in &self.live {
            errors.extend(self.refresh_one(destination).err().map(|error| error.to_string()));
        }
        match errors.is_empty() {
            true => Ok(()),
            false => Err(errors.join("\n")),
        }
    }

    fn refresh_one(&self, destination: &config::Destination) -> Result<(), DestinationErrors> {
        let rules = destinations::rules(&self.current.routes, std::slice::from_ref(destination))?;
        if let Some(ruler) = self.rulers.get(&destination.name) {
            for rules in rules {
                ruler.send_replace(Arc::new(rules));
            }
        }
        Ok(())
    }

    /// The listener in force, with another one's files.
    fn with_files_of(&self, new: &config::Listener) -> config::Listener {
        config::Listener {
            certificate: new.certificate.clone(),
            private_key: new.private_key.clone(),
            vehicle_ca: new.vehicle_ca.clone(),
            vehicle_crl: new.vehicle_crl.clone(),
            ..self.current.listener.clone()
        }
    }

    fn running_as(&self, new: &config::Destination) -> Option<&config::Destination> {
        let mut running = self.current.destinations.iter();
        running.find(|current| current.name == new.name && discriminant(&current.kind) == discriminant(&new.kind))
    }

    /// The destination that runs, with what another configuration wants it to be sent. Whatever else that wants of it waits
    /// for a restart, and so does a form of payloads that may be for another layout than the one that runs.
    fn ruled_by(&self, new: &config::Destination) -> Option<config::Destination> {
        let current = self.running_as(new)?;
        let mut ruled = config::Destination {
            kind: current.kind.clone(),
            ..new.clone()
        };
        if current.kind != new.kind {
            ruled.delivery.format = current.delivery.format;
        }
        Some(ruled)
    }

    /// Whether it is the destination that runs in all but what it is sent.
    fn stays(&self, new: &config::Destination) -> bool {
        self.running_as(new).is_some_and(|current| current.kind == new.kind)
    }

    /// Keys whose values differ and stay as they are until a restart.
    fn kept(&self, new: &Config) -> Vec<String> {
        let current = &self.current;
        let sections = [
            ("listener", new.listener == self.with_files_of(&new.listener)),
            ("identity", new.identity == current.identity),
            ("queue.path", new.queue.path == current.queue.path),
            ("records", new.routes == current.routes),
            (
                "admin",
                new.admin == current.admin && new.signal_vins == current.signal_vins,
            ),
            ("log", new.log_level == current.log_level),
            ("shutdown_grace", new.shutdown_grace == current.shutdown_grace),
        ];
        let changed = sections.iter().filter(|(_, same)| !same);
        let mut kept: Vec<String> = changed.map(|(name, _)| (*name).to_owned()).collect();
        let key = |destination: &config::Destination| format!("destinations.{}", destination.name);
        kept.extend(new.destinations.iter().filter(|new| !self.stays(new)).map(key));
        let gone = |current: &&config::Destination| new.destinations.iter().all(|new| new.name != current.name);
        kept.extend(current.destinations.iter().filter(gone).map(key));
        kept
    }
}
