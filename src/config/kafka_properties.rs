//! librdkafka's properties in a `type = "kafka"` destination, and the secrets beside them.
//!
//! Invariant: no property gets through that would have a record lost, doubled within a session, swapped with another or
//! given up on; and none that the gateway's own use of the library would be broken by.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::paths::Base;
use super::reader::Field;
use super::secret;

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
        &["queuing.strategy"],
        "the gateway sends records in their order; another strategy would swap them",
    ),
    (
        &["delivery.report.only.error", "dr_cb", "dr_msg_cb"],
        "the gateway needs every delivery report; a record counts as delivered only by its own",
    ),
    (
        &["enabled_events", "log.queue"],
        "the gateway listens to librdkafka itself; what is said elsewhere would pile up unheard",
    ),
    (
        &["queue.buffering.max.messages", "queue.buffering.max.kbytes"],
        "the gateway bounds what is in flight itself",
    ),
    (
        &["topic.blacklist"],
        "a topic that it hides would count as missing, and the records for it would hold back all others",
    ),
    (
        &["plugin.library.paths"],
        "a plugin could change or drop records on their way",
    ),
    (
        &["internal.termination.signal"],
        "signals are the gateway's; one that librdkafka takes would no longer stop or reload it",
    ),
    (
        &[
            "api.version.request",
            "api.version.fallback.ms",
            "broker.version.fallback",
        ],
        "the gateway needs brokers with headers and idempotence, and librdkafka has to ask them for it",
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

/// librdkafka's own batch size, in bytes, a little below what brokers take by default.
const LARGEST_BATCH: u64 = 1_000_000;

/// What librdkafka is built with here.
pub(crate) const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// Properties that name a file or directory.
pub(crate) const PATHS: [&str; 5] = [
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.crl.location",
    "ssl.keystore.location",
];

/// Every property, as text; paths start where the configuration's own do.
pub(super) fn read(
    name: &str,
    field: &Field<'_>,
    base: Base<'_>,
    warnings: &mut Vec<String>,
) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    for (name, value, property) in field.flattened() {
        check(&name, &value, &property);
        // "probe" is librdkafka's word for the places where systems keep their authorities.
        let value = match PATHS.contains(&&*name) && value != "probe" {
            true => base.path(&property).map_or(value, |path| path.display().to_string()),
            false => value,
        };
        let value = match name == "batch.size" && value.parse().is_ok_and(|bytes: u64| bytes > LARGEST_BATCH) {
            true => {
                warnings.push(format!(
                    "{}: {value} is more than brokers take in one batch, and a batch is refused as a whole: {LARGEST_BATCH} is used",
                    property.key()
                ));
                LARGEST_BATCH.to_string()
            }
            false => value,
        };
        properties.insert(name, value);
    }
    if properties.get("bootstrap.servers").is_none_or(String::is_empty) {
        field.mistake("\"bootstrap.servers\" is missing; name the brokers, for example \"kafka.example.com:9092\"");
    }
    security(name, &properties, field, warnings);
    properties
}

/// A property's own name, where it has librdkafka's prefix for those of topics.
pub(crate) fn without_prefix(name: &str) -> Option<&str> {
    let plain = name.strip_prefix("topic.")?;
    // These are called so.
    (plain != "blacklist" && !plain.starts_with("metadata.")).then_some(plain)
}

fn check(name: &str, value: &str, property: &Field<'_>) {
    if let Some(plain) = without_prefix(name) {
        property.refuse(format_args!("is not allowed under this name: write {plain:?}"));
    }
    if let Some((_, reason)) = KEPT_PROPERTIES.iter().find(|(names, _)| names.contains(&name)) {
        property.refuse(format_args!("is not allowed: {reason}; remove it"));
    }
    if name.starts_with("test.mock.") {
        property.refuse("is not allowed: its brokers are part of librdkafka and keep nothing; remove it");
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
        "linger.ms" | "queue.buffering.max.ms"
            if !value.parse().is_ok_and(|wait: f64| (0.0..=1000.0).contains(&wait)) =>
        {
            property.refuse(
                "is not allowed: behind a refusal records are tried one at a time, and each would wait so long; write \
                 0 to 1000",
            );
        }
        "socket.max.fails" if value == "0" => property.refuse(
            "is not allowed: a connection on which nobody answers would never be given up, and nothing would arrive; \
             write 1",
        ),
        "sasl.mechanism" | "sasl.mechanisms" if !MECHANISMS.contains(&value) => property.refuse(format_args!(
            "is not in this build; write one of {}",
            MECHANISMS.join(", ")
        )),
        "metadata.broker.list" => property.refuse("is not allowed under this name; write it as \"bootstrap.servers\""),
        _ => {}
    }
}

