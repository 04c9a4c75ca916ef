//! A payload as values, for the JSON forms of it.
//!
//! Follows protobuf where fields repeat: the last scalar wins, embedded messages merge, the last member of a oneof wins. What
//! this build does not know, a known field with another wire type included, is left out.

use std::collections::BTreeMap;

use super::{
    Kind, PayloadError,
    schema::{self, Shape},
    wire::{Fields, Wire, packed},
};

/// The value of a field that is set.
#[derive(Debug, Clone)]
pub(crate) enum Value<'a> {
    Bool(bool),
    Int32(i32),
    Int64(i64),
    Float(f32),
    Double(f64),
    String(&'a str),
    Enum(&'static schema::Enum, i32),
    Message(Message<'a>),
    List(Vec<Value<'a>>),
    Map(BTreeMap<&'a str, &'a str>),
}

/// A message: the fields of it that are set.
#[derive(Debug, Clone)]
pub(crate) struct Message<'a> {
    pub(crate) of: &'static schema::Message,
    set: Vec<(&'static schema::Field, Value<'a>)>,
}

/// Elements of all the lists and maps of a payload: thirty times what a vehicle's largest has. Two bytes of a payload can
/// be one, and take several hundred here.
const MAX_ELEMENTS: usize = 10_000;

/// Decodes a payload.
pub(crate) fn decode(kind: Kind, payload: &[u8]) -> Result<Message<'_>, PayloadError> {
    let mut message = Message::empty(schema::Message::root(kind));
    let mut left = MAX_ELEMENTS;
    message.merge(payload, &mut left)?;
    Ok(message)
}

fn count(left: &mut usize) -> Result<(), PayloadError> {
    *left = left.checked_sub(1).ok_or(PayloadError::TooMany(MAX_ELEMENTS))?;
    Ok(())
}

impl<'a> Message<'a> {
    fn empty(of: &'static schema::Message) -> Self {
        Self { of, set: Vec::new() }
    }

    /// The value of a field, if it is set.
    pub(crate) fn get(&self, number: u32) -> Option<&Value<'a>> {
        self.set
            .iter()
            .find_map(|(field, value)| (field.number == number).then_some(value))
    }

    /// The member that is set of a message that is one oneof.
    pub(crate) fn member(&self) -> Option<(&'static schema::Field, &Value<'a>)> {
        self.set
            .iter()
            .find_map(|(field, value)| field.in_oneof.then_some((*field, value)))
    }

    pub(crate) fn string(&self, number: u32) -> &'a str {
        match self.get(number) {
            Some(Value::String(text)) => text,
            _ => "",
        }
    }

    pub(crate) fn int(&self, number: u32) -> i64 {
        match self.get(number) {
            Some(Value::Int32(number)) => i64::from(*number),
            Some(Value::Int64(number)) => *number,
            _ => 0,
        }
    }

    pub(crate) fn bool(&self, number: u32) -> bool {
        matches!(self.get(number), Some(Value::Bool(true)))
    }

    pub(crate) fn message(&self, number: u32) -> Option<&Message<'a>> {
        match self.get(number) {
            Some(Value::Message(message)) => Some(message),
            _ => None,
        }
    }

    pub(crate) fn list(&self, number: u32) -> &[Value<'a>] {
        match self.get(number) {
            Some(Value::List(values)) => values,
            _ => &[],
        }
    }

    /// The messages of a repeated field.
    pub(crate) fn messages(&self, number: u32) -> impl Iterator<Item = &Message<'a>> {
        self.list(number).iter().filter_map(|value| match value {
            Value::Message(message) => Some(message),
            _ => None,
        })
    }

    /// `left`: elements that may still come.
    fn merge(&mut self, body: &'a [u8], left: &mut usize) -> Result<(), PayloadError> {
        let of = self.of;
        let mut fields = Fields::of(body);
        while let Some(field) = fields.next()? {
            if let Some(known) = of.field(field.number).filter(|known| known.accepts(&field.wire)) {
                self.merge_field(known, field.wire, left)?;
            }
        }
        Ok(())
    }

    fn merge_field(
        &mut self,
        field: &'static schema::Field,
        wire: Wire<'a>,
        left: &mut usize,
    ) -> Result<(), PayloadError> {
        match (field.shape, wire) {
            (Shape::Message(inner), Wire::Bytes(body)) if field.repeated => {
                count(left)?;
                let mut message = Message::empty(schema::Message::at(inner));
                message.merge(body, left)?;
                self.push(field, Value::Message(message));
            }
            (Shape::Message(inner), Wire::Bytes(body)) => {
                let empty = || Value::Message(Message::empty(schema::Message::at(inner)));
                if let Value::Message(message) = self.entry(field, empty) {
                    message.merge(body, left)?;
                }
            }
            (Shape::Map(inner), Wire::Bytes(body)) => {
                count(left)?;
                let mut entry = Message::empty(schema::Message::at(inner));
                entry.merge(body, left)?;
                if let Value::Map(map) = self.entry(field, || Value::Map(BTreeMap::new())) {
                    map.insert(entry.string(1), entry.string(2));
                }
            }
            (Shape::Enum(place), Wire::Bytes(numbers)) => {
                let names = schema::Enum::at(place);
                for number in packed(numbers) {
                    count(left)?;
                    self.push(field, Value::Enum(names, number? as i32));
                }
            }
            (Shape::Enum(place), Wire::Varint(number)) if field.repeated => {
                count(left)?;
                self.push(field, Value::Enum(schema::Enum::at(place), number as i32));
            }
            (_, wire) => {
                if let Some(value) = self.scalar(field, wire)? {
                    *self.entry(field, || Value::Bool(false)) = value;
                }
            }
        }
        Ok(())
    }

    fn scalar(&self, field: &'static schema::Field, wire: Wire<'a>) -> Result<Option<Value<'a>>, PayloadError> {
        Ok(Some(match (field.shape, wire) {
            (Shape::Bool, Wire::Varint(number)) => Value::Bool(number != 0),
            (Shape::Int32, Wire::Varint(number)) => Value::Int32(number as i32),
            (Shape::Int64, Wire::Varint(number)) => Value::Int64(number as i64),
            (Shape::Enum(place), Wire::Varint(number)) => Value::Enum(schema::Enum::at(place), number as i32),
            (Shape::Float, Wire::Fixed32(bits)) => Value::Float(f32::from_bits(bits)),
            (Shape::Double, Wire::Fixed64(bits)) => Value::Double(f64::from_bits(bits)),
            (Shape::String, Wire::Bytes(bytes)) => {
                Value::String(std::str::from_utf8(bytes).map_err(|_| PayloadError::Utf8 {
                    message: self.of.name,
                    field: field.name,
                })?)
            }
            // Not of this field's type, which was looked at before.
            _ => return Ok(None),
        }))
    }

    /// The place of a field's value, made if there is none; of a oneof, the other members end.
    fn entry(&mut self, field: &'static schema::Field, make: impl FnOnce() -> Value<'a>) -> &mut Value<'a> {
        if field.in_oneof {
            self.set
                .retain(|(other, _)| !other.in_oneof || other.number == field.number);
        }
        let place = match self.set.iter().position(|(other, _)| other.number == field.number) {
            Some(place) => place,
            None => {
                self.set.push((field, make()));
                self.set.len() - 1
            }
        };
        &mut self.set[place].1
    }

    fn push(&mut self, field: &'static schema::Field, value: Value<'a>) {
        if let Value::List(values) = self.entry(field, || Value::List(Vec::new())) {
            values.push(value);
        }
    }
}
