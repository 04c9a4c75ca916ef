//! What a configuration file may say, and that everything wrong in one is told at once, each with its line.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use waystation::config::{
    Config, ConfigError, DestinationKind, MqttLayout, MqttPassword, WhenFull, load, load_for_queue, parse,
};

/// A configuration with nothing wrong, in which tests replace lines. Line numbers below count on its layout.
const GOOD: &str = r#"[listener]
bind = "127.0.0.1:4443"
certificate = "tls/server.pem"
private_key = "tls/server.key"
vehicle_ca = "vehicle-ca.pem"
[queue]
path = "queue"
[records]
V = ["cloud", "home"]
"*" = "trace"
[destinations.cloud]
type = "kafka"
namespace = "fleet"
properties = { "bootstrap.servers" = "localhost:9092" }
[destinations.home]
type = "mqtt"
url = "mqtt://localhost"
topic_base = "telemetry"
[destinations.trace]
type = "log"
"#;

fn parsed(text: &str) -> Result<Config, ConfigError> {
    parse(text, Path::new("config.toml"))
}

/// What is said about the good configuration with one part of it replaced.
fn said(part: &str, replacement: &str) -> String {
    assert!(GOOD.contains(part), "{part:?} is not in the good configuration");
    match parsed(&GOOD.replacen(part, replacement, 1)) {
        Ok(_) => "nothing".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn with(part: &str, replacement: &str) -> Config {
    assert!(GOOD.contains(part), "{part:?} is not in the good configuration");
    parsed(&GOOD.replacen(part, replacement, 1)).unwrap()
}

fn mqtt(config: &Config) -> waystation::config::Mqtt {
    let kinds = config.destinations.iter().map(|destination| &destination.kind);
    let mut found = kinds.filter_map(|kind| {
        if let DestinationKind::Mqtt(mqtt) = kind {
            Some(mqtt.clone())
        } else {
            None
        }
    });
    found.next_back().unwrap()
}

#[test]
fn the_example_parses_as_it_is_and_without_warnings() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml.example");
    let config = load(&path).unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(
        config.listener.certificate,
        Path::new("/etc/waystation/tls/fullchain.pem")
    );
    let names: Vec<&str> = config
        .destinations
        .iter()
        .map(|destination| destination.name.as_str())
        .collect();
    assert_eq!(names, ["cloud", "depot", "home", "trace"]);
}

#[test]
fn every_default_that_the_example_shows_is_the_default() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml.example")).unwrap();
    // These have no default value, only a default behaviour.
    let examples = [
        "public_key",
        "vehicle_crl",
        "issuers",
        "oid_issuers",
        "oids",
        "username",
        "password_file",
        "key_password_file",
        "security.protocol",
        "sasl.mechanism",
        "sasl.username",
        "ssl.ca.location",
        "ssl.certificate.location",
        "ssl.key.location",
        "compression.type",
        "client_id",
        "max_packet_size",
        "ca",
        "client_certificate",
        "client_key",
        "server_name",
        "path",
        "server_key_file",
        "allowed_client_keys",
        "vins",
        "fields",
        "max_records_per_second",
        "max_bytes_per_second",
        "schedule",
        "max_backlog",
    ];
    let shown = |line: &str| {
        let key = line
            .strip_prefix('#')
            .and_then(|line| line.split_once(" = "))
            .map(|(key, _)| key);
        key.is_some_and(|key| !key.contains(' ') && (!examples.contains(&key) || line.contains("/lib/")))
    };
    let written: Vec<&str> = text
        .lines()
        .map(|line| if shown(line) { &line[1..] } else { line })
        .collect();
    assert_eq!(
        written.iter().filter(|line| line.starts_with("max_")).count(),
        5,
        "{written:?}"
    );
    let (mut written, mut left_out) = (parsed(&written.join("\n")).unwrap(), parsed(&text).unwrap());
    // Which keys are there is the one difference that there may be.
    (written.named, left_out.named) = (Vec::new(), Vec::new());
    assert_eq!(format!("{written:?}"), format!("{left_out:?}"));
}

