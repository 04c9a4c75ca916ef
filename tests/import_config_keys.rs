//! `waystation import-config`: what becomes of each key of Tesla's server, and that the gateway accepts whatever is
//! written, however odd the strings in it.
#![allow(clippy::unwrap_used)]

#[path = "support/imported.rs"]
mod support;

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};
use support::{kafka, mqtt, parsed, routes};
use waystation::cli::import_config::{Imported, import};
use waystation::config::{Config, MqttPassword, Qos, RecordFormat};

/// What is made of a good file with some keys changed; `null` takes one away.
fn with(changes: Value) -> (Config, Imported) {
    let mut file = json!({
        "port": 443,
        "namespace": "fleet",
        "records": { "V": ["kafka", "mqtt"] },
        "tls": { "server_cert": "/c", "server_key": "/k" },
        "kafka": { "bootstrap.servers": "localhost:9092" },
        "mqtt": { "broker": "localhost:1883", "topic_base": "telemetry", "qos": 1 },
    });
    merge(&mut file, changes);
    let imported = import(file.to_string().as_bytes(), Path::new("server_config.json")).unwrap();
    (parsed(&imported.toml), imported)
}

fn merge(into: &mut Value, changes: Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (key, value) in changes {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, value) => *into = value,
    }
}

#[test]
fn unknown_keys_are_named_with_the_nearest_known_one() {
    let changes =
        json!({ "namespce": "x", "mqtt": { "retain": true }, "tls": { "ca": "x" }, "HOST": "::1", "colour": 1 });
    let (config, imported) = with(changes);
    let lost = imported.lost.join("\n");
    assert!(
        lost.contains("namespce: is not known, and was not read; did you mean \"namespace\"?"),
        "{lost}"
    );
    assert!(
        lost.contains("mqtt.retain: is not known, and was not read; did you mean \"retained\"?"),
        "{lost}"
    );
    assert!(
        lost.contains("tls.ca: is not known, and was not read; known here: server_cert"),
        "{lost}"
    );
    assert!(
        lost.contains("colour: is not known, and was not read; known here: "),
        "{lost}"
    );
    // Tesla's server takes a key in any letter case.
    assert_eq!(config.listener.bind.to_string(), "[::1]:443");
}

#[test]
fn an_address_is_taken_over_and_a_name_becomes_every_address() {
    for (host, bind) in [
        (json!(null), "[::]:443"),
        (json!(""), "[::]:443"),
        (json!("0.0.0.0"), "0.0.0.0:443"),
        (json!("::"), "[::]:443"),
        (json!("[::1]"), "[::1]:443"),
        (json!("localhost"), "127.0.0.1:443"),
        (json!("10.1.2.3"), "10.1.2.3:443"),
        (json!("gateway.example.com"), "[::]:443"),
    ] {
        let (config, _) = with(json!({ "host": host }));
        assert_eq!(config.listener.bind.to_string(), bind);
    }
    for port in [json!(null), json!(0), json!(70_000), json!(-1), json!("443")] {
        let (config, imported) = with(json!({ "port": port }));
        assert_eq!(config.listener.bind.port(), 443);
        assert!(
            imported.lost.iter().any(|line| line.contains("port: ")),
            "{port}: {:?}",
            imported.lost
        );
    }
}

#[test]
fn vehicles_whose_signals_are_counted_are_taken_over() {
    const KEY: &str = "vins_signal_tracking_enabled";
    let vins = |count: usize| json!({ KEY: (0..count).map(|number| format!("VIN{number}")).collect::<Vec<_>>() });
    for (changes, count) in [
        (json!({}), 0),
        (vins(0), 0),
        (json!({ KEY: null }), 0),
        (vins(2), 2),
        (vins(20), 20),
    ] {
        let (config, imported) = with(changes);
        assert_eq!(config.signal_vins.len(), count);
        assert!(
            !imported.lost.iter().any(|line| line.contains(KEY)),
            "{:?}",
            imported.lost
        );
    }
    // Tesla's server would not start with these.
    for changes in [vins(21), json!({ KEY: "VIN" }), json!({ KEY: ["VIN", 1] })] {
        let (config, imported) = with(changes);
        assert_eq!(config.signal_vins.len(), 0);
        assert!(
            imported.lost.iter().any(|line| line.starts_with(KEY)),
            "{:?}",
            imported.lost
        );
    }
}

