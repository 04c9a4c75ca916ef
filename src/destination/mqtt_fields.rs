//! The `fields` layout of MQTT: a record as one message per field, alert, error or connection event, each with a JSON payload.
//!
//! Invariant: a topic has exactly the levels that the layout gives it; nothing that a vehicle sends can add one, end one or
//! become a wildcard. Names that differ only in what [`clean`] replaces share a topic: each is published there, in the
//! record's order, so that nothing is lost without a trace; only a retained topic then shows the last one alone.

use std::{borrow::Cow, collections::HashMap};

use crate::record::{
    json::{put_enum, put_f32, put_f64, put_integer, put_map, put_string},
    payload::{
        Kind, PayloadError,
        schema::{self, Shape},
        time,
        tree::{self, Message as Tree, Value},
    },
};

/// The longest a topic level may be. A topic as a whole has room for 65,535 bytes in MQTT.
const MAX_LEVEL_BYTES: usize = 1_024;

/// One message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The topic below `{base}/`.
    pub topic: String,
    /// The JSON.
    pub payload: Vec<u8>,
    /// Whether a number in it was not finite and became `null`, which is to be counted.
    pub not_finite: bool,
}

/// Why a record has no fields.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    /// The gateway does not know what is in it.
    #[error("layout = \"fields\" has no topics for records of this type; layout = \"records\" has one")]
    UnknownType,
    /// Its payload does not decode.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// It would become too many messages.
    #[error("it would become {0} messages, and one record may become {MAX_MESSAGES} at most")]
    TooMany(usize),
}

/// Messages that one record may become: ten times what a vehicle's largest does. More would hold up all others.
const MAX_MESSAGES: usize = 3_000;

/// A transformed payload as messages; none where nothing is in it.
pub fn expand(vin: &str, record_type: &str, transformed: &[u8]) -> Result<Vec<Message>, FieldsError> {
    let kind = Kind::of(record_type).ok_or(FieldsError::UnknownType)?;
    let record = tree::decode(kind, transformed)?;
    let parts = record.messages(1).count();
    if parts > MAX_MESSAGES {
        return Err(FieldsError::TooMany(parts));
    }
    let vin = clean(vin);
    Ok(match kind {
        Kind::Vehicle => data(&vin, &record),
        Kind::Alerts => alerts(&vin, &record),
        Kind::Errors => errors(&vin, &record),
        Kind::Connectivity => vec![connectivity(&vin, &record)],
    })
}

/// Characters for which a broker ends the connection: control characters, and those that Unicode will never assign.
pub(crate) fn is_unsendable(character: char) -> bool {
    let code = u32::from(character);
    character.is_control() || matches!(code, 0xfdd0..=0xfdef) || code & 0xfffe == 0xfffe
}

/// A name as one topic level: `+`, `#`, `/` and control characters are replaced by `_`, an empty name is `_`, and one of more
/// than 1,024 bytes is cut.
pub fn clean(level: &str) -> Cow<'_, str> {
    let is_bad = |character: char| matches!(character, '+' | '#' | '/') || is_unsendable(character);
    let mut end = level.len().min(MAX_LEVEL_BYTES);
    while !level.is_char_boundary(end) {
        end -= 1;
    }
    let level = &level[..end];
    if level.is_empty() {
        Cow::Borrowed("_")
    } else if level.contains(is_bad) {
        Cow::Owned(level.replace(is_bad, "_"))
    } else {
        Cow::Borrowed(level)
    }
}

/// JSON in the making.
#[derive(Default)]
struct Json {
    text: String,
    not_finite: bool,
}

impl Json {
    fn publish(self, topic: String) -> Message {
        Message {
            topic,
            payload: self.text.into_bytes(),
            not_finite: self.not_finite,
        }
    }

    /// The name of an object's next member; no member ends in the brace that opens an object.
    fn name(&mut self, name: &str) {
        if !self.text.ends_with('{') {
            self.text.push(',');
        }
        put_string(&mut self.text, name);
        self.text.push(':');
    }

    fn null(&mut self) {
        self.text.push_str("null");
    }

