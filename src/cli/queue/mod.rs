//! `waystation queue`: what lies in the queue and whether all of it can be read; out of it, into it, and what is taken away.

mod dead_letters;
mod export;
mod forecast;
mod import;
mod purge;
mod stream;

use std::io::{self, IsTerminal, stderr};
use std::path::PathBuf;
use std::time::Duration;

use forecast::{forecast, since};
use hyper::StatusCode;

use super::control::{self, ControlError};
use super::run::ConfigArgs;
use crate::cli;
use crate::config::{self, ConfigError};
use crate::gateway;
use crate::queue::{
    Depth, InspectError, Inspection, OpenError, PurgeError, Queue, RetryError, WriterError, WriterThread, inspect,
    look_for,
};
use crate::system::access;
use crate::system::logging::{self, LoggingError};

/// Arguments of `queue`.
#[derive(Debug, clap::Args)]
pub struct QueueArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Segments, each destination's backlog and oldest record, space, and when it will be full
    Show(LookArgs),
    /// Read every record and say which numbers are missing; changes nothing
    Verify(LookArgs),
    /// Write records to a file, chosen by vehicle, type, time or number, while the gateway runs or not
    Export(export::ExportArgs),
    /// Put the records of another gateway's export into this queue, while the gateway runs or not
    Import(import::ImportArgs),
    /// Erase a vehicle's records from the queue, the dead letters and the quarantine, while the gateway runs or not
    Purge(purge::PurgeArgs),
    /// What could not be delivered or decoded, with the reasons
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Take away the place of a destination that is no longer configured
    Forget {
        /// Its name
        destination: String,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// Arguments of `show` and `verify`.
#[derive(Debug, clap::Args)]
struct LookArgs {
    #[command(flatten)]
    source: QueueSource,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Where the queue is.
#[derive(Debug, clap::Args)]
struct QueueSource {
    #[command(flatten)]
    config: ConfigArgs,
    /// The queue's directory, instead of the configuration's
    #[arg(long)]
    path: Option<PathBuf>,
}

impl QueueSource {
    fn dir(&self) -> Result<PathBuf, ConfigError> {
        match &self.path {
            Some(path) => Ok(path.clone()),
            None => Ok(config::load_for_queue(&self.config.config)?.queue.path),
        }
    }
}

/// Why it failed.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The directory.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The cursors.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Logging.
    #[error(transparent)]
    Logging(#[from] LoggingError),
    /// The queue could not be closed.
    #[error(transparent)]
    Writer(#[from] WriterError),
    /// The gateway that runs on it.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A file of an export.
    #[error("{}: {source}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An export's output is there already.
    #[error("{} is there already; name another file, or remove it", .0.display())]
    OutputExists(PathBuf),
    /// An interrupted export's output is not what was written.
    #[error("{} is not what {} says was written; remove both to begin again", .0.display(), .1.display())]
    OutputChanged(PathBuf, PathBuf),
    /// An export that was interrupted was another one.
    #[error("{} is of an export from another queue or with other arguments; repeat those to go on with it, or remove it and its output", .0.display())]
    OtherExport(PathBuf),
    /// An import.
    #[error(transparent)]
    Import(#[from] import::Interrupted),
    /// Dead letters that were to be tried again.
    #[error(transparent)]
    Retry(#[from] RetryError),
    /// A dead letter that is not there.
    #[error("there is no dead letter {0} among those chosen; `waystation queue dead-letters list` shows all")]
    NoLetter(u64),
    /// A purge.
    #[error(transparent)]
    Purge(#[from] PurgeError),
    /// Another vehicle's records name it.
    #[error("it may still be in {}: these cannot be read, or other vehicles' records name it", list(.0))]
    StillNamed(Vec<PathBuf>),
    /// The destination is not there.
    #[error("{0:?} has no place in the queue; `waystation queue show` lists those that have")]
    Unknown(String),
    /// The destination is configured.
    #[error("{0:?} is in the configuration, and would begin again at the oldest record; remove it there first")]
    Configured(String),
    /// Not all of it can be read.
    #[error("{0} records cannot be read")]
    Missing(u64),
}

impl QueueError {
    /// Whether it failed because the queue is another user's than who asks.
    pub(super) fn is_of_another_user(&self) -> bool {
        match self {
            // They say themselves what to do, or are about another file.
            Self::Config(_) | Self::Control(_) | Self::Output { .. } => false,
            error => access::is_denied(error),
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    let shown: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    shown.join(", ")
}

/// Opens the queue when no gateway does. What that sets aside or drops is told like a gateway tells it.
fn open(config: &config::Config) -> Result<(Queue, WriterThread), QueueError> {
    logging::start("warn")?;
    Ok(gateway::open_queue(config)?)
}

/// Runs one of the commands.
pub fn run(args: QueueArgs) -> Result<(), QueueError> {
    match args.command {
        Command::Show(args) => {
            let (found, limits) = look(&args, Depth::Outline)?;
            match args.json {
                true => print_json(&found),
                false => show(&found, limits.as_ref()),
            }
            Ok(())
        }
        Command::Verify(args) => {
            let (found, _) = look(&args, Depth::Everything)?;
            match args.json {
                true => print_json(&found),
                false => verify(&found),
            }
            let missing = found.missing.iter().map(|range| range.end - range.start).sum();
            match missing {
                0 => Ok(()),
                missing => Err(QueueError::Missing(missing)),
            }
        }
        Command::Export(args) => export::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Purge(args) => purge::run(&args),
        Command::DeadLetters(args) => dead_letters::run(&args),
        Command::Forget { destination, config } => {
            let config = config::load_for_queue(&config.config)?;
            if config
                .destinations
                .iter()
                .any(|configured| configured.name == destination)
            {
                return Err(QueueError::Configured(destination));
            }
            let path = &config.queue.path;
            // That it cannot be counted is no reason to keep it.
            let counted = inspect(path, Depth::Outline, |_, _| {});
            let backlog = counted
                .ok()
                .and_then(|found| Some(found.destinations.get(&destination)?.backlog));
            let known = match Queue::in_use(path).map_err(InspectError::from)? {
                true => match control::ask(path, "/forget", &destination) {
                    Err(ControlError::Refused { status, .. }) if status == StatusCode::NOT_FOUND => false,
                    other => other.map(|_| true)?,
                },
                false => {
                    look_for(path)?;
                    Queue::forget_in(path, &destination)?
                }
            };
            match known {
                true => {
                    let records = match backlog {
                        Some(1) => "1 record that it had not passed".to_owned(),
                        Some(records) => format!("{records} records that it had not passed"),
                        None => "what it had not passed".to_owned(),
                    };
                    say!("{destination} is forgotten, and with it {records}; what no other destination needs goes");
                    Ok(())
                }
                false => Err(QueueError::Unknown(destination)),
            }
        }
    }
}

fn look(args: &LookArgs, depth: Depth) -> Result<(Inspection, Option<config::Queue>), QueueError> {
    let (path, limits) = match &args.source.path {
        Some(path) => (path.clone(), None),
        None => {
            let config = config::load_for_queue(&args.source.config.config)?;
            (config.queue.path.clone(), Some(config.queue))
        }
    };
    let shown = depth == Depth::Everything && stderr().is_terminal();
    let found = inspect(&path, depth, |done, all| {
        if shown {
            cli::tell(&format!("\r{done} of {all} segments"));
        }
    })?;
    if shown {
        tell!();
    }
    Ok((found, limits))
}

fn print_json(found: &Inspection) {
    say!("{}", serde_json::json!(found));
}

fn show(found: &Inspection, limits: Option<&config::Queue>) {
    let used: u64 = found.segments.iter().map(|segment| segment.disk_bytes).sum();
    let running = if found.in_use {
        "a gateway runs on it"
    } else {
        "no gateway runs on it"
    };
    say!(
        "queue      {} ({running})",
        found.queue.as_deref().unwrap_or("without an id yet")
    );
    let limit = limits
        .map(|limits| format!(" of {}", size(limits.max_bytes)))
        .unwrap_or_default();
    say!(
        "space      {}{limit} in {} segments; the disk has {} free",
        size(used),
        found.segments.len(),
        size(found.free)
    );
    if let Some(told) = limits.and_then(|limits| forecast(found, limits)) {
        say!(
            "full       in {} at today's {} an hour, if nothing is delivered",
            span(told.full_in),
            size(told.bytes_an_hour)
        );
    }
    for segment in found.segments.iter().filter(|segment| segment.fault.is_some()) {
        say!("damaged    {}", segment.fault.as_deref().unwrap_or_default());
    }
    say!();
    say!(
        "{:<20} {:>16} {:>12}  oldest record",
        "destination",
        "cursor",
        "backlog"
    );
    for (name, place) in &found.destinations {
        let oldest = match place.oldest.filter(|_| place.backlog > 0) {
            Some(oldest) => format!("{} old", span(since(oldest))),
            None => "-".to_owned(),
        };
        say!("{name:<20} {:>16} {:>12}  {oldest}", place.cursor, place.backlog);
    }
}

fn verify(found: &Inspection) {
    say!(
        "{} records in {} segments can be read",
        found.records,
        found.segments.len()
    );
    for segment in found.segments.iter().filter(|segment| segment.fault.is_some()) {
        say!("damaged: {}", segment.fault.as_deref().unwrap_or_default());
    }
    for range in &found.missing {
        say!("missing: records {} to {}", range.start, range.end - 1);
    }
}

fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
