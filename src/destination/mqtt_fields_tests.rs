//! The layout, topic by topic and kind of value by kind of value.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message as _;
use prost_types::Timestamp;
use serde_json::{Value as Json, json};

use super::{FieldsError, clean, expand};
use crate::record::{
    payload::{ConnectivityStatus, Kind, connectivity, validate},
    proto::{
        vehicle_alerts::{VehicleAlert, VehicleAlerts},
        vehicle_data::{
            Datum, Doors, Field, LocationValue, Payload, Time, TireLocation, Value, value::Value as Member,
        },
        vehicle_error::{VehicleError, VehicleErrors},
    },
};

fn published(record_type: &str, payload: &[u8]) -> Vec<(String, String)> {
    expand("VIN", record_type, payload)
        .unwrap()
        .into_iter()
        .map(|message| (message.topic, String::from_utf8(message.payload).unwrap()))
        .collect()
}

fn datum(key: i32, member: Option<Member>) -> Datum {
    Datum {
        key,
        value: Some(Value { value: member }),
    }
}

fn record(data: Vec<Datum>) -> Vec<u8> {
    Payload {
        data,
        ..Payload::default()
    }
    .encode_to_vec()
}

/// The payload that a datum with this member becomes.
fn value(member: Member) -> String {
    let mut messages = published("V", &record(vec![datum(4, Some(member))]));
    let (topic, payload) = messages.remove(0);
    assert_eq!(topic, "VIN/v/VehicleSpeed");
    payload
}

fn time(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp {
        seconds,
        nanos: 999_999_999,
    })
}

