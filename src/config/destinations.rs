//! The `[destinations]` section: what each kind of destination may be told, and what it may not.
//!
//! Invariant: no setting gets through that would have a destination report a record as delivered that is not, let one
//! overtake another, or give up on one.

use std::net::SocketAddr;

use super::checked::overlap;
use super::kafka_properties;
use super::mqtt;
use super::nearest::nearest;
use super::paths::Base;
use super::reader::{Field, Table};
use super::zmq;
use super::{Destination, DestinationKind, Kafka, Log, MqttLayout, Zmq, delivery};

const KINDS: [&str; 4] = ["kafka", "log", "mqtt", "zmq"];
const CHOOSE: &str = "write \"kafka\", \"mqtt\", \"zmq\" or \"log\"";

/// Every destination, by name; none of them if one is wrong.
pub(super) fn read(
    section: &Table<'_>,
    base: Base<'_>,
    segment_size: Option<u64>,
    warnings: &mut Vec<String>,
) -> Option<Vec<Destination>> {
    let found: Vec<_> = section
        .entries()
        .map(|(name, field)| destination(name, &field, base, segment_size, warnings))
        .collect();
    let found: Option<Vec<_>> = found.into_iter().collect();
    let all: Vec<_> = found.iter().flatten().collect();
    tell_apart(section, &all, client, PartialEq::eq, |_, _| {
        "have the same client_id on one broker, which ends the connection of one whenever the other connects; write \
         another for one of them"
            .to_owned()
    });
    tell_apart(
        section,
        &all,
        socket,
        |one, other| are_one(one, other),
        |one, other| match one.bind == other.bind {
            true => format!("both bind {}; write another address for one of them", one.bind),
            false => format!(
                "bind {} and {}, of which only one can be; write another port for one of them",
                one.bind, other.bind
            ),
        },
    );
    found
}

/// What a broker knows a client by, if it is configured.
fn client(kind: &DestinationKind) -> Option<(&String, &String, u16)> {
    match kind {
        DestinationKind::Mqtt(mqtt) => Some((mqtt.client_id.as_ref()?, &mqtt.host, mqtt.port)),
        _ => None,
    }
}

/// Where a socket is: a second one cannot be bound there or, at a path, takes that away from the first without a word.
fn socket(kind: &DestinationKind) -> Option<&Zmq> {
    match kind {
        DestinationKind::Zmq(zmq) => Some(zmq),
        _ => None,
    }
}

fn are_one(one: &Zmq, other: &Zmq) -> bool {
    let ports = one.tcp().zip(other.tcp());
    one.bind == other.bind || ports.is_some_and(|(one, other)| overlap(one, other))
}

/// That no destination listens where the gateway itself does.
pub(super) fn ports_apart(section: &Table<'_>, all: &[Destination], taken: &[(&str, Option<SocketAddr>)]) {
    for destination in all {
        let Some(own) = socket(&destination.kind).and_then(Zmq::tcp) else {
            continue;
        };
        let other = taken.iter().filter_map(|(key, address)| Some((key, (*address)?)));
        for (key, address) in other.filter(|(_, address)| overlap(own, *address)) {
            section.mistake(format_args!(
                "{} binds tcp://{own}, which is taken by {key} = \"{address}\"; write another port",
                destination.name
            ));
        }
    }
}

/// That no two destinations have the same of what only one can have.
fn tell_apart<'a, K>(
    section: &Table<'_>,
    all: &[&'a Destination],
    what: impl Fn(&'a DestinationKind) -> Option<K>,
    clash: impl Fn(&K, &K) -> bool,
    words: impl Fn(&K, &K) -> String,
) {
    for (at, destination) in all.iter().enumerate() {
        let Some(own) = what(&destination.kind) else { continue };
        let mut before = all[..at].iter().filter_map(|other| Some((other, what(&other.kind)?)));
        if let Some((other, its)) = before.find(|(_, its)| clash(its, &own)) {
            section.mistake(format_args!(
                "{} and {} {}",
                other.name,
                destination.name,
                words(&its, &own)
            ));
        }
    }
}

fn destination(
    name: &str,
    field: &Field<'_>,
    base: Base<'_>,
    segment_size: Option<u64>,
    warnings: &mut Vec<String>,
) -> Option<Destination> {
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
        "kafka" => (kafka(name, &table, base, warnings).map(DestinationKind::Kafka), true),
        "mqtt" => (
            mqtt::mqtt(name, &table, base, warnings).map(DestinationKind::Mqtt),
            true,
        ),
        "log" => (log(&table, base).map(DestinationKind::Log), false),
        "zmq" => (zmq::zmq(name, &table, base, warnings).map(DestinationKind::Zmq), false),
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
    let delivery = delivery::read(&table, base, required, fixed_format, segment_size, warnings);
    table.finish();
    Some(Destination {
        name: name.to_owned(),
        required: required?,
        delivery: delivery?,
        kind: kind?,
    })
    .filter(|_| usable)
}

fn kafka(name: &str, table: &Table<'_>, base: Base<'_>, warnings: &mut Vec<String>) -> Option<Kafka> {
    let namespace = table.required("namespace", "topics are named {namespace}_{record type}");
    let namespace = namespace.and_then(|field| topic_namespace(&field));
    let secrets = ["password_file", "key_password_file"].map(|key| table.field(key));
    let field = table.required("properties", "write at least { \"bootstrap.servers\" = \"HOST:PORT\" }")?;
    let properties = kafka_properties::read(name, &field, base, warnings);
    let secret_files = kafka_properties::secret_files(secrets, &properties, base);
    Some(Kafka {
        namespace: namespace?,
        properties,
        secret_files: secret_files?,
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

fn log(table: &Table<'_>, base: Base<'_>) -> Option<Log> {
    match table.field("path").map(|field| base.path(&field)) {
        Some(path) => Some(Log { path: Some(path?) }),
        None => Some(Log { path: None }),
    }
}