    fn bool(&mut self, value: bool) {
        self.text.push_str(if value { "true" } else { "false" });
    }

    fn float(&mut self, number: f32) {
        if !put_f32(&mut self.text, number) {
            self.not_finite = true;
            self.null();
        }
    }

    fn double(&mut self, number: f64) {
        if !put_f64(&mut self.text, number) {
            self.not_finite = true;
            self.null();
        }
    }

    /// A time, or nothing where there is none. A time outside of the calendar is none.
    fn time(&mut self, name: &str, moment: Option<&Tree<'_>>) {
        if let Some(text) = moment.and_then(|moment| time::whole_seconds(moment.int(1))) {
            self.name(name);
            put_string(&mut self.text, &text);
        }
    }
}

/// `{VIN}/v/{Field}`: the last datum of each key, in the order in which the keys first come.
fn data(vin: &str, record: &Tree<'_>) -> Vec<Message> {
    let mut last: Vec<(i32, Option<&Tree<'_>>)> = Vec::new();
    let mut places = HashMap::new();
    for datum in record.messages(1) {
        let key = match datum.get(1) {
            Some(Value::Enum(_, number)) => *number,
            _ => 0,
        };
        let place = *places.entry(key).or_insert_with(|| {
            last.push((key, None));
            last.len() - 1
        });
        last[place].1 = datum.message(2);
    }
    let names = field_names();
    last.into_iter()
        .map(|(key, value)| {
            let mut json = Json::default();
            match value {
                Some(value) => put_value(&mut json, value),
                None => json.null(),
            }
            match names.and_then(|names| names.name(key)) {
                Some(name) => json.publish(format!("{vin}/v/{name}")),
                None => json.publish(format!("{vin}/v/{key}")),
            }
        })
        .collect()
}

/// The names of data's keys.
fn field_names() -> Option<&'static schema::Enum> {
    let Shape::Message(datum) = schema::Message::root(Kind::Vehicle).field(1)?.shape else {
        return None;
    };
    let Shape::Enum(field) = schema::Message::at(datum).field(1)?.shape else {
        return None;
    };
    Some(schema::Enum::at(field))
}

fn put_value(json: &mut Json, value: &Tree<'_>) {
    let Some((field, member)) = value.member() else {
        json.text.push_str("{}");
        return;
    };
    match member {
        Value::Bool(_) if field.name == "invalid" => json.null(),
        Value::Bool(value) => json.bool(*value),
        Value::Int32(number) => put_integer(&mut json.text, i64::from(*number)),
        Value::Int64(number) => put_integer(&mut json.text, *number),
        Value::Float(number) => json.float(*number),
        Value::Double(number) => json.double(*number),
        Value::String(text) => put_string(&mut json.text, text),
        Value::Enum(names, number) => put_enum(&mut json.text, names, *number),
        Value::Message(message) => put_message_value(json, message),
        // No member of a oneof is repeated.
        Value::List(_) | Value::Map(_) => json.null(),
    }
}

fn put_message_value(json: &mut Json, message: &Tree<'_>) {
    match message.of.name.rsplit('.').next() {
        Some("Time") => {
            let text = format!("{:02}:{:02}:{:02}", message.int(1), message.int(2), message.int(3));
            put_string(&mut json.text, &text);
        }
        Some("Doors") => doors(json, message),
        Some("TireLocation") => {
            json.text.push('{');
            for field in message.of.fields().filter(|field| message.bool(field.number)) {
                json.name(field.name);
                json.bool(true);
            }
            json.text.push('}');
        }
        // The location. A message that this layout does not know yet would be its numbers by their names too.
        _ => numbers(json, message),
    }
}

fn doors(json: &mut Json, message: &Tree<'_>) {
    const ORDER: [&str; 6] = [
        "DriverFront",
        "PassengerFront",
        "DriverRear",
        "PassengerRear",
        "TrunkFront",
        "TrunkRear",
    ];
    json.text.push('{');
    for name in ORDER {
        let number = number_of(message.of, name);
        json.name(name);
        json.bool(number.is_some_and(|number| message.bool(number)));
    }
    json.text.push('}');
}

