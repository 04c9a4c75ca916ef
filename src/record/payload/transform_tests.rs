//! Every rule of the transformation, with its edges, and that it neither panics nor loses anything on any bytes.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use prost::Message;
use prost_types::Timestamp;

use super::{location, transform};
use crate::record::{
    payload::{
        Kind,
        arbitrary::payloads,
        validate,
        wire::{put_bytes, put_number},
    },
    proto::{
        vehicle_alerts::{VehicleAlert, VehicleAlerts},
        vehicle_connectivity::VehicleConnectivity,
        vehicle_data::{Datum, Field, LocationValue, Payload, Value, value::Value as Member},
        vehicle_error::VehicleErrors,
    },
};
use bytes::Bytes;

fn transformed(record_type: &str, payload: &[u8]) -> Bytes {
    let mut room = b"of another one".to_vec();
    let out = transform(record_type, "VIN", payload, &mut room).unwrap();
    validate(Kind::of(record_type).unwrap(), out).unwrap();
    Bytes::copy_from_slice(out)
}

fn datum(key: Field, member: Member) -> Datum {
    Datum {
        key: key.into(),
        value: Some(Value { value: Some(member) }),
    }
}

fn text(key: Field, text: &str) -> Datum {
    datum(key, Member::StringValue(text.to_owned()))
}

/// The data of a payload after the transformation.
fn data(data: Vec<Datum>) -> Vec<Datum> {
    let payload = Payload {
        data,
        ..Payload::default()
    };
    let out = Payload::decode(transformed("V", &payload.encode_to_vec())).unwrap();
    assert_eq!(out.vin, "VIN");
    out.data
}

fn bytes_field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, number, bytes);
    out
}

fn number_field(number: u32, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, number, value);
    out
}

#[test]
fn the_vin_is_set_in_every_kind_whatever_it_was() {
    let payload = |vin: &str| Payload {
        vin: vin.into(),
        is_resend: true,
        ..Payload::default()
    };
    for vin in ["", "OTHER", "VIN"] {
        let out = transformed("V", &payload(vin).encode_to_vec());
        assert_eq!(Payload::decode(out).unwrap(), payload("VIN"));
    }
    assert_eq!(VehicleAlerts::decode(transformed("alerts", b"")).unwrap().vin, "VIN");
    assert_eq!(VehicleErrors::decode(transformed("errors", b"")).unwrap().vin, "VIN");
    let out = transformed("connectivity", b"\x0a\x03abc\x12\x02id");
    let connectivity = VehicleConnectivity::decode(out).unwrap();
    assert_eq!((&*connectivity.vin, &*connectivity.connection_id), ("VIN", "id"));
}

#[test]
fn a_vin_that_repeats_is_set_once() {
    let out = transformed("V", b"\x1a\x01a\x20\x01\x1a\x03VIN\x1a\x01b\x1a\x03VIN");
    assert_eq!(out.as_ref(), b"\x20\x01\x1a\x03VIN");
}

#[test]
fn a_vin_of_another_wire_type_is_an_unknown_field_and_stays() {
    assert_eq!(transformed("V", b"\x18\x07").as_ref(), b"\x18\x07\x1a\x03VIN");
}

#[test]
fn a_payload_that_needs_nothing_is_not_copied() {
    let (payload, mut room) = (b"\x20\x01\x1a\x03VIN\x7a\x01x", Vec::new());
    let out = transform("V", "VIN", payload, &mut room).unwrap();
    assert_eq!(out.as_ptr(), payload.as_ptr());
    assert_eq!(out, payload);
}

#[test]
fn a_record_of_an_unknown_type_is_handed_on_as_it_came() {
    let (payload, mut room) = (b"\xff\x00 not protobuf", Vec::new());
    let out = transform("canlogs", "VIN", payload, &mut room).unwrap();
    assert_eq!(out.as_ptr(), payload.as_ptr());
    assert_eq!(out, payload);
}

#[test]
fn the_first_location_becomes_coordinates_and_only_that_one() {
    let place = "(37.412374 N, 122.145867 W)";
    let out = data(vec![
        text(Field::OriginLocation, place),
        text(Field::Location, place),
        text(Field::Location, place),
    ]);
    let coordinates = LocationValue {
        latitude: 37.412374,
        longitude: -122.145867,
    };
    assert_eq!(out[0], text(Field::OriginLocation, place));
    assert_eq!(out[1], datum(Field::Location, Member::LocationValue(coordinates)));
    assert_eq!(out[2], text(Field::Location, place));
}

