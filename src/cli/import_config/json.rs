//! The file that is read: JSON that keeps the order of its keys and those that are there twice.
//!
//! Invariant: a key is asked for, or named by [`Object::finish`]. Nothing that the file says goes by unnoticed.

use std::cell::RefCell;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use super::draft::Draft;
use crate::config::nearest;

/// A value of the file.
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// A value that says no more than its absence would, as Tesla's server reads it.
    pub(super) fn is_nothing(&self) -> bool {
        match self {
            Json::Null | Json::Bool(false) => true,
            Json::Bool(true) => false,
            Json::Number(number) => number.as_f64() == Some(0.0),
            Json::Text(text) => text.is_empty(),
            Json::Array(values) => values.is_empty(),
            Json::Object(entries) => entries.is_empty(),
        }
    }
}

/// An object of the file, with the path that leads to it.
pub(super) struct Object<'j> {
    path: String,
    entries: &'j [(String, Json)],
    known: RefCell<Vec<&'static str>>,
}

impl<'j> Object<'j> {
    pub(super) fn root(entries: &'j [(String, Json)]) -> Self {
        Self::at(String::new(), entries)
    }

    fn at(path: String, entries: &'j [(String, Json)]) -> Self {
        Self {
            path,
            entries,
            known: RefCell::default(),
        }
    }

    /// The full name of a key in this object.
    pub(super) fn path(&self, name: &str) -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let name = match !name.is_empty() && name.bytes().all(plain) {
            true => name.to_owned(),
            false => format!("{name:?}"),
        };
        match self.path.as_str() {
            "" => name,
            path => format!("{path}.{name}"),
        }
    }

    /// The value of a key. Tesla's server takes a key in other letter case as well, and the last of two.
    pub(super) fn value(&self, name: &'static str) -> Option<&'j Json> {
        self.known.borrow_mut().push(name);
        let found = self.entries.iter().rev();
        let mut found = found.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found
            .next()
            .map(|(_, value)| value)
            .filter(|value| !matches!(value, Json::Null))
    }

    /// A text with something in it.
    pub(super) fn text(&self, name: &'static str, draft: &mut Draft) -> Option<&'j str> {
        match self.value(name)? {
            Json::Text(text) => Some(text.as_str()).filter(|text| !text.is_empty()),
            _ => self.wrong(name, "a string", draft),
        }
    }

    /// An array of texts, if there is one in it.
    pub(super) fn texts(&self, name: &'static str, draft: &mut Draft) -> Option<Vec<&'j str>> {
        let text = |value: &'j Json| match value {
            Json::Text(text) => Some(text.as_str()),
            _ => None,
        };
        let texts = match self.value(name)? {
            Json::Array(values) => values.iter().map(text).collect(),
            _ => None,
        };
        match texts {
            Some(texts) => Some(texts).filter(|texts: &Vec<_>| !texts.is_empty()),
            None => self.wrong(name, "an array of strings", draft),
        }
    }

    /// A whole number that is not 0: that is no number to Tesla's server.
    pub(super) fn number(&self, name: &'static str, draft: &mut Draft) -> Option<i64> {
        match self.value(name)? {
            Json::Number(number) if number.is_i64() => number.as_i64().filter(|number| *number != 0),
            _ => self.wrong(name, "a whole number", draft),
        }
    }

    pub(super) fn flag(&self, name: &'static str, draft: &mut Draft) -> bool {
        match self.value(name) {
            None => false,
            Some(Json::Bool(value)) => *value,
            Some(_) => self.wrong(name, "true or false", draft).unwrap_or_default(),
        }
    }

    pub(super) fn object(&self, name: &'static str, draft: &mut Draft) -> Option<Object<'j>> {
        match self.value(name)? {
            Json::Object(entries) => Some(Object::at(self.path(name), entries)),
            _ => self.wrong(name, "an object", draft),
        }
    }

    fn wrong<T>(&self, name: &str, what: &str, draft: &mut Draft) -> Option<T> {
        // The value is not shown: it may be a password.
        draft.lost(
            self.path(name),
            format!("is not {what}, and Tesla's server would not start with it; correct it there"),
        );
        None
    }

    /// Every entry of an object whose keys are names of the user's choice: the last of each name.
    pub(super) fn entries(&self, draft: &mut Draft) -> Vec<(&'j str, &'j Json)> {
        let mut entries: Vec<(&str, &Json)> = Vec::new();
        for (name, value) in self.entries {
            match entries.iter_mut().find(|(earlier, _)| earlier == name) {
                Some(earlier) => {
                    draft.lost(self.path(name), TWICE);
                    earlier.1 = value;
                }
                None => entries.push((name, value)),
            }
        }
        entries
    }

    /// Names every key that was not asked for, and those that are there twice.
    pub(super) fn finish(&self, draft: &mut Draft) {
        let known = self.known.borrow();
        let mut seen: Vec<&str> = Vec::new();
        for (name, _) in self.entries {
            match known.iter().find(|key| key.eq_ignore_ascii_case(name)) {
                Some(key) if seen.contains(key) => draft.lost(self.path(name), TWICE),
                Some(key) => seen.push(key),
                None => {
                    let hint = match nearest(name, known.iter().copied()) {
                        Some(near) => format!("did you mean {near:?}?"),
                        None => format!("known here: {}", known.join(", ")),
                    };
                    draft.lost(self.path(name), format!("is not known, and was not read; {hint}"));
                }
            }
        }
    }
}

const TWICE: &str = "is there twice; the last one counts, remove the other";

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        // JSON text holds no other floats than finite ones.
        Ok(Number::from_f64(value).map_or(Json::Null, Json::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(element) = elements.next_element()? {
            array.push(element);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            object.push(entry);
        }
        Ok(Json::Object(object))
    }
}
