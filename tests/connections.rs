//! A vehicle's connection from its beginning to its end: one at a time, bounded in number and in patience, and each one
//! told to the destinations.
#![allow(clippy::unwrap_used)]

#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/vehicle.rs"]
mod vehicle;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gateway::{Options, PATIENCE, Running, vin};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use vehicle::{PAYLOAD, Vehicle, ack, record};
use waystation::record::envelope::{self, Reply, Stream};

const WITH_CONNECTIVITY: &str = "V = \"lines\"\nconnectivity = \"lines\"";
const ID: &str = "6e8f1a52-9b1d-4c7e-8a54-0123456789ab";

/// Of a connectivity record: status, connection id, network interface. Of another: its type and its txid.
fn told(line: &Value) -> [&str; 3] {
    let text = |value: &'static str| line["payload"][value].as_str().unwrap();
    if line["type"] != "connectivity" {
        return [line["type"].as_str().unwrap(), line["txid"].as_str().unwrap(), ""];
    }
    assert_eq!(line["txid"], line["payload"]["connectionId"], "the two share it");
    assert_eq!((&line["vin"], text("vin")), (&vin(1).into(), vin(1).as_str()));
    assert!(text("createdAt").ends_with('Z'), "{line}");
    [text("status"), text("connectionId"), text("networkInterface")]
}