#[test]
fn a_first_location_that_is_none_leaves_the_second_alone() {
    let place = text(Field::Location, "(37.412374 N, 122.145867 W)");
    for first in [
        text(Field::Location, "unknown"),
        datum(Field::Location, Member::Invalid(true)),
        Datum {
            key: Field::Location.into(),
            value: None,
        },
    ] {
        let both = vec![first, place.clone()];
        assert_eq!(data(both.clone()), both);
    }
}

#[test]
fn south_and_west_are_negative() {
    assert_eq!(location(b"(37.5 N, 122.25 E)"), Some((37.5, 122.25)));
    assert_eq!(location(b"(37.5 S, 122.25 W)"), Some((-37.5, -122.25)));
    assert_eq!(location(b"(0 N, 0 E)"), Some((0.0, 0.0)));
}

#[test]
fn strings_that_are_no_location_are_told_apart() {
    for no_location in [
        "",
        "()",
        "(,)",
        "37.5 N, 122.25 W",
        "(37.5 N 122.25 W)",
        "(37.5 E, 122.25 N)",
        "(37.5, 122.25)",
        "(N, W)",
        "(inf N, nan W)",
        "(1e999 N, 1 W)",
        "(37.5 N, 122.25 W, 5 E)",
        "(37.5 ü, 122.25 W)",
        "(37.5 N, 122.25 W) ",
    ] {
        assert_eq!(location(no_location.as_bytes()), None, "{no_location}");
    }
}

#[test]
fn every_datum_with_a_number_in_scientific_notation_is_changed_the_location_too() {
    let out = data(vec![
        text(Field::VehicleSpeed, "1.5e1"),
        text(Field::Odometer, "15.0"),
        text(Field::Location, "2.5e1"),
        text(Field::Soc, "3.5e1"),
    ]);
    let texts = [
        (Field::VehicleSpeed, "15.00000"),
        (Field::Odometer, "15.0"),
        (Field::Location, "25.00000"),
        (Field::Soc, "35.00000"),
    ];
    assert_eq!(out, texts.map(|(key, value)| text(key, value)));
}

#[test]
fn unknown_fields_survive_at_every_level_of_a_datum_that_is_changed() {
    let unknown = [bytes_field(500, b"new"), number_field(501, 7)].concat();
    // Beyond what is unknown by its number: known ones with another wire type.
    let value = [&unknown[..], &bytes_field(1, b"1.5e1"), &number_field(1, 9)].concat();
    let datum = [
        &unknown[..],
        &number_field(1, 4),
        &bytes_field(2, &value),
        &bytes_field(1, b"k"),
    ];
    let payload = [&unknown[..], &bytes_field(1, &datum.concat()), &unknown[..]].concat();

    let value = [&unknown[..], &number_field(1, 9), &bytes_field(1, b"15.00000")].concat();
    let datum = [
        &unknown[..],
        &number_field(1, 4),
        &bytes_field(1, b"k"),
        &bytes_field(2, &value),
    ];
    let expected = [
        &unknown[..],
        &bytes_field(1, &datum.concat()),
        &unknown[..],
        &bytes_field(3, b"VIN"),
    ];
    assert_eq!(transformed("V", &payload).as_ref(), expected.concat());
}

#[test]
fn the_last_key_and_the_last_member_count() {
    let place = bytes_field(1, b"(1.5 N, 2.5 E)");
    // The key is set twice and the string is replaced by a number in a second value: no location.
    let datum = [
        number_field(1, 4),
        bytes_field(2, &place),
        number_field(1, 21),
        bytes_field(2, &number_field(2, 5)),
    ];
    let payload = bytes_field(1, &datum.concat());
    let out = transformed("V", &payload);
    assert_eq!(out.as_ref(), [&payload[..], b"\x1a\x03VIN"].concat());

    // The other way round: a location whose value is in two parts.
    let datum = [
        number_field(1, 21),
        bytes_field(2, &number_field(2, 5)),
        bytes_field(2, &place),
    ];
    let out = Payload::decode(transformed("V", &bytes_field(1, &datum.concat()))).unwrap();
    let member = out.data[0].value.as_ref().unwrap().value.as_ref().unwrap();
    let coordinates = LocationValue {
        latitude: 1.5,
        longitude: 2.5,
    };
    assert_eq!(*member, Member::LocationValue(coordinates));
}

