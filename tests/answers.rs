//! What a vehicle is answered, row by row of the protocol's table, over a real connection; and what is kept of it.
#![allow(clippy::unwrap_used)]

#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/vehicle.rs"]
mod vehicle;

use std::collections::BTreeMap;
use std::fs;

use bytes::Bytes;
use gateway::{Options, Running, vin};
use serde_json::Value;
use vehicle::{PAYLOAD, ack, record};
use waystation::record::envelope::{self, MAX_MESSAGE_BYTES};

const WITH_CONNECTIVITY: &str = "V = \"lines\"\nalerts = \"lines\"\nerrors = \"lines\"\nconnectivity = \"lines\"";

/// The wire vectors, by name.
fn vectors() -> BTreeMap<String, Value> {
    let lines = include_str!("data/envelopes.jsonl").lines();
    lines
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|vector| (vector["name"].as_str().unwrap().to_owned(), vector))
        .collect()
}

fn bytes_of(vectors: &BTreeMap<String, Value>, name: &str) -> Bytes {
    let hex = vectors[name]["hex"].as_str().unwrap();
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// A record that is so many bytes in all.
fn record_of(size: usize, txid: &str) -> Bytes {
    let without = record(1, "trace", txid, b"").len();
    let (mut payload, mut message) = (size - without, Bytes::new());
    while message.len() != size {
        // Padding is to four bytes, so that some sizes need a longer txid and have none here.
        assert!(message.len() < size, "no record of {size} bytes with this txid");
        message = record(1, "trace", txid, &vec![b'x'; payload]);
        payload += 1;
    }
    message
}

#[tokio::test]
async fn a_good_record_is_acknowledged_byte_for_byte_and_delivered() {
    let gateway = Running::with(Options {
        records: WITH_CONNECTIVITY,
        ..Options::default()
    })
    .await;
    let vectors = vectors();
    let mut vehicle = gateway.connect(1).await;
    for topic in ["V", "alerts", "errors", "connectivity"] {
        vehicle.send(bytes_of(&vectors, &format!("stream_{topic}"))).await;
        assert_eq!(
            vehicle.reply().await,
            bytes_of(&vectors, &format!("ack_{topic}")),
            "{topic}"
        );
    }
    for (name, txid) in [("vectors_without_nul", "t7"), ("stream_empty_sender", "t")] {
        vehicle.send(bytes_of(&vectors, name)).await;
        assert_eq!(vehicle.reply().await, ack("V", txid), "{name}");
    }
    vehicle.leave().await;
    // Six of the vehicle's, and the two that the gateway makes.
    gateway.delivers(8).await;
    let stopped = gateway.stop().await;
    let types: Vec<_> = stopped
        .lines
        .iter()
        .map(|line| line["type"].as_str().unwrap())
        .collect();
    let expected = [
        "connectivity",
        "V",
        "alerts",
        "errors",
        "connectivity",
        "V",
        "V",
        "connectivity",
    ];
    assert_eq!(types, expected);
    assert!(
        stopped
            .lines
            .iter()
            .all(|line| line["vin"] == vin(1) && line["payload"]["vin"] == vin(1))
    );
    assert!(stopped.dead_letters.is_empty());
}

#[tokio::test]
async fn a_record_belongs_to_the_certificates_vehicle_whatever_it_claims() {
    let gateway = Running::start().await;
    let mut vehicle = gateway.connect(2).await;
    let vectors = vectors();
    for (name, txid) in [("routed_foreign_sender", "t5"), ("stream_V", "6e8f1a52-0001")] {
        vehicle.send(bytes_of(&vectors, name)).await;
        assert_eq!(vehicle.reply().await, ack("V", txid), "{name}");
    }
    // The payload too may name somebody else: field 3 of a `V` record is its VIN.
    let claims = [PAYLOAD, b"\x1a\x05OTHER"].concat();
    vehicle.send(record(1, "V", "claims", &claims)).await;
    assert_eq!(vehicle.reply().await, ack("V", "claims"));
    let stopped = gateway.stop().await;
    assert_eq!(stopped.lines.len(), 3);
    for line in stopped.lines {
        assert_eq!(
            (&line["vin"], &line["payload"]["vin"]),
            (&vin(2).into(), &vin(2).into()),
            "{line}"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_read_gets_an_error_reply_and_becomes_a_dead_letter() {
    let gateway = Running::start().await;
    let vectors = vectors();
    let mut vehicle = gateway.connect(1).await;
    let mut sent = Vec::new();
    for (name, vector) in &vectors {
        if matches!(vector["kind"].as_str().unwrap(), "truncated" | "malformed") {
            let message = bytes_of(&vectors, name);
            vehicle.send(message.clone()).await;
            // All of them carry a payload that is none, so that those which can be read get an error reply as well.
            let txid: &[u8] = if envelope::read(&message).is_ok() { b"t4" } else { b"" };
            assert_eq!(vehicle.reply().await, envelope::error_reply(txid), "{name}");
            sent.push((message, txid));
        }
    }
    assert!(
        sent.len() >= 10
            && fs::read_dir(gateway.dir.path().join("queue/dead-letters"))
                .unwrap()
                .count()
                > 0
    );
    let unreadable = gateway.report().listener.unreadable;
    assert_eq!(unreadable, sent.len() as u64);
    // The connection is as good as before.
    vehicle.delivers(1, "after").await;
    let stopped = gateway.stop().await;
    assert_eq!(stopped.dead_letters.len(), sent.len());
    for (letter, (message, txid)) in stopped.dead_letters.iter().zip(&sent) {
        assert_eq!(
            (letter.vin.as_str(), letter.origin.as_str(), &*letter.txid),
            (vin(1).as_str(), "listener", *txid)
        );
        // Of a readable envelope it is the payload that is kept.
        assert!(txid.is_empty() && letter.raw == message || message.windows(64).any(|part| part == letter.raw));
    }
}

#[tokio::test]
async fn a_payload_that_does_not_decode_gets_an_error_reply_with_its_txid() {
    let gateway = Running::with(Options {
        records: WITH_CONNECTIVITY,
        ..Options::default()
    })
    .await;
    let mut vehicle = gateway.connect(1).await;
    vehicle.send(record(1, "V", "6e8f1a52-0002", b"\x0a\xff")).await;
    assert_eq!(vehicle.reply().await, bytes_of(&vectors(), "error_reply"));
    // The VIN of each kind, and an alert's name, as bytes that are not UTF-8.
    let bad: [(&str, &[u8]); 4] = [
        ("V", b"\x1a\x02\xc3\x28"),
        ("alerts", b"\x0a\x04\x0a\x02\xc3\x28"),
        ("errors", b"\x12\x02\xc3\x28"),
        ("connectivity", b"\x0a\x02\xc3\x28"),
    ];
    for (topic, payload) in bad {
        vehicle.send(record(1, topic, topic, payload)).await;
        assert_eq!(
            vehicle.reply().await,
            envelope::error_reply(topic.as_bytes()),
            "{topic}"
        );
    }
    vehicle.delivers(1, "after").await;
    vehicle.leave().await;
    gateway.delivers(3).await;
    let stopped = gateway.stop().await;
    let letters: Vec<_> = stopped
        .dead_letters
        .iter()
        .map(|letter| (&*letter.record_type, &*letter.raw))
        .collect();
    assert_eq!(letters[0], ("V", &b"\x0a\xff"[..]));
    assert_eq!(letters[1..], bad);
    assert!(stopped.dead_letters.iter().all(|letter| !letter.reason.is_empty()));
    let delivered = stopped.lines.iter().filter(|line| line["type"] == "V").count();
    assert_eq!(delivered, 1);
}

#[tokio::test]
async fn every_type_is_kept_where_it_is_routed_but_for_what_cannot_be_one() {
    let gateway = Running::with(Options {
        records: "\"*\" = \"lines\"",
        ..Options::default()
    })
    .await;
    let mut vehicle = gateway.connect(1).await;
    let longest = "x".repeat(64);
    for topic in ["canlogs", "a type/with spaces", &longest] {
        vehicle.send(record(1, topic, "t", b"anything")).await;
        assert_eq!(vehicle.reply().await, ack(topic, "t"), "{topic}");
    }
    let too_long = "x".repeat(65);
    let none = ["", "a\nb", "\u{7f}", &too_long];
    for topic in none {
        vehicle.send(record(1, topic, "t", b"anything")).await;
        assert_eq!(vehicle.reply().await, envelope::error_reply(b"t"), "{topic:?}");
    }
    // Padding that is no part of the record.
    let padded = [&*record(1, "canlogs", "t", b"short"), &[0; 5_000]].concat();
    vehicle.send(padded).await;
    assert_eq!(vehicle.reply().await, ack("canlogs", "t"));
    assert_eq!(gateway.report().listener.unreadable, 4);
    let stopped = gateway.stop().await;
    let types: Vec<_> = stopped
        .lines
        .iter()
        .map(|line| line["type"].as_str().unwrap())
        .collect();
    // Between what the gateway says of the connection.
    let types = &types[1..types.len() - 1];
    assert_eq!(types, ["canlogs", "a type/with spaces", &longest, "canlogs"]);
    let letters: Vec<_> = stopped.dead_letters.iter().map(|letter| &*letter.record_type).collect();
    assert_eq!(letters, ["", "a\nb", "\u{7f}", &longest]);
    for (letter, topic) in stopped.dead_letters.iter().zip(none) {
        assert_eq!(
            letter.raw,
            record(1, topic, "t", b"anything"),
            "the whole message is kept"
        );
        assert!(letter.reason.contains("record type"), "{}", letter.reason);
    }
}

#[tokio::test]
async fn empty_messages_are_acknowledged_once_and_not_kept() {
    let gateway = Running::start().await;
    let vectors = vectors();
    let mut vehicle = gateway.connect(1).await;
    for name in ["empty", "no_message"] {
        vehicle.send(bytes_of(&vectors, name)).await;
        assert_eq!(vehicle.reply().await, ack("", ""), "{name}");
    }
    // A second ack to one of them would be read here.
    vehicle.delivers(1, "after").await;
    assert_eq!(gateway.report().listener.empty, 2);
    let stopped = gateway.stop().await;
    assert_eq!((stopped.lines.len(), stopped.dead_letters.len()), (1, 0));
}

#[tokio::test]
async fn another_type_of_message_is_acknowledged_once_and_becomes_a_dead_letter() {
    let gateway = Running::start().await;
    let mut vehicle = gateway.connect(1).await;
    let foreign = [
        (bytes_of(&vectors(), "unknown_type_9"), "t3"),
        (ack("V", "an ack"), "an ack"),
    ];
    for (message, txid) in &foreign {
        vehicle.send(message.clone()).await;
        assert_eq!(vehicle.reply().await, ack("", txid));
    }
    vehicle.delivers(1, "after").await;
    assert_eq!(gateway.report().listener.unknown_message_type, 2);
    let stopped = gateway.stop().await;
    assert_eq!(stopped.lines.len(), 1);
    assert_eq!(stopped.dead_letters.len(), 2);
    for (letter, (message, txid)) in stopped.dead_letters.iter().zip(&foreign) {
        assert_eq!((&letter.raw, &*letter.txid), (message, txid.as_bytes()));
    }
}

#[tokio::test]
async fn a_million_bytes_are_accepted_and_one_more_is_refused_on_the_same_connection() {
    let gateway = Running::with(Options {
        records: "V = \"lines\"\ntrace = \"lines\"",
        ..Options::default()
    })
    .await;
    let mut vehicle = gateway.connect(1).await;
    for round in 1..=2 {
        let txid = format!("as large as may be, {round}");
        let accepted = record_of(MAX_MESSAGE_BYTES, &txid);
        vehicle.send(accepted.clone()).await;
        assert_eq!(vehicle.reply().await, ack("trace", &txid));
        // A NUL behind the envelope is no part of it; the size is that of the message.
        vehicle.send([&*accepted, b"\0"].concat()).await;
        assert_eq!(vehicle.reply().await, envelope::error_reply(b""));
        assert_eq!(gateway.report().listener.too_big, round);
    }
    let stopped = gateway.stop().await;
    assert_eq!((stopped.lines.len(), stopped.dead_letters.len()), (2, 0));
}

#[tokio::test]
async fn a_far_larger_message_gets_its_error_reply_and_then_the_end() {
    let gateway = Running::start().await;
    for round in 1..=5 {
        let mut vehicle = gateway.connect(1).await;
        vehicle.delivers(1, "before").await;
        vehicle.send(record(1, "V", "with it", PAYLOAD)).await;
        // More than the sockets hold, so that it is still being sent when the gateway knows.
        vehicle.send(vec![0; 30_000_000]).await;
        let (replies, code) = vehicle.ends().await;
        assert_eq!(code, Some(1009), "round {round}, {} replies", replies.len());
        assert_eq!(replies.last().unwrap(), &envelope::error_reply(b""), "round {round}");
        assert_eq!(gateway.report().listener.too_big, round);
    }
    gateway.connect(1).await.delivers(1, "after").await;
    gateway.stop().await;
}

#[tokio::test]
async fn an_unrouted_record_is_acknowledged_only_in_the_vehicles_own_name() {
    let gateway = Running::start().await;
    let mut vehicle = gateway.connect(1).await;
    let own = vin(1);
    let claimed = |sender_id: &str, txid: &str| {
        envelope::stream(&envelope::Stream {
            txid: Bytes::copy_from_slice(txid.as_bytes()),
            topic: Bytes::from_static(b"canlogs"),
            sender_id: Bytes::copy_from_slice(sender_id.as_bytes()),
            payload: Bytes::from_static(b"x"),
            ..envelope::Stream::default()
        })
    };
    for (number, sender_id) in [format!("vehicle_device.{own}"), own.clone()].iter().enumerate() {
        let txid = format!("own-{number}");
        vehicle.send(claimed(sender_id, &txid)).await;
        assert_eq!(vehicle.reply().await, ack("canlogs", &txid), "{sender_id}");
    }
    let others = [
        String::new(),
        vin(2),
        format!("vehicle_device.{}", vin(2)),
        format!("das_device.{own}"),
        own.to_lowercase(),
        format!("{own} "),
    ];
    for sender_id in &others {
        vehicle.send(claimed(sender_id, "not-own")).await;
        assert_eq!(vehicle.reply().await, envelope::error_reply(b"not-own"), "{sender_id}");
    }
    vehicle.send(bytes_of(&vectors(), "stream_wrong_sender")).await;
    assert_eq!(vehicle.reply().await, envelope::error_reply(b"t2"));
    let listener = gateway.report().listener;
    assert_eq!(listener.unauthorized_sender, others.len() as u64 + 1);
    assert_eq!(listener.types["other"].records, 2);
    let stopped = gateway.stop().await;
    assert_eq!((stopped.lines.len(), stopped.dead_letters.len()), (0, 0));
}
