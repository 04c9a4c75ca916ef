//! The messages that records are made of, compiled once from the descriptors into compact tables.
//!
//! Invariant: every field of `Payload`, `VehicleAlerts`, `VehicleErrors` and `VehicleConnectivity` and of the messages in them
//! is here, under its number, and no message holds itself, so that a walk along these tables ends.

use std::{collections::HashMap, sync::OnceLock};

use prost_reflect::{EnumDescriptor, FieldDescriptor, MessageDescriptor};

use super::{Kind, wire::Wire};
use crate::record::proto;

/// One message type.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) name: String,
    /// By field number; `None` for numbers without a field.
    fields: Vec<Option<Field>>,
}

/// One field of a message type.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) json_name: String,
    pub(crate) shape: Shape,
    pub(crate) repeated: bool,
    /// Whether it is a member of a oneof. No message here has more than one.
    pub(crate) in_oneof: bool,
}

/// What a field holds. Messages, maps' entries and enums are by their place in the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Bool,
    Int32,
    Int64,
    Float,
    Double,
    String,
    Enum(usize),
    Message(usize),
    Map(usize),
}

/// One enum: its values' names by number.
#[derive(Debug)]
pub(crate) struct Enum {
    names: HashMap<i32, String>,
}

/// All tables.
#[derive(Debug, Default)]
struct Schema {
    messages: Vec<Message>,
    enums: Vec<Enum>,
    roots: [usize; 4],
    places: HashMap<String, usize>,
}

impl Message {
    /// The message that a record of this kind is.
    pub(crate) fn root(kind: Kind) -> &'static Self {
        let schema = schema();
        &schema.messages[schema.roots[kind as usize]]
    }

    /// The message at a place that a [`Shape`] names.
    pub(crate) fn at(place: usize) -> &'static Self {
        &schema().messages[place]
    }

    #[inline]
    pub(crate) fn field(&self, number: u32) -> Option<&Field> {
        self.fields.get(number as usize)?.as_ref()
    }

    /// In the order of their numbers.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().flatten()
    }
}

impl Field {
    /// Whether a value of this wire type is one of this field. If not, it counts as an unknown field.
    #[inline]
    pub(crate) fn accepts(&self, wire: &Wire<'_>) -> bool {
        match (self.shape, wire) {
            (Shape::Bool | Shape::Int32 | Shape::Int64 | Shape::Enum(_), Wire::Varint(_)) => true,
            (Shape::Float, Wire::Fixed32(_)) | (Shape::Double, Wire::Fixed64(_)) => true,
            (Shape::String | Shape::Message(_) | Shape::Map(_), Wire::Bytes(_)) => true,
            // Packed or not, both are to be accepted.
            (Shape::Enum(_), Wire::Bytes(_)) => self.repeated,
            _ => false,
        }
    }
}

impl Enum {
    pub(crate) fn at(place: usize) -> &'static Self {
        &schema().enums[place]
    }

    pub(crate) fn name(&self, number: i32) -> Option<&str> {
        self.names.get(&number).map(String::as_str)
    }

    /// All values with their names, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (i32, &str)> {
        self.names.iter().map(|(number, name)| (*number, name.as_str()))
    }
}

fn schema() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let mut schema = Schema::default();
        for kind in Kind::ALL {
            let descriptor = proto::pool()
                .get_message_by_name(kind.message_name())
                .expect("protos/ has the message of every kind");
            schema.roots[kind as usize] = schema.message(&descriptor);
        }
        schema
    })
}

impl Schema {
    fn message(&mut self, descriptor: &MessageDescriptor) -> usize {
        if let Some(place) = self.places.get(descriptor.full_name()) {
            return *place;
        }
        let mut fields = Vec::new();
        for field in descriptor.fields() {
            let number = field.number() as usize;
            fields.resize_with(fields.len().max(number + 1), || None);
            fields[number] = self.shape(&field).map(|shape| Field {
                number: field.number(),
                name: field.name().to_owned(),
                json_name: field.json_name().to_owned(),
                shape,
                repeated: field.is_list(),
                in_oneof: field.containing_oneof().is_some(),
            });
        }
        self.messages.push(Message {
            name: descriptor.full_name().to_owned(),
            fields,
        });
        let place = self.messages.len() - 1;
        self.places.insert(descriptor.full_name().to_owned(), place);
        place
    }

    fn shape(&mut self, field: &FieldDescriptor) -> Option<Shape> {
        use prost_reflect::Kind::{Bool, Double, Enum, Float, Int32, Int64, Message, String};
        Some(match field.kind() {
            Bool => Shape::Bool,
            Int32 => Shape::Int32,
            Int64 => Shape::Int64,
            Float => Shape::Float,
            Double => Shape::Double,
            String => Shape::String,
            Enum(descriptor) => Shape::Enum(self.enumeration(&descriptor)),
            Message(descriptor) if field.is_map() => Shape::Map(self.message(&descriptor)),
            Message(descriptor) => Shape::Message(self.message(&descriptor)),
            // No field has such a type; a test says so.
            _ => return None,
        })
    }

    fn enumeration(&mut self, descriptor: &EnumDescriptor) -> usize {
        if let Some(place) = self.places.get(descriptor.full_name()) {
            return *place;
        }
        let names = descriptor
            .values()
            .map(|value| (value.number(), value.name().to_owned()))
            .collect();
        self.enums.push(Enum { names });
        let place = self.enums.len() - 1;
        self.places.insert(descriptor.full_name().to_owned(), place);
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_the_descriptors_is_in_the_tables() {
        for message in &schema().messages {
            let descriptor = proto::pool()
                .get_message_by_name(&message.name)
                .expect("compiled from it");
            assert_eq!(message.fields().count(), descriptor.fields().len(), "{}", message.name);
            assert!(descriptor.oneofs().len() <= 1, "{}", message.name);
            for field in descriptor.fields() {
                // The shapes of repeated fields that the readers know.
                if field.is_list() {
                    assert!(
                        matches!(
                            field.kind(),
                            prost_reflect::Kind::Message(_) | prost_reflect::Kind::Enum(_)
                        ),
                        "{}",
                        field.full_name()
                    );
                }
                if field.is_map() {
                    let prost_reflect::Kind::Message(entry) = field.kind() else {
                        panic!("a map's entries are messages");
                    };
                    assert!(entry.fields().all(|field| field.kind() == prost_reflect::Kind::String));
                }
            }
        }
    }
}
