//! The `[destinations]` section: what each kind of destination may be told, and what it may not.
//!
//! Invariant: no setting gets through that would have a destination report a record as delivered that is not, let one
//! overtake another, or give up on one.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::checked::{Base, or};
use super::nearest::nearest;
use super::reader::{Field, Table};
use super::zmq::zmq;
use super::{Destination, DestinationKind, Kafka, Log, Mqtt, MqttLayout, MqttTls};

const KINDS: [&str; 4] = ["kafka", "log", "mqtt", "zmq"];
const CHOOSE: &str = "write \"kafka\", \"mqtt\", \"zmq\" or \"log\"";

/// librdkafka properties that are not the user's to set, and why.
const KEPT_PROPERTIES: &[(&[&str], &str)] = &[
    (
        &["acks", "request.required.acks"],
        "the gateway always waits for all in-sync replicas; a record acknowledged by fewer could be lost",
    ),
    (
        &["enable.idempotence"],
        "the gateway always produces idempotently; without it records could be doubled or swapped",
    ),
    (
        &["message.timeout.ms", "delivery.timeout.ms"],
        "the gateway never gives up on a record; a time limit would",
    ),
    (
        &["retries", "message.send.max.retries"],
        "the gateway retries for ever; a limit would give up on records",
    ),
    (
        &["transactional.id"],
        "the gateway does not use transactions; its deduplication id is in the record's headers",
    ),
    (
        &["enable.gapless.guarantee"],
        "the gateway always keeps it on; without it records could overtake one that is refused",
    ),
    (
        &["delivery.report.only.error", "dr_cb", "dr_msg_cb"],
        "the gateway needs every delivery report; a record counts as delivered only by its own",
    ),
    (
        &["queue.buffering.max.messages", "queue.buffering.max.kbytes"],
        "the gateway bounds what is in flight itself",
    ),
];

/// Partitioners under which a vehicle's records stay together, and so in order.
const KEYED_PARTITIONERS: [&str; 6] = [
    "consistent",
    "consistent_random",
    "murmur2",
    "murmur2_random",
    "fnv1a",
    "fnv1a_random",
];

/// Every destination, by name; none of them if one is wrong.
pub(super) fn read(section: &Table<'_>, base: Base<'_>, warnings: &mut Vec<String>) -> Option<Vec<Destination>> {
    let found: Vec<_> = section
        .entries()
        .map(|(name, field)| destination(name, &field, base, warnings))
        .collect();
    let found: Option<Vec<_>> = found.into_iter().collect();
    for (at, destination) in found.iter().flatten().enumerate() {
        let DestinationKind::Mqtt(mqtt) = &destination.kind else {
            continue;
        };
        let same = |other: &&Destination| match &other.kind {
            DestinationKind::Mqtt(other) => {
                mqtt.client_id.is_some()
                    && (&other.client_id, &other.host, other.port) == (&mqtt.client_id, &mqtt.host, mqtt.port)
            }
            _ => false,
        };
        if let Some(other) = found.iter().flatten().take(at).find(same) {
            section.mistake(format_args!(
                "{} and {} have the same client_id on one broker, which ends the connection of one whenever the other \
                 connects; write another for one of them",
                other.name, destination.name
            ));
        }
    }
    found
}

