//! What a destination is sent and when: whose records, which fields, how fast, at what times, from where on.
#![allow(clippy::unwrap_used)]

#[path = "support/account.rs"]
mod account;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/faketime.rs"]
mod faketime;
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
use std::time::{Duration, Instant};

use daemon::{Daemon, free_port, wait_for};
use faketime::Clock;
use mosquitto::{Mosquitto, Subscriber};
use prost::Message;
use serde_json::Value as Json;
use waystation::record::proto::vehicle_data::{Datum, Field, Payload, Value, value};

const SOME: Duration = Duration::from_secs(30);

/// A destination that writes to the file of its name.
fn file(name: &str, more: &str) -> String {
    format!("[destinations.{name}]\ntype = \"log\"\npath = \"{name}.jsonl\"\n{more}\n")
}

fn daemon(vehicles: usize, queue: &str, destinations: &[(&str, &str)]) -> Daemon {
    let names: Vec<_> = destinations.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let files: Vec<_> = destinations.iter().map(|(name, more)| file(name, more)).collect();
    let names = names.join(", ");
    let rest = format!("[records]\nV = [{names}]\nalerts = [{names}]\n{}", files.join("\n"));
    Daemon::new(vehicles, queue, &rest)
}

fn v(fields: &[Field]) -> Vec<u8> {
    let datum = |field: &Field| Datum {
        key: (*field).into(),
        value: Some(Value {
            value: Some(value::Value::IntValue(7)),
        }),
    };
    let payload = Payload {
        data: fields.iter().map(datum).collect(),
        ..Payload::default()
    };
    payload.encode_to_vec()
}

fn send(daemon: &Daemon, vehicle: usize, records: &[(&str, String, Vec<u8>)]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(raw::send_all(daemon, vehicle, records));
}

/// So many V records of one field, with these transaction ids.
fn numbered(from: usize, to: usize) -> Vec<(&'static str, String, Vec<u8>)> {
    (from..to)
        .map(|number| ("V", number.to_string(), v(&[Field::Soc])))
        .collect()
}

