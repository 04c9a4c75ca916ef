//! The messages that records are made of, as compact tables, which `build.rs` makes of the descriptors.
//!
//! Invariant: every field of `Payload`, `VehicleAlerts`, `VehicleErrors` and `VehicleConnectivity` and of the messages in them
//! is here, under its number, and no message holds itself, so that a walk along these tables ends.

use super::{Kind, wire::Wire};

/// One message type.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) name: &'static str,
    /// By field number; `None` for numbers without a field.
    fields: &'static [Option<Field>],
}

/// One field of a message type.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) number: u32,
    pub(crate) name: &'static str,
    pub(crate) json_name: &'static str,
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

/// One enum: its values' names, in the order of their numbers.
#[derive(Debug)]
pub(crate) struct Enum {
    names: &'static [(i32, &'static str)],
}

impl Message {
    /// The message that a record of this kind is.
    pub(crate) fn root(kind: Kind) -> &'static Self {
        &MESSAGES[ROOTS[kind as usize]]
    }

    /// The message at a place that a [`Shape`] names.
    pub(crate) fn at(place: usize) -> &'static Self {
        &MESSAGES[place]
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
        &ENUMS[place]
    }

    pub(crate) fn name(&self, number: i32) -> Option<&'static str> {
        let at = self.names.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(self.names[at].1)
    }

    /// All values with their names.
    pub(crate) fn all(&self) -> impl Iterator<Item = (i32, &'static str)> {
        self.names.iter().copied()
    }
}

include!(concat!(env!("OUT_DIR"), "/schema.rs"));

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;
    use crate::record::proto;

    #[test]
    fn every_field_of_the_descriptors_is_in_the_tables() {
        let pool = DescriptorPool::decode(proto::DESCRIPTORS).expect("build.rs wrote these");
        for kind in Kind::ALL {
            assert_eq!(Message::root(kind).name, kind.message_name());
        }
        for message in &MESSAGES {
            let descriptor = pool.get_message_by_name(message.name).expect("made of it");
            assert_eq!(message.fields().count(), descriptor.fields().len(), "{}", message.name);
            assert!(descriptor.oneofs().len() <= 1, "{}", message.name);
            for field in descriptor.fields() {
                let known = message.field(field.number()).expect("as many as there are");
                assert_eq!((known.name, known.json_name), (field.name(), field.json_name()));
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
                if let (prost_reflect::Kind::Enum(values), Shape::Enum(place)) = (field.kind(), known.shape) {
                    for value in values.values() {
                        assert_eq!(Enum::at(place).name(value.number()), Some(value.name()));
                    }
                }
            }
        }
    }
}