fn number_of(message: &'static schema::Message, name: &str) -> Option<u32> {
    message
        .fields()
        .find_map(|field| (field.name == name).then_some(field.number))
}

fn numbers(json: &mut Json, message: &Tree<'_>) {
    json.text.push('{');
    for field in message.of.fields() {
        json.name(field.name);
        match message.get(field.number) {
            Some(Value::Double(number)) => json.double(*number),
            _ => json.double(0.0),
        }
    }
    json.text.push('}');
}

/// `{VIN}/alerts/{Name}/current` and `…/history`, for each name in the order of the record.
fn alerts(vin: &str, record: &Tree<'_>) -> Vec<Message> {
    let mut by_name: Vec<(&str, Vec<&Tree<'_>>)> = Vec::new();
    let mut places = HashMap::new();
    for alert in record.messages(1) {
        let place = *places.entry(alert.string(1)).or_insert_with(|| {
            by_name.push((alert.string(1), Vec::new()));
            by_name.len() - 1
        });
        by_name[place].1.push(alert);
    }

    let mut messages = Vec::with_capacity(by_name.len() * 2);
    for (name, alerts) in by_name {
        let name = clean(name);
        let mut current: Option<((i64, i64), &Tree<'_>)> = None;
        for alert in &alerts {
            let Some(start) = alert.message(3).map(|start| (start.int(1), start.int(2))) else {
                continue;
            };
            if current.is_none_or(|(latest, _)| start > latest) {
                current = Some((start, alert));
            }
        }
        if let Some((_, alert)) = current {
            let mut json = Json::default();
            put_alert(&mut json, alert);
            messages.push(json.publish(format!("{vin}/alerts/{name}/current")));
        }
        let mut json = Json::default();
        json.text.push('[');
        for (place, alert) in alerts.iter().enumerate() {
            if place > 0 {
                json.text.push(',');
            }
            put_alert(&mut json, alert);
        }
        json.text.push(']');
        messages.push(json.publish(format!("{vin}/alerts/{name}/history")));
    }
    messages
}

fn put_alert(json: &mut Json, alert: &Tree<'_>) {
    json.text.push('{');
    json.time("StartedAt", alert.message(3));
    json.time("EndedAt", alert.message(4));
    json.name("Audiences");
    let audiences = alert.list(2);
    if audiences.is_empty() {
        json.null();
    } else {
        json.text.push('[');
        for (place, audience) in audiences.iter().enumerate() {
            if place > 0 {
                json.text.push(',');
            }
            if let Value::Enum(names, number) = audience {
                put_enum(&mut json.text, names, *number);
            }
        }
        json.text.push(']');
    }
    json.text.push('}');
}

/// `{VIN}/errors/{Name}`, one for each error in the record.
fn errors(vin: &str, record: &Tree<'_>) -> Vec<Message> {
    record
        .messages(1)
        .map(|error| {
            let mut json = Json::default();
            json.text.push('{');
            json.name("Body");
            put_string(&mut json.text, error.string(4));
            json.name("Tags");
            match error.get(3) {
                Some(Value::Map(tags)) if !tags.is_empty() => {
                    put_map(&mut json.text, tags.iter().map(|(key, value)| (*key, *value)));
                }
                _ => json.null(),
            }
            json.time("CreatedAt", error.message(1));
            json.text.push('}');
            json.publish(format!("{vin}/errors/{}", clean(error.string(2))))
        })
        .collect()
}

/// `{VIN}/connectivity`.
fn connectivity(vin: &str, record: &Tree<'_>) -> Message {
    let mut json = Json::default();
    json.text.push('{');
    json.name("ConnectionId");
    put_string(&mut json.text, record.string(2));
    json.name("Status");
    match record.get(3) {
        Some(Value::Enum(names, number)) => put_enum(&mut json.text, names, *number),
        _ => put_string(&mut json.text, "UNKNOWN"),
    }
    json.time("CreatedAt", record.message(4));
    json.text.push('}');
    json.publish(format!("{vin}/connectivity"))
}

#[cfg(test)]
#[path = "mqtt_fields_tests.rs"]
mod tests;