#[test]
fn everything_shown_in_the_example_is_allowed_when_uncommented() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("secret"), "s\n").unwrap();
    let key = omq_tokio::CurveKeypair::generate().secret.to_z85();
    fs::write(dir.path().join("zmq-key"), key).unwrap();
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml.example")).unwrap();
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|first: char| first.is_ascii_lowercase()) => rest,
        _ => line,
    });
    let text = lines
        .collect::<Vec<_>>()
        .join("\n")
        .replace("/etc/waystation/mqtt-password", "secret")
        .replace("/etc/waystation/kafka-password", "secret")
        .replace("/etc/waystation/kafka-key-password", "secret")
        .replace("/etc/waystation/zmq-server-key", "zmq-key");
    let config = parse(&text, &dir.path().join("config.toml")).unwrap();
    assert_eq!(
        mqtt(&config).credentials,
        Some(("waystation".to_owned(), MqttPassword::File(dir.path().join("secret"))))
    );
}

#[test]
fn defaults_are_what_the_documentation_says() {
    let config = with("bind = \"127.0.0.1:4443\"\n", "");
    assert_eq!(config.listener.bind.to_string(), "[::]:443");
    assert_eq!(config.listener.messages_per_second, 100);
    assert_eq!(config.listener.max_connections, 1_024);
    assert_eq!(config.listener.handshake_timeout, Duration::from_secs(10));
    assert_eq!(config.listener.idle_timeout, Duration::from_secs(120));
    assert_eq!(config.listener.max_waiting_bytes, 4 << 20);
    assert_eq!(config.queue.max_bytes, 4 << 30);
    assert_eq!(config.queue.segment_size, 32 << 20);
    assert_eq!(config.queue.commit_delay, Duration::from_millis(50));
    assert_eq!(config.queue.when_full, WhenFull::Refuse);
    assert_eq!(config.queue.dead_letter_bytes, 64 << 20);
    assert_eq!(config.queue.duplicate_window, 4 << 20);
    assert_eq!(config.admin.unwrap().to_string(), "127.0.0.1:8780");
    assert_eq!(config.signal_vins.len(), 0);
    assert_eq!(config.log_level, "info");
    assert_eq!(config.shutdown_grace, Duration::from_secs(10));
    let required: Vec<bool> = config
        .destinations
        .iter()
        .map(|destination| destination.required)
        .collect();
    assert_eq!(required, [true, true, false]);
    let mqtt = mqtt(&config);
    assert_eq!(
        (mqtt.host.as_str(), mqtt.port, mqtt.layout, mqtt.retain),
        ("localhost", 1_883, MqttLayout::Fields, false)
    );
    assert_eq!(
        (mqtt.keep_alive, mqtt.max_inflight, mqtt.client_id),
        (Duration::from_secs(30), 100, None)
    );
}

#[test]
fn relative_paths_start_at_the_configuration_file() {
    let config = parse(GOOD, Path::new("/etc/waystation/config.toml")).unwrap();
    assert_eq!(config.listener.certificate, Path::new("/etc/waystation/tls/server.pem"));
    assert_eq!(
        config.listener.vehicle_ca,
        [PathBuf::from("/etc/waystation/vehicle-ca.pem")]
    );
    assert_eq!(config.queue.path, Path::new("/etc/waystation/queue"));
}

#[test]
fn a_credential_is_found_where_systemd_puts_it() {
    let config = with("\"tls/server.key\"", "\"credential:key\"");
    let expected = "/run/credentials/waystation.service/key";
    assert_eq!(config.listener.private_key, Path::new(expected));
    // Not there while the service is not running, when the queue may have to be looked after all the same.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    for (file, spared) in [("credential:mqtt", true), ("/nowhere/mqtt", false)] {
        let lines = format!("username = \"u\"\npassword_file = \"{file}\"\ntopic_base");
        assert!(said("topic_base", &lines).contains("/mqtt: No such file"));
        fs::write(&path, GOOD.replace("topic_base", &lines)).unwrap();
        assert!(load(&path).is_err());
        assert_eq!(load_for_queue(&path).is_ok(), spared, "{file}");
    }
    assert_eq!(
        said("\"tls/server.key\"", "\"credential:a/b\""),
        "config.toml:4: listener.private_key: \"credential:a/b\" is not a credential; write \"credential:NAME\", with the name \
         in LoadCredential=NAME:FILE"
    );
}

