//! `waystation queue export`: records of the queue into a file, chosen by vehicle, type, time or number.
//!
//! What a file holds is remembered beside it as it grows, so that the same command goes on where it was interrupted.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Seek, SeekFrom, Write, stderr};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::encoding::encode_varint;
use serde::{Deserialize, Serialize};

use super::{QueueError, QueueSource, stream};
use crate::cli::{self, control};
use crate::destination::log;
use crate::queue::{Queued, Step, queue_id, walk};
use crate::record::envelope::{self, Stream};
use crate::record::{payload, portable};

/// Arguments of `queue export`.
#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    source: QueueSource,
    /// The file to write, or - for standard output
    #[arg(long, short)]
    output: PathBuf,
    /// How records are written
    #[arg(long, value_enum, default_value_t = Format::Protobuf)]
    format: Format,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
enum Format {
    /// ExportedRecord messages of protos/export.proto, each behind its length; what `import` reads
    Protobuf,
    /// One JSON object a line, decoded, as the log destination writes them
    Json,
    /// The vehicles' messages, built anew from what is kept of them, each behind its length as a varint
    Envelopes,
}

/// Which records.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
struct Filter {
    /// Only records of this vehicle; may be given several times
    #[arg(long)]
    vin: Vec<String>,
    /// Only records of this type (V, alerts, …); may be given several times
    #[arg(long = "type")]
    types: Vec<String>,
    /// Only records that the gateway received at or after this time, such as 2026-11-21T08:00:00Z
    #[arg(long, value_parser = time)]
    since: Option<u64>,
    /// Only records that the gateway received before this time
    #[arg(long, value_parser = time)]
    until: Option<u64>,
    /// Number of the first record
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Number of the last record
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    to: u64,
}

fn time(text: &str) -> Result<u64, String> {
    let wrong = |error| format!("{error}; write it as 2026-11-21T08:00:00Z or 2026-11-21 08:00:00, in UTC");
    let time = humantime::parse_rfc3339_weak(text).map_err(wrong)?;
    Ok(milliseconds(time))
}

fn milliseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

impl Filter {
    fn takes(&self, queued: &Queued) -> bool {
        let record = &queued.record;
        let among = |wanted: &[String], found: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == found);
        among(&self.vin, &record.vin)
            && among(&self.types, &record.record_type)
            && self.since.is_none_or(|since| record.received_at >= since)
            && self.until.is_none_or(|until| record.received_at < until)
    }
}

/// How far an export has come, in the file beside its output.
#[derive(Debug, Serialize, Deserialize)]
struct Progress {
    /// The queue's id: every box has its queue in the same place.
    queue: String,
    format: Format,
    filter: Filter,
    /// Number of the first record that is not in the output.
    next: u64,
    /// Bytes of the output that are whole.
    bytes: u64,
    records: u64,
}

/// Bytes after which what was written is made durable and remembered.
const STEP: u64 = 16 << 20;

pub(super) fn run(args: &ExportArgs) -> Result<(), QueueError> {
    let dir = args.source.dir()?;
    // What a gateway commits from here on is the next export's.
    let end = control::seal(&dir)?.map_or(u64::MAX, |sealed| sealed.records);
    let mut output = Output::open(args, &dir)?;
    let numbers = output.progress.next..args.filter.to.saturating_add(1).min(end);
    let shown = stderr().is_terminal();
    let (mut missing, mut frame) = (0, Vec::new());
    walk(&dir, numbers, |step| match step {
        Step::Found(queued) => {
            frame.clear();
            if args.filter.takes(&queued) {
                write(&mut frame, args.format, &queued);
            }
            output.add(&frame, queued.id.number)
        }
        Step::Missing(range, why) => {
            missing += range.end - range.start;
            tell!(
                "waystation: records {} to {} cannot be read: {why}",
                range.start,
                range.end - 1
            );
            Ok(())
        }
        Step::Gone(range) => {
            tell!(
                "waystation: records {} to {} have left the queue",
                range.start,
                range.end - 1
            );
            Ok(())
        }
        Step::Segment(done, all) => {
            if shown {
                cli::tell(&format!(
                    "\r{done} of {all} segments, {} records",
                    output.progress.records
                ));
            }
            output.step()
        }
    })?;
    if shown {
        tell!();
    }
    let (records, next) = output.finish()?;
    tell!("{records} records; later ones begin at --from {next}");
    match missing {
        0 => Ok(()),
        missing => Err(QueueError::Missing(missing)),
    }
}

fn write(out: &mut Vec<u8>, format: Format, queued: &Queued) {
    let record = &queued.record;
    match format {
        Format::Protobuf => portable::append(out, queued.stable_id(), record),
        Format::Json => {
            // What cannot be put into the form that consumers get is shown as it is.
            let mut room = Vec::new();
            let payload = payload::transform(&record.record_type, &record.vin, &record.payload, &mut room)
                .unwrap_or(&record.payload);
            out.extend_from_slice(log::line(queued, payload).to_string().as_bytes());
            out.push(b'\n');
        }
        Format::Envelopes => {
            let message = envelope::stream(&Stream {
                txid: record.txid.clone(),
                topic: Bytes::copy_from_slice(record.record_type.as_bytes()),
                sender_id: format!("vehicle_device.{}", record.vin).into(),
                payload: record.payload.clone(),
                device_type: Bytes::from_static(b"vehicle_device"),
                device_id: Bytes::copy_from_slice(record.vin.as_bytes()),
                created_at: u32::try_from(record.received_at / 1000).unwrap_or(u32::MAX),
                delivered_at_epoch_ms: record.received_at,
            });
            encode_varint(message.len() as u64, out);
            out.extend_from_slice(&message);
        }
    }
}

