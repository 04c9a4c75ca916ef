//! What makes a running gateway read its configuration, or the files that it names, again.
//!
//! The configuration is read when that is asked for; the files also when they have changed, whoever renewed them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::Signal;
use tokio::time::MissedTickBehavior;

use crate::admin::Published;
use crate::config;
use crate::gateway::Reloader;
use crate::system::notify;
use crate::system::watch::Watch;

/// How often files that others renew are looked at.
const LOOK: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(60);

pub(super) struct Reloading<'p> {
    pub(super) reloader: Reloader,
    /// The files that the configuration in force names, as they were before they were read.
    pub(super) watch: Watch,
    /// When files that could not be used are tried again.
    pub(super) retry: Option<Instant>,
    /// Why the configuration was not taken over when it was read last.
    pub(super) refused: Option<String>,
    /// What is wrong with files that the configuration in force names.
    pub(super) unusable: Option<String>,
    pub(super) published: Arc<Published>,
    /// The configuration.
    pub(super) path: &'p Path,
}

impl Reloading<'_> {
    /// Reloads with each signal and each changed file; ends with neither.
    pub(super) async fn run(&mut self, hangup: &mut Signal) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                signal = hangup.recv() => match signal {
                    Some(()) => {
                        notify::reloading();
                        self.reload().await;
                        notify::ready();
                    }
                    None => std::future::pending().await,
                },
                _ = look.tick() => self.refresh(),
            }
        }
    }

    async fn reload(&mut self) {
        let kept = match config::load(self.path) {
            Ok(config) => {
                let watch = Watch::new(self.reloader.renewable_after(&config));
                let kept = self.reloader.reload(config).await;
                if kept.is_ok() {
                    self.watch = watch;
                    // By the next look, which says what is wrong with their lists.
                    self.retry = self.reloader.waits().then(Instant::now);
                    self.unusable = None;
                }
                kept.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match &kept {
            Ok(kept) if kept.is_empty() => tracing::info!("configuration reloaded"),
            Ok(kept) => tracing::warn!(
                kept = kept.join(", "),
                "configuration reloaded; what changed under these keys waits for a restart"
            ),
            Err(error) => not_reloaded(error),
        }
        self.refused = kept.err();
        self.publish();
    }

    fn publish(&self) {
        let errors: Vec<_> = self.refused.iter().chain(&self.unusable).cloned().collect();
        self.published.reloaded((!errors.is_empty()).then(|| errors.join("\n")));
    }

    /// Reads the files again that the configuration names, when some of them have changed; and those that could not be
    /// used, now and then, because what kept them from being read need not be seen in the files.
    fn refresh(&mut self) {
        let changed = self.watch.look();
        let again = self.retry.is_some_and(|at| Instant::now() >= at);
        if changed.is_empty() && !again {
            return;
        }
        let files: Vec<_> = changed.iter().map(|path| path.display().to_string()).collect();
        let files = files.join(", ");
        match self.reloader.refresh() {
            Ok(()) => {
                if !files.is_empty() {
                    tracing::info!(files, "changed files read again");
                }
                self.retry = None;
                self.unusable = None;
            }
            Err(error) => {
                self.retry = Some(Instant::now() + RETRY);
                if self.unusable.as_ref() != Some(&error) {
                    tracing::error!(files, "changed files cannot be used");
                    not_reloaded(&error);
                }
                self.unusable = Some(error);
            }
        }
        self.publish();
    }
}

fn not_reloaded(error: &str) {
    for line in error.lines() {
        tracing::error!("not reloaded, everything stays as it was: {line}");
    }
}