#[test]
fn record_types_are_routed_by_name_and_the_rest_by_the_star() {
    let routes = with("V = ", "errors = []\nV = ").routes;
    assert_eq!(routes.destinations("V").collect::<Vec<_>>(), ["cloud", "home"]);
    assert_eq!(routes.destinations("alerts").collect::<Vec<_>>(), ["trace"]);
    assert!(!routes.is_routed("errors"));
}

#[test]
fn values_at_the_edge_of_what_is_allowed_are_taken() {
    let queue = with(
        "path = \"queue\"",
        "commit_delay = \"0ms\"\nsegment_size = \"1MiB\"\nmax_bytes = \"4 MiB\"",
    )
    .queue;
    assert_eq!(
        (queue.commit_delay, queue.segment_size, queue.max_bytes),
        (Duration::ZERO, 1 << 20, 4 << 20)
    );
    let queue = with(
        "path = \"queue\"",
        "commit_delay = \"5s\"\nsegment_size = \"48 MiB\"\nmax_bytes = \"192MiB\"",
    )
    .queue;
    assert_eq!(
        (queue.commit_delay, queue.segment_size),
        (Duration::from_secs(5), 48 << 20)
    );
    assert_eq!(
        with("path = \"queue\"", "duplicate_window = \"off\"")
            .queue
            .duplicate_window,
        0
    );
    assert_eq!(
        with("[queue]", "max_waiting_bytes = \"2 MiB\"\n[queue]")
            .listener
            .max_waiting_bytes,
        2 << 20
    );
    assert!(with("[queue]", "[admin]\nbind = \"off\"\n[queue]").admin.is_none());
    let named = |vins: usize| {
        let vins: Vec<_> = (0..vins).map(|number| format!("VIN{number}")).collect();
        format!("[admin]\nsignal_vins = {vins:?}\n[queue]")
    };
    assert_eq!(with("[queue]", &named(20)).signal_vins.len(), 20);
    assert_eq!(
        said("[queue]", &named(21)),
        "config.toml:7: admin.signal_vins: names 21 vehicles, and each is a metric of its own; write at most 20"
    );
    assert_eq!(
        mqtt(&with(
            "topic_base",
            "keep_alive = \"1m\"\nmax_inflight = 1_000\ntopic_base"
        ))
        .max_inflight,
        1_000
    );
}

#[test]
fn mqtt_addresses_are_read_with_their_default_ports() {
    let cases = [
        ("mqtt://broker", "broker", 1_883, false),
        ("mqtts://broker.example.com", "broker.example.com", 8_883, true),
        ("mqtts://10.0.0.1:1", "10.0.0.1", 1, true),
        ("mqtt://[::1]:1884/", "::1", 1_884, false),
        ("mqtts://[fe80::1]", "fe80::1", 8_883, true),
    ];
    for (url, host, port, encrypted) in cases {
        let mqtt = mqtt(&with("mqtt://localhost", url));
        assert_eq!(
            (mqtt.host.as_str(), mqtt.port, mqtt.tls.is_some()),
            (host, port, encrypted),
            "{url}"
        );
    }
}

#[test]
fn a_password_file_is_left_to_each_session_and_has_to_be_there() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("secret"), "pass word \n").unwrap();
    let text = GOOD.replace("topic_base", "username = \"u\"\npassword_file = \"secret\"\ntopic_base");
    let config = parse(&text, &dir.path().join("config.toml")).unwrap();
    assert_eq!(
        mqtt(&config).credentials,
        Some(("u".to_owned(), MqttPassword::File(dir.path().join("secret"))))
    );
    fs::remove_file(dir.path().join("secret")).unwrap();
    let error = parse(&text, &dir.path().join("config.toml")).unwrap_err();
    assert!(error.to_string().contains("write the password into it"), "{error}");
}

#[test]
fn kafka_properties_are_passed_on_as_text_in_either_way_of_writing_them() {
    let table = "[destinations.cloud.properties]\nbootstrap.servers = \"a:1\"\n\"linger.ms\" = 0x0a\n\
                 socket.keepalive.enable = true\n\"x.ratio\" = 0.5\nmax.in.flight = 5\npartitioner = \"murmur2_random\"";
    let config = with("properties = { \"bootstrap.servers\" = \"localhost:9092\" }", table);
    let DestinationKind::Kafka(kafka) = &config.destinations[0].kind else {
        panic!("not Kafka")
    };
    let properties: Vec<(&str, &str)> = kafka
        .properties
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let expected = [
        ("bootstrap.servers", "a:1"),
        ("linger.ms", "10"),
        ("max.in.flight", "5"),
        ("partitioner", "murmur2_random"),
        ("socket.keepalive.enable", "true"),
        ("x.ratio", "0.5"),
    ];
    assert_eq!(properties, expected);
}

