//! systemd's protocol for services: READY, STOPPING, and a watchdog that is fed only while the writer makes progress.

use std::time::Duration;

use sd_notify::NotifyState;

/// The writer shows itself every second; a slow disk may take longer over one commit.
const LONGEST_SILENCE: Duration = Duration::from_secs(20);

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

/// Everything is bound and open.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is being read again; `ready` ends it.
pub fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    // Without the time, systemd would take the READY that follows for an older one.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => states.push(now),
        Err(error) => tracing::debug!(%error, "no monotonic clock for systemd"),
    }
    tell(&states);
}

/// The ordered end has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Feeds the watchdog, if the unit has one, while the queue's writer shows itself.
pub async fn feed_watchdog(writer_silence: impl Fn() -> Duration) {
    let Some(timeout) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut ticks = tokio::time::interval(timeout / 3);
    let mut silent = false;
    loop {
        ticks.tick().await;
        let silence = writer_silence();
        if silence < LONGEST_SILENCE.max(timeout) {
            tell(&[NotifyState::Watchdog]);
            silent = false;
        } else if !std::mem::replace(&mut silent, true) {
            tracing::error!(
                ?silence,
                "the queue's writer is stuck: the watchdog is not fed any more"
            );
        }
    }
}
