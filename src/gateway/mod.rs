//! The whole gateway: configuration → bound sockets → tasks → ordered end.
//!
//! The end goes with the data: stop accepting, sessions finish what they read and acknowledge it, forwarders settle
//! what is in flight, the writer saves the cursors. One grace period bounds it; a dead destination does not hold it up.

mod destinations;
mod reload;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub use destinations::{DestinationError, DestinationErrors, check as check_destination, connections};
pub use reload::{ReloadError, Reloader, renewable};

use crate::admin::{self, Published};
use crate::config::{self, Config};
use crate::forwarder::Pump;
use crate::listener::{self, Counters, Listener, tls};
use crate::queue::{self, Heartbeat, OpenError, Queue, WriterError, WriterThread};
use crate::system::{access, descriptors};
use destinations::Rulers;

/// Why the gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Certificates, keys or authorities.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// A port.
    #[error("{key}: {}", access::cannot_listen(*address, source))]
    Bind {
        /// The configuration key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Settings of destinations.
    #[error(transparent)]
    Destinations(#[from] DestinationErrors),
    /// The queue's directory cannot be written to, in words for an operator.
    #[error("queue.path: {0}")]
    QueuePath(String),
    /// The queue.
    #[error("queue.path: {source}{}", ownership(source))]
    Queue {
        /// What keeps it from being opened.
        source: OpenError,
    },
}

impl StartError {
    /// Whether starting again is of no use before somebody has changed the configuration or the files that it names.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Tls(tls::TlsError::Files(_)) | Self::Destinations(_))
    }
}

/// What to do about a part of the queue that is another user's.
fn ownership(error: &OpenError) -> &'static str {
    match access::is_denied(error) {
        true => "; all of it has to belong to the user that the gateway runs as (chown -R)",
        false => "",
    }
}

/// Why the gateway stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The queue's writer failed: nothing can be acknowledged any more.
    #[error(transparent)]
    Writer(#[from] WriterError),
    /// The listener ended by itself.
    #[error("the listener has failed; the log says why")]
    Listener,
}

/// A gateway with everything bound and open, its forwarders already delivering.
pub struct Gateway {
    listener: Listener,
    admin: Option<TcpListener>,
    control: Option<UnixListener>,
    published: Arc<Published>,
    writer: WriterThread,
    pumps: JoinSet<()>,
    draining: CancellationToken,
    pumps_stop: CancellationToken,
    pumps_abort: CancellationToken,
    grace: Duration,
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    config: Config,
    rulers: Rulers,
}

/// For destinations that were told to give up, after the grace period.
const LET_GO: Duration = Duration::from_secs(1);
/// How often a failed writer is looked for.
const WATCH: Duration = Duration::from_millis(200);

