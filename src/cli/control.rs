//! Asks the gateway that runs on a queue, over its control socket.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::queue::QueueError;
use crate::admin::control::socket_path;
use crate::queue::{InspectError, Queue, Sealed};

/// Why it gave no answer, or not the wanted one.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("a gateway runs on this queue, and its control socket {} cannot be reached: {source}; be root or its user, or stop it first", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the gateway gave no answer: {0}")]
    Broken(#[from] hyper::Error),
    /// It did not do it.
    #[error("{why}")]
    Refused {
        /// HTTP's word for the kind of refusal.
        status: StatusCode,
        /// The gateway's words.
        why: String,
    },
    /// It answered something else.
    #[error("the gateway answered {0:?}; is it another version than this command?")]
    Unknown(String),
    /// No asynchronous runtime.
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
}

/// Asks for something with an argument; its answer.
pub(super) fn ask(queue: &Path, what: &str, argument: &str) -> Result<String, ControlError> {
    let body = Full::new(Bytes::copy_from_slice(argument.as_bytes()));
    runtime()?.block_on(post(queue, what, body))
}

/// Has the gateway that runs on a queue end its open segments: up to where they then hold everything. `None`: none runs.
pub(super) fn seal(queue: &Path) -> Result<Option<Sealed>, QueueError> {
    if !Queue::in_use(queue).map_err(InspectError::from)? {
        return Ok(None);
    }
    let answer = ask(queue, "/seal", "")?;
    let sealed = serde_json::from_str(&answer).map_err(|_| ControlError::Unknown(answer))?;
    Ok(Some(sealed))
}

/// A runtime for one command.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, ControlError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ControlError::Runtime)
}

/// Posts a body; the answer.
pub(super) async fn post<B>(queue: &Path, what: &str, body: B) -> Result<String, ControlError>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let path = socket_path(queue);
    let stream = UnixStream::connect(&path)
        .await
        .map_err(|source| ControlError::Unreachable { path, source })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::post(what)
        .header("host", "waystation")
        .body(body)
        .expect("a path and one header of ASCII make a request");
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let text = response.into_body().collect().await?.to_bytes();
        Ok::<_, hyper::Error>((status, String::from_utf8_lossy(&text).into_owned()))
    };
    let (status, text) = tokio::select! {
        answered = exchange => answered?,
        Err(error) = connection => return Err(error.into()),
    };
    match status {
        StatusCode::OK => Ok(text),
        status => Err(ControlError::Refused { status, why: text }),
    }
}