fn alert(started_at: Option<i64>, ended_at: Option<i64>) -> VehicleAlert {
    let time = |seconds| Timestamp { seconds, nanos: 5 };
    VehicleAlert {
        name: "name".into(),
        audiences: vec![1, 2],
        started_at: started_at.map(time),
        ended_at: ended_at.map(time),
    }
}

fn alert_out(alert: VehicleAlert) -> VehicleAlert {
    let alerts = VehicleAlerts {
        alerts: vec![alert],
        ..VehicleAlerts::default()
    };
    let mut out = VehicleAlerts::decode(transformed("alerts", &alerts.encode_to_vec())).unwrap();
    out.alerts.remove(0)
}

#[test]
fn times_of_alerts_in_milliseconds_become_seconds_from_the_threshold_on() {
    let same = alert(Some(315_575_999_999), Some(-1));
    assert_eq!(alert_out(same.clone()), same);
    assert_eq!(alert_out(alert(None, None)), alert(None, None));

    let out = alert_out(alert(Some(315_576_000_000), Some(1_700_000_000_123)));
    let time = |seconds, nanos| Some(Timestamp { seconds, nanos });
    assert_eq!(out.started_at, time(315_576_000, 0));
    assert_eq!(out.ended_at, time(1_700_000_000, 123_000_000));
    assert_eq!((out.name.as_str(), out.audiences), ("name", vec![1, 2]));

    let out = alert_out(alert(Some(1_700_000_000), Some(i64::MAX)));
    assert_eq!(out.started_at, time(1_700_000_000, 5));
    assert_eq!(out.ended_at, time(i64::MAX / 1_000, 807_000_000));
}

#[test]
fn a_time_of_an_alert_in_two_parts_is_merged_and_its_unknown_fields_stay() {
    let unknown = bytes_field(9, b"new");
    let time = [
        bytes_field(3, &[number_field(1, 1_700_000_000_000), unknown.clone()].concat()),
        unknown.clone(),
        bytes_field(3, &number_field(2, 8)),
    ];
    let out = transformed("alerts", &bytes_field(1, &time.concat()));
    let time = bytes_field(3, &[number_field(1, 1_700_000_000), unknown.clone()].concat());
    let expected = [bytes_field(1, &[unknown, time].concat()), bytes_field(3, b"VIN")];
    assert_eq!(out.as_ref(), expected.concat());
}

proptest! {
    #[test]
    fn what_validates_transforms_to_what_validates(
        payload in payloads(),
        record_type in prop::sample::select(vec!["V", "alerts", "errors", "connectivity"]),
    ) {
        let kind = Kind::of(record_type).unwrap();
        let good = validate(kind, &payload).is_ok();
        let mut room = Vec::new();
        let out = transform(record_type, "VIN", &payload, &mut room);
        if good {
            let out = out.unwrap();
            prop_assert!(validate(kind, out).is_ok());
        }
    }

    #[test]
    fn what_validates_is_what_a_strict_decoder_accepts_too(payload in payloads()) {
        // prost refuses known fields of another wire type; all that it accepts must be accepted here.
        if Payload::decode(&payload[..]).is_ok() {
            prop_assert!(validate(Kind::Vehicle, &payload).is_ok());
        }
        if VehicleErrors::decode(&payload[..]).is_ok() {
            prop_assert!(validate(Kind::Errors, &payload).is_ok());
        }
    }

    #[test]
    fn data_without_strings_to_change_are_left_as_they_are(keys in prop::collection::vec(any::<i32>(), 0..20), numbers in any::<f64>()) {
        let payload = Payload {
            data: keys.iter().map(|key| Datum {
                key: *key,
                value: Some(Value { value: Some(Member::DoubleValue(numbers)) }),
            }).collect(),
            ..Payload::default()
        }.encode_to_vec();
        let out = transformed("V", &payload);
        prop_assert_eq!(out.as_ref(), [&payload[..], b"\x1a\x03VIN"].concat());
    }
}
