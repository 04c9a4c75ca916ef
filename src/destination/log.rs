//! JSON lines, one a record, to standard output or a file: for trying out and for debugging.
//!
//! A record in a file is confirmed when its line is on the disk.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::task::JoinHandle;

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
                    let opened = tokio::task::spawn_blocking(move || open(&named)).await;
                    let opened = opened.map_err(|error| SessionError(error.to_string()))?;
                    Some(opened.map_err(|error| SessionError(format!("cannot open {}: {error}", path.display())))?)
                }
            };
            let session: Box<dyn Session> = Box::new(Lines {
                path: self.path.clone(),
                file,
                lines: Vec::new(),
                numbers: Vec::new(),
                writing: None,
            });
            Ok(session)
        })
    }
}

struct Lines {
    path: Option<PathBuf>,
    /// `None` for standard output, and while `writing` has it.
    file: Option<File>,
    lines: Vec<u8>,
    numbers: Vec<u64>,
    writing: Option<Writing>,
}

type Writing = JoinHandle<(Option<File>, std::io::Result<Vec<u64>>)>;

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
            if self.writing.is_none() {
                if self.numbers.is_empty() {
                    return std::future::pending().await;
                }
                let (lines, numbers) = (std::mem::take(&mut self.lines), std::mem::take(&mut self.numbers));
                let (mut file, path) = (self.file.take(), self.path.clone());
                self.writing = Some(tokio::task::spawn_blocking(move || {
                    let followed = match (&mut file, &path) {
                        (Some(file), Some(path)) => follow(file, path),
                        _ => Ok(()),
                    };
                    let written = followed.and_then(|()| write(file.as_ref(), &lines));
                    (file, written.map(|()| numbers))
                }));
            }
            let Some(writing) = self.writing.as_mut() else {
                return std::future::pending().await;
            };
            let (file, written) = writing.await.map_err(|error| SessionError(error.to_string()))?;
            self.writing = None;
            self.file = file;
            let numbers = written.map_err(|error| SessionError(format!("cannot write: {error}")))?;
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

/// The file, for appending whole lines: what a crash cut off stays a line of its own, and the record comes again.
fn open(path: &Path) -> std::io::Result<File> {
    let mut file = File::options().create(true).append(true).read(true).open(path)?;
    let mut last = [b'\n'];
    if let Some(at) = file.metadata()?.len().checked_sub(1)
        && file.metadata()?.is_file()
    {
        file.read_exact_at(&mut last, at)?;
    }
    if last != [b'\n'] {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

/// Goes on in the file that has the name now: whoever rotates logs moves the one before away, and may remove it.
fn follow(file: &mut File, path: &Path) -> std::io::Result<()> {
    let ours = file.metadata()?;
    // Pipes and devices stay what they are.
    if !ours.is_file() {
        return Ok(());
    }
    let same = match std::fs::metadata(path) {
        Ok(found) => (found.dev(), found.ino()) == (ours.dev(), ours.ino()),
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    if !same {
        *file = open(path)?;
    }
    Ok(())
}

fn write(file: Option<&File>, lines: &[u8]) -> std::io::Result<()> {
    match file {
        Some(mut file) => {
            file.write_all(lines)?;
            match file.sync_data() {
                // A pipe or a device has nothing to sync.
                Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
                synced => synced,
            }
        }
        None => {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(lines)?;
            stdout.flush()
        }
    }
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
