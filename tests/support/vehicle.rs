//! A vehicle as the wire sees it: TLS, one HTTP request, WebSocket messages. It keeps nothing and sends nothing again.
#![allow(dead_code)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use waystation::cli::pki::Pki;
use waystation::record::envelope::{self, Stream};

use crate::gateway::{PATIENCE, Running, vin};

static BOTH_VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// A `V` payload: one datum, number 4, 100.0.
pub(crate) const PAYLOAD: &[u8] = &[0x0a, 0x09, 0x08, 0x04, 0x12, 0x05, 0x25, 0x00, 0x00, 0xc8, 0x42];

/// How a vehicle comes.
pub(crate) struct Dial {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) path: &'static str,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Of the socket, where it is to be small.
    pub(crate) receive_buffer: Option<u32>,
}

/// One that is connected.
pub(crate) struct Vehicle(pub(crate) WebSocketStream<TlsStream<TcpStream>>);

/// What the gateway said to one HTTP request.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Running {
    /// How the vehicle of this number comes, with the certificate that is its own.
    pub(crate) fn dial(&self, number: usize) -> Dial {
        let (chain, key) = self.pki.vehicle(&vin(number)).unwrap();
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<_, _>>()
            .unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        self.dial_with(tls(&self.pki, Some((chain, key)), &BOTH_VERSIONS))
    }

    /// How somebody without a certificate comes.
    pub(crate) fn dial_anonymously(&self) -> Dial {
        self.dial_with(tls(&self.pki, None, &BOTH_VERSIONS))
    }

    pub(crate) fn dial_with(&self, tls: Arc<ClientConfig>) -> Dial {
        Dial {
            address: self.address,
            tls,
            path: "/",
            headers: Vec::new(),
            receive_buffer: None,
        }
    }

    pub(crate) async fn connect(&self, number: usize) -> Vehicle {
        self.dial(number).connect().await.unwrap()
    }
}

/// TLS of a client that trusts a PKI's server.
pub(crate) fn tls(
    pki: &Pki,
    shown: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let ca = &pki.server().unwrap().ca;
    roots
        .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
        .unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match shown {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    })
}

/// A record of this vehicle.
pub(crate) fn record(number: usize, topic: &str, txid: &str, payload: &[u8]) -> Bytes {
    let vin = vin(number);
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    envelope::stream(&Stream {
        txid: bytes(txid),
        topic: bytes(topic),
        sender_id: format!("vehicle_device.{vin}").into(),
        payload: Bytes::copy_from_slice(payload),
        device_type: bytes("vehicle_device"),
        device_id: vin.into(),
        created_at: 1_700_000_000,
        delivered_at_epoch_ms: 0,
    })
}

/// The acknowledgement of one.
pub(crate) fn ack(topic: &str, txid: &str) -> Bytes {
    envelope::ack(txid.as_bytes(), topic.as_bytes())
}

impl Dial {
    pub(crate) async fn tcp(&self) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    pub(crate) async fn tls(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, self.tcp().await?)
            .await
    }

    pub(crate) async fn connect(&self) -> Result<Vehicle, WsError> {
        let mut request = format!("wss://localhost{}", self.path).into_client_request()?;
        for (name, value) in &self.headers {
            request.headers_mut().insert(*name, value.parse()?);
        }
        let connected = async {
            let stream = self.tls().await?;
            tokio_tungstenite::client_async(request, stream).await
        };
        let (socket, _) = timeout(PATIENCE, connected).await.expect("an answer to the upgrade")?;
        Ok(Vehicle(socket))
    }

    /// The status and the sentence with which an upgrade is refused.
    pub(crate) async fn refused(&self) -> (u16, String) {
        match self.connect().await.map(drop) {
            Err(WsError::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                (response.status().as_u16(), String::from_utf8_lossy(body).into_owned())
            }
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Sends text over TLS, as it is, and reads to the end.
    pub(crate) async fn request(&self, text: &str) -> Response {
        let mut stream = self.tls().await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        match read.expect("the connection ends after its answer") {
            // hyper ends a connection whose upgrade it was refused without a goodbye of TLS.
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => panic!("{text}: {error}"),
            _ => {}
        }
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Response {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request(&format!("GET {path} HTTP/1.1\r\nHost: gateway\r\n\r\n"))
            .await
    }
}

impl Vehicle {
    /// Sends a binary message, all of it.
    pub(crate) async fn send(&mut self, message: impl Into<Bytes>) {
        self.try_send(Message::Binary(message.into())).await.unwrap();
    }

    /// A message of less than 64 KB in pieces of so many bytes, with a pause between them.
    pub(crate) async fn send_slowly(&mut self, message: &[u8], piece: usize, pause: Duration) {
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        // Masked with zeros.
        let frame = [&[0x82, 0x80 | 126], &length[..], &[0; 4], message].concat();
        for piece in frame.chunks(piece) {
            let stream = self.0.get_mut();
            stream.write_all(piece).await.unwrap();
            stream.flush().await.unwrap();
            tokio::time::sleep(pause).await;
        }
    }

    pub(crate) async fn try_send(&mut self, message: Message) -> Result<(), WsError> {
        timeout(PATIENCE, self.0.send(message))
            .await
            .expect("the gateway reads")
    }

    /// The next message, pings aside; `None` at the end, however that comes.
    async fn next(&mut self) -> Option<Message> {
        loop {
            let next = timeout(PATIENCE, self.0.next()).await.expect("an answer in time");
            match next {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return Some(message),
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// The next reply, or the code with which the connection ends instead.
    pub(crate) async fn answer(&mut self) -> Result<Bytes, Option<u16>> {
        match self.next().await {
            Some(Message::Binary(reply)) => Ok(reply),
            Some(Message::Close(frame)) => Err(frame.map(|frame| frame.code.into())),
            None => Err(None),
            other => panic!("{other:?} is not a reply"),
        }
    }

    /// The next reply, which has to come.
    pub(crate) async fn reply(&mut self) -> Bytes {
        let answer = self.answer().await;
        answer.unwrap_or_else(|code| panic!("a reply was due, not the end with {code:?}"))
    }

    /// Sends a record, which has to be acknowledged next.
    pub(crate) async fn delivers(&mut self, number: usize, txid: &str) {
        self.send(record(number, "V", txid, PAYLOAD)).await;
        assert_eq!(self.reply().await, ack("V", txid), "{txid}");
    }

    /// The replies until the end, and the close code that comes with it.
    pub(crate) async fn ends(&mut self) -> (Vec<Bytes>, Option<u16>) {
        let mut replies = Vec::new();
        loop {
            match self.answer().await {
                Ok(reply) => replies.push(reply),
                Err(code) => return (replies, code),
            }
        }
    }

    /// The close code of a connection that has nothing else to say.
    pub(crate) async fn closed(&mut self) -> Option<u16> {
        let (replies, code) = self.ends().await;
        assert!(replies.is_empty(), "{} replies before the end", replies.len());
        code
    }

    /// Leaves in order.
    pub(crate) async fn leave(mut self) {
        self.0.close(None).await.unwrap();
        while self.next().await.is_some() {}
    }
}
