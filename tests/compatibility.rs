//! One vehicle's session as kcat, libzmq and paho-mqtt see it, against what they get behind Tesla's server.
//! What differs on purpose is in `docs/compatibility.md`.
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
#[path = "support/mosquitto.rs"]
mod mosquitto;
#[path = "support/zmq.rs"]
mod zmq;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use daemon::{Daemon, free_port};
use kafka_broker::{Cluster, TYPES};
use mosquitto::Mosquitto;
use serde_json::{Value, json};
use waystation::record::proto;

const VIN: &str = "5YJ3E1EA7KF000001";
const LONG: Duration = Duration::from_secs(60);

/// What Go's server makes of the session's V record for ZMQ and Kafka, decoded; location and speed are put right.
fn v_record() -> Value {
    json!({
        "vin": VIN,
        "createdAt": "2023-11-14T22:13:20Z",
        "data": [
            { "key": "VehicleSpeed", "value": { "stringValue": "65.50000" } },
            { "key": "Location", "value": { "locationValue": { "latitude": 37.412374, "longitude": -122.145867 } } },
            { "key": "Soc", "value": { "floatValue": 0.1 } },
            { "key": "Odometer", "value": { "doubleValue": 12345.678 } },
            { "key": "Locked", "value": { "booleanValue": true } },
            { "key": "Gear", "value": { "shiftStateValue": "ShiftStateN" } },
            { "key": "DoorState", "value": { "doorValue": { "DriverFront": true } } },
            { "key": "ChargeLimitSoc", "value": { "invalid": true } },
            { "key": "ScheduledChargingStartTime", "value": { "timeValue": { "hour": 7, "minute": 5, "second": 9 } } },
            { "key": "MilesToArrival", "value": { "longValue": "9007199254740993" } },
            { "key": "TpmsHardWarnings", "value": { "tireLocationValue": { "frontLeft": true } } },
        ]
    })
}

/// The topics of MQTT below `telemetry/{VIN}/`, and what is at each.
fn mqtt_messages() -> Vec<(&'static str, Value)> {
    let alert = json!({ "StartedAt": "2023-11-14T22:13:20Z", "Audiences": ["Customer", "ServiceFix"] });
    vec![
        ("alerts/APP_w048/current", alert.clone()),
        ("alerts/APP_w048/history", json!([alert])),
        (
            "errors/VcsecError",
            json!({ "Body": "something", "Tags": { "module": "vcsec" }, "CreatedAt": "2023-11-14T22:13:21Z" }),
        ),
        ("v/ChargeLimitSoc", Value::Null),
        (
            "v/DoorState",
            json!({ "DriverFront": true, "PassengerFront": false, "DriverRear": false, "PassengerRear": false,
                "TrunkFront": false, "TrunkRear": false }),
        ),
        ("v/Gear", json!("ShiftStateN")),
        ("v/Location", json!({ "latitude": 37.412374, "longitude": -122.145867 })),
        ("v/Locked", json!(true)),
        ("v/MilesToArrival", json!(9_007_199_254_740_993_i64)),
        ("v/Odometer", json!(12345.678)),
        ("v/ScheduledChargingStartTime", json!("07:05:09")),
        ("v/Soc", json!(0.1)),
        ("v/TpmsHardWarnings", json!({ "front_left": true })),
        ("v/VehicleSpeed", json!("65.50000")),
    ]
}

