//! The `[destinations]` section: what each kind of destination may be told, and what it may not.
//!
//! Invariant: no setting gets through that would have a destination report a record as delivered that is not, let one
//! overtake another, or give up on one.

use std::collections::BTreeMap;

use super::checked::Base;
use super::mqtt;
use super::nearest::nearest;
use super::reader::{Field, Table};
use super::zmq::zmq;
use super::{Destination, DestinationKind, Kafka, Log, MqttLayout, delivery};

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
    mqtt::tell_apart(section, found.iter().flatten());
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
        "mqtt" => (
            mqtt::mqtt(name, &table, base, warnings).map(DestinationKind::Mqtt),
            true,
        ),
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
    let fixed_format = match &kind {
        Some(DestinationKind::Log(_)) => Some("is not for this kind of destination; its lines are always JSON"),
        Some(DestinationKind::Mqtt(mqtt)) if mqtt.layout == MqttLayout::Fields => {
            Some("is only for layout = \"records\"; fields are always JSON")
        }
        _ => None,
    };
    let required = required.unwrap_or(Some(lossless));
    let delivery = delivery::read(&table, base, required, fixed_format);
    table.finish();
    Some(Destination {
        name: name.to_owned(),
        required: required?,
        delivery: delivery?,
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

fn log(table: &Table<'_>, base: Base<'_>) -> Option<Log> {
    match table.field("path").map(|field| base.path(&field)) {
        Some(path) => Some(Log { path: Some(path?) }),
        None => Some(Log { path: None }),
    }
}
