//! `waystation import-config`: whole files through the command, that nothing in them goes by unnamed, and what is said
//! of files that nothing can be made of.
#![allow(clippy::unwrap_used)]

#[path = "support/imported.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use support::{find, kafka, mqtt, parsed, routes};
use waystation::cli::import_config::{ImportError, import};
use waystation::config::{Config, MqttPassword, Qos};

fn example(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/server_config");
    dir.join(format!("{name}.json"))
}

fn run(path: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waystation"));
    command.arg("import-config").arg(path).output().unwrap()
}

/// The command's configuration as the gateway reads it, what it printed, and what it said.
fn imported(path: &Path) -> (Config, String, String) {
    let output = run(path);
    let (out, err) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert_eq!(output.status.code(), Some(0), "{err}");
    (parsed(&out), out, err)
}

/// A file with these contents, and what the command makes of it.
fn from_text(text: &str) -> (PathBuf, Output, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server_config.json");
    fs::write(&path, text).unwrap();
    let output = run(&path);
    (path, output, dir)
}

#[test]
fn a_typical_file_becomes_a_configuration_that_does_the_same() {
    let (config, _, said) = imported(&example("typical"));
    assert_eq!(config.listener.bind.to_string(), "0.0.0.0:443");
    assert_eq!(config.listener.certificate, Path::new("/certs/server.crt"));
    assert_eq!(config.listener.private_key, Path::new("/certs/server.key"));
    assert_eq!(
        config.listener.vehicle_ca,
        [Path::new("/etc/waystation/vehicle-ca.pem")]
    );
    // 650 in 20 s, rounded up.
    assert_eq!(config.listener.messages_per_second, 33);
    assert_eq!(config.admin.unwrap().to_string(), "127.0.0.1:9090");
    assert_eq!(config.log_level, "info");
    assert_eq!(routes(&config, "V"), ["kafka"]);
    assert_eq!(routes(&config, "alerts"), ["kafka", "log"]);
    assert_eq!(kafka(&config).namespace, "tesla_telemetry");
    assert_eq!(
        kafka(&config).properties["bootstrap.servers"],
        "broker-1.fleet.example:9092,broker-2.fleet.example:9092"
    );
    assert_eq!(config.warnings, Vec::<String>::new());
    assert!(
        said.lines()
            .all(|line| line.starts_with("waystation: not carried over: ")),
        "{said}"
    );
    assert!(said.contains("monitoring.profiler_port: "), "{said}");
}

#[test]
fn a_file_with_every_key_keeps_what_there_is_a_place_for() {
    let (config, toml, said) = imported(&example("every_key"));
    assert_eq!(config.listener.bind.to_string(), "[::]:8443");
    assert_eq!(config.listener.messages_per_second, 9);
    assert_eq!(
        config.listener.vehicle_ca,
        [
            Path::new("/etc/waystation/vehicle-ca.pem"),
            Path::new("certs/more-ca.pem")
        ]
    );
    assert_eq!(config.admin.unwrap().to_string(), "0.0.0.0:9090");
    assert_eq!(config.log_level, "warn");
    assert_eq!(routes(&config, "V"), ["kafka", "mqtt", "zmq"]);
    assert_eq!(routes(&config, "connectivity"), ["log", "zmq"]);
    assert_eq!(routes(&config, "errors"), Vec::<String>::new());
    let properties = &kafka(&config).properties;
    assert_eq!(properties["linger.ms"], "50");
    assert_eq!(properties["socket.keepalive.enable"], "true");
    assert_eq!(properties["sasl.password"], "of \"kafka\" \\ 7");
    assert!(
        toml.contains("\n#password_file = \"/etc/waystation/kafka-password\"\n"),
        "{toml}"
    );
    for refused in ["acks", "message.timeout.ms", "partitioner", "go.delivery.reports"] {
        assert!(!properties.contains_key(refused), "{refused}");
        assert!(said.contains(&format!("kafka.{refused}: ")), "{refused}: {said}");
    }
    let mqtt = mqtt(&config);
    assert_eq!(
        (mqtt.host.as_str(), mqtt.port, mqtt.tls.is_some()),
        ("mqtt.fleet.example", 8883, true)
    );
    let credentials = (
        "gateway".to_owned(),
        MqttPassword::Given("of mqtt # 'and' \"more\"".to_owned()),
    );
    assert_eq!(mqtt.credentials, Some(credentials));
    assert_eq!(mqtt.client_id.as_deref(), Some("fleet-telemetry"));
    assert_eq!((mqtt.topic_base.as_str(), mqtt.retain), ("telemetry", true));
    assert_eq!((mqtt.keep_alive, mqtt.qos), (Duration::from_secs(45), Qos::ExactlyOnce));
    assert!(!find(&config, "log").required);
    let vins: Vec<_> = config.signal_vins.iter().map(String::as_str).collect();
    assert_eq!(vins, ["5YJ3E1EA7KF000001", "5YJ3E1EA7KF000002"]);
    for lost in [
        "kinesis",
        "pubsub",
        "redis",
        "airbrake",
        "monitoring.statsd",
        "monitoring.profiler_port",
        "monitoring.profiler_host",
        "monitoring.profiling_path",
        "status_port",
        "json_log_enable",
        "use_default_eng_ca",
        "mqtt.connect_timeout_ms",
        "records.errors",
    ] {
        assert!(said.contains(&format!("not carried over: {lost}: ")), "{lost}: {said}");
        assert!(toml.contains(&format!("# - {lost}: ")), "{lost}: {toml}");
    }
    assert!(
        !said.contains("of mqtt") && !said.contains("of \"kafka") && !said.contains("of airbrake"),
        "{said}"
    );
}

