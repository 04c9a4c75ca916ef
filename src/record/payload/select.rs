//! Which data of a `V` record go on to a destination, for those that are to know less than the vehicle tells.
//!
//! Invariant: a datum goes on exactly as it came or not at all; what only some data are kept of keeps nothing that this
//! build does not know.

use std::collections::BTreeSet;

use super::schema::{Enum, Message, Shape};
use super::wire::{Fields, Wire};
use super::{Kind, PayloadError};

/// Which data of a `V` record, by the number of their key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum FieldFilter {
    /// All of them.
    #[default]
    All,
    /// Only these.
    Keep(BTreeSet<i32>),
    /// All but these.
    Drop(BTreeSet<i32>),
}

/// Field numbers of `Payload` and `Datum`.
const DATA: u32 = 1;
const KEY: u32 = 1;

/// The number of a field of `V` records.
pub fn v_field(name: &str) -> Option<i32> {
    let mut keys = keys().all();
    keys.find_map(|(number, known)| (known == name).then_some(number))
}

/// The names of all fields of `V` records.
pub fn v_fields() -> impl Iterator<Item = &'static str> {
    keys().all().map(|(_, name)| name)
}

fn keys() -> &'static Enum {
    let data = Message::root(Kind::Vehicle).field(DATA).map(|field| field.shape);
    let Some(Shape::Message(datum)) = data else {
        unreachable!("protos/ has data in a Payload")
    };
    match Message::at(datum).field(KEY).map(|field| field.shape) {
        Some(Shape::Enum(place)) => Enum::at(place),
        _ => unreachable!("protos/ has keys that are an enum"),
    }
}

impl FieldFilter {
    /// What goes on of a record's payload: made in `room`, whatever that held, unless it is all of it. `None` when none of
    /// its data do.
    pub fn select<'a>(
        &self,
        record_type: &str,
        payload: &'a [u8],
        room: &'a mut Vec<u8>,
    ) -> Result<Option<&'a [u8]>, PayloadError> {
        let (numbers, keep) = match self {
            _ if Kind::of(record_type) != Some(Kind::Vehicle) => return Ok(Some(payload)),
            Self::All => return Ok(Some(payload)),
            Self::Keep(numbers) => (numbers, true),
            Self::Drop(numbers) => (numbers, false),
        };
        room.clear();
        let mut left = 0_usize;
        let mut fields = Fields::of(payload);
        while let Some(field) = fields.next()? {
            let goes_on = match field.wire {
                Wire::Bytes(datum) if field.number == DATA => {
                    let goes_on = numbers.contains(&key(datum)?) == keep;
                    left += usize::from(goes_on);
                    goes_on
                }
                // What this build does not know may be what nobody is to know.
                _ => {
                    let known = Message::root(Kind::Vehicle).field(field.number);
                    !keep || known.is_some_and(|known| known.accepts(&field.wire))
                }
            };
            if goes_on {
                room.extend_from_slice(&payload[field.start..field.end]);
            }
        }
        Ok((left > 0).then_some(room.as_slice()))
    }
}

fn key(datum: &[u8]) -> Result<i32, PayloadError> {
    let mut key = 0;
    let mut fields = Fields::of(datum);
    while let Some(field) = fields.next()? {
        if let (KEY, Wire::Varint(number)) = (field.number, field.wire) {
            key = number as i32;
        }
    }
    Ok(key)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;
    use prost::Message as _;

    use super::*;
    use crate::record::proto::vehicle_data::{Datum, Payload, Value, value};

    fn payload(keys: &[i32]) -> Bytes {
        let datum = |key: &i32| Datum {
            key: *key,
            value: Some(Value {
                value: Some(value::Value::IntValue(*key)),
            }),
        };
        let known = Payload {
            data: keys.iter().map(datum).collect(),
            vin: "VIN".to_owned(),
            ..Payload::default()
        };
        let mut bytes = known.encode_to_vec();
        // A field 100 of a newer vehicle.
        bytes.extend_from_slice(b"\xa2\x06\x03new");
        bytes.into()
    }

    fn left(filter: &FieldFilter, keys: &[i32]) -> Option<(Vec<i32>, bool)> {
        let (payload, mut room) = (payload(keys), b"of another one".to_vec());
        let selected = filter.select("V", &payload, &mut room).unwrap()?;
        let decoded = Payload::decode(selected).unwrap();
        assert_eq!(decoded.vin, "VIN");
        let keys = decoded.data.iter().map(|datum| datum.key).collect();
        Some((keys, selected.ends_with(b"new")))
    }

    #[test]
    fn only_what_is_to_be_kept_goes_on() {
        let filter = FieldFilter::Keep([4, 9_999].into());
        assert_eq!(left(&filter, &[4, 5, 9_999, 4]), Some((vec![4, 9_999, 4], false)));
        assert_eq!(left(&filter, &[5, 6]), None);
        assert_eq!(left(&filter, &[]), None);
    }

    #[test]
    fn what_is_to_be_dropped_does_not() {
        let filter = FieldFilter::Drop([4].into());
        assert_eq!(left(&filter, &[4, 5, 9_999]), Some((vec![5, 9_999], true)));
        assert_eq!(left(&filter, &[4, 4]), None);
    }

    #[test]
    fn other_records_have_no_data_to_choose_from() {
        let filter = FieldFilter::Keep([4].into());
        let (some, none, mut room) = (payload(&[5]), payload(&[]), Vec::new());
        assert_eq!(filter.select("alerts", &some, &mut room).unwrap(), Some(&*some));
        assert_eq!(FieldFilter::All.select("V", &none, &mut room).unwrap(), Some(&*none));
    }

    #[test]
    fn the_key_that_counts_is_the_last_one() {
        // Keys 4 and then 5 in one datum: protobuf's readers see 5.
        let (twice, mut room) = (b"\x0a\x04\x08\x04\x08\x05", Vec::new());
        let mut kept = |key| {
            FieldFilter::Keep([key].into())
                .select("V", twice, &mut room)
                .unwrap()
                .map(<[u8]>::to_vec)
        };
        assert_eq!(kept(4), None);
        assert_eq!(kept(5), Some(twice.to_vec()));
    }

    #[test]
    fn fields_are_known_by_their_names() {
        assert_eq!(v_field("VehicleSpeed"), Some(4));
        assert_eq!(v_field("vehiclespeed"), None);
        assert!(v_fields().count() > 200);
    }
}
