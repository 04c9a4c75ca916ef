//! What every kind of destination may be told about its records, and what is said of what it may not.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use waystation::config::{Config, Delivery, RecordFormat, Start, VinList, Window, parse};
use waystation::record::payload::FieldFilter;

fn text(lines: &str) -> String {
    format!(
        r#"[listener]
certificate = "server.pem"
private_key = "server.key"
vehicle_ca = "vehicle-ca.pem"
[records]
"*" = "depot"
[destinations.depot]
type = "zmq"
bind = "tcp://127.0.0.1:5555"
namespace = "fleet"
{lines}
"#
    )
}

fn config(lines: &str) -> Config {
    parse(&text(lines), Path::new("/dir/config.toml")).unwrap()
}

fn delivery(lines: &str) -> Delivery {
    config(lines).destinations.remove(0).delivery
}

fn mistake(lines: &str) -> String {
    let error = parse(&text(lines), Path::new("config.toml")).unwrap_err().to_string();
    error.strip_prefix("config.toml:").unwrap().to_owned()
}

#[test]
fn without_a_word_everything_is_sent_as_it_is_at_all_times() {
    assert_eq!(delivery(""), Delivery::default());
}

#[test]
fn every_key_is_read() {
    let delivery = delivery(
        r#"format = "json"
vins = { allow = ["VIN1"], allow_file = "some", deny = "VIN2", deny_file = "/etc/none" }
fields = { keep = ["VehicleSpeed", "9999"] }
max_records_per_second = 500
max_bytes_per_second = "64 KiB"
schedule = ["22:00-06:30", "12:00-24:00"]
pause = true
start = "now"
max_backlog = "256 MiB"
"#,
    );
    assert_eq!(delivery.format, RecordFormat::Json);
    let allow = VinList {
        vins: ["VIN1".to_owned()].into(),
        file: Some("/dir/some".into()),
    };
    let deny = VinList {
        vins: ["VIN2".to_owned()].into(),
        file: Some("/etc/none".into()),
    };
    assert_eq!((delivery.vins.allow, delivery.vins.deny), (Some(allow), deny));
    assert_eq!(delivery.fields, FieldFilter::Keep([4, 9_999].into()));
    assert_eq!(delivery.flow.max_records_per_second, Some(500));
    assert_eq!(delivery.flow.max_bytes_per_second, Some(64 << 10));
    let night = Window { from: 1_320, to: 390 };
    let afternoon = Window { from: 720, to: 1_440 };
    assert_eq!(delivery.flow.schedule, [night, afternoon]);
    assert!(delivery.flow.pause);
    assert_eq!((delivery.start, delivery.max_backlog), (Start::Now, Some(256 << 20)));
}

#[test]
fn each_mistake_is_told_with_its_fix() {
    let cases = [
        (
            "format = \"JSON\"",
            "11: destinations.depot.format: \"JSON\" is not known; write \"protobuf\" or \"json\"",
        ),
        (
            "vins = { allow = [] }",
            "11: destinations.depot.vins.allow: names no VIN, so that nothing would ever be sent; name some, or write pause = true",
        ),
        (
            "vins = { deny = [\"a.b\"] }",
            "11: destinations.depot.vins.deny[0]: \"a.b\" is not a device id; write it with \"-\" for every \".\" of the \
             certificate's common name",
        ),
        (
            "vins = { only = [\"VIN\"] }",
            "11: destinations.depot.vins.only: unknown key; known here: allow, allow_file, deny, deny_file",
        ),
        (
            "fields = { keep = [\"Sock\"] }",
            "11: destinations.depot.fields.keep[0]: \"Sock\" is not a field of V records; did you mean \"Soc\"?",
        ),
        (
            "fields = { drop = [\"no such thing\"] }",
            "11: destinations.depot.fields.drop[0]: \"no such thing\" is not a field of V records; write a name such as \
             \"VehicleSpeed\", or a field's number",
        ),
        (
            "fields = { keep = [\"Soc\"], drop = [\"Location\"] }",
            "11: destinations.depot.fields.keep: drop is there too; leave one of the two",
        ),
        (
            "fields = { keep = [] }",
            "11: destinations.depot.fields.keep: names no field; name some, or remove the key",
        ),
        (
            "max_records_per_second = 0",
            "11: destinations.depot.max_records_per_second: 0 is not allowed; write a whole number from 1 to 1000000",
        ),
        (
            "max_bytes_per_second = \"10 B\"",
            "11: destinations.depot.max_bytes_per_second: \"10 B\" is too small; write at least \"1000 B\"",
        ),
        (
            "schedule = \"22-6\"",
            "11: destinations.depot.schedule: \"22-6\" is not a part of the day; write for example \"22:00-06:00\"",
        ),
        (
            "schedule = [\"24:00-06:00\"]",
            "11: destinations.depot.schedule[0]: \"24:00-06:00\" is not a part of the day; write for example \"22:00-06:00\"",
        ),
        (
            "schedule = [\"00:00-24:00\"]",
            "11: destinations.depot.schedule[0]: \"00:00-24:00\" is all of the day or none of it; remove it",
        ),
        (
            "schedule = []",
            "11: destinations.depot.schedule: names no time of day; write for example [\"22:00-06:00\"], or remove the key",
        ),
        (
            "start = \"newest\"",
            "11: destinations.depot.start: \"newest\" is not known; write \"oldest\" or \"now\"",
        ),
        (
            "required = true\nmax_backlog = \"1 GiB\"",
            "12: destinations.depot.max_backlog: would lose records of a destination that is required; write required = false \
             too, or remove it",
        ),
    ];
    for (lines, message) in cases {
        assert_eq!(mistake(lines), message, "{lines}");
    }
}