fn lines(daemon: &Daemon, name: &str) -> Vec<Json> {
    let text = fs::read_to_string(daemon.path(&format!("{name}.jsonl"))).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn txids(daemon: &Daemon, name: &str) -> Vec<String> {
    let lines = lines(daemon, name);
    lines
        .iter()
        .map(|line| line["txid"].as_str().unwrap().to_owned())
        .collect()
}

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

fn held(daemon: &Daemon, name: &str) -> Option<String> {
    let status = daemon.status();
    let mut destinations = status["destinations"].as_array().unwrap().iter();
    let one = destinations.find(|one| one["name"] == name).unwrap();
    one["held"].as_str().map(str::to_owned)
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
fn a_limit_bounds_what_waits_for_a_cluster_that_is_away_too() {
    let nobody = free_port();
    let rest = format!(
        r#"
        [records]
        V = ["cloud"]
        [destinations.cloud]
        type = "kafka"
        namespace = "fleet"
        max_records_per_second = 40
        properties = {{ "bootstrap.servers" = "127.0.0.1:{nobody}" }}
        "#
    );
    let mut daemon = Daemon::new(1, "", &rest);
    daemon.start();
    send(&daemon, 0, &numbered(0, 400));
    wait_for("half a second's worth is on its way", SOME, || {
        daemon.figure("cloud", "in_flight") == 20
    });
    // Another half a second's worth would be there in half a second.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(daemon.figure("cloud", "in_flight"), 20);
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

#[test]
fn a_pause_keeps_records_and_a_reload_ends_it() {
    let mut daemon = daemon(1, "", &[("file", "pause = true")]);
    daemon.start();
    send(&daemon, 0, &numbered(0, 20));
    assert_eq!(held(&daemon, "file").as_deref(), Some("paused by the configuration"));
    assert_eq!(daemon.figure("file", "sent"), 0);
    daemon.edit("pause = true", "");
    let said = daemon.reload();
    assert!(!said.contains("waits for a restart"), "{said}");
    daemon.wait_drained("file", SOME);
    assert_eq!(txids(&daemon, "file").len(), 20);
    assert_eq!(held(&daemon, "file"), None);
    daemon.edit("[destinations.file]", "[destinations.file]\npause = true");
    daemon.reload();
    wait_for("it is held again", SOME, || held(&daemon, "file").is_some());
    send(&daemon, 0, &numbered(20, 25));
    assert_eq!(daemon.figure("file", "sent"), 20);
    assert_eq!(daemon.figure("file", "backlog"), 5);
}

#[test]
fn no_more_goes_out_than_the_speed_limit_allows_and_a_reload_changes_it() {
    let mut daemon = daemon(
        1,
        "",
        &[("slow", "pause = true\nmax_records_per_second = 50"), ("quick", "")],
    );
    daemon.start();
    send(&daemon, 0, &numbered(0, 200));
    daemon.wait_drained("quick", SOME);
    let started = Instant::now();
    daemon.edit("pause = true", "");
    daemon.reload();
    daemon.wait_drained("slow", SOME);
    // A slow machine takes longer; a limit that does not hold is over at once.
    assert!(
        started.elapsed() > Duration::from_millis(3_800),
        "{:?}",
        started.elapsed()
    );
    // Lines of so many bytes, of which so many a second go out.
    let line = fs::metadata(daemon.path("slow.jsonl")).unwrap().len() / 200;
    daemon.edit(
        "max_records_per_second = 50",
        &format!("max_bytes_per_second = \"{} B\"", 50 * line),
    );
    daemon.reload();
    let started = Instant::now();
    send(&daemon, 0, &numbered(200, 400));
    daemon.wait_drained("slow", SOME);
    assert!(
        started.elapsed() > Duration::from_millis(3_700),
        "{:?}",
        started.elapsed()
    );
    daemon.edit("max_bytes_per_second = ", "max_bytes_per_second = \"100 MiB\" # ");
    daemon.reload();
    send(&daemon, 0, &numbered(400, 600));
    daemon.wait_drained("slow", SOME);
    let all: Vec<String> = (0..600).map(|number| number.to_string()).collect();
    assert_eq!(txids(&daemon, "slow"), all);
}

#[test]
fn a_schedule_opens_and_closes_while_records_come() {
    let mut daemon = daemon(1, "", &[("night", "schedule = [\"22:00-06:00\"]"), ("always", "")]);
    let clock = Clock::new(&mut daemon);
    daemon.environment("TZ", "UTC");
    clock.set(21 * 3_600);
    daemon.start();
    send(&daemon, 0, &numbered(0, 5));
    daemon.wait_drained("always", SOME);
    assert_eq!(
        held(&daemon, "night").as_deref(),
        Some("outside of its schedule, which goes on at 22:00")
    );
    assert_eq!(txids(&daemon, "night"), Vec::<String>::new());
    clock.set(22 * 3_600);
    daemon.wait_drained("night", SOME);
    assert_eq!(txids(&daemon, "night").len(), 5);
    assert_eq!(held(&daemon, "night"), None);
    clock.set(6 * 3_600);
    wait_for("it closes", SOME, || held(&daemon, "night").is_some());
    send(&daemon, 0, &numbered(5, 10));
    daemon.wait_drained("always", SOME);
    assert_eq!(daemon.figure("night", "backlog"), 5);
    assert_eq!(txids(&daemon, "night").len(), 5);
}

#[test]
fn a_new_destination_begins_where_it_is_told_to() {
    let mut daemon = daemon(1, "", &[("kept", "pause = true\nrequired = true")]);
    daemon.start();
    send(&daemon, 0, &numbered(0, 5));
    daemon.terminate();
    daemon.edit("= [\"kept\"]", "= [\"kept\", \"old\", \"new\"]");
    let more = [file("old", ""), file("new", "start = \"now\"")].join("\n");
    daemon.edit("[destinations.kept]", &format!("{more}[destinations.kept]"));
    daemon.start();
    send(&daemon, 0, &numbered(5, 8));
    daemon.wait_drained("old", SOME);
    daemon.wait_drained("new", SOME);
    assert_eq!(txids(&daemon, "old").len(), 8);
    assert_eq!(txids(&daemon, "new"), ["5", "6", "7"]);
    // It is new only once.
    daemon.terminate();
    daemon.edit("start = \"now\"", "start = \"now\"\npause = true");
    daemon.start();
    send(&daemon, 0, &numbered(8, 10));
    daemon.kill_9();
    daemon.edit("start = \"now\"\npause = true", "start = \"now\"");
    daemon.start();
    daemon.wait_drained("new", SOME);
    assert_eq!(txids(&daemon, "new"), ["5", "6", "7", "8", "9"]);
}

#[test]
fn a_destination_with_a_bounded_backlog_loses_its_oldest_and_fills_nothing() {
    let mut daemon = daemon(
        1,
        "segment_size = \"1 MiB\"\nmax_bytes = \"64 MiB\"",
        &[
            ("dead", "pause = true\nmax_backlog = \"3 MiB\""),
            ("live", "required = true"),
        ],
    );
    daemon.start();
    let records = |from: usize, to: usize| -> Vec<_> {
        let payload = raw::padded_vehicle_payload(50_000);
        (from..to)
            .map(|number| ("V", number.to_string(), payload.clone()))
            .collect()
    };
    for batch in 0..10 {
        send(&daemon, 0, &records(batch * 20, batch * 20 + 20));
    }
    daemon.wait_drained("live", SOME);
    wait_for("the oldest have gone", SOME, || {
        daemon.figure("dead", "dropped") > 0 && daemon.status()["queue"]["disk_bytes"].as_u64().unwrap() < 5 << 20
    });
    assert_eq!(daemon.figure("live", "dropped"), 0);
    assert!(
        daemon
            .log()
            .contains("not for this destination: it may hold 3145728 bytes (max_backlog)")
    );
    daemon.edit("pause = true\n", "");
    daemon.reload();
    daemon.wait_drained("dead", SOME);
    let dropped = daemon.figure("dead", "dropped") as usize;
    let newest: Vec<String> = (dropped..200).map(|number| number.to_string()).collect();
    assert_eq!(txids(&daemon, "dead"), newest);
    assert!((20..=180).contains(&dropped), "{dropped}");
    assert_eq!(txids(&daemon, "live").len(), 200);
}

#[test]
fn a_destination_that_leaves_the_configuration_keeps_its_place_with_a_warning() {
    let mut daemon = daemon(1, "", &[("left", "pause = true\nrequired = true"), ("live", "")]);
    daemon.start();
    send(&daemon, 0, &numbered(0, 7));
    daemon.wait_drained("live", SOME);
    daemon.terminate();
    let entry = file("left", "pause = true\nrequired = true");
    daemon.edit(&entry, "");
    daemon.edit("\"left\", ", "");
    daemon.start();
    let log = daemon.log();
    let warning = log.lines().find(|line| line.contains("no longer configured")).unwrap();
    assert!(
        warning.contains("left") && warning.contains("records=7") && warning.contains("`waystation queue forget left`"),
        "{warning}"
    );
    daemon.terminate();
    daemon.edit("= [\"live\"]", "= [\"left\", \"live\"]");
    daemon.edit(
        "[destinations.live]",
        &format!("{}[destinations.live]", file("left", "")),
    );
    daemon.start();
    daemon.wait_drained("left", SOME);
    assert_eq!(txids(&daemon, "left").len(), 7);
}
