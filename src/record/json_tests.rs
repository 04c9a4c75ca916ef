//! The JSON form, field by field, and compared with what prost-reflect makes of the same message.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use prost_types::Timestamp;
use serde_json::{Value as Json, json};

use super::{JsonError, decoded};
use crate::record::{
    payload::{Kind, PayloadError, validate},
    proto::{
        DESCRIPTORS,
        vehicle_alerts::{VehicleAlert, VehicleAlerts},
        vehicle_data::{
            Datum, Doors, Field, LocationValue, Payload, Time, TireLocation, Value, value::Value as Member,
        },
        vehicle_error::{VehicleError, VehicleErrors},
    },
};

fn parsed(record_type: &str, payload: &[u8]) -> Json {
    serde_json::from_str(&decoded(record_type, payload).unwrap()).unwrap()
}

fn value(member: Member) -> Json {
    let payload = Payload {
        data: vec![Datum {
            key: Field::VehicleSpeed.into(),
            value: Some(Value { value: Some(member) }),
        }],
        ..Payload::default()
    };
    parsed("V", &payload.encode_to_vec())["data"][0]["value"].clone()
}

#[test]
fn fields_that_are_not_set_are_there_with_their_defaults() {
    assert_eq!(
        parsed("V", b""),
        json!({"data": [], "createdAt": null, "vin": "", "isResend": false})
    );
    assert_eq!(
        parsed("alerts", b"\x0a\x00"),
        json!({"alerts": [{"name": "", "audiences": [], "startedAt": null, "endedAt": null}],
            "createdAt": null, "vin": ""})
    );
    assert_eq!(
        parsed("errors", b"\x0a\x00"),
        json!({"errors": [{"createdAt": null, "name": "", "tags": {}, "body": ""}],
            "createdAt": null, "vin": ""})
    );
    assert_eq!(
        parsed("connectivity", b""),
        json!({"vin": "", "connectionId": "", "status": "UNKNOWN", "createdAt": null,
            "networkInterface": ""})
    );
    assert_eq!(
        parsed("V", b"\x0a\x00")["data"],
        json!([{"key": "Unknown", "value": null}])
    );
}

#[test]
fn of_a_value_only_the_member_that_is_set_is_there() {
    assert_eq!(parsed("V", b"\x0a\x02\x12\x00")["data"][0]["value"], json!({}));
    assert_eq!(value(Member::IntValue(0)), json!({"intValue": 0}));
    assert_eq!(
        value(Member::LongValue(i64::MIN)),
        json!({"longValue": "-9223372036854775808"})
    );
    assert_eq!(
        value(Member::StringValue("a\"\\\n\u{1}ü".into())),
        json!({"stringValue": "a\"\\\n\u{1}ü"})
    );
    assert_eq!(value(Member::BooleanValue(false)), json!({"booleanValue": false}));
    assert_eq!(value(Member::Invalid(true)), json!({"invalid": true}));
    assert_eq!(
        value(Member::ShiftStateValue(5)),
        json!({"shiftStateValue": "ShiftStateD"})
    );
    assert_eq!(value(Member::ShiftStateValue(-77)), json!({"shiftStateValue": -77}));
    assert_eq!(
        value(Member::TimeValue(Time {
            hour: 7,
            minute: 0,
            second: 59
        })),
        json!({"timeValue": {"hour": 7, "minute": 0, "second": 59}})
    );
    assert_eq!(
        value(Member::DoorValue(Doors {
            trunk_rear: true,
            ..Doors::default()
        }))["doorValue"],
        json!({"DriverFront": false, "DriverRear": false, "PassengerFront": false,
            "PassengerRear": false, "TrunkFront": false, "TrunkRear": true})
    );
    let tires = TireLocation {
        semi_rear_axle_left_2: true,
        ..TireLocation::default()
    };
    assert_eq!(
        value(Member::TireLocationValue(tires))["tireLocationValue"]["semiRearAxleLeft2"],
        true
    );
    let place = LocationValue {
        latitude: 37.412374,
        longitude: -122.145867,
    };
    assert_eq!(
        value(Member::LocationValue(place)),
        json!({"locationValue": {"latitude": 37.412374, "longitude": -122.145867}})
    );
}