#[test]
fn a_form_that_is_not_the_users_to_choose_is_refused() {
    let log = text("").replace(
        "type = \"zmq\"\nbind = \"tcp://127.0.0.1:5555\"\nnamespace = \"fleet\"",
        "type = \"log\"\nformat = \"json\"",
    );
    let error = parse(&log, Path::new("config.toml")).unwrap_err().to_string();
    assert_eq!(
        error,
        "config.toml:9: destinations.depot.format: is not for this kind of destination; its lines are always JSON"
    );
}

#[test]
fn a_type_that_goes_nowhere_is_a_warning() {
    let with = |records: &str| {
        parse(
            &text("").replace("\"*\" = \"depot\"", records),
            Path::new("config.toml"),
        )
        .unwrap()
    };
    assert_eq!(
        with("V = \"depot\"").warnings,
        [
            "records: alerts, errors and \"*\", every other type, are not named: such records are acknowledged, counted and not kept"
        ]
    );
    assert_eq!(
        with("\"*\" = \"depot\"\nalerts = []").warnings,
        ["records.alerts: goes to no destination: such records are acknowledged, counted and not kept"]
    );
    let all = with("V = \"depot\"\nalerts = \"depot\"\nerrors = \"depot\"").warnings;
    assert_eq!(all, Vec::<String>::new());
}

#[test]
fn what_is_no_list_is_one_mistake() {
    assert_eq!(
        mistake("vins = { allow = 5 }"),
        "11: destinations.depot.vins.allow: 5 is not a string or an array of strings"
    );
    let error = parse(&text("").replace("= \"depot\"\n", "= 5\n"), Path::new("config.toml"))
        .unwrap_err()
        .to_string();
    assert_eq!(error.matches("is not a string or an array").count(), 1, "{error}");
}

#[test]
fn a_vin_in_lower_case_is_told_with_the_one_that_is_meant() {
    let said = |lines: &str, of_listener: &str| {
        let key = "vehicle_ca = \"vehicle-ca.pem\"";
        let text = text(lines).replace(key, &format!("{key}\n{of_listener}"));
        parse(&text, Path::new("config.toml")).unwrap().warnings
    };
    let before = said("", "").len();
    let lines = "vins = { allow = [\"5YJ3E1EA7KF000002\"], deny = [\"some-device\", \"5yj3e1ea7kf000001\"] }";
    let warnings = said(lines, "allow_vins = [\"5YJ3E1EA7Kf000003\"]");
    let warnings = warnings.join("\n");
    for (key, vin) in [
        ("destinations.depot.vins.deny[1]", "5YJ3E1EA7KF000001"),
        ("listener.allow_vins[0]", "5YJ3E1EA7KF000003"),
    ] {
        assert!(
            warnings.contains(key) && warnings.contains(&format!("write \"{vin}\"")),
            "{warnings}"
        );
    }
    assert_eq!(warnings.lines().count(), before + 2, "{warnings}");
}