#[test]
fn each_mistake_gives_exactly_its_message() {
    let cases = [
        (
            "\"127.0.0.1:4443\"",
            "\"foo\"",
            "config.toml:2: listener.bind: \"foo\" is not an address; write ip:port, for example \"[::]:443\"",
        ),
        (
            "bind",
            "bnd",
            "config.toml:2: listener.bnd: unknown key; did you mean \"bind\"?",
        ),
        (
            "certificate = \"tls/server.pem\"\n",
            "",
            "config.toml:1: listener.certificate: is missing; name the PEM file with the server certificate and its chain",
        ),
        (
            "\"vehicle-ca.pem\"",
            "[]",
            "config.toml:5: listener.vehicle_ca: names no file; without an authority no vehicle can be verified",
        ),
        (
            "[queue]",
            "messages_per_second = 0\n[queue]",
            "config.toml:6: listener.messages_per_second: 0 is not allowed; write a whole number from 1 to 1000000",
        ),
        (
            "[queue]",
            "max_waiting_bytes = \"1 MiB\"\n[queue]",
            "config.toml:6: listener.max_waiting_bytes: \"1 MiB\" is too small; write at least \"2 MiB\"",
        ),
        (
            "[queue]",
            "idle_timeout = 120\n[queue]",
            "config.toml:6: listener.idle_timeout: 120 is not a duration; write a whole number and ms, s, m, h or d, for example \"10s\"",
        ),
        (
            "path = \"queue\"",
            "max_bytes = \"64 MiB\"",
            "config.toml:7: queue.max_bytes: \"64 MiB\" is less than four segments of 32 MiB; write at least \"128 MiB\", or make queue.segment_size smaller",
        ),
        (
            "path = \"queue\"",
            "segment_size = \"49 MiB\"",
            "config.toml:7: queue.segment_size: \"49 MiB\" is too large; write at most \"48 MiB\"",
        ),
        (
            "path = \"queue\"",
            "commit_delay = \"6s\"",
            "config.toml:7: queue.commit_delay: \"6s\" is not allowed; write something from \"0s\" to \"5s\"",
        ),
        (
            "path = \"queue\"",
            "when_full = \"drop\"",
            "config.toml:7: queue.when_full: \"drop\" is not known; write \"refuse\" or \"drop-oldest\"",
        ),
        (
            "path = \"queue\"",
            "max_age = \"7s\"",
            "config.toml:7: queue.max_age: \"7s\" is not allowed; write something from \"1m\" to \"3650d\"",
        ),
        (
            "path = \"queue\"",
            "dead_letter_bytes = 5",
            "config.toml:7: queue.dead_letter_bytes: 5 is not a size; write a whole number and B, KB, MB, GB, KiB, MiB or GiB, for example \"64 MiB\"",
        ),
        (
            "path = \"queue\"",
            "duplicate_window = \"1 KiB\"",
            "config.toml:7: queue.duplicate_window: \"1 KiB\" is too small; write at least \"64 KiB\"",
        ),
        (
            "path = \"queue\"",
            "duplicate_window = 0",
            "config.toml:7: queue.duplicate_window: 0 is not a string; put it in quotes",
        ),
        (
            "[\"cloud\", \"home\"]",
            "[\"cloud\", \"clod\", \"home\"]",
            "config.toml:9: records.V[1]: \"clod\" is not a destination; did you mean \"cloud\"?",
        ),
        (
            "\"*\" =",
            "\"a b\" =",
            "config.toml:10: records.\"a b\": is not a record type; write 1 to 64 of the characters a-z A-Z 0-9 _ - . or \"*\"",
        ),
        (
            "\"kafka\"",
            "\"kinesis\"",
            "config.toml:12: destinations.cloud.type: \"kinesis\" is not a kind of destination; write \"kafka\", \"mqtt\", \"zmq\" or \"log\"",
        ),
        (
            "\"kafka\"",
            "\"kafak\"",
            "config.toml:12: destinations.cloud.type: \"kafak\" is not a kind of destination; did you mean \"kafka\"?",
        ),
        (
            "\"fleet\"",
            "\"my fleet\"",
            "config.toml:13: destinations.cloud.namespace: \"my fleet\" cannot begin a topic; write at most 180 of the characters a-z A-Z 0-9 _ - .",
        ),
        (
            "{ \"bootstrap",
            "{ acks = 1, \"bootstrap",
            "config.toml:14: destinations.cloud.properties.acks: 1 is not allowed: the gateway always waits for all in-sync replicas; a record acknowledged by fewer could be lost; remove it",
        ),
        (
            "{ \"bootstrap",
            "{ partitioner = \"random\", \"bootstrap",
            "config.toml:14: destinations.cloud.properties.partitioner: \"random\" is not allowed: it would scatter a vehicle's records over partitions; write one of consistent, consistent_random, murmur2, murmur2_random, fnv1a, fnv1a_random",
        ),
        (
            "{ \"bootstrap",
            "{ \"max.in.flight\" = 6, \"bootstrap",
            "config.toml:14: destinations.cloud.properties.\"max.in.flight\": 6 is not allowed: with more than 5 requests in flight records could be swapped; write 1 to 5",
        ),
        (
            "\"bootstrap.servers\" = \"localhost:9092\"",
            "",
            "config.toml:14: destinations.cloud.properties: \"bootstrap.servers\" is missing; name the brokers, for example \"kafka.example.com:9092\"",
        ),
        (
            "mqtt://localhost",
            "http://localhost",
            "config.toml:17: destinations.home.url: \"http://localhost\" is not an MQTT address; write mqtt://HOST or mqtts://HOST, with :PORT if need be",
        ),
        (
            "mqtt://localhost",
            "mqtt://u:geheim@localhost",
            "config.toml:17: destinations.home.url: holds credentials; write them as username and password_file",
        ),
        (
            "mqtt://localhost",
            "mqtt://localhost/base",
            "config.toml:17: destinations.home.url: \"mqtt://localhost/base\" has a path; end it after the host and port, and write the topic prefix as topic_base",
        ),
        (
            "mqtt://localhost",
            "mqtt://localhost:0",
            "config.toml:17: destinations.home.url: \"mqtt://localhost:0\" has the port 0, which is out of range; write one from 1 to 65535",
        ),
        (
            "mqtt://localhost",
            "mqtt://localhost:99999",
            "config.toml:17: destinations.home.url: \"mqtt://localhost:99999\" has the port 99999, which is out of range; write one from 1 to 65535",
        ),
        (
            "mqtt://localhost",
            "mqtt://localhost:http",
            "config.toml:17: destinations.home.url: \"mqtt://localhost:http\" is not an MQTT address; write mqtt://HOST or mqtts://HOST, with :PORT if need be",
        ),
        (
            "\"telemetry\"",
            "\"a/+\"",
            "config.toml:18: destinations.home.topic_base: \"a/+\" has a wildcard in it; + and # cannot be published to",
        ),
        (
            "\"telemetry\"",
            "\"a\\u0000\"",
            "config.toml:18: destinations.home.topic_base: has a NUL in it, which no topic can have; write it without",
        ),
        (
            "topic_base",
            "ca = \"ca.pem\"\ntopic_base",
            "config.toml:18: destinations.home.ca: is only for mqtts://; change url to mqtts:// or remove ca",
        ),
        (
            "topic_base",
            "username = \"u\"\npassword = \"geheim\"\npassword_file = \"p\"\ntopic_base",
            "config.toml:19: destinations.home.password: password_file is there too; leave one of the two",
        ),
        (
            "topic_base",
            "password = \"geheim\"\ntopic_base",
            "config.toml:18: destinations.home.password: username is missing; a password needs one",
        ),
        (
            "topic_base",
            "username = \"u\"\npassword_file = \"none\"\ntopic_base",
            "config.toml:19: destinations.home.password_file: cannot read none: No such file or directory (os error 2); write the password into it, and let the gateway read it",
        ),
        (
            "topic_base",
            "layout = \"flat\"\ntopic_base",
            "config.toml:18: destinations.home.layout: \"flat\" is not known; write \"fields\" or \"records\"",
        ),
        (
            "[queue]",
            "[identity]\nissuers = { \"My CA\" = \"Vehicle.Device\" }\n[queue]",
            "config.toml:7: identity.issuers.\"My CA\": \"Vehicle.Device\" is not a client type; write 1 to 64 of the characters a-z 0-9 _, for example \"vehicle_device\"",
        ),
        (
            "[queue]",
            "[identity]\noids = { \"1.3.x\" = \"a\" }\n[queue]",
            "config.toml:7: identity.oids.\"1.3.x\": \"1.3.x\" is not an object identifier; write numbers with dots, for example \"1.3.6.1.4.1.49279.2.5.1\"",
        ),
        (
            "[queue]",
            "[identity]\nissuers = { A = \"a\" }\noid_issuers = [\"A\"]\n[queue]",
            "config.toml:8: identity.oid_issuers[0]: \"A\" is also in identity.issuers; leave it in one of the two",
        ),
        (
            "[queue]",
            "[log]\nlevel = \"inof\"\n[queue]",
            "config.toml:7: log.level: \"inof\" is not a log filter; write one of off, error, warn, info, debug, trace, or for example \"info,waystation::queue=debug\"",
        ),
        (
            "[listener]",
            "shutdown_grace = \"2h\"\n[listener]",
            "config.toml:1: shutdown_grace: \"2h\" is not allowed; write something from \"0s\" to \"1h\"",
        ),
        (
            "[queue]",
            "[admin]\nbind = \"0.0.0.0:4443\"\n[queue]",
            "config.toml:7: admin.bind: 0.0.0.0:4443 is taken by listener.bind = \"127.0.0.1:4443\"; write another port",
        ),
        (
            "127.0.0.1:4443",
            "[::]:8780",
            "config.toml:1: admin: 127.0.0.1:8780 is taken by listener.bind = \"[::]:8780\"; write another port",
        ),
        (
            "[listener]",
            "colour = \"blue\"\n[listener]",
            "config.toml:1: colour: unknown key; known here: listener, queue, destinations, records, identity, admin, log, shutdown_grace",
        ),
    ];
    for (part, replacement, message) in cases {
        assert_eq!(said(part, replacement), message, "{part} → {replacement}");
    }
}

