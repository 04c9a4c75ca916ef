//! Log events: to the journal with their fields when standard error goes there, else as text to standard error. What
//! repeats itself is summed up.

use std::sync::{LazyLock, OnceLock};

use tracing::{Dispatch, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use super::burst::Burst;
use super::journal::{Flush, Journal};

static FLUSH: OnceLock<Flush> = OnceLock::new();
static BURST: LazyLock<Burst> = LazyLock::new(Burst::default);

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter.
    #[error("log.level: {0:?} is not a filter; write error, warn, info, debug or trace, or target=level pairs")]
    Filter(String),
    /// A second call.
    #[error(transparent)]
    Twice(#[from] TryInitError),
    /// No thread for the journal.
    #[error("cannot start a thread for the journal: {0}")]
    Journal(std::io::Error),
}

fn filter(level: &str) -> Result<Targets, LoggingError> {
    level.parse().map_err(|_| LoggingError::Filter(level.to_owned()))
}

/// Whether a filter can be used.
pub fn check(level: &str) -> Result<(), LoggingError> {
    filter(level).map(drop)
}

/// Starts logging for the whole process, as text.
pub fn start(level: &str) -> Result<(), LoggingError> {
    let text = text_to_stderr();
    tracing_subscriber::registry()
        .with(filter(level)?)
        .with(text)
        .try_init()?;
    Ok(())
}

/// The same for one that runs for long: what repeats itself is summed up, by [`sum_up`] and at the end [`last_words`], and
/// where standard error is the journal's, events go there with their fields.
pub fn start_service(level: &str) -> Result<(), LoggingError> {
    let registry = tracing_subscriber::registry().with(filter(level)?).with(&*BURST);
    match journald() {
        Some(journald) => {
            // The same filter again: it lets everything through that gets there, and keeps what is off from being looked at.
            let sink = tracing_subscriber::registry().with(filter(level)?).with(journald);
            let (journal, flush) = Journal::start(Dispatch::new(sink)).map_err(LoggingError::Journal)?;
            registry.with(journal).try_init()?;
            FLUSH.get_or_init(|| flush);
        }
        None => registry.with(text_to_stderr()).try_init()?,
    }
    Ok(())
}

fn text_to_stderr<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
}

/// Tells what was left out because it repeats itself, for ever.
pub async fn sum_up() {
    BURST.tell().await;
}

/// Tells what was left out until now, and waits a moment until the journal has it all.
pub fn last_words() {
    BURST.tell_now();
    if let Some(flush) = FLUSH.get() {
        flush.wait();
    }
}

/// systemd sets `JOURNAL_STREAM` to the device and inode of a service's standard error when that is the journal's. A
/// process whose standard error was redirected since has the variable all the same.
fn journald() -> Option<tracing_journald::Layer> {
    let stream = std::env::var("JOURNAL_STREAM").ok()?;
    let stderr = rustix::fs::fstat(std::io::stderr()).ok()?;
    if stream != format!("{}:{}", stderr.st_dev, stderr.st_ino) {
        return None;
    }
    // Without a prefix the field `vin` is `VIN` there, as `journalctl VIN=…` wants it.
    let priorities = PriorityMappings {
        info: Priority::Informational,
        debug: Priority::Debug,
        ..PriorityMappings::new()
    };
    let layer = tracing_journald::layer().ok()?;
    Some(layer.with_field_prefix(None).with_priority_mappings(priorities))
}
