//! `waystation queue import`: files of `queue export` into this queue, through the gateway when one runs on it.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::TryStreamExt;
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
    done: u64,
    why: String,
}

fn how_far(done: u64) -> String {
    match done {
        0 => String::new(),
        done => format!("; its first {done} records are imported, go on with --skip {done}"),
    }
}

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

fn each(args: &ImportArgs, mut import: impl FnMut(&Path, u64) -> Result<u64, (u64, String)>) -> Result<(), QueueError> {
    let mut skip = args.skip;
    for file in &args.files {
        let records = import(file, skip).map_err(|(done, why)| Interrupted {
            file: file.clone(),
            done: skip + done,
            why,
        })?;
        say!("{}: {records} records imported", file.display());
        skip = 0;
    }
    Ok(())
}

async fn read(queue: &Queue, path: &Path, skip: u64) -> Result<u64, (u64, String)> {
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
        Err(why) => Err((import.committed(), why)),
    }
}

async fn ask(queue: &Path, path: &Path, skip: u64) -> Result<u64, (u64, String)> {
    let file = File::open(path).await.map_err(|error| (0, error.to_string()))?;
    let body = StreamBody::new(ReaderStream::with_capacity(file, PIECE).map_ok(Frame::<Bytes>::data));
    match control::post(queue, &format!("/import?skip={skip}"), body).await {
        Ok(records) => Ok(records.parse().unwrap_or_default()),
        Err(ControlError::Refused { status, why }) if status != StatusCode::NOT_IMPLEMENTED => {
            let (done, why) = why.split_once(' ').unwrap_or(("0", &why));
            Err((done.parse().unwrap_or_default(), why.to_owned()))
        }
        Err(error) => Err((0, error.to_string())),
    }
}