fn run_session(daemon: &Daemon, endpoint: &str, broker: u16) -> Value {
    fs::write(daemon.path("descriptors"), proto::DESCRIPTORS).unwrap();
    let output = zmq::python()
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/session.py"))
        .arg(daemon.path("descriptors"))
        .arg(daemon.port.to_string())
        .arg(daemon.dir.path())
        .args([VIN, endpoint, &broker.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

#[test]
fn a_session_looks_as_it_does_behind_teslas_server() {
    let cluster = Cluster::single();
    cluster.create_topics("fleet", &TYPES, &[]);
    let mut broker = Mosquitto::new();
    broker.start();
    let endpoint = format!("tcp://127.0.0.1:{}", free_port());
    let rest = format!(
        r#"
        [records]
        "*" = ["kafka", "zmq", "mqtt"]
        [destinations.kafka]
        type = "kafka"
        namespace = "fleet"
        properties = {{ "bootstrap.servers" = "{}" }}
        [destinations.zmq]
        type = "zmq"
        namespace = "fleet"
        bind = "{endpoint}"
        [destinations.mqtt]
        type = "mqtt"
        url = "mqtt://127.0.0.1:{}"
        topic_base = "telemetry"
        "#,
        cluster.plain(),
        broker.port
    );
    let mut daemon = Daemon::new(1, "", &rest);
    daemon.start();
    let session = run_session(&daemon, &endpoint, broker.port);
    let connection = session["connection"].as_str().unwrap();

    // ZMQ: two frames each, in the order of the session.
    let zmq = array(&session["zmq"]);
    let topics: Vec<_> = zmq.iter().map(|message| message[0].as_str().unwrap()).collect();
    assert_eq!(
        topics,
        [
            "fleet_connectivity",
            "fleet_V",
            "fleet_alerts",
            "fleet_errors",
            "fleet_connectivity"
        ]
    );
    assert_eq!(zmq[1][1], v_record());
    assert_eq!(zmq[2][1]["vin"], VIN);
    assert_eq!(zmq[2][1]["alerts"][0]["startedAt"], "2023-11-14T22:13:20Z");
    assert_eq!(zmq[3][1]["errors"][0]["tags"], json!({ "module": "vcsec" }));
    for (at, status) in [(0, "CONNECTED"), (4, "DISCONNECTED")] {
        let message = &zmq[at][1];
        assert_eq!(
            (
                &message["vin"],
                &message["connectionId"],
                &message["status"],
                &message["networkInterface"]
            ),
            (&json!(VIN), &json!(connection), &json!(status), &json!("wifi"))
        );
    }

    // Kafka: the same bytes, with key, headers and time.
    daemon.wait_drained("kafka", LONG);
    let kafka = kcat::read(&cluster, "fleet");
    kcat::assert_sound(&daemon, &kafka);
    for (message, (name, txid)) in [
        (&zmq[0], ("connectivity", connection)),
        (&zmq[1], ("V", "tx-V")),
        (&zmq[2], ("alerts", "tx-alerts")),
        (&zmq[3], ("errors", "tx-errors")),
        (&zmq[4], ("connectivity", connection)),
    ] {
        let payload = message[2].as_str().unwrap();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let same: Vec<_> = kafka.iter().filter(|read| hex(&read.payload) == payload).collect();
        let [read] = same[..] else {
            panic!("{} messages of {name}", same.len())
        };
        assert_eq!(
            (read.topic.as_str(), read.key.as_str()),
            (&*format!("fleet_{name}"), VIN)
        );
        assert_eq!((read.header("txid"), read.header("txtype")), (txid, name));
        assert_eq!(read.header("device_client_version"), "2.0.0");
    }

    // MQTT: a topic for each value.
    let published = array(&session["mqtt"]);
    let mut found: Vec<(String, Value)> = published
        .iter()
        .map(|message| {
            assert_eq!(
                (&message[2], &message[3]),
                (&json!(1), &json!(false)),
                "QoS, retained: {message}"
            );
            let topic = message[0]
                .as_str()
                .unwrap()
                .strip_prefix(&format!("telemetry/{VIN}/"))
                .unwrap();
            (
                topic.to_owned(),
                serde_json::from_str(message[1].as_str().unwrap()).unwrap(),
            )
        })
        .collect();
    let connectivity: Vec<_> = found.extract_if(.., |(topic, _)| topic == "connectivity").collect();
    let status = connectivity.iter().map(|(_, value)| {
        assert_eq!(value["ConnectionId"], connection);
        value["Status"].as_str().unwrap().to_owned()
    });
    assert_eq!(status.collect::<Vec<_>>(), ["CONNECTED", "DISCONNECTED"]);
    found.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = mqtt_messages()
        .into_iter()
        .map(|(topic, value)| (topic.to_owned(), value));
    assert_eq!(found, expected.collect::<Vec<_>>());
}
