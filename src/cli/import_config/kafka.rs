//! `kafka`: librdkafka's properties, as they are.
//!
//! Invariant: which of them may be set is for the parser of the configuration to say; those of the Go client, which
//! librdkafka does not know, are all that is sorted out here.

use super::draft::{Draft, Entry, Section, text};
use super::json::{Json, Object};
use super::routes::Routes;
use crate::config::kafka_properties;

const BROKERS: &str = "bootstrap.servers";
const MECHANISM: &str = "sasl.mechanism";
const ANY_MECHANISM: &str = "SCRAM-SHA-512";
pub(super) const NAMESPACE: &str = "telemetry";

pub(super) fn write(root: &Object<'_>, routes: &Routes<'_>, draft: &mut Draft) {
    let Some(kafka) = root.object("kafka", draft) else {
        return;
    };
    if routes.to("kafka").is_empty() {
        draft.lost(
            "kafka",
            "no record type goes there, so it is left out; route one to it first",
        );
        return;
    }
    let mut section = Section::new("destinations.kafka");
    section.entry(Entry::new("type", text("kafka"), "kafka.type"));
    let namespace = namespace(root, draft);
    section.entry(Entry::new("namespace", text(namespace), "namespace").or(NAMESPACE));
    decoded(root, &mut section, draft);
    let entries = kafka.entries(draft);
    for (property, key) in [
        ("sasl.password", "password_file"),
        ("ssl.key.password", "key_password_file"),
    ] {
        if entries.iter().any(|(name, _)| *name == property) {
            section.comment(format!(
                "A file is easier to protect: write the password into it, and this line instead of {property} below."
            ));
            section.unset(&format!(
                "{key} = \"/etc/waystation/kafka-{}\"",
                key.trim_end_matches("_file").replace('_', "-")
            ));
        }
    }
    draft.section(section);

    let mut properties = Section::new("destinations.kafka.properties");
    let written = |name: &str| {
        let found = entries.iter().find(|(key, _)| *key == name);
        found
            .and_then(|(_, value)| property(value))
            .filter(|value| !value.is_empty())
    };
    let from = [BROKERS, "metadata.broker.list"].into_iter();
    let mut from = from.filter_map(|name| Some((name, written(name)?)));
    match from.next() {
        Some((name, brokers)) => properties.entry(Entry::new(BROKERS, text(&brokers), kafka.path(name))),
        None => {
            let instead = "kafka.example.com:9092";
            draft.lost(
                kafka.path(BROKERS),
                format!("is not there; {instead:?} stands in its place, change it to your brokers"),
            );
            properties.entry(Entry::new(BROKERS, text(instead), kafka.path(BROKERS)));
        }
    }
    if from.next().is_some() {
        draft.lost(
            kafka.path("metadata.broker.list"),
            "bootstrap.servers is there too, and counts",
        );
    }
    for (name, value) in &entries {
        let path = kafka.path(name);
        match property(value) {
            _ if *name == BROKERS || *name == "metadata.broker.list" => {}
            _ if name.starts_with("go.") => {
                draft.lost(path, "is the Go client's own; there is nothing to write for it")
            }
            Some(value) => {
                let plain = kafka_properties::without_prefix(name);
                match plain.filter(|plain| entries.iter().any(|(other, _)| other == plain)) {
                    Some(plain) => draft.lost(path, format!("{plain} is there too, and counts")),
                    None => {
                        let entry = Entry::new(plain.unwrap_or(name), text(&value), path);
                        properties.entry(match is_mechanism(name) {
                            true => entry.or(&mechanism_instead(&value)),
                            false => entry,
                        });
                    }
                }
            }
            None => draft.lost(
                path,
                "is not a string, a number or a boolean; write the property as one of these",
            ),
        }
    }
    let named = |(name, value): &(&str, &Json)| is_mechanism(name) && property(value).is_some();
    let sasl = written("security.protocol").is_some_and(|protocol| protocol.to_ascii_lowercase().starts_with("sasl_"));
    if sasl && !entries.iter().any(named) {
        let path = kafka.path(MECHANISM);
        draft.lost(
            path.clone(),
            format!(
                "is not there, which is GSSAPI, and not in this build; {ANY_MECHANISM:?} stands in its place, change it \
                 to what your brokers want"
            ),
        );
        properties.entry(Entry::new(MECHANISM, text(ANY_MECHANISM), path));
    }
    draft.section(properties);
}

fn is_mechanism(name: &str) -> bool {
    [MECHANISM, "sasl.mechanisms"].contains(&kafka_properties::without_prefix(name).unwrap_or(name))
}

/// What stands in place of one that the gateway does not have: SASL needs one, so that it cannot be left out.
fn mechanism_instead(value: &str) -> String {
    match value.to_ascii_uppercase() {
        upper if kafka_properties::MECHANISMS.contains(&&*upper) => upper,
        _ => ANY_MECHANISM.to_owned(),
    }
}

/// Whether records are sent decoded.
pub(super) fn decoded(root: &Object<'_>, section: &mut Section, draft: &mut Draft) {
    const KEY: &str = "transmit_decoded_records";
    if root.flag(KEY, draft) {
        section.entry(Entry::new("format", text("json"), KEY));
    }
}

/// What begins the names of topics.
pub(super) fn namespace<'j>(root: &Object<'j>, draft: &mut Draft) -> &'j str {
    root.text("namespace", draft).unwrap_or_else(|| {
        draft.lost(
            "namespace",
            format!(
                "is not there, so that topics began with \"_\"; {NAMESPACE:?} stands in its place, change it and tell \
                 consumers"
            ),
        );
        NAMESPACE
    })
}

/// As librdkafka reads it.
fn property(value: &Json) -> Option<String> {
    match value {
        Json::Text(text) => Some(text.clone()),
        Json::Bool(value) => Some(value.to_string()),
        Json::Number(number) => match number.as_f64() {
            // 1e3 and 1000.0 are whole numbers, which librdkafka wants without a point.
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15 => Some(format!("{float:.0}")),
            _ => Some(number.to_string()),
        },
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}