#[test]
fn status_and_metrics_become_one_port_that_is_no_more_open_than_it_was() {
    for (changes, bind) in [
        (json!({}), "127.0.0.1:8780"),
        (json!({ "status_port": 8080 }), "127.0.0.1:8080"),
        (
            json!({ "monitoring": { "prometheus_metrics_port": 9090 } }),
            "127.0.0.1:9090",
        ),
        (
            json!({ "monitoring": { "prometheus_metrics_port": 9090, "prometheus_metrics_host": "10.0.0.1" } }),
            "10.0.0.1:9090",
        ),
        (
            json!({ "monitoring": { "prometheus_metrics_port": 9090, "prometheus_metrics_host": "a name" } }),
            "127.0.0.1:9090",
        ),
        // Taken by the listener.
        (json!({ "status_port": 443 }), "127.0.0.1:8780"),
    ] {
        let (config, _) = with(changes);
        assert_eq!(config.admin.unwrap().to_string(), bind);
    }
    let (_, imported) = with(json!({ "status_port": 443 }));
    assert!(
        imported
            .lost
            .iter()
            .any(|line| line.starts_with("status_port: ") && line.contains("is taken by"))
    );
}

#[test]
fn a_rate_is_computed_rounded_up_and_only_where_it_is_enabled() {
    for (limit, rate) in [
        (
            json!({ "enabled": true, "message_limit": 1000, "message_interval_time": 30 }),
            34,
        ),
        (
            json!({ "enabled": true, "message_limit": 1, "message_interval_time": 60 }),
            1,
        ),
        (json!({ "enabled": true, "message_limit": 1000 }), 100),
        (
            json!({ "enabled": false, "message_limit": 1000, "message_interval_time": 1 }),
            100,
        ),
        (
            json!({ "enabled": true, "message_limit": 9_000_000, "message_interval_time": 1 }),
            100,
        ),
    ] {
        let (config, imported) = with(json!({ "rate_limit": limit }));
        assert_eq!(config.listener.messages_per_second, rate);
        assert!(imported.toml.contains("rate_limit"), "{}", imported.toml);
    }
}

#[test]
fn brokers_in_every_form_become_an_mqtt_url() {
    for (broker, host, port, tls) in [
        ("mosquitto:1883", "mosquitto", 1883, false),
        ("mosquitto", "mosquitto", 1883, false),
        (":1884", "localhost", 1884, false),
        ("tcp://10.0.0.1:1883/", "10.0.0.1", 1883, false),
        ("MQTT://b.example", "b.example", 1883, false),
        ("ssl://b.example:8884", "b.example", 8884, true),
        ("mqtts://[::1]", "::1", 8883, true),
        ("ws://b.example:9001/mqtt", "b.example", 1883, false),
        ("wss://b.example/mqtt", "b.example", 8883, true),
        ("unix:///run/mqtt.sock", "localhost", 1883, false),
        ("tcp://b.example:1883/path", "localhost", 1883, false),
        ("tcp://user:secret@b.example:1883", "b.example", 1883, false),
        ("tcp://user:sec/ret@b.example:1883", "localhost", 1883, false),
    ] {
        let (config, imported) = with(json!({ "mqtt": { "broker": broker } }));
        let mqtt = mqtt(&config);
        assert_eq!(
            (mqtt.host.as_str(), mqtt.port, mqtt.tls.is_some()),
            (host, port, tls),
            "{broker}"
        );
        let lost = imported.lost.join("\n");
        assert!(!lost.contains("sec") && !imported.toml.contains("secret"), "{lost}");
        let same = broker.to_lowercase().contains(host) && !broker.starts_with("ws") && !broker.contains('@');
        assert_eq!(
            lost.contains("mqtt.broker: "),
            !same && !broker.starts_with(':'),
            "{broker}: {lost}"
        );
    }
}