fn destination(name: &str, field: &Field<'_>, base: Base<'_>, warnings: &mut Vec<String>) -> Option<Destination> {
    let usable = (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if !usable {
        field.mistake("is not a name for a destination; write 1 to 64 of the characters a-z A-Z 0-9 _ -");
    }
    let table = field.table()?;
    let kind = table.required("type", CHOOSE)?;
    let required = table.field("required").map(|field| field.boolean());
    let (kind, lossless) = match kind.string()? {
        "kafka" => (kafka(&table).map(DestinationKind::Kafka), true),
        "mqtt" => (mqtt(name, &table, base, warnings).map(DestinationKind::Mqtt), true),
        "log" => (log(&table, base).map(DestinationKind::Log), false),
        "zmq" => (zmq(name, &table, base, warnings).map(DestinationKind::Zmq), false),
        other => {
            match nearest(other, KINDS.into_iter()) {
                Some(near) => kind.refuse(format_args!("is not a kind of destination; did you mean \"{near}\"?")),
                None => kind.refuse(format_args!("is not a kind of destination; {CHOOSE}")),
            }
            return None;
        }
    };
    table.finish();
    let required = required.unwrap_or(Some(lossless));
    Some(Destination {
        name: name.to_owned(),
        required: required?,
        kind: kind?,
    })
    .filter(|_| usable)
}

fn kafka(table: &Table<'_>) -> Option<Kafka> {
    let namespace = table.required("namespace", "topics are named {namespace}_{record type}");
    let namespace = namespace.and_then(|field| topic_namespace(&field));
    let field = table.required("properties", "write at least { \"bootstrap.servers\" = \"HOST:PORT\" }")?;
    let mut properties = BTreeMap::new();
    for (name, value, property) in field.flattened() {
        check_property(&name, &value, &property);
        properties.insert(name, value);
    }
    if properties.get("bootstrap.servers").is_none_or(String::is_empty) {
        field.mistake("\"bootstrap.servers\" is missing; name the brokers, for example \"kafka.example.com:9092\"");
    }
    Some(Kafka {
        namespace: namespace?,
        properties,
    })
}

/// What may begin a topic of Kafka, and so of ZMQ, whose topics are the same.
pub(super) fn topic_namespace(field: &Field<'_>) -> Option<String> {
    let namespace = field.text()?;
    let usable = namespace.len() <= 180
        && namespace
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    if !usable {
        field.refuse("cannot begin a topic; write at most 180 of the characters a-z A-Z 0-9 _ - .");
    }
    Some(namespace.to_owned()).filter(|_| usable)
}

fn check_property(name: &str, value: &str, property: &Field<'_>) {
    if let Some((_, reason)) = KEPT_PROPERTIES.iter().find(|(names, _)| names.contains(&name)) {
        property.refuse(format_args!("is not allowed: {reason}; remove it"));
    }
    match name {
        "max.in.flight" | "max.in.flight.requests.per.connection"
            if !value.parse().is_ok_and(|requests: u32| (1..=5).contains(&requests)) =>
        {
            property
                .refuse("is not allowed: with more than 5 requests in flight records could be swapped; write 1 to 5");
        }
        "partitioner" if !KEYED_PARTITIONERS.contains(&value) => property.refuse(format_args!(
            "is not allowed: it would scatter a vehicle's records over partitions; write one of {}",
            KEYED_PARTITIONERS.join(", ")
        )),
        "metadata.broker.list" => property.refuse("is not allowed under this name; write it as \"bootstrap.servers\""),
        _ => {}
    }
}

fn mqtt(name: &str, table: &Table<'_>, base: Base<'_>, warnings: &mut Vec<String>) -> Option<Mqtt> {
    let url = table.required(
        "url",
        "write mqtt://HOST or mqtts://HOST, with :PORT if it is not 1883 or 8883",
    );
    let broker = url.as_ref().and_then(broker);
    let topic_base = table.required("topic_base", "it begins every topic: {topic_base}/{VIN}/…");
    let topic_base = topic_base.and_then(|field| topic_base_of(&field));
    let layout = or(table, "layout", Some(MqttLayout::Fields), |field| {
        field.choice(&[("fields", MqttLayout::Fields), ("records", MqttLayout::Records)])
    });
    let credentials = credentials(table, base);
    let client_id = table.field("client_id").map(|field| {
        let id = field.text()?;
        let usable = id.len() <= 128 && !id.chars().any(char::is_control);
        if !usable {
            field.refuse("is not a client id; write 1 to 128 printable characters");
        }
        Some(id.to_owned()).filter(|_| usable)
    });
    let retain = or(table, "retain", Some(false), |field| field.boolean());
    let keep_alive = or(table, "keep_alive", Some(Duration::from_secs(30)), |field| {
        field.duration(Duration::from_secs(1)..=Duration::from_secs(18 * 3_600))
    });
    let max_inflight = or(table, "max_inflight", Some(100), |field| field.integer(1..=1_000));
    if let Some(field) = table.field("qos")
        && field.integer(0..=2).is_some_and(|qos| qos != 1)
    {
        field.refuse(
            "is not supported in this version: a record is done when the broker has confirmed it once; write 1",
        );
    }
    let ca = table.field("ca");
    if let (Some(ca), Some((_, _, false))) = (&ca, &broker) {
        ca.mistake("is only for mqtts://; change url to mqtts:// or remove ca");
    }
    let ca = ca.map(|field| base.path(&field));

    let (host, port, encrypted) = broker?;
    let credentials = credentials?;
    if credentials.is_some() && !encrypted && !matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1") {
        warnings.push(format!(
            "destinations.{name}: the password goes to {host} unencrypted; mqtts:// would protect it"
        ));
    }
    Some(Mqtt {
        host,
        port,
        tls: match (encrypted, ca) {
            (true, Some(ca)) => Some(MqttTls { ca: Some(ca?) }),
            (true, None) => Some(MqttTls { ca: None }),
            (false, _) => None,
        },
        credentials,
        client_id: match client_id {
            Some(id) => Some(id?),
            None => None,
        },
        topic_base: topic_base?,
        layout: layout?,
        retain: retain?,
        // MQTT counts whole seconds.
        keep_alive: Duration::from_secs(keep_alive?.as_secs()),
        max_inflight: u16::try_from(max_inflight?).ok()?,
    })
}

