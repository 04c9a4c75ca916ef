//! JSON lines, one a record, to standard output or a file: for trying out and for debugging.
//!
//! A record in a file is confirmed when its line is on the disk, in the file that has the name.

use std::io::Write;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::task::JoinHandle;

use super::log_file::{LogFile, Written};
use super::{Confirmation, Destination, News, Outcome, Rejected, Sent, Session, SessionError};
use crate::config;
use crate::queue::Queued;
use crate::record::json;

/// JSON lines.
pub struct Log {
    path: Option<PathBuf>,
}

/// Bytes of lines that may wait for the disk.
const BUFFER_BYTES: usize = 1 << 20;

impl Log {
    /// A log as configured.
    pub fn new(config: &config::Log) -> Self {
        Self {
            path: config.path.clone(),
        }
    }
}

impl Destination for Log {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, SessionError>> {
        Box::pin(async move {
            let file = match &self.path {
                None => None,
                // A disk or a pipe may take its time, which is not the runtime's.
                Some(path) => {
                    let named = path.clone();
                    let opened = tokio::task::spawn_blocking(move || LogFile::open(&named)).await;
                    let opened = opened.map_err(|error| SessionError(error.to_string()))?;
                    Some(opened.map_err(|error| SessionError(format!("cannot open {}: {error}", path.display())))?)
                }
            };
            let session: Box<dyn Session> = Box::new(Lines {
                file,
                lines: Vec::new(),
                numbers: Vec::new(),
                writing: None,
                failed: None,
            });
            Ok(session)
        })
    }
}

struct Lines {
    /// `None` for standard output, and while `writing` has it.
    file: Option<LogFile>,
    lines: Vec<u8>,
    numbers: Vec<u64>,
    writing: Option<Writing>,
    /// Why the session is over, once what was written before is confirmed.
    failed: Option<SessionError>,
}

/// The file, the numbers of the records that are in it, and why the others are not.
type Writing = JoinHandle<(Option<LogFile>, Vec<u64>, std::io::Result<()>)>;

impl Session for Lines {
    fn is_up(&self) -> bool {
        true
    }

    fn has_room(&self) -> bool {
        self.lines.len() < BUFFER_BYTES
    }

    fn send(&mut self, queued: &Queued, payload: &[u8]) -> Result<Sent, Rejected> {
        let line = line(queued, payload).to_string();
        self.lines.extend_from_slice(line.as_bytes());
        self.lines.push(b'\n');
        self.numbers.push(queued.id.number);
        Ok(Sent {
            bytes: line.len() + 1,
            inexpressible: 0,
        })
    }

    fn news(&mut self) -> BoxFuture<'_, Result<News, SessionError>> {
        Box::pin(async move {
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            if self.writing.is_none() {
                if self.numbers.is_empty() {
                    return std::future::pending().await;
                }
                let (lines, mut numbers) = (std::mem::take(&mut self.lines), std::mem::take(&mut self.numbers));
                let mut file = self.file.take();
                self.writing = Some(tokio::task::spawn_blocking(move || {
                    let Written { bytes, result } = match &mut file {
                        Some(file) => file.append(&lines),
                        None => print(&lines),
                    };
                    // In JSON a line ends nowhere but at its end.
                    numbers.truncate(memchr::memchr_iter(b'\n', &lines[..bytes]).count());
                    (file, numbers, result)
                }));
            }
            let Some(writing) = self.writing.as_mut() else {
                return std::future::pending().await;
            };
            let (file, numbers, written) = writing.await.map_err(|error| SessionError(error.to_string()))?;
            self.writing = None;
            self.file = file;
            let failed = written.map_err(|error| SessionError(format!("cannot write: {error}")));
            if numbers.is_empty() {
                failed?;
            } else {
                self.failed = failed.err();
            }
            let delivered = |number| Confirmation {
                number,
                outcome: Outcome::Delivered,
            };
            Ok(numbers.into_iter().map(delivered).collect::<Vec<_>>().into())
        })
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // The next session looks at how the file ends.
            if let Some(writing) = self.writing
                && let Err(error) = writing.await
            {
                tracing::warn!(%error, "a write to a log file did not end in order");
            }
        })
    }
}

fn print(lines: &[u8]) -> Written {
    let mut stdout = std::io::stdout().lock();
    let result = stdout.write_all(lines).and_then(|()| stdout.flush());
    let bytes = if result.is_ok() { lines.len() } else { 0 };
    Written { bytes, result }
}

/// A record as one line shows it, with what is to be shown of its payload: decoded where it can be.
pub fn line(queued: &Queued, payload: &[u8]) -> serde_json::Value {
    let record = &queued.record;
    let mut line = json!({
        "record": queued.stable_id().to_string(),
        "vin": &*record.vin,
        "type": &*record.record_type,
        "txid": String::from_utf8_lossy(&record.txid),
        "received_at": record.received_at,
    });
    let decoded = json::decoded(&record.record_type, payload)
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok());
    match decoded {
        Some(decoded) => line["payload"] = decoded,
        None => line["payload_base64"] = BASE64.encode(payload).into(),
    }
    line
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt;
    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn a_file_is_opened_where_it_holds_up_nobody() {
        let mut runtime = Builder::new_current_thread();
        runtime.max_blocking_threads(1);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.jsonl");
        let log = Log::new(&config::Log { path: Some(path) });
        runtime.build().unwrap().block_on(async {
            let (go_on, held_up) = mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || held_up.recv());
            let mut connecting = log.connect();
            assert!((&mut connecting).now_or_never().is_none());
            go_on.send(()).unwrap();
            assert!(connecting.await.is_ok());
            busy.await.unwrap().unwrap();
        });
    }

    #[test]
    fn a_number_that_is_read_and_written_again_is_the_same() {
        // Of the first an approximate reader makes 94.95886283158104.
        for number in ["94.95886283158103", "37.412374", "-0.0", "5e-324"] {
            let read = serde_json::from_str::<serde_json::Value>(number).map(|value| value.to_string());
            assert_eq!(read.ok().as_deref(), Some(number));
        }
    }
}