#[test]
fn numbers_are_the_shortest_that_read_as_the_same() {
    let raw = |member| {
        let value = Value { value: Some(member) };
        let datum = Datum {
            key: 4,
            value: Some(value),
        };
        let payload = Payload {
            data: vec![datum],
            ..Payload::default()
        };
        let text = decoded("V", &payload.encode_to_vec()).unwrap();
        let (_, rest) = text.split_once("Value\":").unwrap();
        rest.split_once('}').unwrap().0.to_owned()
    };
    assert_eq!(raw(Member::FloatValue(0.1)), "0.1");
    assert_eq!(raw(Member::DoubleValue(f64::from(0.1_f32))), "0.10000000149011612");
    assert_eq!(raw(Member::FloatValue(100.0)), "100");
    assert_eq!(raw(Member::DoubleValue(1e21)), "1e21");
    assert_eq!(raw(Member::DoubleValue(1e20)), "100000000000000000000");
    assert_eq!(raw(Member::DoubleValue(1e-7)), "1e-7");
    assert_eq!(raw(Member::FloatValue(-0.0)), "-0");
    assert_eq!(raw(Member::FloatValue(f32::NAN)), "\"NaN\"");
    assert_eq!(raw(Member::DoubleValue(f64::INFINITY)), "\"Infinity\"");
    assert_eq!(raw(Member::FloatValue(f32::NEG_INFINITY)), "\"-Infinity\"");
}

#[test]
fn times_have_as_many_digits_as_they_need() {
    for (nanos, text) in [
        (0, "2023-11-14T22:13:20Z"),
        (120_000_000, "2023-11-14T22:13:20.120Z"),
        (123_456_000, "2023-11-14T22:13:20.123456Z"),
        (1, "2023-11-14T22:13:20.000000001Z"),
    ] {
        let payload = Payload {
            created_at: Some(Timestamp {
                seconds: 1_700_000_000,
                nanos,
            }),
            ..Payload::default()
        };
        assert_eq!(parsed("V", &payload.encode_to_vec())["createdAt"], text);
    }
}

#[test]
fn a_time_without_a_name_is_an_error() {
    let payload = Payload {
        created_at: Some(Timestamp {
            seconds: i64::MAX,
            nanos: 0,
        }),
        ..Payload::default()
    };
    assert_eq!(
        decoded("V", &payload.encode_to_vec()),
        Err(JsonError::Time {
            seconds: i64::MAX,
            nanos: 0
        })
    );
}