#[test]
fn every_property_that_would_break_a_promise_is_refused_with_the_reason() {
    for name in [
        "acks",
        "request.required.acks",
        "enable.idempotence",
        "message.timeout.ms",
        "delivery.timeout.ms",
        "retries",
        "message.send.max.retries",
        "transactional.id",
        "enable.gapless.guarantee",
        "delivery.report.only.error",
        "dr_cb",
        "dr_msg_cb",
        "queue.buffering.max.messages",
        "queue.buffering.max.kbytes",
        "queuing.strategy",
        "enabled_events",
        "log.queue",
    ] {
        let said = said("{ \"bootstrap", &format!("{{ \"{name}\" = \"1\", \"bootstrap"));
        assert!(
            said.starts_with("config.toml:14: ") && said.contains("\"1\" is not allowed: the gateway "),
            "{said}"
        );
    }
}

#[test]
fn nothing_routed_is_a_mistake_and_nothing_routed_to_a_destination_a_warning() {
    let text = GOOD.replace("V = [\"cloud\", \"home\"]\n\"*\" = \"trace\"\n", "");
    let error = parsed(&text).unwrap_err().to_string();
    assert_eq!(
        error,
        "config.toml:8: records: no record type goes to any destination; write for example V = [\"NAME\"]"
    );
    let config = with("\"*\" = \"trace\"\n", "");
    let others = "records: alerts, errors and \"*\", every other type, are not named: such records are acknowledged, counted and not kept";
    assert_eq!(
        config.warnings,
        [others, "destinations.trace: no record type is routed to it"]
    );
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    // MQTT has no topics for it either, which is said then too.
    assert_eq!(
        with("V =", "v =").warnings[0],
        "records.v: vehicles name this record type V"
    );
    let config = with("[queue]", "[admin]\nbind = \"0.0.0.0:8780\"\n[queue]");
    assert_eq!(
        config.warnings,
        ["admin.bind: 0.0.0.0:8780 can be reached from other machines and asks for no password"]
    );
    let config = with(
        "\"mqtt://localhost\"",
        "\"mqtt://broker\"\nusername = \"u\"\npassword = \"p\"",
    );
    assert_eq!(
        config.warnings,
        ["destinations.home: the password goes to broker unencrypted; mqtts:// would protect it"]
    );
}

