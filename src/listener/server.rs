//! The accept loop: connections in, each in a task of its own, all of them bounded and awaited.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use hyper::StatusCode;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::counters::Counters;
use super::http::{self, Answered, Door};
use super::rate::Rate;
use super::registry::Registry;
use super::room::{Place, Room};
use super::session::{Session, Surroundings};
use crate::config::{self, Routes};
use crate::queue::{Heartbeat, Queue};
use crate::record::identity::{self, Identity, IssuerTable};
use crate::record::legible::legible;

/// How the listener is to behave.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which record types are kept.
    pub routes: Routes,
    /// Who may be a vehicle.
    pub identity: IssuerTable,
    /// Served as Tesla's server asks for it: what is in the configured file.
    pub public_key: Option<Bytes>,
    /// Its section of the configuration.
    pub config: config::Listener,
}

/// A bound port, not yet accepting.
pub struct Listener {
    socket: TcpListener,
    tls: Arc<ArcSwap<ServerConfig>>,
    heartbeat: Arc<Heartbeat>,
    shared: Shared,
}

#[derive(Clone)]
struct Shared {
    queue: Queue,
    settings: Arc<Settings>,
    counters: Arc<Counters>,
    registry: Arc<Registry>,
    draining: CancellationToken,
}

/// Time for a pause after the system had no descriptor for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Listener {
    /// A listener on a bound socket.
    pub fn new(
        socket: TcpListener,
        tls: Arc<ServerConfig>,
        queue: Queue,
        settings: Settings,
        counters: Arc<Counters>,
        draining: CancellationToken,
    ) -> Self {
        let shared = Shared {
            queue,
            settings: Arc::new(settings),
            counters,
            registry: Arc::default(),
            draining,
        };
        Self {
            socket,
            tls: Arc::new(ArcSwap::new(tls)),
            heartbeat: Arc::default(),
            shared,
        }
    }

    /// The TLS that new connections get.
    pub fn tls(&self) -> Arc<ArcSwap<ServerConfig>> {
        Arc::clone(&self.tls)
    }

    /// Shows whether it still accepts.
    pub fn heartbeat(&self) -> Arc<Heartbeat> {
        Arc::clone(&self.heartbeat)
    }

    /// Accepts until it is told to drain, then waits for every session to end.
    pub async fn run(self) {
        let room = Room::new(self.shared.settings.config.max_connections);
        let mut connections = JoinSet::new();
        let mut beats = tokio::time::interval(Heartbeat::INTERVAL);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.shared.draining.cancelled() => break,
                _ = beats.tick() => {
                    self.heartbeat.beat();
                    continue;
                }
                Some(ended) = connections.join_next(), if !connections.is_empty() => {
                    log_panic(ended);
                    continue;
                }
                accepted = self.socket.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(place) = room.enter() else {
                self.shared.counters.connections_refused.add();
                tracing::warn!(%peer, limit = self.shared.settings.config.max_connections,
                    "connection refused: as many vehicles as listener.max_connections are connected");
                continue;
            };
            let acceptor = TlsAcceptor::from(self.tls.load_full());
            let shared = self.shared.clone();
            connections.spawn(async move {
                shared.connection(stream, peer, acceptor, place).await;
            });
        }
        drop(self.socket);
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}

impl Shared {
    async fn connection(&self, stream: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor, mut place: Place) {
        // In boxes of their own, so that a connection does not hold for ever the room that its beginning took.
        let evicted = place.evicted.clone();
        let handshake = Box::pin(self.handshake(stream, peer, acceptor, &mut place));
        let accepted = tokio::select! {
            () = self.draining.cancelled() => return,
            () = evicted.cancelled() => Ok(Err(HandshakeError::MadeWay)),
            accepted = timeout(self.settings.config.handshake_timeout, handshake) => accepted,
        };
        let (upgraded, identity) = match accepted {
            Ok(Ok(Some(accepted))) => accepted,
            Ok(Ok(None)) => return,
            Ok(Err(error)) => {
                self.counters.handshake_errors.add();
                tracing::info!(%peer, error = legible(&error), "connection did not become a vehicle's");
                return;
            }
            Err(_) => {
                self.counters.handshake_errors.add();
                let limit = self.settings.config.handshake_timeout;
                tracing::info!(%peer, ?limit, "connection closed: no request within listener.handshake_timeout");
                return;
            }
        };
        let (registration, before) = self.registry.register(&identity.sender_id);
        if let Some(before) = before {
            tokio::select! {
                () = before.cancelled() => {}
                () = registration.replaced.cancelled() => {}
            }
        }
        if !registration.begins() {
            self.counters.replaced.add();
            return;
        }
        let around = Surroundings {
            queue: self.queue.clone(),
            settings: Arc::clone(&self.settings),
            counters: Arc::clone(&self.counters),
            draining: self.draining.clone(),
        };
        let rate = registration.rate(Rate::new(self.settings.config.messages_per_second));
        let session = Box::pin(Session::new(around, identity, upgraded, rate)).await;
        let rate = session.run(registration.replaced.clone()).await;
        registration.leaves(rate, Instant::now());
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        acceptor: TlsAcceptor,
        place: &mut Place,
    ) -> Result<Option<(http::Upgraded, Identity)>, HandshakeError> {
        // Acks are small and urgent. A socket that cannot do this still works.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY not set");
        }
        let stream = acceptor.accept(stream).await?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let verified = leaf.is_some();
        let identity = match leaf {
            None => Err("a vehicle's client certificate is needed: none was sent\n".to_owned()),
            Some(leaf) => self.identify(leaf),
        };
        if identity.is_ok() && !place.becomes_vehicle() {
            return Err(HandshakeError::MadeWay);
        }
        let refusal = match &identity {
            Err(reason) => Some((StatusCode::FORBIDDEN, reason.clone())),
            Ok(_) if self.queue.is_full() => {
                let reason = "the queue is full, try again later\n".to_owned();
                Some((StatusCode::SERVICE_UNAVAILABLE, reason))
            }
            Ok(_) => None,
        };
        let refused = refusal.clone();
        let door = Door {
            refusal,
            verified,
            public_key: self.settings.public_key.clone(),
        };
        let device = refused.as_ref().and(identity.as_ref().ok());
        let device = device.map(|identity| identity.device_id.to_string());
        match http::serve(stream, door).await? {
            Ok(upgraded) => Ok(identity.ok().map(|identity| (upgraded, identity))),
            Err(Answered::Refusal) => {
                if let Some((status, reason)) = refused {
                    let full = status == StatusCode::SERVICE_UNAVAILABLE;
                    let counters = &self.counters;
                    let count = if full {
                        &counters.turned_away
                    } else {
                        &counters.upgrades_refused
                    };
                    count.add();
                    tracing::info!(
                        status = status.as_u16(),
                        %peer,
                        device,
                        reason = reason.trim_end(),
                        "a peer was not let in"
                    );
                }
                Ok(None)
            }
            Err(Answered::Other) => Ok(None),
        }
    }

    fn identify(&self, leaf: &[u8]) -> Result<Identity, String> {
        let identity = identity::identify(leaf, &self.settings.identity).map_err(|error| format!("{error}\n"))?;
        match self.settings.config.allow_vins.is_empty()
            || self.settings.config.allow_vins.contains(&*identity.device_id)
        {
            true => Ok(identity),
            false => Err(format!(
                "vehicle {} is not in listener.allow_vins\n",
                identity.device_id
            )),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("TLS: {0}")]
    Tls(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] http::HttpError),
    #[error("it showed no certificate, listener.max_connections are open, and another one came")]
    MadeWay,
}