/// The file that is written, and what is remembered of it. A stream cannot be gone on with.
struct Output {
    path: PathBuf,
    out: BufWriter<Box<dyn Durable>>,
    remember: Option<PathBuf>,
    progress: Progress,
    since_step: u64,
}

trait Durable: Write {
    fn sync(&self) -> io::Result<()>;
}

impl Durable for File {
    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

impl Durable for Box<dyn Write> {
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn is_empty_file(path: &Path) -> bool {
    path.symlink_metadata()
        .is_ok_and(|found| found.is_file() && found.len() == 0)
}

impl Output {
    fn open(args: &ExportArgs, dir: &Path) -> Result<Self, QueueError> {
        let path = args.output.clone();
        let mut progress = Progress {
            queue: queue_id(dir)?.map(|id| id.to_string()).unwrap_or_default(),
            format: args.format,
            filter: args.filter.clone(),
            next: args.filter.from,
            bytes: 0,
            records: 0,
        };
        if let Some(stream) = stream::open(&path)? {
            return Ok(Self {
                path: match path == Path::new("-") {
                    true => "standard output".into(),
                    false => path,
                },
                out: BufWriter::new(Box::new(stream)),
                remember: None,
                progress,
                since_step: 0,
            });
        }
        let failed = |source| QueueError::Output {
            path: path.clone(),
            source,
        };
        let remember = PathBuf::from(format!("{}.progress", path.display()));
        let mut made = None;
        let file = match fs::read(&remember) {
            Ok(text) => {
                let same = serde_json::from_slice::<Progress>(&text).ok().filter(|before| {
                    (&before.queue, before.format, &before.filter)
                        == (&progress.queue, progress.format, &progress.filter)
                });
                progress = same.ok_or_else(|| QueueError::OtherExport(remember.clone()))?;
                tell!(
                    "going on at record {} after {} records",
                    progress.next,
                    progress.records
                );
                let opened = File::options().write(true).open(&path);
                let length = opened.as_ref().ok().and_then(|file| Some(file.metadata().ok()?.len()));
                // What is remembered as written has to be there.
                let (Ok(mut file), true) = (opened, length >= Some(progress.bytes)) else {
                    return Err(QueueError::OutputChanged(path.clone(), remember));
                };
                file.set_len(progress.bytes).map_err(failed)?;
                file.seek(SeekFrom::End(0)).map_err(failed)?;
                file
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match File::create_new(&path) {
                    Ok(file) => {
                        made = Some(path.clone());
                        file
                    }
                    // One that was killed before it had anything to remember left it.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_empty_file(&path) => {
                        File::options().write(true).open(&path).map_err(failed)?
                    }
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        return Err(QueueError::OutputExists(path));
                    }
                    Err(error) => return Err(failed(error)),
                }
            }
            Err(source) => return Err(QueueError::Output { path: remember, source }),
        };
        let mut this = Self {
            path,
            out: BufWriter::new(Box::new(file)),
            remember: Some(remember),
            progress,
            since_step: 0,
        };
        match (this.step(), made) {
            // Nothing is remembered of it: the next attempt would take it for somebody else's.
            (Err(error), Some(made)) => {
                fs::remove_file(made).unwrap_or_default();
                Err(error)
            }
            (begun, _) => begun.map(|()| this),
        }
    }

    fn add(&mut self, frame: &[u8], number: u64) -> Result<(), QueueError> {
        let written = self.out.write_all(frame);
        written.map_err(|source| self.failed(source))?;
        self.progress.records += u64::from(!frame.is_empty());
        self.progress.bytes += frame.len() as u64;
        self.progress.next = number + 1;
        self.since_step += frame.len() as u64;
        match self.since_step >= STEP {
            true => self.step(),
            false => Ok(()),
        }
    }

    fn step(&mut self) -> Result<(), QueueError> {
        self.since_step = 0;
        let durable = self.out.flush().and_then(|()| self.out.get_ref().sync());
        durable.map_err(|source| self.failed(source))?;
        let Some(remember) = &self.remember else { return Ok(()) };
        let text = serde_json::json!(self.progress).to_string();
        let temporary = remember.with_extension("progress.tmp");
        let remembered = File::create(&temporary).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            // A stick may be pulled at any time.
            file.sync_all()?;
            fs::rename(&temporary, remember)
        });
        remembered.map_err(|source| {
            fs::remove_file(&temporary).unwrap_or_default();
            QueueError::Output {
                path: remember.clone(),
                source,
            }
        })
    }

    /// The number of records that are in the file now, and where later ones begin.
    fn finish(mut self) -> Result<(u64, u64), QueueError> {
        self.step()?;
        if let Some(remember) = &self.remember {
            fs::remove_file(remember).map_err(|source| QueueError::Output {
                path: remember.clone(),
                source,
            })?;
        }
        Ok((self.progress.records, self.progress.next))
    }

    fn failed(&self, source: io::Error) -> QueueError {
        QueueError::Output {
            path: self.path.clone(),
            source,
        }
    }
}