#[test]
fn every_mistake_in_a_file_is_told_at_once_in_its_order() {
    let text = r#"[listener]
bind = "foo"
private_key = 7
vehicle_ca = ["a.pem", ""]
handshake_timeout = "10"

[queue]
pth = "x"
max_bytes = "1 MiB"

[records]
V = ["cloud", "nowhere"]

[destinations.cloud]
type = "kafka"
properties = { retries = 3 }

[destinations.home]
type = "mqtt"
url = "broker"
qos = 3

[log]
level = true

[extra]
"#;
    let ConfigError::Invalid { mistakes, .. } = parsed(text).unwrap_err() else {
        panic!("not Invalid")
    };
    let found: Vec<(usize, &str)> = mistakes
        .iter()
        .map(|mistake| (mistake.line, mistake.key.as_str()))
        .collect();
    let expected = [
        (1, "listener.certificate"),
        (2, "listener.bind"),
        (3, "listener.private_key"),
        (4, "listener.vehicle_ca[1]"),
        (5, "listener.handshake_timeout"),
        (8, "queue.pth"),
        (9, "queue.max_bytes"),
        (12, "records.V[1]"),
        (14, "destinations.cloud.namespace"),
        (16, "destinations.cloud.properties.retries"),
        (16, "destinations.cloud.properties"),
        (18, "destinations.home.topic_base"),
        (20, "destinations.home.url"),
        (21, "destinations.home.qos"),
        (24, "log.level"),
        (26, "extra"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_file_that_is_not_toml_says_where() {
    let error = parsed("[listener]\nbind = \n[queue\npath = \"x\"\n")
        .unwrap_err()
        .to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert!(
        lines[0].starts_with("config.toml:2: not TOML: ") && lines[1].starts_with("config.toml:3: "),
        "{error}"
    );
}

#[test]
fn a_key_that_is_there_twice_is_named() {
    for (text, place) in [
        ("a = 1\na = 2\n", "2: a"),
        ("[queue]\npath = \"x\"\npath = \"y\"\n", "3: queue.path"),
        ("[records]\nV = \"a\"\n  \"V\" = \"b\"\n", "3: records.\"V\""),
        ("[records]\na.b = 1\na . b = 2\n", "3: records.a . b"),
        ("[records]\nx = { y = 1, y = 2 }\n", "2: y"),
        ("[destinations.home]\n[ destinations.home ]\n", "2: destinations.home"),
    ] {
        let expected = format!("config.toml:{place}: is there twice; remove one of the two");
        assert_eq!(parsed(text).unwrap_err().to_string(), expected, "{text}");
    }
}

#[test]
fn a_file_that_is_missing_is_named() {
    let error = load(Path::new("none/config.toml")).unwrap_err().to_string();
    let expected = "cannot read the configuration none/config.toml: No such file or directory (os error 2); name another file with --config";
    assert_eq!(error, expected);
}

#[test]
fn a_configuration_in_a_log_gives_no_password_away() {
    let text = GOOD
        .replace("{ \"bootstrap", "{ \"sasl.password\" = \"geheim\", \"bootstrap")
        .replace("topic_base", "username = \"u\"\npassword = \"geheim\"\ntopic_base");
    let shown = format!("{:?}", parsed(&text).unwrap());
    assert!(!shown.contains("geheim") && shown.contains("sasl.password"), "{shown}");
}

#[test]
fn two_clients_of_one_name_on_one_broker_are_a_mistake() {
    let error = parsed(&TWINS.replace("PORT", "1883")).unwrap_err().to_string();
    assert!(
        error.contains("a and b have the same client_id on one broker"),
        "{error}"
    );
    parsed(&TWINS.replacen("PORT", "1884", 1).replace("PORT", "1883")).unwrap();
}

const TWINS: &str = r#"
[listener]
certificate = "a"
private_key = "b"
vehicle_ca = "c"
[records]
"*" = ["a", "b"]
[destinations.a]
type = "mqtt"
url = "mqtt://broker:PORT"
topic_base = "a"
client_id = "gateway"
[destinations.b]
type = "mqtt"
url = "mqtt://broker:PORT"
topic_base = "b"
client_id = "gateway"
"#;
