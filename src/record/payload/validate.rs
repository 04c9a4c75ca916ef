//! Whether a payload decodes, as Go's protobuf would have it. Runs on every record before it is acknowledged.
//!
//! Invariant: nothing is allocated, and what passes here is malformed to nobody else that reads payloads; JSON and fields
//! have limits of their own.

use super::{
    Kind, PayloadError, datum,
    schema::{Message, Shape},
    wire::{Fields, Wire, packed},
};

/// Checks a payload: its wire format at every level that this build knows, and that strings are UTF-8.
///
/// A field that is not known, or known with another wire type, is kept and is no error; an unknown field's inside is only
/// looked into as far as groups need it.
///
/// Returns how many signals are in it: the data of a V record, the alerts, the errors.
pub fn validate(kind: Kind, payload: &[u8]) -> Result<u64, PayloadError> {
    check(Message::root(kind), kind == Kind::Vehicle, payload)
}

/// Recursion is as deep as the tables are: no message holds itself. Returns how many messages are repeated in this one:
/// those of a root are its signals. `of_data`: the messages in it may be data.
fn check(message: &'static Message, of_data: bool, body: &[u8]) -> Result<u64, PayloadError> {
    let mut repeated = 0;
    let mut fields = Fields::of(body);
    while let Some(field) = fields.next()? {
        let Wire::Bytes(bytes) = field.wire else {
            continue;
        };
        let Some(known) = message.field(field.number) else {
            continue;
        };
        match known.shape {
            Shape::Message(inner) => {
                if !(of_data && is_plain(bytes)) {
                    check(Message::at(inner), false, bytes)?;
                }
                repeated += u64::from(known.repeated);
            }
            Shape::Map(inner) => {
                check(Message::at(inner), false, bytes)?;
            }
            Shape::String if std::str::from_utf8(bytes).is_err() => {
                return Err(PayloadError::Utf8 {
                    message: message.name,
                    field: known.name,
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
    Ok(repeated)
}

/// Whether it is a datum as vehicles write it, with nothing in it that has to be looked into.
fn is_plain(body: &[u8]) -> bool {
    match datum::read(body).map(|datum| datum.member) {
        None => false,
        Some(Some((datum::STRING, Wire::Bytes(text)))) => std::str::from_utf8(text).is_ok(),
        Some(Some((_, Wire::Bytes(_)))) => false,
        Some(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V: Kind = Kind::Vehicle;

    #[test]
    fn an_empty_payload_is_good() {
        for kind in Kind::ALL {
            assert_eq!(validate(kind, b""), Ok(0));
        }
    }

    #[test]
    fn data_alerts_and_errors_are_counted_and_what_is_in_them_is_not() {
        // Two data, one of them empty, and created_at.
        assert_eq!(validate(V, b"\x0a\x02\x08\x04\x0a\x00\x12\x00"), Ok(2));
        // An alert with two audiences and a time; an error with two tags.
        let alert = b"\x0a\x08\x10\x01\x10\x02\x1a\x02\x08\x01";
        assert_eq!(validate(Kind::Alerts, alert), Ok(1));
        assert_eq!(validate(Kind::Errors, b"\x0a\x04\x1a\x00\x1a\x00\x0a\x00"), Ok(2));
        assert_eq!(validate(Kind::Connectivity, b"\x2a\x00\x22\x00"), Ok(0));
        // data as a number is no datum.
        assert_eq!(validate(V, b"\x08\x01"), Ok(0));
    }

    #[test]
    fn strings_are_utf8_at_every_level() {
        let utf8 = |result: Result<u64, PayloadError>| match result {
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
        assert_eq!(validate(V, b"\x7a\x01\xff"), Ok(0));
        assert_eq!(validate(V, b"\x7b\x0a\x01\xff\x7c"), Ok(0));
    }

    #[test]
    fn a_known_field_with_another_wire_type_counts_as_unknown() {
        // vin as a number, data as a group, a datum's key as bytes that are no varint.
        assert_eq!(validate(V, b"\x18\x01"), Ok(0));
        assert_eq!(validate(V, b"\x0b\x0c"), Ok(0));
        assert_eq!(validate(V, b"\x0a\x03\x0a\x01\xff"), Ok(1));
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
        assert_eq!(validate(Kind::Connectivity, b"\x0a\x03abc"), Ok(0));
    }

    #[test]
    fn repeated_enums_come_packed_or_not() {
        assert_eq!(validate(Kind::Alerts, b"\x0a\x06\x10\x01\x12\x02\x02\x03"), Ok(1));
        assert_eq!(
            validate(Kind::Alerts, b"\x0a\x03\x12\x01\x80"),
            Err(PayloadError::Truncated)
        );
    }
}
