//! `waystation queue dead-letters`: what could not be delivered or decoded, and why.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use super::{QueueError, QueueSource, stream};
use crate::cli::control::{self, ControlError};
use crate::config;
use crate::queue::{DeadLetter, InspectError, Queue, Retried, Step, walk_dead_letters};
use crate::record::legible::legible;

/// Arguments of `queue dead-letters`.
#[derive(Debug, clap::Args)]
pub(super) struct DeadLettersArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// A line for each: number, time, who gave it up, vehicle, type, size, reason
    List {
        #[command(flatten)]
        chosen: Chosen,
    },
    /// Write them to a file whole, as JSON lines with the bytes in base64
    Export {
        #[command(flatten)]
        chosen: Chosen,
        /// The file to write, or - for standard output
        #[arg(long, short)]
        output: PathBuf,
    },
    /// Hand them to the destinations that gave them up once more
    Retry {
        #[command(flatten)]
        chosen: Chosen,
        /// Only the one with this number; may be given several times
        #[arg(long)]
        number: Vec<u64>,
    },
}

/// Which dead letters.
#[derive(Debug, clap::Args)]
struct Chosen {
    #[command(flatten)]
    source: QueueSource,
    /// Only those of this destination; "listener": what could not be decoded
    #[arg(long)]
    origin: Option<String>,
    /// Only those of this vehicle
    #[arg(long)]
    vin: Option<String>,
}

pub(super) fn run(args: &DeadLettersArgs) -> Result<(), QueueError> {
    match &args.command {
        Command::List { chosen } => {
            let (mut letters, mut bytes) = (0_u64, 0);
            let all = each(chosen, |number, letter| {
                (letters, bytes) = (letters + 1, bytes + letter.raw.len());
                say!("{}", line(number, &letter));
                Ok(())
            });
            // Nobody knows how many there are where none could be looked for.
            if let Ok(()) | Err(QueueError::Missing(_)) = all {
                say!("{letters} dead letters, {bytes} bytes");
            }
            all
        }
        Command::Export { chosen, output } => {
            let failed = |path: &Path| {
                let path = path.to_owned();
                move |source| QueueError::Output { path, source }
            };
            let open = || -> Result<BufWriter<Box<dyn Write>>, QueueError> {
                let out: Box<dyn Write> = match stream::open(output)? {
                    Some(stream) => stream,
                    None => Box::new(File::create_new(output).map_err(|error| match error.kind() {
                        io::ErrorKind::AlreadyExists => QueueError::OutputExists(output.clone()),
                        _ => failed(output)(error),
                    })?),
                };
                Ok(BufWriter::new(out))
            };
            // Made with the first of them, or when there are none: a queue that is not there leaves no file behind.
            let mut out = None;
            let all = each(chosen, |number, letter| {
                let out = match &mut out {
                    Some(out) => out,
                    None => out.insert(open()?),
                };
                writeln!(out, "{}", whole(number, &letter)).map_err(failed(output))
            });
            if let (None, Ok(())) = (&out, &all) {
                out = Some(open()?);
            }
            if let Some(mut out) = out {
                out.flush().map_err(failed(output))?;
            }
            all
        }
        Command::Retry { chosen, number } => retry(chosen, number),
    }
}

fn retry(chosen: &Chosen, only: &[u64]) -> Result<(), QueueError> {
    let mut numbers = BTreeSet::new();
    let all = each(chosen, |number, _| {
        if only.is_empty() || only.contains(&number) {
            numbers.insert(number);
        }
        Ok(())
    });
    // Those that can be read are tried, whatever others cannot.
    let all = match all {
        Err(missing @ QueueError::Missing(_)) => Err(missing),
        other => Ok(other?),
    };
    if let Some(unknown) = only.iter().find(|number| !numbers.contains(number)) {
        return Err(QueueError::NoLetter(*unknown));
    }
    let dir = chosen.source.dir()?;
    let retried: Retried = match Queue::in_use(&dir).map_err(InspectError::from)? {
        true => {
            let answer = control::ask(&dir, "/retry", &json!(numbers).to_string())?;
            serde_json::from_str(&answer).map_err(|_| ControlError::Unknown(answer))?
        }
        false => {
            let mut config = config::load_for_queue(&chosen.source.config.config)?;
            config.queue.path = dir;
            let (queue, writer) = super::open(&config)?;
            let retried = control::runtime()?.block_on(queue.retry(numbers));
            let closed = writer.close();
            let retried = retried?;
            closed?;
            retried
        }
    };
    say!("{} are tried again, {} stay", retried.records, retried.stay);
    for (name, letters) in &retried.unconfigured {
        say!("{letters} stay: destination {name:?} is not configured");
    }
    all
}

/// Visits each of them. When some cannot be read, that is the error, after all others.
fn each(chosen: &Chosen, mut visit: impl FnMut(u64, DeadLetter) -> Result<(), QueueError>) -> Result<(), QueueError> {
    let dir = chosen.source.dir()?;
    let end = control::seal(&dir)?.map_or(u64::MAX, |sealed| sealed.dead_letters);
    let wanted = |letter: &DeadLetter| {
        chosen.origin.as_ref().is_none_or(|origin| *origin == letter.origin)
            && chosen.vin.as_ref().is_none_or(|vin| *vin == letter.vin)
    };
    let mut missing = 0;
    walk_dead_letters(&dir, end, |step| match step {
        Step::Found((number, letter)) if wanted(&letter) => visit(number, letter),
        Step::Missing(range, why) => {
            missing += range.end - range.start;
            tell!(
                "waystation: dead letters {} to {} cannot be read: {why}",
                range.start,
                range.end - 1
            );
            Ok(())
        }
        Step::Found(_) | Step::Gone(_) | Step::Segment(..) => Ok(()),
    })?;
    match missing {
        0 => Ok(()),
        missing => Err(QueueError::Missing(missing)),
    }
}

fn line(number: u64, letter: &DeadLetter) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(letter.at);
    let empty = |text: &str| {
        if text.is_empty() { "-".to_owned() } else { legible(text) }
    };
    format!(
        "{number:>8}  {}  {:<16} {:<17} {:<12} {:>7} B  {}",
        humantime::format_rfc3339_seconds(at),
        legible(&letter.origin),
        empty(&letter.vin),
        empty(&letter.record_type),
        letter.raw.len(),
        legible(&letter.reason)
    )
}

fn whole(number: u64, letter: &DeadLetter) -> serde_json::Value {
    json!({
        "number": number,
        "origin": letter.origin,
        "reason": letter.reason,
        "at": letter.at,
        "vin": letter.vin,
        "type": letter.record_type,
        "txid": String::from_utf8_lossy(&letter.txid),
        "record": letter.record.map(|record| record.to_string()),
        "received_at": letter.received_at,
        "client_version": letter.client_version,
        "raw_base64": BASE64.encode(&letter.raw),
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_a_vehicle_chose_is_one_line_that_a_terminal_only_shows() {
        let evil = "evil\u{1b}[31m\nforged";
        let letter = DeadLetter {
            origin: "listener".to_owned(),
            reason: evil.to_owned(),
            at: 0,
            vin: evil.to_owned(),
            record_type: evil.to_owned(),
            txid: Bytes::new(),
            raw: Bytes::new(),
            record: None,
            received_at: 0,
            client_version: String::new(),
        };
        let line = line(7, &letter);
        assert!(!line.contains(char::is_control), "{line:?}");
        assert_eq!(line.matches(r"evil\u{1b}[31m\nforged").count(), 3, "{line}");
    }
}
