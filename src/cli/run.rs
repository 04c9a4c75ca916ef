//! `waystation run`: the daemon.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use crate::config::{self, ConfigError};
use crate::gateway::{Gateway, Reloader, RunError, StartError};
use crate::system::watch::Watch;
use crate::system::{logging, notify};

/// Arguments of `run` and `check`.
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
    /// It could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It stopped by itself.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// How often files that others renew are looked at.
const LOOK: Duration = Duration::from_secs(2);
const LEFTOVERS: Duration = Duration::from_millis(200);

/// Runs until SIGTERM or SIGINT; SIGHUP reloads the configuration.
pub fn run(args: &ConfigArgs) -> Result<(), DaemonError> {
    let config = config::load(&args.config)?;
    logging::start(&config.log_level)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(DaemonError::Runtime)?;
    let result = runtime.block_on(async {
        // Before anything is bound: a signal during the start is not lost.
        let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Runtime)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Runtime)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(DaemonError::Runtime)?;
        let mut gateway = Gateway::start(config).await?;
        tracing::info!(version = env!("CARGO_PKG_VERSION"), address = %gateway.address(), "waystation is ready");
        notify::ready();
        let queue = gateway.published().queue.clone();
        let mut reloader = gateway.reloader();
        let shutdown = async move {
            let reloading = async {
                let mut watch = Watch::new(reloader.files());
                let mut look = tokio::time::interval(LOOK);
                look.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    tokio::select! {
                        signal = hangup.recv() => match signal {
                            Some(()) => {
                                notify::reloading();
                                reload(&mut reloader, &args.config).await;
                                watch = Watch::new(reloader.files());
                                notify::ready();
                            }
                            None => std::future::pending().await,
                        },
                        _ = look.tick() => refresh(&mut reloader, &watch.look()).await,
                    }
                }
            };
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = reloading => {}
                () = notify::feed_watchdog(|| queue.writer_silence()) => {}
            }
            notify::stopping();
        };
        Ok(gateway.run(shutdown).await?)
    });
    // All that matters has ended in order; what still hangs, in a resolver or on a dead disk, does not hold up the end.
    runtime.shutdown_timeout(LEFTOVERS);
    result
}

async fn reload(reloader: &mut Reloader, path: &Path) {
    let kept = match config::load(path) {
        Ok(config) => reloader.reload(config).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match kept {
        Ok(kept) if kept.is_empty() => tracing::info!("configuration reloaded"),
        Ok(kept) => tracing::warn!(
            kept = kept.join(", "),
            "configuration reloaded; what changed under these keys waits for a restart"
        ),
        Err(error) => not_reloaded(&error),
    }
}

/// Reads the files again that the configuration names, when some of them have changed.
async fn refresh(reloader: &mut Reloader, changed: &[PathBuf]) {
    if changed.is_empty() {
        return;
    }
    let files: Vec<_> = changed.iter().map(|path| path.display().to_string()).collect();
    let files = files.join(", ");
    match reloader.refresh().await {
        Ok(()) => tracing::info!(files, "changed files read again"),
        Err(error) => {
            tracing::error!(files, "changed files cannot be used");
            not_reloaded(&error.to_string());
        }
    }
}

fn not_reloaded(error: &str) {
    for line in error.lines() {
        tracing::error!("not reloaded, everything stays as it was: {line}");
    }
}
