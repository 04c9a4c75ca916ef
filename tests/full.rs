//! A queue without room: vehicles are told to come again, keep their records, and nothing is lost.
#![allow(clippy::unwrap_used)]

#[path = "support/account.rs"]
mod account;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/mosquitto.rs"]
mod mosquitto;
#[path = "support/proxy.rs"]
mod proxy;

use std::sync::Arc;
use std::time::Duration;

use account::account;
use bytes::Bytes;
use daemon::{Daemon, wait_for};
use futures_util::{SinkExt, StreamExt};
use mosquitto::{Mosquitto, Subscriber};
use proxy::Proxy;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use waystation::cli::simulate::{Live, load_vehicles};
use waystation::record::envelope::{self, Reply, Stream};

const LONG: Duration = Duration::from_secs(120);

/// A vehicle that sends until the gateway ends it: how many records were acknowledged, and the close code.
async fn send_until_closed(daemon: &Daemon, vehicle: usize) -> (u64, Option<CloseCode>) {
    let vehicle = load_vehicles(daemon.dir.path(), vehicle + 1).unwrap().pop().unwrap();
    let stream = TcpStream::connect(("127.0.0.1", daemon.port)).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(vehicle.tls).connect(name, stream).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("wss://localhost/", stream)
        .await
        .unwrap();
    let message = |number: u64| {
        envelope::stream(&Stream {
            txid: format!("{}-{number}", vehicle.vin).into(),
            topic: Bytes::from_static(b"raw"),
            payload: vec![7; 20_000].into(),
            ..Stream::default()
        })
    };
    for number in 0.. {
        // The close may be on its way already.
        if socket.send(Message::Binary(message(number))).await.is_err() {
            return (number, None);
        }
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
    unreachable!("the loop has no end of its own")
}

#[test]
fn a_full_queue_refuses_with_1013_and_loses_nothing() {
    let mut broker = Mosquitto::new();
    broker.start();
    let subscriber = Subscriber::new(broker.port, "fleet/#");
    // Closed: the upstream cannot be reached.
    let proxy = Proxy::new(broker.port);
    let mut daemon = Daemon::new(
        5,
        "max_bytes = \"5 MiB\"\nsegment_size = \"1 MiB\"",
        &format!(
            r#"
            [records]
            "*" = ["broker"]
            [destinations.broker]
            type = "mqtt"
            url = "mqtt://127.0.0.1:{}"
            topic_base = "fleet"
            layout = "records"
            "#,
            proxy.port
        ),
    );
    daemon.start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (stored, code) = runtime.block_on(send_until_closed(&daemon, 4));
    assert!(stored > 20, "{stored}");
    assert_eq!(code, Some(CloseCode::Again), "after {stored} records");
    assert!(daemon.status()["queue"]["full"].as_bool().unwrap());
    assert!(daemon.status()["queue"]["disk_bytes"].as_u64().unwrap() <= 5 << 20);
    assert!(daemon.metrics().contains("waystation_queue_full 1"));

    // Others meet the same: none of their records is acknowledged, none of their connections stays.
    let live = Arc::new(Live::default());
    let fleet = daemon.drive(4, 200, 50.0, &live);
    wait_for("each has been turned away", LONG, || {
        daemon.status()["listener"]["turned_away"].as_u64().unwrap() >= 4
    });
    assert_eq!(live.totals().2, 0, "nothing was acknowledged");

    proxy.open();
    let tallies = fleet.join().unwrap();
    daemon.wait_drained("broker", LONG);
    let total = 4 * 200;
    let settle = || {
        let ids = |message: &mosquitto::Received| (message.property("txid").to_owned(), String::new());
        account(&tallies, subscriber.messages().iter().map(ids))
    };
    let all = total + stored as usize;
    wait_for("everything has arrived", LONG, || settle().delivered >= all);
    let account = settle();
    assert_eq!((account.lost, account.out_of_order), (0, 0), "{:?}", account.examples);
    assert_eq!(tallies.iter().map(|vehicle| vehicle.acked.len()).sum::<usize>(), total);
    wait_for("it is not full any more", LONG, || {
        !daemon.status()["queue"]["full"].as_bool().unwrap()
    });
    let (status, _) = daemon.terminate();
    assert!(status.success(), "{status}");
}