#[test]
fn what_mqtt_does_otherwise_is_said() {
    let lost = |mqtt: Value| with(json!({ "mqtt": mqtt })).1.lost.join("\n");
    for (qos, carried) in [(1, Qos::AtLeastOnce), (2, Qos::ExactlyOnce)] {
        let (config, imported) = with(json!({ "mqtt": { "qos": qos } }));
        assert_eq!(mqtt(&config).qos, carried);
        assert!(!imported.lost.join("\n").contains("mqtt.qos"), "{qos}");
    }
    for qos in [json!(0), json!(null)] {
        assert!(lost(json!({ "qos": qos })).contains("mqtt.qos: 0, or not there: here it is 1 unless it is set"));
    }
    assert!(lost(json!({ "qos": 3 })).contains("mqtt.qos: "));
    assert!(lost(json!({ "publish_timeout_ms": 1500 })).contains("mqtt.publish_timeout_ms: 1500 ms; "));
    assert!(lost(json!({ "password": "p" })).contains("mqtt.password: username is missing"));
    assert!(lost(json!({ "password": 7 })).contains("mqtt.password: is not a string"));
    assert!(lost(json!({ "topic_base": "a/#" })).contains("(topic_base = \"telemetry\" stands in its place)"));
    assert!(lost(json!({ "keep_alive_seconds": 1_000_000 })).contains("mqtt.keep_alive_seconds: "));
}

#[test]
fn mqtt_topics_begin_as_they_did() {
    for base in ["/home/tesla", "telemetry/", "a//b", "/", ""] {
        let (config, imported) = with(json!({ "mqtt": { "topic_base": base } }));
        assert_eq!(mqtt(&config).topic_base, base);
        assert!(!imported.lost.join("\n").contains("topic_base"), "{:?}", imported.lost);
    }
    let (config, _) = with(json!({ "mqtt": { "topic_base": null } }));
    assert_eq!(mqtt(&config).topic_base, "");
}

#[test]
fn properties_keep_their_text_and_those_that_are_refused_are_named() {
    let (config, imported) = with(json!({ "kafka": {
        "linger.ms": 0.5, "batch.size": 1e6, "statistics.interval.ms": 0, "socket.keepalive.enable": false,
        "client.id": "a\u{7f}\n\"b\"", "default.topic.config": { "acks": 1 }, "nothing": null, "retries": 3,
    } }));
    let properties = &kafka(&config).properties;
    for (name, value) in [
        ("linger.ms", "0.5"),
        ("batch.size", "1000000"),
        ("statistics.interval.ms", "0"),
        ("socket.keepalive.enable", "false"),
        ("client.id", "a\u{7f}\n\"b\""),
    ] {
        assert_eq!(properties[name], value, "{name}");
    }
    assert_eq!(properties.len(), 6, "{properties:?}");
    for lost in ["kafka.default.topic.config: ", "kafka.nothing: ", "kafka.retries: "] {
        assert!(imported.lost.iter().any(|line| line.starts_with(lost)), "{lost}");
    }
    let (config, imported) = with(json!({ "kafka": {
        "topic.request.required.acks": 1, "topic.partitioner": "murmur2", "topic.linger.ms": 3, "linger.ms": 4,
    } }));
    let properties = &kafka(&config).properties;
    assert_eq!(
        (&*properties["partitioner"], &*properties["linger.ms"]),
        ("murmur2", "4")
    );
    assert_eq!(properties.len(), 3, "{properties:?}");
    for lost in [
        "kafka.topic.request.required.acks: ",
        "kafka.topic.linger.ms: linger.ms is there too",
    ] {
        assert!(imported.lost.iter().any(|line| line.starts_with(lost)), "{lost}");
    }
    let (config, imported) =
        with(json!({ "kafka": { "bootstrap.servers": null, "metadata.broker.list": "old:9092" } }));
    assert_eq!(kafka(&config).properties["bootstrap.servers"], "old:9092");
    assert!(
        imported.lost.iter().all(|line| !line.contains("broker.list")),
        "{:?}",
        imported.lost
    );
    let (_, imported) = with(json!({ "kafka": { "bootstrap.servers": null }, "namespace": null }));
    let lost = imported.lost.join("\n");
    assert!(lost.contains("kafka.bootstrap.servers: is not there") && lost.contains("namespace: is not there"));
}

