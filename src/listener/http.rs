//! The one HTTP request of a connection: a WebSocket upgrade of a vehicle, the status, the public key, or an error.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Where Tesla looks for a fleet's public key.
pub(crate) const PUBLIC_KEY_PATH: &str = "/.well-known/appspecific/com.tesla.3p.public-key.pem";

const BUFFER_BYTES: usize = 8 << 10;
const LONGEST_HEADER: usize = 256;

/// What a connection may ask for.
pub(crate) struct Door {
    /// Why this peer gets no WebSocket: status and sentence.
    pub refusal: Option<(StatusCode, String)>,
    /// Whether it showed a verified certificate.
    pub verified: bool,
    pub public_key: Option<Bytes>,
}

/// A vehicle that came through.
pub(crate) struct Upgraded {
    pub stream: TlsStream<TcpStream>,
    /// What it sent behind its request.
    pub read: Bytes,
    pub request: VehicleRequest,
}

/// What a vehicle says in its request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct VehicleRequest {
    pub client_version: String,
    pub network_interface: String,
    pub connection_id: String,
}

impl VehicleRequest {
    fn new(headers: &HeaderMap) -> Self {
        let text = |name: &str| {
            let value = headers
                .get(name)
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            value
                .unwrap_or_default()
                .chars()
                .filter(|c| !c.is_control())
                .take(LONGEST_HEADER)
                .collect::<String>()
        };
        let connection_id = uuid::Uuid::parse_str(text("x-txid").trim()).unwrap_or_else(|_| uuid::Uuid::new_v4());
        Self {
            client_version: text("version"),
            network_interface: text("x-network-interface"),
            connection_id: connection_id.hyphenated().to_string(),
        }
    }
}

/// Why there is no upgraded connection although nothing was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("the connection was not the one that was upgraded")]
    NotOurs,
}

/// What was answered to a request that ended in no upgrade.
pub(crate) enum Answered {
    /// It asked for one and got the door's refusal.
    Refusal,
    /// It asked for something else.
    Other,
}

enum Asked {
    Upgrade(OnUpgrade, VehicleRequest),
    InVain,
}

/// Serves the request.
pub(crate) async fn serve(stream: TlsStream<TcpStream>, door: Door) -> Result<Result<Upgraded, Answered>, HttpError> {
    let asked: Arc<Mutex<Option<Asked>>> = Arc::default();
    let slot = Arc::clone(&asked);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let mut answer = answer(&request, &door);
        let refused = door.refusal.as_ref().map(|(status, _)| *status);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let vehicle = VehicleRequest::new(request.headers());
            *slot = Some(Asked::Upgrade(hyper::upgrade::on(&mut request), vehicle));
        } else {
            // Nothing else is answered with a refusal's status.
            *slot = (Some(answer.status()) == refused).then_some(Asked::InVain);
            answer
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    http1::Builder::new()
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await?;
    let asked = asked.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (upgrade, request) = match asked {
        Some(Asked::Upgrade(upgrade, request)) => (upgrade, request),
        Some(Asked::InVain) => return Ok(Err(Answered::Refusal)),
        None => return Ok(Err(Answered::Other)),
    };
    let parts = upgrade
        .await?
        .downcast::<TokioIo<TlsStream<TcpStream>>>()
        .map_err(|_| HttpError::NotOurs)?;
    Ok(Ok(Upgraded {
        stream: parts.io.into_inner(),
        read: parts.read_buf,
        request,
    }))
}

