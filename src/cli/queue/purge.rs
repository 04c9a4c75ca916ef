//! `waystation queue purge`: a vehicle's records out of the queue, the dead letters and the quarantine.

use super::QueueError;
use crate::cli::control::{self, ControlError};
use crate::cli::run::ConfigArgs;
use crate::config;
use crate::queue::{InspectError, Purged, Queue, look_for};

/// Arguments of `queue purge`.
#[derive(Debug, clap::Args)]
pub(super) struct PurgeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The vehicle. Its later records are taken like any other's: take it out of listener.allow_vins and
    /// restart, or change its own configuration, first
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    vin: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &PurgeArgs) -> Result<(), QueueError> {
    let config = config::load_for_queue(&args.config.config)?;
    let path = &config.queue.path;
    let purged = match Queue::in_use(path).map_err(InspectError::from)? {
        true => {
            let answer = control::ask(path, "/purge", &args.vin)?;
            serde_json::from_str(&answer).map_err(|_| ControlError::Unknown(answer))?
        }
        false => {
            look_for(path)?;
            let (queue, writer) = super::open(&config)?;
            let purged = control::runtime()?.block_on(queue.purge(&args.vin));
            let closed = writer.close();
            let purged = purged?;
            closed?;
            purged
        }
    };
    say(args, &purged);
    match purged.left.is_empty() {
        true => Ok(()),
        false => Err(QueueError::StillNamed(purged.left)),
    }
}

fn say(args: &PurgeArgs, purged: &Purged) {
    let Purged {
        records,
        dead_letters,
        quarantined,
        removed,
        ..
    } = purged;
    match args.json {
        true => say!("{}", serde_json::json!(purged)),
        false => {
            for path in removed {
                say!("{} is gone: nothing else in it could be read", path.display());
            }
            say!(
                "{}: {records} records, {dead_letters} dead letters and {quarantined} messages in quarantine are erased",
                args.vin
            )
        }
    }
}
