//! A vehicle that is not ours: another language, another WebSocket client, and Google's own FlatBuffers runtime.
#![allow(clippy::unwrap_used)]

#[path = "support/gateway.rs"]
mod gateway;

use std::path::Path;
use std::process::{Command, Stdio};

use gateway::{Options, PATIENCE, Running, vin};
use serde_json::{Value, json};
use waystation::cli::pki::Pki;

const RECORDS: usize = 200;
const INSTALL: &str = "python3 -m venv target/venv && target/venv/bin/pip install -r tests/foreign/requirements.txt";

/// Runs the vehicle against a port, with the certificate of a directory, and gives what it says.
fn drive(port: u16, dir: &Path, vin: &str) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/venv/bin/python");
    let has_modules = Command::new(&python)
        .args(["-c", "import flatbuffers, websockets"])
        .stderr(Stdio::null())
        .status();
    assert!(has_modules.is_ok_and(|status| status.success()), "run first: {INSTALL}");
    let output = Command::new(&python)
        .arg(root.join("tests/foreign/vehicle.py"))
        .arg(port.to_string())
        .arg(dir)
        .arg(vin)
        .arg(RECORDS.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_str(&said).unwrap()
}

#[tokio::test]
async fn a_vehicle_that_is_not_ours_is_answered_as_it_expects() {
    let gateway = Running::with(Options {
        listener: "messages_per_second = 1000000",
        records: "V = \"lines\"\nalerts = \"lines\"\nerrors = \"lines\"\nconnectivity = \"lines\"",
        ..Options::default()
    })
    .await;
    let added = Pki::open(gateway.dir.path())
        .unwrap()
        .write(gateway.dir.path(), &[vin(1)])
        .unwrap();
    assert_eq!(added.len(), 2);
    let (port, dir) = (gateway.address.port(), gateway.dir.path().to_owned());
    let driven = tokio::task::spawn_blocking(move || drive(port, &dir, &vin(1)));
    let said = tokio::time::timeout(2 * PATIENCE, driven)
        .await
        .expect("it ends")
        .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));

    let sent = said["txids"].as_array().unwrap();
    assert_eq!(sent.len(), RECORDS);
    let acks: Vec<_> = sent.iter().map(|sent| json!(["ack", sent[0], sent[1]])).collect();
    assert_eq!(said["answers"], json!(acks));
    assert_eq!(said["last"], json!(["ack", "last", "V"]));
    let bad = json!({
        "cut": ["error", "", ""],
        "not an envelope": ["error", "", ""],
        "root beyond the end": ["error", "", ""],
        "no protobuf": ["error", "no protobuf", ""],
        "no UTF-8": ["error", "no UTF-8", ""],
        "not routed": ["ack", "not routed", "canlogs"],
        "not routed, not ours": ["error", "not routed, not ours", ""],
        "another type": ["ack", "another type", ""],
        "nothing": ["ack", "", ""],
        "too large": ["error", "", ""],
    });
    assert_eq!(said["bad"], bad);
    assert_eq!(said["far too large"], json!([[["error", "", ""]], 1009]));
    assert_eq!(said["text"], json!([[], 1003]));
    assert_eq!((&said["pong"], &said["status"]), (&json!(true), &json!("mtls ok")));
    assert_eq!(
        said["extensions"],
        json!([]),
        "compression was offered and is not to be negotiated"
    );

    gateway
        .reports("both connections are over", |report| report.listener.connections == 0)
        .await;
    gateway.delivers(RECORDS + 1 + 4).await;
    let stopped = gateway.stop().await;
    let delivered: Vec<_> = stopped
        .lines
        .iter()
        .filter(|line| line["type"] != "connectivity")
        .collect();
    let expected = sent.iter().cloned().chain([json!(["last", "V"])]);
    let named = delivered.iter().map(|line| json!([line["txid"], line["type"]]));
    assert_eq!(named.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    assert!(delivered.iter().all(|line| line["payload"]["vin"] == vin(1)));
    assert_eq!(
        delivered[42]["payload"]["data"][0]["value"]["floatValue"], 42.0,
        "{}",
        delivered[42]
    );
    assert_eq!(delivered[43]["payload"]["alerts"][0]["name"], "alerts 43");
    assert_eq!(delivered[47]["payload"]["errors"][0]["name"], "errors 47");
    assert_eq!(stopped.dead_letters.len(), 6);
}