#[test]
fn a_mechanism_that_is_not_there_is_named_and_one_stands_in_its_place() {
    let sasl = |mechanism: Value| {
        let protocol = json!({ "kafka": { "security.protocol": "SASL_SSL", "sasl.mechanism": mechanism } });
        let (config, imported) = with(protocol);
        let written = kafka(&config).properties["sasl.mechanism"].clone();
        (written, imported.lost.join("\n"))
    };
    for mechanism in [json!("GSSAPI"), json!("OAUTHBEARER"), json!(""), json!(null), json!([])] {
        let (written, lost) = sasl(mechanism);
        assert_eq!(written, "SCRAM-SHA-512");
        assert!(
            lost.contains("kafka.sasl.mechanism: ") && lost.contains("stands in its place"),
            "{lost}"
        );
    }
    assert_eq!(sasl(json!("scram-sha-256")).0, "SCRAM-SHA-256");
    let (written, lost) = sasl(json!("PLAIN"));
    assert!(written == "PLAIN" && !lost.contains("mechanism"), "{lost}");
}

#[test]
fn a_metrics_port_that_is_none_is_nowhere_to_ask() {
    let changes = json!({ "status_port": 8080, "monitoring": { "prometheus_metrics_port": 99999 } });
    let (config, imported) = with(changes);
    assert_eq!(config.admin.unwrap().port(), 8780);
    let lost = imported.lost.join("\n");
    assert!(
        lost.contains("ask for /status at the default port, 8780, instead of 8080"),
        "{lost}"
    );
}

#[test]
fn dispatchers_without_a_destination_are_named_with_their_types() {
    let (config, imported) = with(json!({ "records": {
        "V": ["kafka", "kafak", "mqtt", "nowhere", 7], "alerts": ["redis"], "errors": [], "v9": ["zmq"],
    } }));
    assert_eq!(routes(&config, "V"), ["kafka", "mqtt"]);
    let lost = imported.lost.join("\n");
    for said in [
        "records.V: goes to \"kafak\", which is not known; did you mean \"kafka\"?",
        "records.V: goes to \"nowhere\", which is not known; known are kafka, mqtt, zmq, logger, kinesis",
        "records.V: has an element that is not a string",
        "records.alerts: would go to redis alone",
        "records.errors: would go nowhere",
        "records.v9: goes to zmq, for which there is no section",
        "redis: there is no such destination (routed to it: alerts)",
    ] {
        assert!(lost.contains(said), "{said}: {lost}");
    }
    let (config, imported) = with(json!({ "records": { "V": ["kafka"] } }));
    assert!(config.destinations.iter().all(|one| one.name != "mqtt"));
    assert!(
        imported
            .lost
            .iter()
            .any(|line| line.starts_with("mqtt: no record type goes there"))
    );
}

#[test]
fn decoded_records_stay_decoded() {
    let (config, imported) = with(json!({
        "transmit_decoded_records": true,
        "records": { "V": ["kafka", "zmq"] },
        "zmq": { "addr": "ipc:///run/z" },
    }));
    for name in ["kafka", "zmq"] {
        let destination = config.destinations.iter().find(|one| one.name == name).unwrap();
        assert_eq!(destination.delivery.format, RecordFormat::Json, "{}", imported.toml);
    }
    let (_, imported) = with(json!({ "transmit_decoded_records": true, "records": { "V": ["mqtt"] } }));
    let said = |line: &String| line.starts_with("transmit_decoded_records");
    assert!(!imported.lost.iter().any(said));
    assert!(imported.toml.contains("# - transmit_decoded_records: "));
}

