//! `format = "json"`: the same as Google's own library makes of the protobuf form, for every field and every enum.
#![allow(clippy::unwrap_used)]

#[path = "support/account.rs"]
mod account;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/zmq.rs"]
mod zmq;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use daemon::{Daemon, free_port, wait_for};
use serde_json::Value;
use waystation::cli::simulate::Live;
use waystation::record::proto;

/// Of all four types together.
const RECORDS: &str = "1500";
const SEED: &str = "20261121";

#[test]
fn decoded_records_say_what_googles_library_says() {
    let [protobuf, json] = [free_port(), free_port()].map(|port| format!("tcp://127.0.0.1:{port}"));
    let destination = |name: &str, bind: &str, format: &str| {
        format!(
            "[destinations.{name}]\ntype = \"zmq\"\nbind = \"{bind}\"\nnamespace = \"fleet\"\nmetadata = true\n\
             high_water_mark = 10000\nformat = \"{format}\"\n"
        )
    };
    let rest = format!(
        "[records]\n\"*\" = [\"as_it_is\", \"decoded\"]\n{}{}",
        destination("as_it_is", &protobuf, "protobuf"),
        destination("decoded", &json, "json")
    );
    let mut daemon = Daemon::new(1, "commit_delay = \"0ms\"", &rest);
    daemon.start();
    fs::write(daemon.path("descriptors"), proto::DESCRIPTORS).unwrap();
    let output = zmq::python()
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/json_form.py"))
        .arg(daemon.path("descriptors"))
        .arg(daemon.port.to_string())
        .arg(daemon.dir.path())
        .arg("5YJ3E1EA7KF000001")
        .args([&protobuf, &json])
        .args([RECORDS, SEED])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", output.status);
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["different"], Value::Array(Vec::new()));
    assert_eq!(
        result["never sent"],
        Value::Array(Vec::new()),
        "what the generator left out"
    );
    assert_eq!(
        (&result["same"], &result["missing"]),
        (&RECORDS.parse::<u64>().unwrap().into(), &0.into())
    );
    assert!(result["unknown kept"].as_u64().unwrap() > 100, "{result}");
}

#[test]
fn kafka_gets_decoded_records_too() {
    let cluster = kafka::cluster("fleet");
    let reading = kafka::Reading::new(&cluster, "fleet");
    let rest = format!(
        r#"
        [records]
        "*" = ["cloud"]
        [destinations.cloud]
        type = "kafka"
        namespace = "fleet"
        format = "json"
        properties = {{ "bootstrap.servers" = "{}" }}
        "#,
        cluster.bootstrap_servers()
    );
    let mut daemon = Daemon::new(1, "", &rest);
    daemon.start();
    let tallies = daemon.drive(1, 50, 0.0, &Arc::new(Live::default())).join().unwrap();
    wait_for("all has been read", Duration::from_secs(60), || {
        reading.account(&tallies).delivered >= 50
    });
    for message in reading.messages() {
        let value: Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(value["vin"], message.key.as_str(), "{value}");
    }
}
