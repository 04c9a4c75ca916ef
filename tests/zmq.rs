//! ZMQ with real libzmq subscribers: the frames that consumers of Tesla's server know, CURVE, and one that has stopped.
#![allow(clippy::unwrap_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/mosquitto.rs"]
mod mosquitto;
#[path = "support/raw.rs"]
mod raw;
#[path = "support/zmq.rs"]
mod zmq;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use daemon::{Daemon, free_port, wait_for};
use mosquitto::Mosquitto;
use omq_tokio::CurveKeypair;
use waystation::cli::simulate::Live;
use waystation::record::stored::{QueueId, RecordId};
use waystation::record::{Record, portable};
use zmq::Subscriber;

const LONG: Duration = Duration::from_secs(120);

fn destination(bind: &str, more: &str) -> String {
    format!(
        r#"
        [destinations.feed]
        type = "zmq"
        bind = "{bind}"
        namespace = "fleet"
        {more}
        "#
    )
}

fn everything(bind: &str, more: &str) -> String {
    format!("[records]\n\"*\" = [\"feed\"]\n{}", destination(bind, more))
}

#[test]
fn both_transports_carry_topic_and_payload_and_metadata_if_that_is_asked_for() {
    let mut broker = Mosquitto::new();
    broker.start();
    let upstream = mosquitto::Subscriber::new(broker.port, "fleet/#");
    let folder = tempfile::tempdir().unwrap();
    let ipc = format!("ipc://{}/records.ipc", folder.path().display());
    let tcp = format!("tcp://127.0.0.1:{}", free_port());
    let second = destination(&tcp, "metadata = true").replace("destinations.feed", "destinations.more");
    let rest = mosquitto::everything_to(broker.port).replace("[\"broker\"]", "[\"broker\", \"feed\", \"more\"]");
    let mut daemon = Daemon::new(2, "", &format!("{rest}\n{}\n{second}", destination(&ipc, "")));
    daemon.start();
    let (plain, more) = (
        Subscriber::new(&ipc, "fleet_", &[]),
        Subscriber::new(&tcp, "fleet_", &[]),
    );
    let alerts = Subscriber::new(&tcp, "fleet_alerts", &[]);
    for subscriber in [&plain, &more, &alerts] {
        subscriber.wait_event("HANDSHAKE_SUCCEEDED");
    }
    // A subscription is on its way when the handshake is done: what it must not miss comes when it has arrived.
    let live = Arc::new(Live::default());
    wait_for("all three are subscribed", LONG, || {
        daemon.drive(1, 1, 0.0, &live).join().unwrap();
        let there = |subscriber: &Subscriber| !subscriber.messages().is_empty();
        daemon.drive(2, 20, 0.0, &live).join().unwrap();
        there(&plain) && there(&more) && there(&alerts)
    });
    daemon.wait_drained("broker", LONG);
    let from = daemon.status()["queue"]["committed"].as_u64().unwrap();
    daemon.drive(2, 200, 0.0, &live).join().unwrap();
    daemon.wait_drained("broker", LONG);
    let end = daemon.status()["queue"]["committed"].as_u64().unwrap();

    // The same records as the broker's subscriber got, byte for byte: both get what Kafka would.
    let number = |id: &str| id.rsplit_once('-').unwrap().1.parse::<u64>().unwrap();
    let expected = || -> BTreeMap<u64, (String, Vec<u8>)> {
        let messages = upstream.messages().into_iter();
        let one = |message: mosquitto::Received| {
            let record_type = message.topic.rsplit_once('/').unwrap().1;
            (
                number(message.property("record")),
                (format!("fleet_{record_type}"), message.payload.clone()),
            )
        };
        messages
            .map(one)
            .filter(|(number, _)| (from..end).contains(number))
            .collect()
    };
    wait_for("the broker's subscriber has all", LONG, || {
        expected().len() as u64 == end - from
    });
    let expected = expected();
    let frames = |(topic, payload): &(String, Vec<u8>)| vec![topic.clone().into_bytes(), payload.clone()];
    let last: Vec<_> = expected.values().map(frames).collect();
    wait_for("zmq's have all", LONG, || {
        let has_last = |subscriber: &Subscriber| {
            let messages = subscriber.messages();
            messages
                .iter()
                .any(|message| Some(&message[..2]) == last.last().map(Vec::as_slice))
        };
        has_last(&more) && has_last(&plain)
    });
    let mut got = BTreeMap::new();
    for message in more.messages() {
        let [topic, payload, metadata] = <[Vec<u8>; 3]>::try_from(message).unwrap();
        let metadata: serde_json::Value = serde_json::from_slice(&metadata).unwrap();
        assert!(
            metadata["received_at"].as_u64().unwrap() > 1_700_000_000_000,
            "{metadata}"
        );
        assert_eq!(metadata["vin"].as_str().unwrap().len(), 17, "{metadata}");
        assert!(!metadata["txid"].as_str().unwrap().is_empty(), "{metadata}");
        let number = number(metadata["record"].as_str().unwrap());
        let before = got.insert(number, (String::from_utf8(topic).unwrap(), payload));
        assert!(before.is_none(), "{number} twice");
    }
    got.retain(|number, _| (from..end).contains(number));
    assert!(got == expected, "the same records, the same bytes");
    let plain = plain.messages();
    assert!(plain.iter().all(|message| message.len() == 2), "two frames");
    let begin = plain.iter().position(|message| *message == last[0]).unwrap();
    assert!(plain[begin..].starts_with(&last), "the same records in the same order");
    let alerts = alerts.messages();
    assert!(alerts.iter().all(|message| message[0] == b"fleet_alerts"));
    assert!(daemon.metrics().contains("zmq_publish_total "));
    let (status, _) = daemon.terminate();
    assert!(status.success());
}

