//! `waystation queue import`: files of `queue export` into this queue, through the gateway when one runs on it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, future};
use http_body_util::StreamBody;
use hyper::StatusCode;
use hyper::body::Frame;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::QueueError;
use crate::cli::control::{self, ControlError};
use crate::cli::run::ConfigArgs;
use crate::config::{self, WhenFull};
use crate::queue::{Import, InspectError, Queue};

/// Arguments of `queue import`.
#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Files of `queue export --format protobuf`
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Pass over so many records of the first file: those that an import which was interrupted has done
    #[arg(long, default_value_t = 0)]
    skip: u64,
}

/// Why a file was not imported to its end.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}{}", file.display(), how_far(*done))]
pub struct Interrupted {
    file: PathBuf,
    /// Not known when the gateway is gone without an answer.
    done: Option<u64>,
    why: String,
}

fn how_far(done: Option<u64>) -> String {
    match done {
        Some(0) => String::new(),
        Some(done) => format!("; its first {done} records are imported, go on with --skip {done}"),
        None => "; some of its records may be imported, `waystation queue export` writes out which the queue holds; \
                 imported again they come twice, with the same ids"
            .to_owned(),
    }
}

/// How many records are imported, as far as that is known, and why no more.
type Stopped = (Option<u64>, String);

const PIECE: usize = 256 << 10;

pub(super) fn run(args: &ImportArgs) -> Result<(), QueueError> {
    let mut config = config::load_for_queue(&args.config.config)?;
    let runtime = control::runtime()?;
    if Queue::in_use(&config.queue.path).map_err(InspectError::from)? {
        return each(args, |file, skip| runtime.block_on(ask(&config.queue.path, file, skip)));
    }
    // Nothing that is here goes for what comes: with no room left the import ends, and can go on later.
    config.queue.when_full = WhenFull::Refuse;
    config.queue.max_age = None;
    // Imported records are not held against it.
    config.queue.duplicate_window = 0;
    let (queue, writer) = super::open(&config)?;
    let imported = each(args, |file, skip| runtime.block_on(read(&queue, file, skip)));
    let closed = writer.close();
    imported?;
    Ok(closed?)
}

fn each(args: &ImportArgs, mut import: impl FnMut(&Path, u64) -> Result<u64, Stopped>) -> Result<(), QueueError> {
    let mut skip = args.skip;
    for file in &args.files {
        let records = import(file, skip).map_err(|(done, why)| Interrupted {
            file: file.clone(),
            done: done.map(|done| skip + done),
            why,
        })?;
        say!("{}: {records} records imported", file.display());
        skip = 0;
    }
    Ok(())
}

async fn read(queue: &Queue, path: &Path, skip: u64) -> Result<u64, Stopped> {
    let mut import = Import::new(queue.submitter(), skip);
    let mut buffer = vec![0; PIECE];
    let fed = async {
        let mut file = File::open(path).await.map_err(|error| error.to_string())?;
        loop {
            let read = file.read(&mut buffer).await.map_err(|error| error.to_string())?;
            if read == 0 {
                return Ok(());
            }
            import.feed(&buffer[..read]).await.map_err(|error| error.to_string())?;
        }
    }
    .await;
    let finished = import.finish().await.map_err(|error| error.to_string());
    match fed.and(finished) {
        Ok(()) => Ok(import.committed()),
        Err(why) => Err((Some(import.committed()), why)),
    }
}

async fn ask(queue: &Path, path: &Path, skip: u64) -> Result<u64, Stopped> {
    let file = File::open(path).await.map_err(|error| (Some(0), error.to_string()))?;
    let fault = Arc::new(OnceLock::new());
    let pieces = until_fault(ReaderStream::with_capacity(file, PIECE), Arc::clone(&fault));
    let body = StreamBody::new(pieces.map(Frame::data).map(Ok::<_, io::Error>));
    let answer = control::post(queue, &format!("/import?skip={skip}"), body).await;
    // The file's own error is why, whatever the gateway makes of where it ends.
    let why = |gateways: String| fault.get().map_or(gateways, io::Error::to_string);
    match answer {
        Ok(records) => {
            let records = records.parse().unwrap_or_default();
            match fault.get() {
                None => Ok(records),
                Some(fault) => Err((Some(records), fault.to_string())),
            }
        }
        Err(ControlError::Refused { status, why: said }) if status != StatusCode::NOT_IMPLEMENTED => {
            let (done, said) = said.split_once(' ').unwrap_or(("0", &said));
            Err((Some(done.parse().unwrap_or_default()), why(said.to_owned())))
        }
        Err(error @ (ControlError::Broken(_) | ControlError::Unknown(_))) => Err((None, why(error.to_string()))),
        Err(error) => Err((Some(0), why(error.to_string()))),
    }
}

/// What can be read of a file. An error ends it and is put aside: the gateway commits what it has got and says how much
/// that is, as it could not if the request broke off.
fn until_fault<R: Stream<Item = io::Result<Bytes>>>(
    pieces: R,
    fault: Arc<OnceLock<io::Error>>,
) -> impl Stream<Item = Bytes> {
    pieces
        .map_err(move |error| {
            // The first one ends it.
            fault.set(error).unwrap_or_default();
        })
        .take_while(|piece| future::ready(piece.is_ok()))
        .filter_map(|piece| future::ready(piece.ok()))
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn a_file_that_cannot_be_read_in_the_middle_ends_there_and_its_error_is_kept() {
        let piece = Ok(Bytes::from_static(b"whole"));
        let broken = Err(io::Error::other("Input/output error"));
        let after = Ok(Bytes::from_static(b"after"));
        let fault = Arc::new(OnceLock::new());
        let read = until_fault(stream::iter([piece, broken, after]), Arc::clone(&fault));
        assert_eq!(read.collect::<Vec<_>>().await, ["whole"]);
        assert_eq!(
            fault.get().map(ToString::to_string).as_deref(),
            Some("Input/output error")
        );
    }
}
