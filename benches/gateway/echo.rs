//! The limits of the listener: bare mTLS WebSocket servers of the same crates. The plain one sends each message back as it
//! came. The lean one, which is harder to keep up with, answers like the gateway: with a message of an ack's size, and
//! writes what is ready at once.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use waystation::record::envelope;

use crate::load::txid;

/// The process's whole life.
pub(crate) fn run(pki: &Path, port: u16, is_lean: bool) {
    // The gateway's runtime.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(serve(pki, port, is_lean));
}

async fn serve(pki: &Path, port: u16, is_lean: bool) {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in chain(&pki.join("vehicle-ca.pem")) {
        roots.add(certificate).expect("a CA");
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_client_cert_verifier(verifier.expect("there is a CA"))
        .with_single_cert(
            chain(&pki.join("server.pem")),
            PrivateKeyDer::from_pem_file(pki.join("server.key")).expect("a key"),
        )
        .expect("they match");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        tokio::spawn(answer(acceptor.clone(), stream, is_lean));
    }
}

fn chain(path: &Path) -> Vec<CertificateDer<'static>> {
    let certificates = CertificateDer::pem_file_iter(path).expect("the PKI was made for this");
    certificates
        .map(|certificate| certificate.expect("a certificate"))
        .collect()
}

/// Until the vehicle goes.
async fn answer(acceptor: TlsAcceptor, stream: TcpStream, is_lean: bool) {
    stream.set_nodelay(true).expect("a socket");
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(4 << 10)
        .write_buffer_size(4 << 10);
    let accepted = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await;
    let Ok(mut socket) = accepted else { return };
    if !is_lean {
        while let Some(Ok(message)) = socket.next().await {
            if socket.send(message).await.is_err() {
                return;
            }
        }
        return;
    }
    let ack: Bytes = envelope::ack(txid(1).as_bytes(), b"V");
    while let Some(Ok(message)) = socket.next().await {
        let mut message = message;
        loop {
            if message.is_binary() && socket.feed(Message::Binary(ack.clone())).await.is_err() {
                return;
            }
            match socket.next().now_or_never() {
                Some(Some(Ok(next))) => message = next,
                Some(_) => return,
                None => break,
            }
        }
        if socket.flush().await.is_err() {
            return;
        }
    }
}
