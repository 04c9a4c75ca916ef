//! systemd's protocol for services: READY, STOPPING, STATUS, and a watchdog that is fed only while the parts that
//! everything depends on make progress.

use std::time::Duration;

use sd_notify::NotifyState;

/// Each part shows itself every second; a slow disk may take longer over one commit.
const LONGEST_SILENCE: Duration = Duration::from_secs(20);
/// For the last commits, once everything else has ended.
const AFTER_GRACE: Duration = Duration::from_secs(20);
/// How often the status in words is looked at.
const STATUS: Duration = Duration::from_secs(5);

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

/// The ordered end has begun. It may take `grace`, and what comes after that, whatever the unit's own limit is.
pub fn stopping(grace: Duration) {
    let limit = (grace + AFTER_GRACE).as_micros();
    let limit = NotifyState::ExtendTimeoutUsec(u32::try_from(limit).unwrap_or(u32::MAX));
    tell(&[NotifyState::Stopping, limit]);
}

/// Says in words how things are, whenever that has changed.
pub async fn tell_status(in_words: impl Fn() -> String) {
    let mut ticks = tokio::time::interval(STATUS);
    let mut told = String::new();
    loop {
        ticks.tick().await;
        let words = in_words();
        if words != told {
            tell(&[NotifyState::Status(&words)]);
            told = words;
        }
    }
}

/// Feeds the watchdog, if the unit has one, while every part shows itself. `silences`: the parts, and for how long each
/// has not.
pub async fn feed_watchdog<const N: usize>(silences: impl Fn() -> [(&'static str, Duration); N]) {
    let Some(timeout) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut ticks = tokio::time::interval(timeout / 3);
    let mut stuck = None;
    loop {
        ticks.tick().await;
        let longest = silences().into_iter().max_by_key(|(_, silence)| *silence);
        match longest.filter(|(_, silence)| *silence >= LONGEST_SILENCE.max(timeout)) {
            None => {
                tell(&[NotifyState::Watchdog]);
                stuck = None;
            }
            Some((part, silence)) => {
                if stuck.replace(part) != Some(part) {
                    tracing::error!(?silence, "{part} is stuck: the watchdog is not fed any more");
                }
            }
        }
    }
}