#[test]
fn maps_and_repeated_enums_are_there() {
    let error = VehicleError {
        tags: BTreeMap::from([("b".into(), "2".into()), ("a".into(), "1".into())]),
        ..VehicleError::default()
    };
    let payload = VehicleErrors {
        errors: vec![error],
        ..VehicleErrors::default()
    };
    let text = decoded("errors", &payload.encode_to_vec()).unwrap();
    assert!(text.contains(r#""tags":{"a":"1","b":"2"}"#), "{text}");

    let alert = VehicleAlert {
        audiences: vec![1, 9, 0],
        ..VehicleAlert::default()
    };
    let payload = VehicleAlerts {
        alerts: vec![alert],
        ..VehicleAlerts::default()
    };
    assert_eq!(
        parsed("alerts", &payload.encode_to_vec())["alerts"][0]["audiences"],
        json!(["Customer", 9, "Unknown"])
    );
    // Not packed, and packed again.
    assert_eq!(
        parsed("alerts", b"\x0a\x07\x10\x01\x10\x02\x12\x01\x03")["alerts"][0]["audiences"],
        json!(["Customer", "Service", "ServiceFix"])
    );
}

#[test]
fn a_field_of_another_wire_type_does_not_make_it_fail() {
    // vin as a number; is_resend as a string; data as a number.
    assert_eq!(parsed("V", b"\x18\x05\x22\x01x\x08\x01"), parsed("V", b""));
}

#[test]
fn fields_that_repeat_follow_protobuf() {
    // Two values: location_value's latitude, then its longitude: they merge. Then a time: it alone is left.
    let latitude = b"\x3a\x09\x09\0\0\0\0\0\0\xf0\x3f";
    let longitude = b"\x3a\x09\x11\0\0\0\0\0\0\0\x40";
    let member = |parts: &[&[u8]]| {
        let mut datum = Vec::new();
        for part in parts {
            datum.extend([0x12, part.len() as u8]);
            datum.extend(*part);
        }
        let payload = [&[0x0a, datum.len() as u8], &datum[..]].concat();
        parsed("V", &payload)["data"][0]["value"].clone()
    };
    assert_eq!(
        member(&[latitude, longitude]),
        json!({"locationValue": {"latitude": 1, "longitude": 2}})
    );
    assert_eq!(
        member(&[latitude, b"\x10\x05", longitude])["locationValue"]["latitude"],
        0
    );
    assert_eq!(member(&[latitude, b"\x10\x05"]), json!({"intValue": 5}));
    assert_eq!(parsed("V", b"\x1a\x01a\x1a\x01b")["vin"], "b");
}

#[test]
fn a_record_of_an_unknown_type_has_no_json_form() {
    assert_eq!(decoded("canlogs", b""), Err(JsonError::NotDecodable("canlogs".into())));
}

#[test]
fn a_payload_of_more_elements_than_any_vehicles_has_no_json_form() {
    let alerts = |count| b"\x0a\x00".repeat(count);
    assert_eq!(
        parsed("alerts", &alerts(10_000))["alerts"].as_array().unwrap().len(),
        10_000
    );
    // An alert's audiences, packed; each of them a byte.
    let audiences = |count: usize| {
        let mut alert = vec![0x12];
        prost::encoding::encode_varint(count as u64, &mut alert);
        alert.extend(vec![1; count]);
        let mut payload = vec![0x0a];
        prost::encoding::encode_varint(alert.len() as u64, &mut payload);
        [payload, alert].concat()
    };
    assert!(decoded("alerts", &audiences(9_999)).is_ok());
    let too_many = [
        ("alerts", alerts(10_001)),
        ("alerts", alerts(500_000)),
        ("alerts", audiences(10_000)),
        ("errors", b"\x0a\x02\x1a\x00".repeat(250_000)),
        ("V", b"\x0a\x00".repeat(500_000)),
    ];
    for (record_type, payload) in too_many {
        let error = JsonError::Payload(PayloadError::TooMany(10_000));
        assert_eq!(decoded(record_type, &payload), Err(error), "{record_type}");
    }
}

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).unwrap());

/// What prost-reflect leaves out: messages that are not set.
fn without_nulls(json: Json) -> Json {
    match json {
        Json::Object(members) => members
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, without_nulls(value)))
            .collect(),
        Json::Array(values) => values.into_iter().map(without_nulls).collect(),
        // Which of `1` and `1.0` is written is no difference.
        Json::Number(number) => json!(number.as_f64()),
        other => other,
    }
}

proptest! {
    #[test]
    fn prost_reflect_agrees(
        payload in crate::record::payload::arbitrary::payloads(),
        kind in prop::sample::select(Kind::ALL.to_vec()),
    ) {
        let record_type = match kind {
            Kind::Vehicle => "V",
            Kind::Alerts => "alerts",
            Kind::Errors => "errors",
            Kind::Connectivity => "connectivity",
        };
        let ours = decoded(record_type, &payload);
        prop_assert!(validate(kind, &payload).is_err() || !matches!(ours, Err(JsonError::Payload(_))));
        let descriptor = POOL.get_message_by_name(kind.message_name()).unwrap();
        let Ok(message) = DynamicMessage::decode(descriptor, &payload[..]) else {
            return Ok(());
        };
        let mut theirs = Vec::new();
        let options = SerializeOptions::new().skip_default_fields(false);
        let written = message.serialize_with_options(
            &mut serde_json::Serializer::new(&mut theirs),
            &options,
        );
        // It writes nanoseconds of more than a second, which the reference refuses.
        prop_assert!(written.is_ok() || ours.is_err());
        prop_assert!(!matches!(ours, Err(JsonError::Payload(_))));
        if let Ok(ours) = ours {
            let ours = without_nulls(serde_json::from_str(&ours).unwrap());
            prop_assert_eq!(ours, without_nulls(serde_json::from_slice(&theirs).unwrap()));
        }
    }
}
