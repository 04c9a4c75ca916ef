//! The `[records]` section: which record types go where.
//!
//! Invariant: every destination that a type goes to exists. What goes nowhere is allowed, and said.

use std::collections::BTreeSet;

use super::nearest::nearest;
use super::reader::Table;
use super::{Destination, DestinationKind, MqttLayout, Routes};
use crate::record::payload::Kind;

const NOT_KEPT: &str = "such records are acknowledged, counted and not kept";
/// Record types that vehicles of today send; another one is allowed, another spelling of one of these is suspicious.
const USUAL_TYPES: [&str; 4] = ["V", "alerts", "errors", "connectivity"];

/// Reads which record types go to which of the destinations with these names.
pub(super) fn read(table: &Table<'_>, names: &BTreeSet<&str>, warnings: &mut Vec<String>) -> Option<Routes> {
    let mut routes = Routes::default();
    let mut used = BTreeSet::new();
    for (record_type, field) in table.entries() {
        let usable = (1..=64).contains(&record_type.len())
            && record_type
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
        if record_type != "*" && !usable {
            field.mistake("is not a record type; write 1 to 64 of the characters a-z A-Z 0-9 _ - . or \"*\"");
            continue;
        }
        if let Some(usual) = USUAL_TYPES.iter().find(|usual| usual.eq_ignore_ascii_case(record_type))
            && *usual != record_type
        {
            warnings.push(format!("records.{record_type}: vehicles name this record type {usual}"));
        }
        let mut destinations = BTreeSet::new();
        let named = field.strings();
        let is_nowhere = named.is_empty();
        for (name, element) in named {
            used.insert(name);
            if names.contains(name) {
                destinations.insert(name.to_owned());
                continue;
            }
            let hint = match nearest(name, names.iter().copied()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None if names.is_empty() => format!("add a [destinations.{name}]"),
                None => format!("there are: {}", names.iter().copied().collect::<Vec<_>>().join(", ")),
            };
            element.refuse(format_args!("is not a destination; {hint}"));
        }
        if is_nowhere {
            warnings.push(format!("records.{record_type}: goes to no destination: {NOT_KEPT}"));
        }
        match record_type {
            "*" => routes.others = destinations,
            _ => drop(routes.by_type.insert(record_type.to_owned(), destinations)),
        }
    }
    if used.is_empty() {
        table.mistake("no record type goes to any destination; write for example V = [\"NAME\"]");
    }
    if table.field("*").is_none() {
        // The gateway makes connectivity records itself, and only where they are routed.
        let missing = USUAL_TYPES
            .iter()
            .filter(|name| **name != "connectivity" && !routes.by_type.contains_key(**name));
        let missing: Vec<&str> = missing.copied().collect();
        if !missing.is_empty() {
            warnings.push(format!(
                "records: {} and \"*\", every other type, are not named: {NOT_KEPT}",
                missing.join(", ")
            ));
        }
    }
    for name in names.difference(&used) {
        warnings.push(format!("destinations.{name}: no record type is routed to it"));
    }
    Some(routes)
}

/// Says which types go to a broker that has no topics for them.
pub(super) fn without_topics(routes: &Routes, destinations: &[Destination], warnings: &mut Vec<String>) {
    let by_type = routes.by_type.iter();
    let unknown = by_type
        .filter(|(record_type, _)| Kind::of(record_type).is_none())
        .map(|(record_type, to)| (record_type.as_str(), "this type", to));
    let others = ("\"*\"", "types that the gateway does not know", &routes.others);
    for (key, types, to) in unknown.chain([others]) {
        for Destination { name, kind, .. } in destinations.iter().filter(|one| to.contains(&one.name)) {
            if matches!(kind, DestinationKind::Mqtt(mqtt) if mqtt.layout == MqttLayout::Fields) {
                warnings.push(format!(
                    "records.{key}: destinations.{name} has no topics for records of {types}: each is kept as a dead \
                     letter; layout = \"records\" has a topic for every type"
                ));
            }
        }
    }
}