impl Gateway {
    /// Binds the ports, opens the queue and starts the forwarders.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_on(config, None).await
    }

    /// The same on a socket that listens already, instead of `listener.bind`.
    pub async fn start_on(config: Config, passed: Option<std::net::TcpListener>) -> Result<Self, StartError> {
        let current = config.clone();
        for warning in &config.warnings {
            tracing::warn!("configuration: {warning}");
        }
        let loaded = tls::load(&config.listener)?;
        for warning in loaded.outdated.iter().chain(&loaded.warnings) {
            tracing::warn!("{warning}");
        }
        let socket = match passed {
            Some(socket) => adopt(socket, config.listener.bind)?,
            None => bind("listener.bind", config.listener.bind).await?,
        };
        let admin = match config.admin {
            Some(address) => Some(bind("admin.bind", address).await?),
            None => None,
        };
        let (queue, writer) = open_queue(&config).map_err(|error| match access::writable(&config.queue.path) {
            Err(why) => StartError::QueuePath(why),
            Ok(()) => StartError::Queue { source: error },
        })?;
        // A gateway that cannot be asked for anything still does its work.
        let control = admin::control::bind(&config.queue.path)
            .inspect_err(|error| {
                let path = admin::control::socket_path(&config.queue.path);
                tracing::warn!(%error, path = %path.display(), "no control socket: export, import, purge and forget cannot reach this gateway");
            })
            .ok();
        let (max_connections, too_few) = connections(&config, descriptors::limit());
        if let Some(too_few) = too_few {
            tracing::warn!("{too_few}");
        }
        let (pumps, rulers) = destinations::pumps(&config, &queue)?;
        destinations::warn_of_the_left(&config, &queue);
        let counters = Arc::new(Counters::new(&config.routes, &config.signal_vins));
        let published = Arc::new(Published {
            started: Instant::now(),
            queue: queue.clone(),
            listener: Arc::clone(&counters),
            destinations: pumps.iter().map(Pump::status).collect(),
            reload_error: Mutex::default(),
        });
        let draining = CancellationToken::new();
        let (pumps_stop, pumps_abort) = (CancellationToken::new(), CancellationToken::new());
        let mut tasks = JoinSet::new();
        for pump in pumps {
            let (stop, abort) = (pumps_stop.clone(), pumps_abort.clone());
            tasks.spawn(pump.run_in_lane(stop, abort));
        }
        let address = socket.local_addr().unwrap_or(config.listener.bind);
        let admin_address = admin.as_ref().and_then(|admin| admin.local_addr().ok());
        let settings = listener::Settings {
            routes: config.routes,
            identity: config.identity,
            public_key: loaded.public_key,
            config: config::Listener {
                max_connections,
                ..config.listener
            },
        };
        let listener = Listener::new(socket, loaded.server, queue, settings, counters, draining.clone());
        Ok(Self {
            listener,
            admin,
            control,
            published,
            writer,
            pumps: tasks,
            draining,
            pumps_stop,
            pumps_abort,
            grace: config.shutdown_grace,
            address,
            admin_address,
            config: current,
            rulers,
        })
    }

    /// Where vehicles connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where status and metrics are.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// What it publishes about itself.
    pub fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published)
    }

    /// Shows whether vehicles are still accepted.
    pub fn heartbeat(&self) -> Arc<Heartbeat> {
        self.listener.heartbeat()
    }

    /// What changes its configuration while it runs.
    pub fn reloader(&mut self) -> Reloader {
        Reloader {
            live: self.config.destinations.clone(),
            waits: false,
            current: self.config.clone(),
            queue: self.published.queue.clone(),
            tls: self.listener.tls(),
            rulers: std::mem::take(&mut self.rulers),
        }
    }

    /// Runs until `shutdown`, or until the writer fails; then ends in order.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let Self {
            listener,
            admin,
            control,
            published,
            writer,
            mut pumps,
            ..
        } = self;
        let admin_stop = CancellationToken::new();
        let mut listening = AbortOnDropHandle::new(tokio::spawn(listener.run()));
        let mut serving = JoinSet::new();
        if let Some(control) = control {
            let published = Arc::clone(&published);
            serving.spawn(admin::control::serve(control, published, admin_stop.clone()));
        }
        if let Some(admin) = admin {
            serving.spawn(admin::serve(admin, published, admin_stop.clone()));
        }
        let failed = async {
            while !writer.has_failed() {
                tokio::time::sleep(WATCH).await;
            }
        };
        let mut listener_failed = false;
        tokio::select! {
            () = shutdown => tracing::info!(grace = ?self.grace, "stopping"),
            () = failed => tracing::error!("stopping: the queue's writer has failed"),
            ended = &mut listening => {
                tracing::error!(error = ended.err().map(|error| error.to_string()), "stopping: the listener has failed");
                listener_failed = true;
            }
        }
        let deadline = tokio::time::Instant::now() + self.grace;
        self.draining.cancel();
        // The listener is the first to end; half of the time is its own, so that the forwarders have some too.
        if !listening.is_finished()
            && tokio::time::timeout_at(deadline - self.grace / 2, &mut listening)
                .await
                .is_err()
        {
            tracing::warn!("some vehicles did not take their acks in time");
            listening.abort();
        }
        self.pumps_stop.cancel();
        let settled = async { while pumps.join_next().await.is_some() {} };
        if tokio::time::timeout_at(deadline, settled).await.is_err() {
            tracing::warn!("some destinations did not confirm in time; what they have not confirmed stays queued");
            self.pumps_abort.cancel();
            // They let go of their clients before the queue is closed, unless even that hangs.
            let let_go = async { while pumps.join_next().await.is_some() {} };
            if tokio::time::timeout(LET_GO, let_go).await.is_err() {
                tracing::warn!("some destinations do not let go of their clients; they are left as they are");
                pumps.shutdown().await;
            }
        }
        admin_stop.cancel();
        while serving.join_next().await.is_some() {}
        let closed = tokio::task::spawn_blocking(move || writer.close()).await;
        closed.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        tracing::info!("stopped");
        match listener_failed {
            true => Err(RunError::Listener),
            false => Ok(()),
        }
    }
}

/// Opens a configuration's queue, with the places of its destinations.
pub fn open_queue(config: &Config) -> Result<(Queue, WriterThread), OpenError> {
    let (queue, writer) = Queue::open(&config.queue.path, queue_settings(&config.queue))?;
    for destination in &config.destinations {
        destinations::settle(&queue, destination);
    }
    Ok((queue, writer))
}

fn queue_settings(config: &config::Queue) -> queue::Settings {
    queue::Settings {
        max_bytes: config.max_bytes,
        segment_size: config.segment_size,
        commit_delay: config.commit_delay,
        dead_letter_bytes: config.dead_letter_bytes,
        keep_free: config.keep_free,
        max_age: config.max_age,
        duplicate_window: config.duplicate_window,
        when_full: match config.when_full {
            config::WhenFull::Refuse => queue::WhenFull::Refuse,
            config::WhenFull::DropOldest => queue::WhenFull::DropOldest,
        },
    }
}

async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Bind { key, address, source })
}

/// A socket that somebody else has bound.
fn adopt(socket: std::net::TcpListener, configured: SocketAddr) -> Result<TcpListener, StartError> {
    let socket = TcpListener::from_std(socket).map_err(|source| StartError::Bind {
        key: "listener.bind",
        address: configured,
        source,
    })?;
    match socket.local_addr() {
        Ok(address) if address.port() != configured.port() => tracing::warn!(
            "the socket that was handed over listens at {address}; listener.bind = \"{configured}\" is not used"
        ),
        _ => tracing::info!("listening on the socket that was handed over"),
    }
    Ok(socket)
}
