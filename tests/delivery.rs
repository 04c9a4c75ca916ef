//! What a destination is sent: whose records, and which of their fields.
#![allow(clippy::unwrap_used)]

#[path = "support/account.rs"]
mod account;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/files.rs"]
mod files;
#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/mosquitto.rs"]
mod mosquitto;
#[path = "support/raw.rs"]
mod raw;
#[path = "support/zmq.rs"]
mod zmq;

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use daemon::{Daemon, free_port, wait_for};
use files::{daemon, lines, numbered, send, txids, v};
use mosquitto::{Mosquitto, Subscriber};
use prost::Message;
use serde_json::Value as Json;
use waystation::record::proto::vehicle_data::{Field, Payload};

const SOME: Duration = Duration::from_secs(30);

fn fields(line: &Json) -> Vec<String> {
    let data = line["payload"]["data"].as_array().unwrap();
    data.iter()
        .map(|datum| datum["key"].as_str().unwrap().to_owned())
        .collect()
}

fn run(daemon: &Daemon, command: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_waystation"))
        .args([command, "--config"])
        .arg(daemon.path("config.toml"))
        .output()
        .unwrap()
}

#[test]
fn each_destination_gets_its_vehicles_and_their_fields_and_nothing_else() {
    let [one, two, three] = [1, 2, 3].map(|number| format!("5YJ3E1EA7KF{number:06}"));
    let mut daemon = daemon(
        3,
        "",
        &[
            ("all", ""),
            (
                "some",
                &format!("vins = {{ allow = [\"{one}\", \"{two}\"], deny = [\"{two}\"] }}"),
            ),
            ("speed", "fields = { keep = [\"VehicleSpeed\"] }"),
            (
                "nowhere",
                &format!("fields = {{ drop = [\"Location\"] }}\nvins = {{ deny = [\"{three}\"] }}"),
            ),
        ],
    );
    daemon.start();
    for vehicle in 0..3 {
        let records = [
            ("V", "both".to_owned(), v(&[Field::VehicleSpeed, Field::Location])),
            ("V", "place".to_owned(), v(&[Field::Location])),
            ("alerts", "alerts".to_owned(), Vec::new()),
        ];
        send(&daemon, vehicle, &records);
    }
    for name in ["all", "some", "speed", "nowhere"] {
        daemon.wait_drained(name, SOME);
    }
    let count = |name: &str, vin: &str| lines(&daemon, name).iter().filter(|line| line["vin"] == vin).count();
    let counts = |name: &str| [&one, &two, &three].map(|vin| count(name, vin));
    assert_eq!(counts("all"), [3, 3, 3]);
    assert_eq!(counts("some"), [3, 0, 0]);
    assert_eq!(counts("speed"), [2, 2, 2], "a record with none of its fields is none");
    assert_eq!(counts("nowhere"), [2, 2, 0]);
    for name in ["speed", "nowhere"] {
        let text = fs::read_to_string(daemon.path(&format!("{name}.jsonl"))).unwrap();
        assert!(!text.contains("Location"), "{text}");
    }
    let speed = lines(&daemon, "speed");
    assert!(
        speed
            .iter()
            .filter(|line| line["type"] == "V")
            .all(|line| fields(line) == ["VehicleSpeed"])
    );
    assert_eq!(daemon.figure("some", "sent"), 3);
}