/// Host, port and whether it is encrypted, of an MQTT URL.
fn broker(field: &Field<'_>) -> Option<(String, u16, bool)> {
    let url = field.text()?;
    let (rest, encrypted) = match (url.strip_prefix("mqtt://"), url.strip_prefix("mqtts://")) {
        (Some(rest), _) => (rest, false),
        (_, Some(rest)) => (rest, true),
        _ => {
            field.refuse("is not an MQTT address; write mqtt://HOST or mqtts://HOST, with :PORT if need be");
            return None;
        }
    };
    if rest.contains('@') {
        // Not shown: it may hold a password.
        field.mistake("holds credentials; write them as username and password_file");
        return None;
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        field.refuse("has a path; end it after the host and port, and write the topic prefix as topic_base");
        return None;
    }
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (
            Some(host).filter(|host| host.parse::<std::net::Ipv6Addr>().is_ok()),
            port,
        ),
        None => {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            let usable = !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
            (Some(host).filter(|_| usable), port)
        }
    };
    let port = match port.strip_prefix(':') {
        Some(number) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            let port = number.parse().ok().filter(|port| *port != 0);
            if port.is_none() {
                field.refuse(format_args!(
                    "has the port {number}, which is out of range; write one from 1 to 65535"
                ));
                return None;
            }
            port
        }
        None if port.is_empty() => Some(if encrypted { 8883 } else { 1883 }),
        _ => None,
    };
    let (Some(host), Some(port)) = (host, port) else {
        field.refuse("is not an MQTT address; write mqtt://HOST or mqtts://HOST, with :PORT if need be");
        return None;
    };
    Some((host.to_owned(), port, encrypted))
}

fn topic_base_of(field: &Field<'_>) -> Option<String> {
    let topic = field.text()?;
    let reason = if topic.contains(['+', '#']) {
        "has a wildcard in it; + and # cannot be published to"
    } else if topic.starts_with('/') || topic.ends_with('/') {
        "begins or ends with a slash; write it without"
    } else if topic.contains("//") {
        "has an empty level; write one slash between levels"
    } else if topic.starts_with('$') {
        "begins with $, which belongs to the broker"
    } else if topic.len() > 256 || topic.chars().any(char::is_control) {
        "cannot begin a topic; write at most 256 bytes without control characters"
    } else {
        return Some(topic.to_owned());
    };
    field.refuse(reason);
    None
}

/// User name and password; the outer `None` when something is wrong with them. Passwords are never shown.
fn credentials(table: &Table<'_>, base: Base<'_>) -> Option<Option<(String, String)>> {
    let username = table.field("username");
    let password = table.field("password");
    let file = table.field("password_file");
    if let (Some(password), Some(_)) = (&password, &file) {
        password.mistake("password_file is there too; leave one of the two");
        return None;
    }
    if let (None, Some(secret)) = (&username, password.as_ref().or(file.as_ref())) {
        secret.mistake("username is missing; a password needs one");
    }
    let password = match (&password, &file) {
        (Some(field), _) => field.secret(),
        (None, Some(field)) => base.path(field).and_then(|path| password_of(field, &path)),
        (None, None) => Some(String::new()),
    };
    match username {
        Some(field) => Some(Some((field.text()?.to_owned(), password?))),
        None => password.map(|_| None),
    }
}

fn password_of(field: &Field<'_>, path: &Path) -> Option<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let line = text.strip_suffix('\n').unwrap_or(&text);
            Some(line.strip_suffix('\r').unwrap_or(line).to_owned())
        }
        Err(error) => {
            field.mistake(format_args!(
                "cannot read {}: {error}; write the password into it, and let the gateway read it",
                path.display()
            ));
            None
        }
    }
}

fn log(table: &Table<'_>, base: Base<'_>) -> Option<Log> {
    match table.field("path").map(|field| base.path(&field)) {
        Some(path) => Some(Log { path: Some(path?) }),
        None => Some(Log { path: None }),
    }
}
