//! Serves the local port over plain HTTP.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::accept::{self, Limits};
use super::{Published, metrics};

const LIMITS: Limits = Limits {
    name: "admin.bind",
    connections: 32,
    patience: Duration::from_secs(10),
    // Who watches asks again.
    last_answers: Duration::from_millis(200),
};

/// Serves until `stop`.
pub async fn serve(socket: TcpListener, published: Arc<Published>, stop: CancellationToken) {
    let answer = move |request: Request<Incoming>| std::future::ready(answer(request.uri().path(), &published));
    accept::serve(&socket, &LIMITS, &stop, answer).await;
}

fn answer(path: &str, published: &Published) -> Response<Full<Bytes>> {
    let (status, kind, body) = match path {
        "/status" => (StatusCode::OK, "text/plain; charset=utf-8", "ok".to_owned()),
        "/status.json" => match serde_json::to_string_pretty(&published.report()) {
            Ok(report) => (StatusCode::OK, "application/json", report),
            Err(error) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "text/plain; charset=utf-8",
                error.to_string(),
            ),
        },
        "/metrics" => (
            StatusCode::OK,
            "text/plain; version=0.0.4",
            metrics::render(&published.report()),
        ),
        _ => (
            StatusCode::NOT_FOUND,
            "text/plain; charset=utf-8",
            "not found: there are /status, /status.json and /metrics\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