fn protocol(properties: &BTreeMap<String, String>) -> (bool, bool) {
    let protocol = properties
        .get("security.protocol")
        .map(|value| value.to_ascii_lowercase());
    let protocol = protocol.as_deref().unwrap_or("plaintext");
    (protocol.starts_with("sasl_"), protocol.ends_with("ssl"))
}

/// What would not be used, or protects less than it looks like.
fn security(name: &str, properties: &BTreeMap<String, String>, field: &Field<'_>, warnings: &mut Vec<String>) {
    let (sasl, encrypted) = protocol(properties);
    let set = |name: &str| properties.get(name).map(String::as_str);
    let mechanism = set("sasl.mechanism").or(set("sasl.mechanisms"));
    if sasl && mechanism.is_none() {
        field.mistake(format_args!(
            "\"sasl.mechanism\" is missing; write one of {}, as the broker wants it",
            MECHANISMS.join(", ")
        ));
    }
    let mut warn = |what: &str| warnings.push(format!("destinations.{name}: {what}"));
    for (prefix, used, instead) in [("sasl.", sasl, "sasl_ssl"), ("ssl.", encrypted, "ssl or sasl_ssl")] {
        if let Some(idle) = properties
            .keys()
            .find(|name| name.starts_with(prefix))
            .filter(|_| !used)
        {
            warn(&format!(
                "{idle} has no effect without \"security.protocol\" = {instead}"
            ));
        }
    }
    if sasl && !encrypted && mechanism == Some("PLAIN") {
        warn("the password goes to the brokers unencrypted; \"security.protocol\" = \"sasl_ssl\" would protect it");
    }
    let off = |name: &str, value: &str| encrypted && set(name).is_some_and(|is| is.eq_ignore_ascii_case(value));
    if off("enable.ssl.certificate.verification", "false") || off("ssl.endpoint.identification.algorithm", "none") {
        warn(
            "whoever is between this machine and the brokers can pass for one of them: their certificates or names \
              are not verified",
        );
    }
}

/// The files of the secrets, by the property that each is for; `None` when something is wrong with one.
pub(super) fn secret_files(
    [password, key_password]: [Option<Field<'_>>; 2],
    properties: &BTreeMap<String, String>,
    base: Base<'_>,
) -> Option<BTreeMap<String, PathBuf>> {
    let (sasl, encrypted) = protocol(properties);
    let mut files = BTreeMap::new();
    if let Some(field) = &password {
        if !sasl {
            field.mistake("has no effect without \"security.protocol\" = \"sasl_ssl\" among the properties");
        } else if !properties.contains_key("sasl.username") {
            field.mistake("\"sasl.username\" is missing among the properties; a password needs one");
        }
    }
    if let Some(field) = &key_password
        && !(encrypted && properties.contains_key("ssl.key.location"))
    {
        field.mistake(
            "has no effect without \"ssl.key.location\" and \"security.protocol\" = \"ssl\" or \"sasl_ssl\" among the \
             properties",
        );
    }
    for (field, property) in [(password, "sasl.password"), (key_password, "ssl.key.password")] {
        let Some(field) = field else { continue };
        if properties.contains_key(property) {
            field.mistake(format_args!("{property} is there too; leave one of the two"));
        }
        let path = base.path(&field)?;
        secret::checked(&field, &path, base)?;
        files.insert(property.to_owned(), path);
    }
    Some(files)
}
