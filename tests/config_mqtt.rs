//! What a `type = "mqtt"` destination may be told: protocol, certificates, quality of service, and what records become.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use waystation::cli::pki::Pki;
use waystation::config::{Config, DestinationKind, Mqtt, MqttLayout, MqttProtocol, Qos, parse};
use waystation::destination;

const PLAIN: &str = "url = \"mqtt://localhost\"\n";
const TLS: &str = "url = \"mqtts://localhost\"\n";

fn text(lines: &str) -> String {
    format!(
        r#"[listener]
certificate = "a"
private_key = "b"
vehicle_ca = "c"
[records]
"*" = "home"
[destinations.home]
type = "mqtt"
topic_base = "fleet"
{lines}"#
    )
}

fn config(dir: &Path, lines: &str) -> Config {
    parse(&text(lines), &dir.join("config.toml")).unwrap()
}

fn mqtt(lines: &str) -> Mqtt {
    match config(Path::new("/dir"), lines).destinations.remove(0).kind {
        DestinationKind::Mqtt(mqtt) => mqtt,
        other => panic!("{other:?}"),
    }
}

#[test]
fn defaults_are_mqtt_5_with_qos_1_and_a_status() {
    let mqtt = mqtt(PLAIN);
    assert_eq!(
        (mqtt.protocol, mqtt.qos, mqtt.layout),
        (MqttProtocol::V5, Qos::AtLeastOnce, MqttLayout::Fields)
    );
    assert!(mqtt.status && mqtt.tls.is_none() && mqtt.max_packet_size.is_none());
    assert!(
        config(Path::new("/dir"), PLAIN).destinations[0].required,
        "it may fill the queue"
    );
}

#[test]
fn every_key_is_read() {
    let lines = "protocol = \"3.1.1\"\nqos = 2\nlayout = \"records\"\nformat = \"json\"\nstatus = false\n\
        max_packet_size = \"128 KiB\"\nca = \"ca.pem\"\nclient_certificate = \"own.pem\"\nclient_key = \"own.key\"\n\
        server_name = \"broker.example\"";
    let mqtt = mqtt(&format!("{TLS}{lines}"));
    assert_eq!(
        (mqtt.protocol, mqtt.qos, mqtt.layout),
        (MqttProtocol::V3, Qos::ExactlyOnce, MqttLayout::Records)
    );
    assert_eq!((mqtt.status, mqtt.max_packet_size), (false, Some(128 << 10)));
    let tls = mqtt.tls.unwrap();
    assert_eq!(tls.ca.as_deref(), Some(Path::new("/dir/ca.pem")));
    assert_eq!(tls.client, Some(("/dir/own.pem".into(), "/dir/own.key".into())));
    assert_eq!(tls.server_name.as_deref(), Some("broker.example"));
    let records = self::mqtt(&format!("{PLAIN}layout = \"records\""));
    assert_eq!(records.layout, MqttLayout::Records);
}

#[test]
fn qos_0_is_allowed_with_a_word_on_what_it_costs() {
    let config = config(Path::new("/dir"), &format!("{PLAIN}layout = \"records\"\nqos = 0"));
    assert_eq!(
        config.warnings,
        [
            "destinations.home: with qos = 0 the broker confirms nothing: records that are on their way when a \
             connection ends are lost; qos = 1 loses none"
        ]
    );
}

#[test]
fn topics_begin_as_it_is_written_with_a_word_on_what_is_unusual() {
    let lines = format!("{PLAIN}layout = \"records\"");
    let with = |base: &str| parse(&text(&lines).replace("fleet", base), Path::new("config.toml"));
    for (base, word) in [
        ("fleet/north", None),
        ("", Some("empty level")),
        (
            "/home/tesla",
            Some("\"/home/tesla/{VIN}/…\"; subscribers have to name the empty level"),
        ),
        ("telemetry/", Some("empty level")),
        ("a//b", Some("empty level")),
        ("$share/a", Some("belongs to the broker")),
        ("a\\u0007", Some("control characters")),
    ] {
        let mut config = with(base).unwrap();
        assert_eq!(
            config.warnings.len(),
            usize::from(word.is_some()),
            "{:?}",
            config.warnings
        );
        assert!(
            word.is_none_or(|word| config.warnings[0].contains(word)),
            "{:?}",
            config.warnings
        );
        let DestinationKind::Mqtt(mqtt) = config.destinations.remove(0).kind else {
            panic!("{base}")
        };
        assert_eq!(mqtt.topic_base, base.replace("\\u0007", "\u{7}"));
    }
    for base in ["a/+", "#", "a\\u0000", &"x".repeat(257)] {
        let said = with(base).unwrap_err().to_string();
        assert!(said.contains("destinations.home.topic_base: "), "{said}");
    }
}

#[test]
fn a_type_that_the_layout_has_no_topics_for_is_allowed_with_a_word_on_what_becomes_of_it() {
    let warnings = |types: &str, layout: &str| {
        let text = text(&format!("{PLAIN}{layout}")).replace("\"*\" = \"home\"", types);
        parse(&text, Path::new("config.toml")).unwrap().warnings
    };
    let known = "V = \"home\"\nalerts = \"home\"\nerrors = \"home\"\nconnectivity = \"home\"\n";
    assert_eq!(
        warnings(&format!("{known}canlogs = \"home\"\n\"*\" = \"home\""), ""),
        [
            "records.canlogs: destinations.home has no topics for records of this type: each is kept as a dead letter; \
             layout = \"records\" has a topic for every type",
            "records.\"*\": destinations.home has no topics for records of types that the gateway does not know: each is \
             kept as a dead letter; layout = \"records\" has a topic for every type",
        ]
    );
    assert_eq!(warnings(known, ""), Vec::<String>::new());
    assert_eq!(
        warnings("\"*\" = \"home\"", "layout = \"records\""),
        Vec::<String>::new()
    );
}

