//! `records`: which record type goes where. A dispatcher of Tesla's server is a destination here, by its own name but
//! for `logger`, which is `log`.
//!
//! Invariant: a type is routed only to destinations that are written, and every dispatcher that is not one is named.

use super::draft::{Draft, Entry, Section, list};
use super::json::{Json, Object};
use crate::config::nearest;

/// Dispatcher, and the name of the destination that it becomes.
const DESTINATIONS: [(&str, &str); 4] = [("kafka", "kafka"), ("mqtt", "mqtt"), ("zmq", "zmq"), ("logger", "log")];
/// Dispatchers that the gateway has no destination for.
pub(super) const ELSEWHERE: [&str; 3] = ["kinesis", "pubsub", "redis"];

/// Record types with the dispatchers that they go to.
pub(super) struct Routes<'j> {
    types: Vec<(&'j str, Vec<&'static str>)>,
}

impl<'j> Routes<'j> {
    pub(super) fn read(root: &Object<'j>, draft: &mut Draft) -> Self {
        let mut types = Vec::new();
        let Some(records) = root.object("records", draft) else {
            return Self { types };
        };
        for (name, value) in records.entries(draft) {
            let path = records.path(name);
            if name == "*" {
                draft.lost(
                    path,
                    "is every type that is not named, here, and a type like any other there; write it if that is meant",
                );
                continue;
            }
            let dispatchers = dispatchers(root, &path, value, draft);
            let delivered = dispatchers.iter().any(|dispatcher| destination(dispatcher).is_some());
            if !delivered {
                let to = match dispatchers.as_slice() {
                    [] => "nowhere".to_owned(),
                    some => format!("to {} alone", some.join(" and ")),
                };
                draft.lost(
                    path,
                    format!("would go {to}: it is acknowledged and not kept; give it a destination in [records]"),
                );
            }
            types.push((name, dispatchers));
        }
        Self { types }
    }

    /// The types that go to a dispatcher.
    pub(super) fn to(&self, dispatcher: &str) -> Vec<&'j str> {
        let routed = self.types.iter();
        let routed = routed.filter(|(_, dispatchers)| dispatchers.contains(&dispatcher));
        routed.map(|(name, _)| *name).collect()
    }

    /// Whether anything is delivered at all.
    pub(super) fn any(&self) -> bool {
        self.types
            .iter()
            .any(|(_, dispatchers)| dispatchers.iter().any(|name| destination(name).is_some()))
    }

    pub(super) fn write(&self, draft: &mut Draft) {
        let mut section = Section::new("records");
        section.comment("Record type = destinations. What is not routed is acknowledged and not kept.");
        for (name, dispatchers) in &self.types {
            let destinations: Vec<&str> = dispatchers.iter().filter_map(|name| destination(name)).collect();
            if !destinations.is_empty() {
                section.entry(Entry::new(name, list(&destinations), format!("records.{name}")));
            }
        }
        draft.section(section);
    }
}

/// The destination that a dispatcher has become, if it has.
fn destination(dispatcher: &str) -> Option<&'static str> {
    let mut found = DESTINATIONS.iter().filter(|(name, _)| *name == dispatcher);
    found.next().map(|(_, destination)| *destination)
}

/// The dispatchers of one type that are known, and have the section that they need.
fn dispatchers(root: &Object<'_>, path: &str, value: &Json, draft: &mut Draft) -> Vec<&'static str> {
    let mut found = Vec::new();
    let Json::Array(elements) = value else {
        draft.lost(path, "is not an array of dispatchers; write for example [\"kafka\"]");
        return found;
    };
    let known = || DESTINATIONS.iter().map(|(name, _)| *name).chain(ELSEWHERE);
    for element in elements {
        let Json::Text(name) = element else {
            draft.lost(
                path,
                "has an element that is not a string; write for example [\"kafka\"]",
            );
            continue;
        };
        match known().find(|dispatcher| dispatcher == name) {
            Some(dispatcher) if found.contains(&dispatcher) => {}
            Some(dispatcher) if DESTINATIONS.iter().any(|(name, _)| *name == dispatcher) => {
                match dispatcher == "logger" || matches!(root.value(dispatcher), Some(Json::Object(_))) {
                    true => found.push(dispatcher),
                    false => draft.lost(
                        path,
                        format!("goes to {dispatcher}, for which there is no section; write \"{dispatcher}\": {{…}}"),
                    ),
                }
            }
            Some(dispatcher) => found.push(dispatcher),
            None => {
                let hint = match nearest(name, known()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("known are {}", known().collect::<Vec<_>>().join(", ")),
                };
                draft.lost(path, format!("goes to {name:?}, which is not known; {hint}"));
            }
        }
    }
    found
}
