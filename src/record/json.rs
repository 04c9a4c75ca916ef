//! The `decoded` form: a transformed payload as proto3's canonical JSON.
//!
//! Every field is there: one that is not set with its default, a message that is not set as `null`; only members of a oneof
//! that are not set are left out. What this build does not know has no place in JSON and is left out too.

use std::fmt::Write;

use crate::record::payload::{
    Kind, PayloadError,
    schema::{self, Shape},
    time,
    tree::{self, Message, Value},
};

/// Why a payload has no JSON form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The gateway does not know what is in records of this type.
    #[error("records of the type `{0}` have no JSON form: what is in them is not known")]
    NotDecodable(String),
    /// The payload does not decode.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// A time outside of the years 1 to 9999, for which JSON has no name.
    #[error("the time of {seconds} s and {nanos} ns since the epoch has no JSON form")]
    Time {
        /// Its seconds.
        seconds: i64,
        /// Its nanoseconds.
        nanos: i32,
    },
}

/// A transformed payload as JSON, without white space.
pub fn decoded(record_type: &str, transformed: &[u8]) -> Result<String, JsonError> {
    let kind = Kind::of(record_type).ok_or_else(|| JsonError::NotDecodable(record_type.into()))?;
    let message = tree::decode(kind, transformed)?;
    let mut out = String::with_capacity(transformed.len() * 4);
    put_message(&mut out, &message)?;
    Ok(out)
}

fn put_message(out: &mut String, message: &Message<'_>) -> Result<(), JsonError> {
    if message.of.name == "google.protobuf.Timestamp" {
        let (seconds, nanos) = (message.int(1), message.int(2) as i32);
        let text = time::with_nanos(seconds, nanos).ok_or(JsonError::Time { seconds, nanos })?;
        put_string(out, &text);
        return Ok(());
    }
    out.push('{');
    let mut separator = "";
    for field in message.of.fields() {
        let value = message.get(field.number);
        if value.is_none() && field.in_oneof {
            continue;
        }
        out.push_str(separator);
        separator = ",";
        put_string(out, field.json_name);
        out.push(':');
        match value {
            Some(value) => put_value(out, value)?,
            None => put_default(out, field),
        }
    }
    out.push('}');
    Ok(())
}

fn put_default(out: &mut String, field: &schema::Field) {
    if field.repeated {
        out.push_str("[]");
        return;
    }
    match field.shape {
        Shape::Bool => out.push_str("false"),
        Shape::Int32 | Shape::Float | Shape::Double => out.push('0'),
        Shape::Int64 => out.push_str("\"0\""),
        Shape::String => out.push_str("\"\""),
        Shape::Enum(place) => put_enum(out, schema::Enum::at(place), 0),
        Shape::Message(_) => out.push_str("null"),
        Shape::Map(_) => out.push_str("{}"),
    }
}

fn put_value(out: &mut String, value: &Value<'_>) -> Result<(), JsonError> {
    match value {
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Int32(number) => put_integer(out, i64::from(*number)),
        Value::Int64(number) => {
            out.push('"');
            put_integer(out, *number);
            out.push('"');
        }
        Value::Float(number) => {
            if !put_f32(out, *number) {
                out.push_str(not_a_number(f64::from(*number)));
            }
        }
        Value::Double(number) => {
            if !put_f64(out, *number) {
                out.push_str(not_a_number(*number));
            }
        }
        Value::String(text) => put_string(out, text),
        Value::Enum(names, number) => put_enum(out, names, *number),
        Value::Message(message) => put_message(out, message)?,
        Value::List(values) => {
            out.push('[');
            for (place, value) in values.iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                put_value(out, value)?;
            }
            out.push(']');
        }
        Value::Map(entries) => put_map(out, entries.iter().map(|(key, value)| (*key, *value))),
    }
    Ok(())
}

fn not_a_number(number: f64) -> &'static str {
    if number.is_nan() {
        "\"NaN\""
    } else if number > 0.0 {
        "\"Infinity\""
    } else {
        "\"-Infinity\""
    }
}

/// An enum's value: its name, or its number where it has none.
pub(crate) fn put_enum(out: &mut String, names: &'static schema::Enum, number: i32) {
    match names.name(number) {
        Some(name) => put_string(out, name),
        None => put_integer(out, i64::from(number)),
    }
}

/// An object of strings.
pub(crate) fn put_map<'a>(out: &mut String, entries: impl Iterator<Item = (&'a str, &'a str)>) {
    out.push('{');
    for (place, (key, value)) in entries.enumerate() {
        if place > 0 {
            out.push(',');
        }
        put_string(out, key);
        out.push(':');
        put_string(out, value);
    }
    out.push('}');
}

pub(crate) fn put_integer(out: &mut String, number: i64) {
    // Writing to a string does not fail.
    let _infallible = write!(out, "{number}");
}

/// The shortest decimal that reads as the same 32-bit float; `false`, with nothing written, if it is not finite.
pub(crate) fn put_f32(out: &mut String, number: f32) -> bool {
    let size = number.abs();
    if !size.is_finite() {
        return false;
    }
    let _infallible = if size == 0.0 || (1e-6..1e21).contains(&size) {
        write!(out, "{number}")
    } else {
        write!(out, "{number:e}")
    };
    true
}

/// The shortest decimal that reads as the same 64-bit float; `false`, with nothing written, if it is not finite.
pub(crate) fn put_f64(out: &mut String, number: f64) -> bool {
    let size = number.abs();
    if !size.is_finite() {
        return false;
    }
    let _infallible = if size == 0.0 || (1e-6..1e21).contains(&size) {
        write!(out, "{number}")
    } else {
        write!(out, "{number:e}")
    };
    true
}

/// A string in quotes, with what JSON does not allow in one escaped.
pub(crate) fn put_string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f => "",
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        plain = at + 1;
        if escape.is_empty() {
            let _infallible = write!(out, "\\u{byte:04x}");
        } else {
            out.push_str(escape);
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