fn answer<B>(request: &Request<B>, door: &Door) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if path == "/status" {
        return text(StatusCode::OK, if door.verified { "mtls ok" } else { "ok" });
    }
    if path == PUBLIC_KEY_PATH
        && let Some(key) = &door.public_key
    {
        let mut response = Response::new(Full::new(key.clone()));
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/x-pem-file"));
        return response;
    }
    let headers = request.headers();
    if request.method() != Method::GET
        || !lists(headers, CONNECTION, "upgrade")
        || !lists(headers, UPGRADE, "websocket")
    {
        return text(
            StatusCode::NOT_FOUND,
            "not found: vehicles connect with a WebSocket upgrade\n",
        );
    }
    if let Some((status, reason)) = &door.refusal {
        let mut response = text(*status, reason);
        if *status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("30"));
        }
        return response;
    }
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY) else {
        return text(
            StatusCode::BAD_REQUEST,
            "the WebSocket upgrade lacks Sec-WebSocket-Key\n",
        );
    };
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return text(
            StatusCode::BAD_REQUEST,
            "the WebSocket upgrade needs Sec-WebSocket-Version: 13\n",
        );
    }
    let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) else {
        return text(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key cannot be used\n");
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

fn lists(headers: &HeaderMap, name: hyper::header::HeaderName, token: &str) -> bool {
    let values = headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(path: &str, upgrade: bool) -> Request<()> {
        let mut request = Request::builder().uri(path);
        if upgrade {
            request = request
                .header("Connection", "keep-alive, Upgrade")
                .header("Upgrade", "WebSocket")
                .header("Sec-WebSocket-Version", "13")
                .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        }
        request.body(()).unwrap()
    }

    fn door(refusal: Option<StatusCode>) -> Door {
        Door {
            refusal: refusal.map(|status| (status, "because".to_owned())),
            verified: refusal.is_none(),
            public_key: Some(Bytes::from_static(b"PEM")),
        }
    }

    #[test]
    fn a_vehicle_is_upgraded_on_any_path_but_status() {
        for path in ["/", "/anything", "/a/b?c"] {
            let response = answer(&request(path, true), &door(None));
            assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS, "{path}");
            assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        }
        assert_eq!(answer(&request("/status", true), &door(None)).status(), StatusCode::OK);
    }

    #[test]
    fn everything_else_has_its_answer() {
        assert_eq!(
            answer(&request("/", false), &door(None)).status(),
            StatusCode::NOT_FOUND
        );
        assert_eq!(
            answer(&request("/", true), &door(Some(StatusCode::FORBIDDEN))).status(),
            StatusCode::FORBIDDEN
        );
        let full = answer(&request("/", true), &door(Some(StatusCode::SERVICE_UNAVAILABLE)));
        assert_eq!(
            (full.status(), full.headers()[RETRY_AFTER].to_str().unwrap()),
            (StatusCode::SERVICE_UNAVAILABLE, "30")
        );
        assert_eq!(
            answer(&request(PUBLIC_KEY_PATH, false), &door(Some(StatusCode::FORBIDDEN))).status(),
            StatusCode::OK
        );
        let none = Door {
            public_key: None,
            ..door(None)
        };
        assert_eq!(
            answer(&request(PUBLIC_KEY_PATH, false), &none).status(),
            StatusCode::NOT_FOUND
        );
        let mut old = request("/", true);
        old.headers_mut()
            .insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("8"));
        assert_eq!(answer(&old, &door(None)).status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn the_connection_id_is_the_vehicles_uuid_in_any_of_its_forms_or_a_new_one() {
        let id = "6e8f1a52-9b1d-4c7e-8a54-0123456789ab";
        for form in [
            id.to_owned(),
            format!("urn:uuid:{id}"),
            format!("{{{id}}}"),
            id.replace('-', "").to_uppercase(),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-txid", form.parse().unwrap());
            headers.insert("version", "1.2.0".parse().unwrap());
            let request = VehicleRequest::new(&headers);
            assert_eq!(
                (request.connection_id.as_str(), request.client_version.as_str()),
                (id, "1.2.0"),
                "{form}"
            );
        }
        let mut headers = HeaderMap::new();
        headers.insert("x-txid", "not a uuid".parse().unwrap());
        assert_ne!(
            VehicleRequest::new(&headers).connection_id,
            VehicleRequest::new(&headers).connection_id
        );
    }
}
