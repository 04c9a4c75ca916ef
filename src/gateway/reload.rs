//! A changed configuration on a gateway that runs: taken whole, or not at all.
//!
//! What can change without a connection or a delivery noticing does at once; what cannot is named.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;

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
    /// The queue's writer.
    #[error("queue: {0}")]
    Queue(#[from] OrderError),
}

/// The parts of a running gateway that can change.
pub struct Reloader {
    pub(super) current: Config,
    pub(super) queue: Queue,
    pub(super) tls: Arc<ArcSwap<ServerConfig>>,
}

impl Reloader {
    /// Takes a configuration over: how the queue behaves, and the listener's certificate, key and authorities, whose
    /// files are read again. Connections stay. Returns the keys that changed and need a restart.
    pub async fn reload(&mut self, new: Config) -> Result<Vec<String>, ReloadError> {
        let loaded = tls::load(&new.listener)?;
        self.queue.change(queue_settings(&new.queue)).await?;
        self.tls.store(loaded.server);
        for warning in loaded.outdated.iter().chain(&loaded.warnings).chain(&new.warnings) {
            tracing::warn!("{warning}");
        }
        let kept = kept(&self.current, &new);
        // What is kept stays in force, and is named again by the next reload.
        self.current.queue = config::Queue {
            path: self.current.queue.path.clone(),
            ..new.queue
        };
        Ok(kept)
    }
}

/// Keys whose values differ and stay as they are until a restart.
fn kept(current: &Config, new: &Config) -> Vec<String> {
    let listener = config::Listener {
        certificate: current.listener.certificate.clone(),
        private_key: current.listener.private_key.clone(),
        vehicle_ca: current.listener.vehicle_ca.clone(),
        ..new.listener.clone()
    };
    let sections = [
        ("listener", listener == current.listener),
        ("identity", new.identity == current.identity),
        ("queue.path", new.queue.path == current.queue.path),
        ("records", new.routes == current.routes),
        ("destinations", new.destinations == current.destinations),
        (
            "admin",
            new.admin == current.admin && new.signal_vins == current.signal_vins,
        ),
        ("log", new.log_level == current.log_level),
        ("shutdown_grace", new.shutdown_grace == current.shutdown_grace),
    ];
    let changed = sections.iter().filter(|(_, same)| !same);
    changed.map(|(name, _)| (*name).to_owned()).collect()
}