/// What a vehicle may still read, as the txids of its acks.
async fn acks_until_the_end(vehicle: &mut Vehicle) -> (Vec<String>, Option<u16>) {
    let (replies, code) = vehicle.ends().await;
    let txid = |reply| match envelope::read_reply(reply) {
        Ok(Reply::Ack { txid, .. }) => String::from_utf8(txid.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    };
    (replies.iter().map(txid).collect(), code)
}

#[tokio::test]
async fn destinations_are_told_when_a_vehicle_comes_and_goes() {
    let gateway = Running::with(Options {
        records: WITH_CONNECTIVITY,
        ..Options::default()
    })
    .await;
    let bare = ID.replace('-', "").to_uppercase();
    let forms = [ID.to_owned(), format!("urn:uuid:{ID}"), format!("{{{ID}}}"), bare];
    for (round, form) in forms.into_iter().enumerate() {
        let mut dial = gateway.dial(1);
        dial.headers = vec![("x-txid", form.clone()), ("x-network-interface", "wifi".to_owned())];
        let mut vehicle = dial.connect().await.unwrap();
        vehicle.delivers(1, &form).await;
        vehicle.leave().await;
        let lines = gateway.delivers((round + 1) * 3).await;
        let told: Vec<_> = lines[round * 3..].iter().map(told).collect();
        assert_eq!(
            told,
            [
                ["CONNECTED", ID, "wifi"],
                ["V", &form, ""],
                ["DISCONNECTED", ID, "wifi"]
            ]
        );
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_connection_without_a_uuid_of_its_own_gets_a_new_one() {
    let gateway = Running::with(Options {
        records: WITH_CONNECTIVITY,
        ..Options::default()
    })
    .await;
    let mut ids = BTreeSet::new();
    for (round, txid) in [None, Some("no uuid"), Some(""), None].into_iter().enumerate() {
        let mut dial = gateway.dial(1);
        dial.headers = txid.into_iter().map(|txid| ("x-txid", txid.to_owned())).collect();
        // Gone without a word.
        drop(dial.connect().await.unwrap());
        let lines = gateway.delivers((round + 1) * 2).await;
        let (came, went) = (told(&lines[round * 2]), told(&lines[round * 2 + 1]));
        assert_eq!(
            (came[0], went[0], came[1], came[2]),
            ("CONNECTED", "DISCONNECTED", went[1], "")
        );
        assert_eq!(came[1].len(), 36);
        assert!(ids.insert(came[1].to_owned()), "{ids:?}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_second_connection_of_a_vehicle_ends_the_first_and_its_records_come_after() {
    let gateway = Running::with(Options {
        listener: "messages_per_second = 1000000",
        records: WITH_CONNECTIVITY,
        ..Options::default()
    })
    .await;
    let mut connections = Vec::new();
    for connection in 0..3 {
        let mut vehicle = gateway.connect(1).await;
        // The first of them is acknowledged, so that the connection is in use when the next one comes.
        vehicle.delivers(1, &format!("{connection}-0")).await;
        for number in 1..200 {
            vehicle
                .send(record(1, "V", &format!("{connection}-{number}"), PAYLOAD))
                .await;
        }
        connections.push(vehicle);
    }
    let mut last = connections.pop().unwrap();
    let mut acked = Vec::new();
    for vehicle in &mut connections {
        let (txids, code) = acks_until_the_end(vehicle).await;
        assert_eq!(code, Some(1008), "told that it is replaced");
        acked.extend(txids);
    }
    for _ in 1..200 {
        last.reply().await;
    }
    assert_eq!(gateway.report().listener.replaced, 2);
    assert_eq!(gateway.report().listener.connections, 1);
    last.leave().await;
    gateway
        .reports("all have left", |report| report.listener.connections == 0)
        .await;
    let is_last = |lines: &[Value]| lines.iter().filter(|line| told(line)[0] == "DISCONNECTED").count() == 3;
    gateway::eventually("the last goodbye", || is_last(&gateway.lines()).then_some(())).await;
    let lines = gateway.stop().await.lines;
    let told: Vec<_> = lines.iter().map(told).collect();
    let mut at = 0;
    for connection in 0..3 {
        let id = told[at][1];
        assert_eq!(told[at][0], "CONNECTED");
        let records = told[at + 1..].iter().take_while(|told| told[0] == "V").count();
        for (number, record) in told[at + 1..].iter().take(records).enumerate() {
            assert_eq!(
                record[1],
                format!("{connection}-{number}"),
                "none is missing and none is early"
            );
        }
        assert_eq!(told[at + 1 + records], ["DISCONNECTED", id, ""]);
        at += records + 2;
    }
    assert_eq!(at, told.len());
    let delivered: BTreeSet<_> = told.iter().map(|told| told[1]).collect();
    assert!(acked.iter().all(|txid| delivered.contains(txid.as_str())));
}

#[tokio::test]
async fn many_connections_of_a_vehicle_do_not_wait_for_each_other_in_turn() {
    let gateway = Running::with(Options {
        records: WITH_CONNECTIVITY,
        ..Options::default()
    })
    .await;
    // None of them closes or reads, so that each one that has begun is given a second to.
    let mut connections = Vec::new();
    for _ in 0..2 * PATIENCE.as_secs() {
        connections.push(gateway.connect(1).await);
    }
    let mut last = connections.pop().unwrap();
    last.delivers(1, "of the last").await;
    gateway
        .reports("the others are gone", |report| report.listener.connections == 1)
        .await;
    let replaced = gateway.report().listener.replaced;
    assert_eq!(replaced, connections.len() as u64);
    gateway.stop().await;
}

#[tokio::test]
async fn what_much_a_connection_has_waiting_holds_up_the_next_one_of_its_vehicle_alone() {
    let gateway = Running::with(Options {
        queue: "commit_delay = \"4s\"",
        ..Options::default()
    })
    .await;
    let mut first = gateway.connect(1).await;
    // A large message with a small record, which waits for company.
    let large = envelope::stream(&Stream {
        txid: Bytes::from_static(b"first"),
        topic: Bytes::from_static(b"V"),
        sender_id: vec![b'x'; 100_000].into(),
        payload: Bytes::from_static(PAYLOAD),
        ..Stream::default()
    });
    first.send(large).await;
    gateway
        .reports("it has come in", |report| report.listener.types["V"].records == 1)
        .await;
    drop(first);
    let mut second = gateway.connect(1).await;
    second.send(record(1, "V", "second", PAYLOAD)).await;
    let mut other = gateway.connect(2).await;
    other.send(record(2, "V", "other", PAYLOAD)).await;
    let report = gateway
        .reports("the other one's has come in", |report| {
            report.listener.types["V"].records == 2
        })
        .await;
    assert_eq!(report.queue.commits, 0);
    let report = gateway
        .reports("the second has come in", |report| {
            report.listener.types["V"].records == 3
        })
        .await;
    assert_eq!(report.queue.commits, 1, "after the commit of the first");
    gateway.stop().await;
}

#[tokio::test]
async fn the_connection_above_the_limit_is_refused_until_one_leaves() {
    let gateway = Running::with(Options {
        listener: "max_connections = 2",
        ..Options::default()
    })
    .await;
    let (mut first, mut second) = (gateway.connect(1).await, gateway.connect(2).await);
    assert!(gateway.dial(3).connect().await.is_err());
    assert_eq!(gateway.report().listener.connections_refused, 1);
    first.delivers(1, "first").await;
    second.delivers(2, "second").await;
    first.leave().await;
    let deadline = Instant::now() + PATIENCE;
    let mut third = loop {
        match gateway.dial(3).connect().await {
            Ok(third) => break third,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    third.delivers(3, "third").await;
    second.delivers(2, "second").await;
    gateway.stop().await;
}

#[tokio::test]
async fn strangers_that_say_nothing_keep_no_vehicle_out() {
    let gateway = Running::with(Options {
        listener: "max_connections = 3",
        ..Options::default()
    })
    .await;
    let mut first = gateway.connect(1).await;
    let dial = gateway.dial(2);
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(dial.tcp().await.unwrap());
    }
    // Long before they would be closed for their silence.
    let mut second = gateway.connect(2).await;
    second.delivers(2, "second").await;
    first.delivers(1, "first").await;
    gateway
        .reports("those that came first made way", |report| {
            report.listener.handshake_errors == 3 && report.listener.connections_refused == 0
        })
        .await;
    for stream in &mut silent[..3] {
        let end = tokio::time::timeout(PATIENCE, stream.read(&mut [0])).await.unwrap();
        assert!(!matches!(end, Ok(1..)), "{end:?}");
    }
    gateway.connect(3).await.delivers(3, "third").await;
    gateway.stop().await;
}

#[tokio::test]
async fn whoever_does_not_finish_the_handshake_is_closed() {
    let limit = Duration::from_millis(500);
    let gateway = Running::with(Options {
        listener: "handshake_timeout = \"500ms\"\nmax_connections = 4",
        ..Options::default()
    })
    .await;
    let mut vehicle = gateway.connect(1).await;
    let dial = gateway.dial(2);
    let started = Instant::now();
    let (tcp, tls, mut half) = (
        dial.tcp().await.unwrap(),
        dial.tls().await.unwrap(),
        dial.tls().await.unwrap(),
    );
    half.write_all(b"GET / HTTP/1.1\r\nHost: ").await.unwrap();
    let streams: [Box<dyn AsyncRead + Unpin>; 3] = [Box::new(tcp), Box::new(tls), Box::new(half)];
    for mut stream in streams {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        // With or without a goodbye of TLS.
        drop(end.expect("it is closed"));
        assert!(started.elapsed() >= limit, "{:?}", started.elapsed());
    }
    gateway
        .reports("all are counted", |report| report.listener.handshake_errors == 3)
        .await;
    // Their places are free again, and whoever is in stays in.
    gateway.connect(2).await.delivers(2, "after").await;
    vehicle.delivers(1, "after").await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_silent_vehicle_stays_as_long_as_it_answers_pings() {
    let gateway = Running::with(Options {
        listener: "idle_timeout = \"2s\"",
        ..Options::default()
    })
    .await;
    let (mut awake, mut asleep) = (gateway.connect(1).await, gateway.connect(2).await);
    asleep.delivers(2, "before").await;
    let since = Instant::now();
    // Reading is what answers pings. Nothing else is to come.
    let waited = tokio::time::timeout(Duration::from_secs(5), awake.reply()).await;
    assert!(waited.is_err(), "{waited:?}");
    assert!(since.elapsed() >= Duration::from_secs(5));
    awake.delivers(1, "still here").await;
    let report = gateway
        .reports("the other is closed", |report| report.listener.idle_closed == 1)
        .await;
    assert_eq!(report.listener.connections, 1);
    assert_eq!(asleep.closed().await, Some(1001));
    gateway.stop().await;
}

#[tokio::test]
async fn a_vehicle_in_the_middle_of_a_long_message_is_not_silent() {
    let gateway = Running::with(Options {
        listener: "idle_timeout = \"2s\"",
        ..Options::default()
    })
    .await;
    let mut vehicle = gateway.connect(1).await;
    // Six seconds: three times as long as silence may last.
    let message = record(1, "V", &"long".repeat(100), PAYLOAD);
    let piece = message.len() / 30;
    vehicle.send_slowly(&message, piece, Duration::from_millis(200)).await;
    assert_eq!(vehicle.reply().await, ack("V", &"long".repeat(100)));
    assert_eq!(gateway.report().listener.idle_closed, 0);
    gateway.stop().await;
}

#[tokio::test]
async fn at_a_stop_what_was_read_is_acknowledged_before_the_end() {
    let gateway = Running::with(Options {
        queue: "commit_delay = \"500ms\"",
        records: WITH_CONNECTIVITY,
        ..Options::default()
    })
    .await;
    let mut vehicle = gateway.connect(1).await;
    gateway.delivers(1).await;
    for number in 0..5 {
        vehicle.send(record(1, "V", &number.to_string(), PAYLOAD)).await;
    }
    // Counted when they are read; their commit waits for company.
    gateway
        .reports("all are read", |report| report.listener.types["V"].records == 5)
        .await;
    let (stopped, (txids, code)) = tokio::join!(gateway.end(), acks_until_the_end(&mut vehicle));
    assert_eq!((txids.join(" ").as_str(), code), ("0 1 2 3 4", Some(1012)));
    let told: Vec<_> = stopped.lines.iter().map(|line| told(line)[0]).collect();
    assert_eq!(told, ["CONNECTED", "V", "V", "V", "V", "V", "DISCONNECTED"]);
}
