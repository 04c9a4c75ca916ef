//! A vehicle that sends the same payload, under transaction ids of their own, until the gateway ends it.
#![allow(dead_code)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use waystation::cli::simulate::load_vehicles;
use waystation::record::envelope::{self, Reply, Stream};

use crate::daemon::Daemon;

/// A V payload of at least so many bytes: its unknown field 1000 is what makes it large.
pub(crate) fn padded_vehicle_payload(bytes: usize) -> Vec<u8> {
    let mut payload = vec![0x0a, 0x00];
    prost::encoding::bytes::encode(1000, &vec![7_u8; bytes], &mut payload);
    payload
}

/// Sends so many V records of at least so many bytes each, numbered by their transaction ids, and waits for their acks.
pub(crate) fn send_padded(daemon: &Daemon, count: u64, bytes: usize) {
    let payload = padded_vehicle_payload(bytes);
    let records: Vec<_> = (0..count)
        .map(|number| ("V", number.to_string(), payload.clone()))
        .collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(send_all(daemon, 0, &records));
}

/// Sends one record with this transaction id and waits for its ack.
pub(crate) async fn send_one(daemon: &Daemon, topic: &str, txid: &[u8], payload: &[u8]) {
    let mut socket = connect(daemon, 0).await.1;
    let message = envelope::stream(&Stream {
        txid: Bytes::copy_from_slice(txid),
        topic: Bytes::copy_from_slice(topic.as_bytes()),
        payload: Bytes::copy_from_slice(payload),
        ..Stream::default()
    });
    socket.send(Message::Binary(message)).await.unwrap();
    let reply = tokio::time::timeout(Duration::from_secs(20), socket.next())
        .await
        .expect("an answer");
    let Some(Ok(Message::Binary(reply))) = reply else {
        panic!("{reply:?}")
    };
    assert!(matches!(envelope::read_reply(&reply).unwrap(), Reply::Ack { .. }));
}

async fn connect(daemon: &Daemon, vehicle: usize) -> (String, WebSocketStream<TlsStream<TcpStream>>) {
    let vehicle = load_vehicles(daemon.dir.path(), vehicle + 1).unwrap().pop().unwrap();
    let stream = TcpStream::connect(("127.0.0.1", daemon.port)).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(vehicle.tls).connect(name, stream).await.unwrap();
    let (socket, _) = tokio_tungstenite::client_async("wss://localhost/", stream)
        .await
        .unwrap();
    (vehicle.vin, socket)
}

/// Records that were sent, so that each has a transaction id of its own.
static SENT: AtomicU64 = AtomicU64::new(0);

/// Sends at most so many: how many were acknowledged, and the close code if the gateway ended it.
pub(crate) async fn send(
    daemon: &Daemon,
    vehicle: usize,
    topic: &str,
    payload: &[u8],
    records: u64,
) -> (u64, Option<CloseCode>) {
    let (vin, mut socket) = connect(daemon, vehicle).await;
    for number in 0..records {
        let sent = SENT.fetch_add(1, Ordering::Relaxed);
        let message = envelope::stream(&Stream {
            txid: format!("{vin}-{sent}").into(),
            topic: Bytes::copy_from_slice(topic.as_bytes()),
            payload: Bytes::copy_from_slice(payload),
            ..Stream::default()
        });
        // The close may be on its way already; it is read below.
        drop(socket.send(Message::Binary(message)).await);
        match tokio::time::timeout(Duration::from_secs(20), socket.next())
            .await
            .expect("an answer")
        {
            Some(Ok(Message::Binary(reply))) => {
                let reply = envelope::read_reply(&reply).unwrap();
                assert!(matches!(reply, Reply::Ack { .. }), "{reply:?}");
            }
            Some(Ok(Message::Close(frame))) => return (number, frame.map(|frame| frame.code)),
            other => panic!("{other:?}"),
        }
    }
    (records, None)
}

/// Sends records, each with its topic, transaction id and payload, and waits for their acks.
pub(crate) async fn send_all(daemon: &Daemon, vehicle: usize, records: &[(&str, String, Vec<u8>)]) {
    let (_, mut socket) = connect(daemon, vehicle).await;
    for (topic, txid, payload) in records {
        let message = envelope::stream(&Stream {
            txid: Bytes::copy_from_slice(txid.as_bytes()),
            topic: Bytes::copy_from_slice(topic.as_bytes()),
            payload: Bytes::copy_from_slice(payload),
            ..Stream::default()
        });
        socket.feed(Message::Binary(message)).await.unwrap();
    }
    socket.flush().await.unwrap();
    for _ in records {
        let reply = tokio::time::timeout(Duration::from_secs(60), socket.next())
            .await
            .expect("an answer");
        let Some(Ok(Message::Binary(reply))) = reply else {
            panic!("{reply:?}")
        };
        assert!(matches!(envelope::read_reply(&reply).unwrap(), Reply::Ack { .. }));
    }
}
