//! The accept loop of the local port and of the control socket: a bounded number of connections, one request on each.
//!
//! No connection outlives the loop by more than the time that it is given for its last answer.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Time for a pause after the system had no descriptor for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that is listened on.
pub(super) trait Accept {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Cancel-safe.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for TcpListener {
    type Stream = tokio::net::TcpStream;
    async fn accept(&self) -> io::Result<Self::Stream> {
        Ok(TcpListener::accept(self).await?.0)
    }
}

impl Accept for UnixListener {
    type Stream = tokio::net::UnixStream;
    async fn accept(&self) -> io::Result<Self::Stream> {
        Ok(UnixListener::accept(self).await?.0)
    }
}

/// What one socket allows.
pub(super) struct Limits {
    /// What it is called in the log.
    pub(super) name: &'static str,
    pub(super) connections: usize,
    /// Time for a request and its answer.
    pub(super) patience: Duration,
    /// Time for the answers that are under way at the end.
    pub(super) last_answers: Duration,
}

/// Serves until `stop`.
pub(super) async fn serve<S: Accept, A: Future<Output = Response<Full<Bytes>>> + Send + 'static>(
    socket: &S,
    limits: &Limits,
    stop: &CancellationToken,
    answer: impl Fn(Request<Incoming>) -> A + Send + Sync + 'static,
) {
    let (name, patience) = (limits.name, limits.patience);
    let answer = Arc::new(answer);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = socket.accept(), if connections.len() < limits.connections => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to {name} could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let answer = Arc::clone(&answer);
        connections.spawn(async move {
            let service = service_fn(|request| {
                let answered = answer(request);
                async { Ok::<_, Infallible>(answered.await) }
            });
            let served = http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            match tokio::time::timeout(patience, served).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a request to {name} failed"),
                Err(_) => tracing::debug!("a request to {name} took too long"),
            }
        });
    }
    let answered = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.last_answers, answered).await.is_err() {
        tracing::warn!("a request to {name} was cut off");
        connections.shutdown().await;
    }
}