#[test]
fn a_pause_costs_its_subscribers_nothing() {
    let bind = format!("tcp://127.0.0.1:{}", free_port());
    let mut daemon = Daemon::new(1, "", &everything(&bind, "metadata = true"));
    daemon.start();
    let subscriber = Subscriber::new(&bind, "fleet_", &[]);
    subscriber.wait_event("HANDSHAKE_SUCCEEDED");
    let live = Arc::new(Live::default());
    let mut drives = 0;
    wait_for("it is subscribed", LONG, || {
        drives += 1;
        daemon.drive(1, 1, 0.0, &live).join().unwrap();
        !subscriber.messages().is_empty()
    });
    // Of each drive three, the last of which comes when the vehicle has gone.
    wait_for("the last of these has arrived", LONG, || {
        let last = subscriber.messages().pop();
        let metadata = last.map(|frames| serde_json::from_slice::<serde_json::Value>(&frames[2]).unwrap());
        metadata.is_some_and(|metadata| {
            metadata["record"]
                .as_str()
                .unwrap()
                .ends_with(&format!("-{}", 3 * drives - 1))
        })
    });
    daemon.edit("[destinations.feed]", "[destinations.feed]\npause = true");
    daemon.reload();
    wait_for("it is held", LONG, || {
        daemon.status()["destinations"][0]["held"].is_string()
    });
    let before = subscriber.messages().len();
    let tallies = daemon.drive(1, 500, 0.0, &live).join().unwrap();
    assert_eq!((tallies[0].acked.len(), subscriber.messages().len()), (500, before));
    daemon.edit("pause = true", "");
    daemon.reload();
    wait_for("all that was kept has come", LONG, || {
        subscriber.messages().len() >= before + 500
    });
}

#[test]
fn curve_lets_in_who_is_allowed_and_nobody_else() {
    let (server, friend, stranger) = (
        CurveKeypair::generate(),
        CurveKeypair::generate(),
        CurveKeypair::generate(),
    );
    let bind = format!("tcp://127.0.0.1:{}", free_port());
    let keys = "server_key_file = \"server_key.json\"\nallowed_client_keys_file = \"clients.json\"";
    let mut daemon = Daemon::new(1, "", &everything(&bind, keys));
    // The reference's files, as they are.
    let pair = serde_json::json!({"secret": server.secret.to_z85(), "public": server.public.to_z85()});
    fs::write(daemon.path("server_key.json"), pair.to_string()).unwrap();
    let clients = serde_json::json!([friend.public.to_z85()]);
    fs::write(daemon.path("clients.json"), clients.to_string()).unwrap();
    daemon.start();
    let subscriber = |keys: &CurveKeypair| {
        // A key may begin with a dash.
        let keys = [
            format!("--server={}", server.public.to_z85()),
            format!("--public={}", keys.public.to_z85()),
            format!("--secret={}", keys.secret.to_z85()),
        ];
        Subscriber::new(&bind, "", &keys.each_ref().map(String::as_str))
    };
    let (friend, stranger) = (subscriber(&friend), subscriber(&stranger));
    let open = Subscriber::new(&bind, "", &[]);
    friend.wait_event("HANDSHAKE_SUCCEEDED");
    for other in [&stranger, &open] {
        wait_for("it is not let in", LONG, || {
            let events = other.with("EVENT ");
            events
                .iter()
                .any(|event| event.starts_with("HANDSHAKE_FAILED") || event == "DISCONNECTED")
        });
    }
    let live = Arc::new(Live::default());
    wait_for("who is allowed gets records", LONG, || {
        daemon.drive(1, 20, 0.0, &live).join().unwrap();
        friend.messages().len() > 20
    });
    for other in [&stranger, &open] {
        assert!(!other.with("EVENT ").contains(&"HANDSHAKE_SUCCEEDED".to_owned()));
        assert_eq!(other.messages().len(), 0);
    }
}