#[test]
fn each_mistake_is_told_with_its_fix() {
    for (lines, expected) in [
        (
            format!("{PLAIN}protocol = \"4\""),
            "11: destinations.home.protocol: \"4\" is not known; write \"5\" or \"3.1.1\"",
        ),
        (
            format!("{PLAIN}protocol = 5"),
            "11: destinations.home.protocol: 5 is not a string; put it in quotes",
        ),
        (
            format!("{PLAIN}qos = 3"),
            "11: destinations.home.qos: 3 is not allowed; write a whole number from 0 to 2",
        ),
        (
            format!("{PLAIN}status = \"yes\""),
            "11: destinations.home.status: \"yes\" is not a boolean; write true or false",
        ),
        (
            format!("{PLAIN}format = \"json\""),
            "11: destinations.home.format: is only for layout = \"records\"; fields are always JSON",
        ),
        (
            format!("{PLAIN}layout = \"records\"\nformat = \"xml\""),
            "12: destinations.home.format: \"xml\" is not known; write \"protobuf\" or \"json\"",
        ),
        (
            format!("{PLAIN}max_packet_size = \"100 B\""),
            "11: destinations.home.max_packet_size: \"100 B\" is too small; write at least \"512 B\"",
        ),
        (
            format!("{PLAIN}server_name = \"broker\""),
            "11: destinations.home.server_name: is only for mqtts://; change url to mqtts:// or remove server_name",
        ),
        (
            format!("{TLS}server_name = \"a b\""),
            "11: destinations.home.server_name: \"a b\" is not a name that a certificate can have; write a host name or an IP address",
        ),
        (
            format!("{TLS}client_certificate = \"own.pem\""),
            "11: destinations.home.client_certificate: client_key is missing; name the file with its private key",
        ),
        (
            format!("{TLS}client_key = \"own.key\""),
            "11: destinations.home.client_key: client_certificate is missing; name the file with the key's certificate",
        ),
    ] {
        let error = parse(&text(&lines), Path::new("config.toml")).unwrap_err();
        assert_eq!(error.to_string(), format!("config.toml:{expected}"));
    }
}

#[test]
fn a_password_in_an_address_is_not_told() {
    for scheme in ["mqtt://", "mqtts://", "tcp://", "ssl://", "MQTT://", "mqtt:/", ""] {
        let url = format!("{scheme}fleet:hunter2@broker:1883");
        let text = text(PLAIN).replace("mqtt://localhost", &url);
        assert!(text.contains(&url), "{text}");
        let said = parse(&text, Path::new("config.toml")).unwrap_err().to_string();
        assert!(
            said.contains("username and password_file") && !said.contains("hunter2"),
            "{said}"
        );
    }
}

#[test]
fn wrong_certificate_files_are_told_with_their_fix() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| fs::write(dir.path().join(name), content).unwrap();
    let pki = Pki::new(&[]).unwrap();
    let server = pki.server().unwrap();
    let (certificate, key) = pki.vehicle("5YJ3E1EA7KF000001").unwrap();
    let (_, other) = pki.vehicle("5YJ3E1EA7KF000002").unwrap();
    write("ca.pem", &server.ca);
    write("own.pem", &certificate);
    write("own.key", &key);
    write("other.key", &other);
    write("empty.pem", "nothing");
    let build = |ca: &str, certificate: &str, key: &str| {
        let lines = format!("{TLS}ca = \"{ca}\"\nclient_certificate = \"{certificate}\"\nclient_key = \"{key}\"");
        let built = destination::build(&config(dir.path(), &lines).destinations[0], "queue");
        let folder = format!("{}/", dir.path().display());
        built.map(drop).map_err(|error| error.to_string().replace(&folder, ""))
    };
    assert_eq!(build("ca.pem", "own.pem", "own.key"), Ok(()));
    for (ca, certificate, key, expected) in [
        (
            "none.pem",
            "own.pem",
            "own.key",
            "ca: cannot read none.pem: No such file or directory (os error 2); name a PEM file that the gateway may read",
        ),
        (
            "empty.pem",
            "own.pem",
            "own.key",
            "ca: empty.pem holds no certificate; it must have the broker's authority in PEM form",
        ),
        (
            "ca.pem",
            "empty.pem",
            "own.key",
            "client_certificate: empty.pem holds no certificate; it must have this gateway's certificate and its chain in PEM form",
        ),
        (
            "ca.pem",
            "own.pem",
            "own.pem",
            "client_key: own.pem holds no private key; it must have the key of client_certificate in PEM form, unencrypted",
        ),
        (
            "ca.pem",
            "own.pem",
            "other.key",
            "client_key: other.key is of no use with own.pem: keys may not be consistent: KeyMismatch; the key must be that of the first certificate",
        ),
    ] {
        assert_eq!(
            build(ca, certificate, key),
            Err(format!("destination \"home\": {expected}"))
        );
    }
}
