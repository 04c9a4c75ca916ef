//! What becomes of records that a real Kafka broker does not take as they are: topics that are missing, records that are
//! too large; and that it takes every compression.
//!
//! One broker serves all tests of this file; each has topics of its own.
#![allow(clippy::unwrap_used)]

#[path = "support/account.rs"]
mod account;
#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/kafka_broker.rs"]
mod kafka_broker;
#[path = "support/kcat.rs"]
mod kcat;
#[path = "support/raw.rs"]
mod raw;

use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use daemon::{Daemon, wait_for};
use kafka_broker::{Cluster, TYPES};
use waystation::cli::simulate::{Live, VehicleTally};

const LONG: Duration = Duration::from_secs(120);
const VEHICLES: usize = 3;
const RECORDS: u64 = 40;
const TOTAL: usize = VEHICLES * RECORDS as usize;

/// Never dropped: the broker ends with this program.
static CLUSTER: LazyLock<Cluster> = LazyLock::new(Cluster::single);

fn configured(namespace: &str, properties: &str) -> Daemon {
    let mut daemon = Daemon::new(
        VEHICLES,
        "",
        &format!(
            r#"
            [records]
            "*" = ["cloud"]
            [destinations.cloud]
            type = "kafka"
            namespace = "{namespace}"
            properties = {{ "bootstrap.servers" = "{}"{properties} }}
            "#,
            CLUSTER.plain()
        ),
    );
    daemon.start();
    daemon
}

fn drive(daemon: &Daemon) -> Vec<VehicleTally> {
    let fleet = daemon.drive(VEHICLES, RECORDS, 0.0, &Arc::new(Live::default()));
    fleet.join().unwrap()
}

fn send(daemon: &Daemon, txid: &str, payload: &[u8]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(raw::send_one(daemon, "V", txid.as_bytes(), payload));
}

#[test]
fn every_compression_delivers() {
    for compression in ["gzip", "snappy", "lz4", "zstd"] {
        CLUSTER.create_topics(compression, &TYPES, &[]);
        let daemon = configured(compression, &format!(", \"compression.type\" = \"{compression}\""));
        let tallies = drive(&daemon);
        daemon.wait_drained("cloud", LONG);
        let messages = kcat::read_all(&CLUSTER, compression, &tallies, TOTAL);
        kcat::assert_everything(&daemon, &messages, &tallies, TOTAL);
        assert_eq!(daemon.figure("cloud", "failures"), 0, "{}", daemon.log());
    }
}

#[test]
fn check_names_the_topics_that_are_not_there() {
    CLUSTER.create_topics("absent", &["V"], &[]);
    let mut daemon = configured("absent", "");
    assert!(daemon.terminate().0.success());
    daemon.edit("\"*\" =", "V = [\"cloud\"]\nalerts =");
    let path = daemon.path("config.toml");
    let mut check = Command::new(env!("CARGO_BIN_EXE_waystation"));
    let output = check.arg("check").arg("--config").arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("the cluster answers"), "{said}");
    assert!(said.contains("there is no topic absent_alerts"), "{said}");
    assert!(!said.contains("absent_V"), "{said}");
}

#[test]
fn records_wait_for_a_topic_that_does_not_exist_and_none_overtakes_another() {
    let others: Vec<_> = TYPES.into_iter().filter(|name| *name != "alerts").collect();
    CLUSTER.create_topics("missing", &others, &[]);
    let daemon = configured("missing", "");
    let tallies = drive(&daemon);
    wait_for("it says what to do", LONG, || {
        let error = daemon.last_error("cloud");
        error.is_some_and(|error| {
            error.contains("delivery to missing_alerts failed") && error.contains("create the topic")
        })
    });
    assert!(!daemon.connected("cloud"));
    let tried = daemon.figure("cloud", "failures");
    wait_for("it is tried again", LONG, || {
        daemon.figure("cloud", "failures") >= tried + 2
    });
    assert!(daemon.figure("cloud", "backlog") > 0);
    CLUSTER.create_topics("missing", &["alerts"], &[]);
    daemon.wait_drained("cloud", LONG);
    let messages = kcat::read_all(&CLUSTER, "missing", &tallies, TOTAL);
    kcat::assert_everything(&daemon, &messages, &tallies, TOTAL);
    assert_eq!(daemon.last_error("cloud"), None);
}

#[test]
fn a_record_above_the_topics_limit_is_a_dead_letter_and_the_rest_goes_on_in_order() {
    CLUSTER.create_topics("limited", &TYPES, &[("max.message.bytes", "4000")]);
    let daemon = configured("limited", "");
    let before = drive(&daemon);
    for (number, bytes) in [100, 6_000, 200, 100_000, 300].into_iter().enumerate() {
        send(&daemon, &format!("large-{number}"), &raw::padded_vehicle_payload(bytes));
    }
    daemon.wait_drained("cloud", LONG);
    assert_eq!(daemon.figure("cloud", "refused"), 2, "{}", daemon.log());
    assert!(
        daemon
            .log()
            .contains("larger than the broker takes (max.message.bytes of the topic limited_V)")
    );
    let mut messages = Vec::new();
    wait_for("the others have been read", LONG, || {
        messages = kcat::read(&CLUSTER, "limited");
        messages.iter().any(|read| read.header("txid") == "large-4")
    });
    kcat::account_of(&messages, &before).assert_complete(TOTAL);
    kcat::assert_sound(&daemon, &messages);
    let mut sent: Vec<_> = messages
        .iter()
        .map(|read| read.header("txid"))
        .filter(|txid| txid.starts_with("large"))
        .collect();
    sent.dedup();
    assert_eq!(sent, ["large-0", "large-2", "large-4"]);
}

#[test]
fn a_record_larger_than_a_batch_goes_alone_and_is_given_up_without_its_company() {
    CLUSTER.create_topics("batches", &TYPES, &[("max.message.bytes", "300000")]);
    let daemon = configured("batches", "");
    let payload = |number: u64| match number {
        30 => 400_000,
        60 => 200_000,
        _ => 300,
    };
    let records: Vec<_> = (0..90)
        .map(|number| {
            (
                "V",
                number.to_string(),
                raw::padded_vehicle_payload(payload(number) as usize),
            )
        })
        .collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(raw::send_all(&daemon, 0, &records));
    daemon.wait_drained("cloud", LONG);
    assert_eq!(daemon.figure("cloud", "refused"), 1, "{}", daemon.log());
    assert_eq!(daemon.figure("cloud", "failures"), 0, "{}", daemon.log());
    let mut messages = Vec::new();
    wait_for("the others have been read", LONG, || {
        messages = kcat::read(&CLUSTER, "batches");
        messages.iter().any(|read| read.header("txid") == "89")
    });
    kcat::assert_sound(&daemon, &messages);
    let mut arrived = Vec::new();
    for read in messages.iter().filter(|read| read.topic == "batches_V") {
        let number: u64 = read.header("txid").parse().unwrap();
        // What comes again has come before.
        if !arrived.contains(&number) {
            arrived.push(number);
        }
    }
    assert_eq!(arrived, (0..90).filter(|number| *number != 30).collect::<Vec<_>>());
}