#[test]
fn a_zmq_socket_without_a_key_is_said_to_be_plain() {
    let (_, imported) = with(json!({ "records": { "V": ["kafka", "zmq"] }, "zmq": { "addr": "ipc:///run/z" } }));
    assert!(imported.toml.contains("allow_plaintext = true"), "{}", imported.toml);
}

#[test]
fn a_zmq_socket_with_a_key_of_its_own_and_no_list_of_clients_is_said_to_let_in_whoever_knows_it() {
    let with_keys = |more: Value| {
        let mut zmq = json!({ "addr": "tcp://*:5284", "server_key_json_path": "/k" });
        merge(&mut zmq, more);
        with(json!({ "records": { "V": ["kafka", "zmq"] }, "zmq": zmq }))
    };
    const KEY: &str = "zmq.allowed_public_keys_json_path: ";
    let (config, imported) = with_keys(json!({}));
    let said = imported.lost.iter().find(|line| line.starts_with(KEY)).unwrap();
    assert!(
        said.contains("lets nobody subscribe; here whoever knows the server's public key may"),
        "{said}"
    );
    assert!(
        imported.toml.contains("\n#allowed_client_keys = ["),
        "{}",
        imported.toml
    );
    assert!(config.warnings.iter().any(|warning| warning.contains("may subscribe")));
    let (_, imported) = with_keys(json!({ "allowed_public_keys_json_path": "/clients" }));
    assert!(!imported.lost.iter().any(|line| line.starts_with(KEY)));
}

/// Anything at all, with what is hard to quote more often than by chance.
fn odd() -> impl Strategy<Value = String> {
    let hard = prop::sample::select(vec![
        "\"", "'", "\\", "\n", "\r\n", "\t", "\u{0}", "\u{7f}", "\u{85}", "\u{2028}", "#", "]", "=", "\"\"\"", "'''",
        "\\u0000", "a", "ü", "💥", ".", " ", "{", "${HOME}", "@", "/", ":",
    ]);
    prop_oneof![
        prop::collection::vec(hard, 1..8).prop_map(|parts| parts.concat()),
        any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn odd_strings_are_quoted_so_that_they_come_back(
        certificate in odd(), property in odd(), name in odd(), username in odd(), password in odd(),
    ) {
        let (config, _) = with(json!({
            "tls": { "server_cert": certificate, "ca_file": certificate },
            "kafka": { format!("x{name}"): property },
            "mqtt": { "username": username, "password": password },
        }));
        if !certificate.is_empty() {
            prop_assert_eq!(&config.listener.certificate, Path::new(&certificate));
            prop_assert_eq!(&config.listener.vehicle_ca[1], Path::new(&certificate));
        }
        prop_assert_eq!(&kafka(&config).properties[&format!("x{name}")], &property);
        if !username.is_empty() {
            prop_assert_eq!(mqtt(&config).credentials.clone(), Some((username, MqttPassword::Given(password))));
        }
    }

    #[test]
    fn odd_strings_anywhere_give_a_configuration_that_is_accepted(
        texts in prop::collection::vec(odd(), 12), keys in prop::collection::vec(odd(), 3), number in any::<i64>(),
    ) {
        let (_, imported) = with(json!({
            "host": texts[0], "port": number, "namespace": texts[1], "log_level": texts[2], "status_port": number,
            "monitoring": { "prometheus_metrics_host": texts[3], "prometheus_metrics_port": number, &keys[0]: number },
            "rate_limit": { "enabled": true, "message_limit": number, "message_interval_time": 7 },
            "records": { &keys[1]: ["kafka", texts[4]], "V": ["kafka", "mqtt", "logger", "zmq"] },
            "kafka": { "bootstrap.servers": texts[5], "partitioner": texts[6] },
            "mqtt": {
                "broker": texts[7], "topic_base": texts[8], "client_id": texts[9], "keep_alive_seconds": number,
                "qos": number,
            },
            "zmq": { "addr": texts[10], "server_key_json_path": texts[11] },
            &keys[2]: texts,
        }));
        for line in &imported.lost {
            prop_assert!(!line.contains(char::is_control), "{line:?}");
        }
    }
}
