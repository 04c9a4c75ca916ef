//! Whether a payload decodes, as Go's protobuf would have it. Runs on every record before it is acknowledged.
//!
//! Invariant: nothing is allocated, and what passes here passes everything else that reads payloads.

use super::{
    Kind, PayloadError,
    schema::{Message, Shape},
    wire::{Fields, Wire, packed},
};

/// Checks a payload: its wire format at every level that this build knows, and that strings are UTF-8.
///
/// A field that is not known, or known with another wire type, is kept and is no error; an unknown field's inside is only
/// looked into as far as groups need it.
pub fn validate(kind: Kind, payload: &[u8]) -> Result<(), PayloadError> {
    check(Message::root(kind), payload)
}

/// Recursion is as deep as the tables are: no message holds itself.
fn check(message: &'static Message, body: &[u8]) -> Result<(), PayloadError> {
    let mut fields = Fields::of(body);
    while let Some(field) = fields.next()? {
        let Wire::Bytes(bytes) = field.wire else {
            continue;
        };
        let Some(known) = message.field(field.number) else {
            continue;
        };
        match known.shape {
            Shape::Message(inner) | Shape::Map(inner) => check(Message::at(inner), bytes)?,
            Shape::String if std::str::from_utf8(bytes).is_err() => {
                return Err(PayloadError::Utf8 {
                    message: &message.name,
                    field: &known.name,
                });
            }
            Shape::Enum(_) if known.repeated => {
                for number in packed(bytes) {
                    number?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const V: Kind = Kind::Vehicle;

    #[test]
    fn an_empty_payload_is_good() {
        for kind in Kind::ALL {
            assert_eq!(validate(kind, b""), Ok(()));
        }
    }

    #[test]
    fn strings_are_utf8_at_every_level() {
        let utf8 = |result: Result<(), PayloadError>| match result {
            Err(PayloadError::Utf8 { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(utf8(validate(V, b"\x1a\x01\xff")), "vin");
        // Datum.value.string_value.
        assert_eq!(utf8(validate(V, b"\x0a\x05\x12\x03\x0a\x01\xff")), "string_value");
        assert_eq!(utf8(validate(Kind::Alerts, b"\x0a\x03\x0a\x01\xff")), "name");
        assert_eq!(utf8(validate(Kind::Errors, b"\x0a\x05\x1a\x03\x0a\x01\xff")), "key");
        assert_eq!(utf8(validate(Kind::Errors, b"\x0a\x05\x1a\x03\x12\x01\xff")), "value");
        assert_eq!(utf8(validate(Kind::Connectivity, b"\x2a\x01\xff")), "network_interface");
    }

    #[test]
    fn unknown_fields_may_hold_anything() {
        assert_eq!(validate(V, b"\x7a\x01\xff"), Ok(()));
        assert_eq!(validate(V, b"\x7b\x0a\x01\xff\x7c"), Ok(()));
    }

    #[test]
    fn a_known_field_with_another_wire_type_counts_as_unknown() {
        // vin as a number, data as a group, a datum's key as bytes that are no varint.
        assert_eq!(validate(V, b"\x18\x01"), Ok(()));
        assert_eq!(validate(V, b"\x0b\x0c"), Ok(()));
        assert_eq!(validate(V, b"\x0a\x03\x0a\x01\xff"), Ok(()));
    }

    #[test]
    fn embedded_messages_are_looked_into() {
        assert_eq!(validate(V, b"\x0a\x01\x08"), Err(PayloadError::Truncated));
        assert_eq!(validate(V, b"\x12\x01\x0e"), Err(PayloadError::WireType(6)));
        assert_eq!(
            validate(Kind::Errors, b"\x0a\x04\x1a\x02\x00\x00"),
            Err(PayloadError::FieldNumber(0))
        );
        // Not three letters of a name, but a VIN.
        assert_eq!(validate(Kind::Connectivity, b"\x0a\x03abc"), Ok(()));
    }

    #[test]
    fn repeated_enums_come_packed_or_not() {
        assert_eq!(validate(Kind::Alerts, b"\x0a\x06\x10\x01\x12\x02\x02\x03"), Ok(()));
        assert_eq!(
            validate(Kind::Alerts, b"\x0a\x03\x12\x01\x80"),
            Err(PayloadError::Truncated)
        );
    }
}