#[test]
fn no_kind_of_destination_gets_a_field_that_is_not_for_it() {
    let mut broker = Mosquitto::new();
    broker.start();
    let subscriber = Subscriber::new(broker.port, "telemetry/#");
    let feed = format!("tcp://127.0.0.1:{}", free_port());
    let cluster = kafka::cluster("fleet");
    let reading = kafka::Reading::new(&cluster, "fleet");
    let mqtt = format!("type = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{}\"\nclient_id", broker.port);
    let keep = "fields = { keep = [\"Soc\"] }";
    let rest = format!(
        r#"
        [records]
        V = ["values", "records", "feed", "cloud"]
        [destinations.values]
        {mqtt} = "values"
        topic_base = "telemetry/values"
        {keep}
        [destinations.records]
        {mqtt} = "records"
        topic_base = "telemetry/records"
        layout = "records"
        format = "json"
        {keep}
        [destinations.feed]
        type = "zmq"
        bind = "{feed}"
        namespace = "fleet"
        {keep}
        [destinations.cloud]
        type = "kafka"
        namespace = "fleet"
        properties = {{ "bootstrap.servers" = "{}" }}
        {keep}
        "#,
        cluster.bootstrap_servers()
    );
    let mut daemon = Daemon::new(1, "", &rest);
    daemon.start();
    let live = zmq::Subscriber::new(&feed, "fleet_V", &[]);
    live.wait_event("HANDSHAKE_SUCCEEDED");
    let mut number = 0;
    wait_for("everybody has some", SOME, || {
        number += 1;
        let payload = v(&[Field::Location, Field::Soc, Field::VehicleSpeed]);
        send(&daemon, 0, &[("V", number.to_string(), payload)]);
        let topics = subscriber.messages();
        let arrived = |part: &str| {
            topics
                .iter()
                .any(|message| message.topic.starts_with(&format!("telemetry/{part}/5YJ")))
        };
        arrived("values") && arrived("records") && !live.messages().is_empty() && reading.count() > 0
    });
    let only_soc = |payload: &[u8]| {
        let keys: Vec<i32> = Payload::decode(payload)
            .unwrap()
            .data
            .iter()
            .map(|datum| datum.key)
            .collect();
        assert_eq!(keys, [i32::from(Field::Soc)]);
    };
    live.messages().iter().for_each(|frames| only_soc(&frames[1]));
    reading.messages().iter().for_each(|message| only_soc(&message.payload));
    for message in subscriber.messages() {
        let text = String::from_utf8(message.payload.clone()).unwrap();
        let about = format!("{} {text}", message.topic);
        assert!(
            !about.contains("Location") && !about.contains("VehicleSpeed"),
            "{about}"
        );
    }
}

#[test]
fn a_list_of_vehicles_in_a_file_counts_as_soon_as_it_has_changed() {
    let [one, two] = [1, 2].map(|number| format!("5YJ3E1EA7KF{number:06}"));
    let mut daemon = daemon(2, "", &[("some", "vins = { allow_file = \"fleet\" }")]);
    let path = daemon.path("fleet");
    fs::write(&path, format!("# ours\n\n{one} # the first\n")).unwrap();
    daemon.start();
    let both = |name: &str| {
        for vehicle in 0..2 {
            send(&daemon, vehicle, &[("V", name.to_owned(), v(&[Field::Soc]))]);
        }
        daemon.wait_drained("some", SOME);
    };
    both("first");
    assert_eq!(lines(&daemon, "some").len(), 1);
    fs::write(&path, "one.two\n").unwrap();
    wait_for("it says that the list is no list", SOME, || {
        daemon.log().contains("\"one.two\" is not a device id")
    });
    both("second");
    assert_eq!(lines(&daemon, "some").len(), 2, "the old list is in force");
    // As a file is for a moment that is being written.
    fs::write(&path, "").unwrap();
    wait_for("it says that the list is empty", SOME, || {
        daemon
            .log()
            .contains("names no VIN, so that nothing would ever be sent")
    });
    let renewed = daemon.path("renewed");
    fs::write(&renewed, format!("{one}\n{two}\n")).unwrap();
    fs::rename(&renewed, &path).unwrap();
    wait_for("it says that the list was read", SOME, || {
        daemon.log().contains("changed files read again")
    });
    both("third");
    let vins: Vec<_> = lines(&daemon, "some").iter().map(|line| line["vin"].clone()).collect();
    assert_eq!(vins, [one.as_str(), &one, &one, &two]);
}

#[test]
fn a_list_that_is_not_there_is_named_and_nothing_starts() {
    let mut daemon = daemon(1, "", &[("some", "vins = { deny_file = \"private\" }")]);
    let output = run(&daemon, "check");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("✗ destination \"some\": vins.deny_file: cannot read ")
            && said.contains("make it, with a VIN in each line"),
        "{said}"
    );
    let output = run(&daemon, "run");
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    fs::write(daemon.path("private"), "").unwrap();
    daemon.start();
}

/// As logrotate does, with and without keeping the old one.
#[test]
fn a_file_that_is_rotated_or_removed_is_made_anew() {
    let mut daemon = daemon(1, "", &[("all", "")]);
    daemon.start();
    let (path, old) = (daemon.path("all.jsonl"), daemon.path("all.jsonl.1"));
    let deliver = |from, to| {
        send(&daemon, 0, &numbered(from, to));
        daemon.wait_drained("all", SOME);
        txids(&daemon, "all")
    };
    assert_eq!(deliver(0, 2), ["0", "1"]);
    fs::rename(&path, &old).unwrap();
    assert_eq!(deliver(2, 4), ["2", "3"]);
    assert_eq!(fs::read_to_string(&old).unwrap().lines().count(), 2);
    fs::remove_file(&path).unwrap();
    assert_eq!(deliver(4, 5), ["4"]);
    let (status, _) = daemon.terminate();
    assert!(status.success());
}
