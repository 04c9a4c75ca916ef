//! `waystation run`: the daemon.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::reload::Reloading;
use crate::config::{self, ConfigError};
use crate::gateway::{Gateway, RunError, StartError, renewable};
use crate::system::watch::Watch;
use crate::system::{descriptors, logging, notify, socket};

/// Where the configuration is.
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigArgs {
    /// Configuration file
    #[arg(long, short, default_value = "/etc/waystation/config.toml")]
    pub config: PathBuf,
}

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Logging.
    #[error(transparent)]
    Logging(#[from] logging::LoggingError),
    /// No asynchronous runtime.
    #[error("cannot start the runtime: {0}")]
    Runtime(std::io::Error),
    /// What systemd handed over.
    #[error(transparent)]
    Socket(#[from] socket::UnusableSocket),
    /// It could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It stopped by itself.
    #[error(transparent)]
    Run(#[from] RunError),
}

const LEFTOVERS: Duration = Duration::from_millis(200);

/// Runs until SIGTERM or SIGINT; SIGHUP reloads the configuration.
pub fn run(args: &ConfigArgs) -> Result<(), DaemonError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(DaemonError::Runtime)?;
    // First of all: one that comes while the configuration is read would end the process, and pass for an orderly end.
    let mut hangup = {
        let _context = runtime.enter();
        signal(SignalKind::hangup()).map_err(DaemonError::Runtime)?
    };
    let config = config::load(&args.config)?;
    logging::start_service(&config.log_level)?;
    descriptors::raise();
    let result = runtime.block_on(async {
        // Before anything is bound: a signal during the start is not lost.
        let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Runtime)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Runtime)?;
        // Before they are read: what changes after that is noticed.
        let watch = Watch::new(renewable(&config));
        let grace = config.shutdown_grace;
        let mut gateway = Gateway::start_on(config, socket::passed()?).await?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), address = %gateway.address(), "waystation is ready");
        notify::ready();
        let (published, heartbeat) = (gateway.published(), gateway.heartbeat());
        let mut reloading = Reloading {
            reloader: gateway.reloader(),
            watch,
            retry: None,
            refused: None,
            unusable: None,
            published: Arc::clone(&published),
            path: &args.config,
        };
        let silences = || {
            [
                ("the queue's writer", published.queue.writer_silence()),
                ("the listener", heartbeat.silence()),
            ]
        };
        let shutdown = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = reloading.run(&mut hangup) => {}
                () = notify::feed_watchdog(silences) => {}
                () = logging::sum_up() => {}
                () = notify::tell_status(|| published.report().in_words()) => {}
            }
            notify::stopping(grace);
        };
        Ok(gateway.run(shutdown).await?)
    });
    logging::last_words();
    // All that matters has ended in order; what still hangs, in a resolver or on a dead disk, does not hold up the end.
    runtime.shutdown_timeout(LEFTOVERS);
    result
}