#[test]
fn every_kind_of_value_has_its_json() {
    assert_eq!(value(Member::StringValue("a\"b".into())), r#""a\"b""#);
    assert_eq!(value(Member::IntValue(-5)), "-5");
    assert_eq!(value(Member::LongValue(i64::MAX)), "9223372036854775807");
    assert_eq!(value(Member::FloatValue(0.1)), "0.1");
    assert_eq!(value(Member::FloatValue(16_777_216.0)), "16777216");
    assert_eq!(value(Member::DoubleValue(0.1)), "0.1");
    assert_eq!(value(Member::BooleanValue(false)), "false");
    assert_eq!(value(Member::BooleanValue(true)), "true");
    assert_eq!(value(Member::Invalid(true)), "null");
    assert_eq!(value(Member::Invalid(false)), "null");
    assert_eq!(value(Member::ShiftStateValue(2)), r#""ShiftStateP""#);
    assert_eq!(
        value(Member::SunroofInstalledStateValue(3)),
        r#""SunroofInstalledStateGen2Installed""#
    );
    assert_eq!(value(Member::ShiftStateValue(99)), "99");
    let place = LocationValue {
        latitude: 37.412374,
        longitude: -122.0,
    };
    assert_eq!(
        value(Member::LocationValue(place)),
        r#"{"latitude":37.412374,"longitude":-122}"#
    );
    let place = LocationValue {
        latitude: 0.0,
        longitude: 1.5,
    };
    assert_eq!(value(Member::LocationValue(place)), r#"{"latitude":0,"longitude":1.5}"#);
    let doors = Doors {
        passenger_front: true,
        trunk_rear: true,
        ..Doors::default()
    };
    assert_eq!(
        value(Member::DoorValue(doors)),
        r#"{"DriverFront":false,"PassengerFront":true,"DriverRear":false,"PassengerRear":false,"TrunkFront":false,"TrunkRear":true}"#
    );
    assert_eq!(
        value(Member::TimeValue(Time {
            hour: 7,
            minute: 5,
            second: 0
        })),
        r#""07:05:00""#
    );
    let tires = TireLocation {
        front_left: true,
        semi_rear_axle_right_2: true,
        ..TireLocation::default()
    };
    assert_eq!(
        value(Member::TireLocationValue(tires)),
        r#"{"front_left":true,"semi_rear_axle_right_2":true}"#
    );
    assert_eq!(value(Member::TireLocationValue(TireLocation::default())), "{}");
}

#[test]
fn a_value_without_a_member_is_an_empty_object_and_no_value_is_null() {
    let no_value = Datum { key: 8, value: None };
    assert_eq!(
        published("V", &record(vec![datum(4, None), no_value])),
        [
            ("VIN/v/VehicleSpeed".into(), "{}".into()),
            ("VIN/v/Soc".into(), "null".into())
        ]
    );
}

#[test]
fn numbers_that_are_not_finite_are_null_and_say_so() {
    let place = LocationValue {
        latitude: f64::NAN,
        longitude: 1.0,
    };
    for (member, text) in [
        (Member::FloatValue(f32::NAN), "null"),
        (Member::DoubleValue(f64::NEG_INFINITY), "null"),
        (Member::LocationValue(place), r#"{"latitude":null,"longitude":1}"#),
    ] {
        let messages = expand("VIN", "V", &record(vec![datum(4, Some(member))])).unwrap();
        assert_eq!(messages[0].payload, text.as_bytes());
        assert!(messages[0].not_finite);
    }
    let messages = expand("VIN", "V", &record(vec![datum(4, Some(Member::Invalid(true)))])).unwrap();
    assert!(!messages[0].not_finite);
}

#[test]
fn the_last_datum_of_a_key_wins_and_a_key_without_a_name_is_its_number() {
    let data = vec![
        datum(4, Some(Member::IntValue(1))),
        datum(9_999, Some(Member::IntValue(2))),
        datum(-3, Some(Member::IntValue(3))),
        datum(0, Some(Member::IntValue(4))),
        datum(4, Some(Member::IntValue(5))),
        datum(Field::Deprecated3.into(), Some(Member::IntValue(6))),
    ];
    let expected = [
        ("VIN/v/VehicleSpeed", "5"),
        ("VIN/v/9999", "2"),
        ("VIN/v/-3", "3"),
        ("VIN/v/Unknown", "4"),
        ("VIN/v/Deprecated_3", "6"),
    ];
    assert_eq!(
        published("V", &record(data)),
        expected.map(|(topic, payload)| (topic.to_owned(), payload.to_owned()))
    );
}

#[test]
fn alerts_have_a_current_and_a_history() {
    let alert = |name: &str, start, end, audiences: &[i32]| VehicleAlert {
        name: name.into(),
        audiences: audiences.to_vec(),
        started_at: start,
        ended_at: end,
    };
    let alerts = vec![
        alert("a", time(100), time(160), &[1, 2]),
        alert("b", None, time(5), &[]),
        alert("a", time(200), None, &[]),
        alert("a", time(200), time(300), &[77]),
        alert("a", None, None, &[]),
    ];
    let payload = VehicleAlerts {
        alerts,
        ..VehicleAlerts::default()
    }
    .encode_to_vec();
    let expected = [
        (
            "VIN/alerts/a/current",
            r#"{"StartedAt":"1970-01-01T00:03:20Z","Audiences":null}"#,
        ),
        (
            "VIN/alerts/a/history",
            concat!(
                r#"[{"StartedAt":"1970-01-01T00:01:40Z","EndedAt":"1970-01-01T00:02:40Z","Audiences":["Customer","Service"]},"#,
                r#"{"StartedAt":"1970-01-01T00:03:20Z","Audiences":null},"#,
                r#"{"StartedAt":"1970-01-01T00:03:20Z","EndedAt":"1970-01-01T00:05:00Z","Audiences":[77]},"#,
                r#"{"Audiences":null}]"#
            ),
        ),
        (
            "VIN/alerts/b/history",
            r#"[{"EndedAt":"1970-01-01T00:00:05Z","Audiences":null}]"#,
        ),
    ];
    assert_eq!(
        published("alerts", &payload),
        expected.map(|(topic, payload)| (topic.to_owned(), payload.to_owned()))
    );
}

#[test]
fn errors_have_a_body_tags_and_a_time() {
    let full = VehicleError {
        created_at: time(1_700_000_000),
        name: "x".into(),
        tags: BTreeMap::from([("b".into(), "2".into()), ("a".into(), "1".into())]),
        body: "what".into(),
    };
    let bare = VehicleError {
        name: "y".into(),
        ..VehicleError::default()
    };
    let payload = VehicleErrors {
        errors: vec![full, bare],
        ..VehicleErrors::default()
    };
    let expected = [
        (
            "VIN/errors/x",
            r#"{"Body":"what","Tags":{"a":"1","b":"2"},"CreatedAt":"2023-11-14T22:13:20Z"}"#,
        ),
        ("VIN/errors/y", r#"{"Body":"","Tags":null}"#),
    ];
    assert_eq!(
        published("errors", &payload.encode_to_vec()),
        expected.map(|(topic, payload)| (topic.to_owned(), payload.to_owned()))
    );
}

#[test]
fn connectivity_is_one_message() {
    let connected = connectivity("VIN", "id", "wifi", ConnectivityStatus::Connected, 1_700_000_000_999);
    assert_eq!(
        published("connectivity", &connected),
        [(
            "VIN/connectivity".to_owned(),
            r#"{"ConnectionId":"id","Status":"CONNECTED","CreatedAt":"2023-11-14T22:13:20Z"}"#.to_owned()
        )]
    );
    assert_eq!(
        published("connectivity", b"")[0].1,
        r#"{"ConnectionId":"","Status":"UNKNOWN"}"#
    );
}

#[test]
fn a_record_of_an_unknown_type_has_no_fields_and_an_empty_one_none() {
    assert_eq!(expand("VIN", "canlogs", b"\xff"), Err(FieldsError::UnknownType));
    assert_eq!(expand("VIN", "V", b""), Ok(Vec::new()));
}

#[test]
fn a_name_cannot_break_out_of_its_topic_level() {
    assert_eq!(clean("a+b#c/d\0e\u{7f}f\u{85}g"), "a_b_c_d_e_f_g");
    assert_eq!(clean(""), "_");
    assert_eq!(clean("plain $name"), "plain $name");
    let long = "ü".repeat(2_000);
    assert_eq!(clean(&long), "ü".repeat(512));

    let error = VehicleError {
        name: "../+/#".into(),
        ..VehicleError::default()
    };
    let payload = VehicleErrors {
        errors: vec![error],
        ..VehicleErrors::default()
    }
    .encode_to_vec();
    let messages = expand("V/+", "errors", &payload).unwrap();
    assert_eq!(messages[0].topic, "V__/errors/..____");
}

#[test]
fn names_that_cleaning_makes_equal_are_both_published() {
    let alert = |name: &str| VehicleAlert {
        name: name.into(),
        started_at: time(1),
        ..VehicleAlert::default()
    };
    let payload = VehicleAlerts {
        alerts: vec![alert("a/b"), alert("a+b")],
        ..VehicleAlerts::default()
    };
    let topics: Vec<_> = published("alerts", &payload.encode_to_vec())
        .into_iter()
        .map(|(topic, _)| topic)
        .collect();
    assert_eq!(
        topics,
        [
            "VIN/alerts/a_b/current",
            "VIN/alerts/a_b/history",
            "VIN/alerts/a_b/current",
            "VIN/alerts/a_b/history"
        ]
    );
}

proptest! {
    #[test]
    fn any_payload_gives_json_on_clean_topics_or_an_error(
        payload in crate::record::payload::arbitrary::payloads(),
        vin in any::<String>(),
    ) {
        for (record_type, kind) in [("V", Kind::Vehicle), ("alerts", Kind::Alerts), ("errors", Kind::Errors), ("connectivity", Kind::Connectivity)] {
            let messages = expand(&vin, record_type, &payload);
            prop_assert!(messages.is_ok() || validate(kind, &payload).is_err());
            for message in messages.unwrap_or_default() {
                prop_assert!(serde_json::from_slice::<Json>(&message.payload).is_ok());
                prop_assert!(!message.topic.contains(|c: char| c == '+' || c == '#' || c.is_control()));
                let levels = match record_type { "connectivity" => 2, "alerts" => 4, _ => 3 };
                prop_assert_eq!(message.topic.split('/').count(), levels);
            }
        }
    }
}

#[test]
fn the_payload_is_the_value_alone() {
    let messages = published("V", &record(vec![datum(8, Some(Member::StringValue("80".into())))]));
    assert_eq!(serde_json::from_str::<Json>(&messages[0].1).unwrap(), json!("80"));
}