/// Records of 1 KB through an export, so that none of the test's time goes into vehicles.
fn flood(daemon: &Daemon, numbers: std::ops::Range<u64>) {
    let payload = bytes::Bytes::from(raw::padded_vehicle_payload(1024));
    let mut bytes = Vec::new();
    for number in numbers {
        let record = Record {
            vin: "5YJ3E1EA7KF000001".into(),
            record_type: "V".into(),
            txid: format!("flood-{number}").into(),
            received_at: 1_700_000_000_000 + number,
            client_version: "1".into(),
            payload: payload.clone(),
            origin: None,
            only: None,
        };
        let queue = QueueId([1; 16]);
        portable::append(&mut bytes, RecordId { queue, number }, &record);
    }
    fs::write(daemon.path("flood.bin"), bytes).unwrap();
    let imported = Command::new(env!("CARGO_BIN_EXE_waystation"))
        .args(["queue", "import", "--config"])
        .args([daemon.path("config.toml"), daemon.path("flood.bin")])
        .output()
        .unwrap();
    assert!(imported.status.success(), "{imported:?}");
}

#[test]
fn a_subscriber_that_has_stopped_costs_bounded_memory_and_delays_nobody() {
    // What a subscriber that reads can always be behind.
    const AT_ONCE: u64 = 1000;
    const RECORDS: u64 = 300_000;
    let bind = format!("tcp://127.0.0.1:{}", free_port());
    let mut daemon = Daemon::new(
        1,
        "commit_delay = \"1ms\"",
        &everything(&bind, "high_water_mark = 2000"),
    );
    daemon.start();
    let stopped = Subscriber::new(&bind, "fleet_V", &["--summary"]);
    let live = Subscriber::new(&bind, "fleet_V", &["--summary"]);
    let drive = Arc::new(Live::default());
    wait_for("both are subscribed", LONG, || {
        daemon.drive(1, 20, 0.0, &drive).join().unwrap();
        stopped.summary() > 0 && live.summary() > 0
    });
    daemon.wait_drained("feed", LONG);
    let mut had = 0;
    wait_for("the last of these has arrived", LONG, || {
        std::mem::replace(&mut had, live.summary()) == had
    });
    let mut before = 0;
    stopped.pause();
    for first in (0..RECORDS).step_by(AT_ONCE as usize) {
        flood(&daemon, first..first + AT_ONCE);
        wait_for("the subscriber that reads has each of them", LONG, || {
            live.summary() >= had + first + AT_ONCE
        });
        // By then the tail, the caches and the stopped one's queue are as large as they get.
        if first == RECORDS / 10 {
            before = daemon.memory();
        }
    }
    let after = daemon.memory();
    let grown = after.saturating_sub(before) >> 20;
    assert!(grown < 16, "{grown} MiB, from {before} to {after}, while 270 MB passed");
    assert!(after < 128 << 20, "{after}");
}

#[test]
fn a_file_in_the_way_is_not_removed_and_a_port_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.ipc");
    fs::write(&path, "precious").unwrap();
    let mut daemon = Daemon::new(1, "", &everything(&format!("ipc://{}", path.display()), ""));
    daemon.start();
    wait_for("the status says why", LONG, || daemon.last_error("feed").is_some());
    let error = daemon.last_error("feed").unwrap();
    assert!(error.contains("a file that is no socket has this name"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_file(&path).unwrap();
    wait_for("it goes on by itself", LONG, || {
        daemon.last_error("feed").is_none() && path.exists()
    });

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = format!("tcp://{}", taken.local_addr().unwrap());
    let mut daemon = Daemon::new(1, "", &everything(&bind, ""));
    daemon.start();
    wait_for("the status says why", LONG, || daemon.last_error("feed").is_some());
    let error = daemon.last_error("feed").unwrap();
    assert!(error.contains(&bind) && error.contains("in use"), "{error}");
}
