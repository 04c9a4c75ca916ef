//! The control socket in the queue's directory: what `waystation queue` asks of a gateway that runs.
//!
//! Who may open the socket may do all of it; that is its owner and root.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::Published;
use super::accept::{self, Limits};
use crate::queue::{Import, ImportError, OrderError, Refusal};

const LIMITS: Limits = Limits {
    name: "the control socket",
    connections: 8,
    // An import or a purge takes as long as it takes.
    patience: Duration::from_secs(365 * 86_400),
    // They say how far they have come.
    last_answers: Duration::from_secs(2),
};
/// Names and VINs are far shorter; the numbers of all dead letters may be this long.
const LONGEST_ARGUMENT: usize = 4 << 20;

/// Where the socket of a queue's gateway is.
pub fn socket_path(queue: &Path) -> PathBuf {
    queue.join("control.sock")
}

/// Opens the socket, in place of one that an earlier gateway left. The queue has to be locked.
pub fn bind(queue: &Path) -> io::Result<UnixListener> {
    let path = socket_path(queue);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(socket)
}

/// Serves until `stop`, then takes the socket's file away.
pub async fn serve(socket: UnixListener, published: Arc<Published>, stop: CancellationToken) {
    let stopping = stop.clone();
    let answer = move |request: Request<Incoming>| {
        let (published, stop) = (Arc::clone(&published), stopping.clone());
        async move { answer(request, &published, &stop).await }
    };
    accept::serve(&socket, &LIMITS, &stop, answer).await;
    let path = socket
        .local_addr()
        .ok()
        .and_then(|address| address.as_pathname().map(Path::to_owned));
    drop(socket);
    if let Some(Err(error)) = path.map(fs::remove_file) {
        tracing::debug!(%error, "the control socket's file stays until the next start");
    }
}

/// What is answered when it was not done.
struct Failed(StatusCode, String);

impl From<OrderError> for Failed {
    fn from(error: OrderError) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

async fn answer(request: Request<Incoming>, published: &Published, stop: &CancellationToken) -> Response<Full<Bytes>> {
    let (status, body) = match carry_out(request, published, stop).await {
        Ok(done) => (StatusCode::OK, done),
        Err(Failed(status, why)) => (status, why),
    };
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

async fn carry_out(
    request: Request<Incoming>,
    published: &Published,
    stop: &CancellationToken,
) -> Result<String, Failed> {
    let queue = &published.queue;
    if request.method() != Method::POST {
        return Err(Failed(
            StatusCode::METHOD_NOT_ALLOWED,
            "only POST is answered".to_owned(),
        ));
    }
    match request.uri().path() {
        "/seal" => {
            let sealed = queue.seal().await?;
            Ok(serde_json::json!(sealed).to_string())
        }
        "/forget" => {
            let destination = argument(request).await?;
            let names = published.destinations.iter().map(|status| status.snapshot().name);
            if names.into_iter().any(|name| name == destination) {
                let why =
                    format!("{destination:?} is a destination of the gateway that runs; restart it without that first");
                return Err(Failed(StatusCode::CONFLICT, why));
            }
            match queue.forget(&destination).await? {
                true => Ok(String::new()),
                false => Err(Failed(StatusCode::NOT_FOUND, String::new())),
            }
        }
        "/purge" => {
            let purged = queue.purge(&argument(request).await?).await;
            let purged = purged.map_err(|error| Failed(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
            Ok(serde_json::json!(purged).to_string())
        }
        "/retry" => {
            let numbers = serde_json::from_str(&argument(request).await?)
                .map_err(|error| Failed(StatusCode::BAD_REQUEST, error.to_string()))?;
            let retried = queue.retry(numbers).await;
            let retried = retried.map_err(|error| Failed(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
            Ok(serde_json::json!(retried).to_string())
        }
        "/import" => import(request, published, stop).await,
        path => {
            let why = format!("{path}: this gateway does not know that; is it an older one than the command?");
            Err(Failed(StatusCode::NOT_IMPLEMENTED, why))
        }
    }
}

async fn argument(request: Request<Incoming>) -> Result<String, Failed> {
    let unusable = |error: String| Failed(StatusCode::BAD_REQUEST, error);
    let body = Limited::new(request.into_body(), LONGEST_ARGUMENT).collect().await;
    let body = body.map_err(|error| unusable(error.to_string()))?.to_bytes();
    String::from_utf8(body.into()).map_err(|error| unusable(error.to_string()))
}

/// The body is the file. The answer begins with how many records are on the disk, done or not.
async fn import(request: Request<Incoming>, published: &Published, stop: &CancellationToken) -> Result<String, Failed> {
    let skip = request.uri().query().and_then(|query| query.strip_prefix("skip="));
    let skip = skip.and_then(|skip| skip.parse().ok()).unwrap_or_default();
    let mut import = Import::new(published.queue.submitter(), skip);
    let mut body = request.into_body();
    let mut result = Ok(());
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = stop.cancelled() => {
                result = result.and(Err(ImportError::Refused(Refusal::Stopped)));
                break;
            }
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| Failed(StatusCode::BAD_REQUEST, error.to_string()))?;
        // After an error the rest is passed over: who is still sending hears no answer.
        if let (Ok(()), Some(bytes)) = (&result, frame.data_ref()) {
            result = import.feed(bytes).await;
        }
    }
    // Also after an error: what was read before is on its way to the disk.
    let finished = import.finish().await;
    match result.and(finished) {
        Ok(()) => Ok(import.committed().to_string()),
        Err(error) => {
            let status = match error {
                ImportError::Refused(Refusal::Full) => StatusCode::INSUFFICIENT_STORAGE,
                ImportError::Refused(Refusal::Stopped) => StatusCode::SERVICE_UNAVAILABLE,
                ImportError::Unreadable { .. } | ImportError::Cut { .. } => StatusCode::BAD_REQUEST,
            };
            Err(Failed(status, format!("{} {error}", import.committed())))
        }
    }
}