/// Every key, however deep, but for what is under a section that is named as a whole.
fn leaves(value: &Value, into: &mut Vec<String>) {
    let Value::Object(entries) = value else { return };
    for (key, value) in entries {
        if ![
            "kinesis",
            "pubsub",
            "redis",
            "airbrake",
            "statsd",
            "reliable_ack_sources",
        ]
        .contains(&key.as_str())
        {
            leaves(value, into);
        }
        if !value.is_object() || key == "statsd" {
            into.push(key.clone());
        }
    }
}

#[test]
fn no_key_goes_by_unnamed() {
    for name in ["typical", "every_key"] {
        let (_, toml, _) = imported(&example(name));
        let file: Value = serde_json::from_str(&fs::read_to_string(example(name)).unwrap()).unwrap();
        let mut keys = Vec::new();
        leaves(&file, &mut keys);
        assert!(keys.len() > 15);
        // The settings' own lines without comments say these.
        let silent = |key: &&String| !toml.contains(key.as_str()) && key.as_str() != "enabled";
        let silent: Vec<_> = keys.iter().filter(silent).collect();
        assert!(silent.is_empty(), "{silent:?}\n{toml}");
    }
}

#[test]
fn a_key_that_is_there_twice_is_named_and_the_last_one_counts() {
    let text = r#"{"port": 1, "PORT": 443, "namespace": "fleet", "records": {"V": ["logger"], "V": ["kafka"]},
        "kafka": {"bootstrap.servers": "a:1", "linger.ms": 1, "linger.ms": 2}}"#;
    let imported = import(text.as_bytes(), Path::new("c.json")).unwrap();
    let config = parsed(&imported.toml);
    assert_eq!(config.listener.bind.port(), 443);
    assert_eq!(routes(&config, "V"), ["kafka"]);
    assert_eq!(kafka(&config).properties["linger.ms"], "2");
    for key in ["PORT", "records.V", "kafka.linger.ms"] {
        assert!(
            imported
                .lost
                .iter()
                .any(|line| line.starts_with(&format!("{key}: is there twice"))),
            "{key}"
        );
    }
}

#[test]
fn what_is_not_json_is_refused_with_file_line_and_fix() {
    for (text, line) in [
        ("{\n  \"port\": 443,\n}", 3),
        ("{\n  // the port\n  \"port\": 443\n}", 2),
        ("", 1),
        ("{\"a\": 1}\n{\"b\": 2}", 2),
        ("[]", 1),
    ] {
        let (path, output, _dir) = from_text(text);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}: {said}");
        assert!(output.stdout.is_empty());
        assert!(
            said.starts_with(&format!("waystation: {}:{line}: ", path.display())),
            "{text}: {said}"
        );
        assert!(
            said.contains("; correct that line") || said.contains("; name a file"),
            "{text}: {said}"
        );
    }
    let output = run(Path::new("no-such-file.json"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("cannot read no-such-file.json: ") && said.contains("; name the "),
        "{said}"
    );
    let bytes = import(b"{\"host\": \"\xff\"}", Path::new("c.json")).unwrap_err();
    assert!(matches!(bytes.error, ImportError::NotJson { line: 1, .. }), "{bytes}");
}

#[test]
fn a_file_that_delivers_nowhere_gives_no_configuration_and_says_why() {
    for records in [
        r#"{"V": ["kinesis"]}"#,
        r#"{"V": ["kafka"]}"#,
        "{}",
        r#"{"V": "kafka"}"#,
        r#"{"*": ["logger"]}"#,
    ] {
        let (_, output, _dir) = from_text(&format!("{{\"port\": 443, \"records\": {records}}}"));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(output.stdout.is_empty());
        assert!(
            said.contains("no record type goes to a destination that this version has"),
            "{said}"
        );
    }
    let (_, output, _dir) = from_text(r#"{"records": {"not a type": ["logger"]}}"#);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("what would be written is refused"), "{said}");
}

#[test]
fn the_section_of_zmq_is_written_whole() {
    let (_, toml, _) = imported(&example("every_key"));
    for line in [
        "[destinations.zmq]",
        "type = \"zmq\"",
        "bind = \"tcp://*:5284\"",
        "namespace = \"fleet\"",
        "server_key_file = \"/certs/zmq-server.json\"",
        "allowed_client_keys_file = \"/certs/zmq-clients.json\"",
    ] {
        assert!(toml.contains(line), "{line}: {toml}");
    }
}
