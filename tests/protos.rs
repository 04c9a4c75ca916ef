//! The protos have exactly the enum values and fields of the table of what vehicles send.

use std::{collections::BTreeSet, error::Error};

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind};
use waystation::record::proto::DESCRIPTORS;

const TABLE: &str = include_str!("data/payload-fields.tsv");

const PACKAGES: [&str; 5] = [
    "telemetry.vehicle_data",
    "telemetry.vehicle_alerts",
    "telemetry.vehicle_error",
    "telemetry.vehicle_connectivity",
    "telemetry.vehicle_metrics",
];

/// A type as the table writes it; types of the same package go without it.
fn type_of(field: &FieldDescriptor) -> String {
    let package = field.parent_message().package_name().to_owned();
    let name = match field.kind() {
        Kind::Message(entry) if field.is_map() => format!(
            "map<{},{}>",
            type_of(&entry.map_entry_key_field()),
            type_of(&entry.map_entry_value_field())
        ),
        Kind::Message(message) => in_package(message.full_name(), &package),
        Kind::Enum(enumeration) => in_package(enumeration.full_name(), &package),
        scalar => format!("{scalar:?}").to_lowercase(),
    };
    let repeated = if field.is_list() { "repeated " } else { "" };
    let oneof = match field.containing_oneof() {
        Some(oneof) => format!(" oneof {}", oneof.name()),
        None => String::new(),
    };
    format!("{repeated}{name}{oneof}")
}

fn in_package(full_name: &str, package: &str) -> String {
    full_name
        .strip_prefix(package)
        .and_then(|name| name.strip_prefix('.'))
        .unwrap_or(full_name)
        .to_owned()
}

/// The rows that the compiled protos would have in the table.
fn compiled() -> BTreeSet<String> {
    let pool = DescriptorPool::decode(DESCRIPTORS).expect("build.rs wrote these");
    let mut rows = BTreeSet::new();
    for enumeration in pool.all_enums() {
        let package = enumeration.package_name();
        if !PACKAGES.contains(&package) {
            continue;
        }
        for value in enumeration.values() {
            let (of, name, number) = (enumeration.name(), value.name(), value.number());
            rows.insert(format!("{package}\tenum\t{of}\t{name}\t{number}\t"));
        }
    }
    for message in pool.all_messages() {
        let package = message.package_name();
        if !PACKAGES.contains(&package) || message.is_map_entry() {
            continue;
        }
        for field in message.fields() {
            let (of, name, number) = (message.name(), field.name(), field.number());
            let row = format!("{package}\tmessage\t{of}\t{name}\t{number}\t{}", type_of(&field));
            rows.insert(row);
        }
    }
    rows
}

fn table() -> BTreeSet<String> {
    TABLE.lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn every_row_of_the_table_is_in_the_protos() {
    let (compiled, table) = (compiled(), table());
    let missing: Vec<_> = table.difference(&compiled).collect();
    assert!(missing.is_empty(), "not in protos/: {missing:#?}");
    assert_eq!(table.len(), TABLE.lines().count() - 1, "the table has a row twice");
}

#[test]
fn everything_in_the_protos_is_in_the_table() {
    let (compiled, table) = (compiled(), table());
    let extra: Vec<_> = compiled.difference(&table).collect();
    assert!(extra.is_empty(), "not in the table: {extra:#?}");
}

#[test]
fn stored_messages_read_back_as_they_were() -> Result<(), Box<dyn Error>> {
    use prost::Message;
    use waystation::record::proto::store::{Cursors, StoredRecord};

    let record = StoredRecord {
        number: 7,
        vin: "VIN".into(),
        record_type: "V".into(),
        txid: vec![1, 2].into(),
        received_at_ms: 1_700_000_000_000,
        client_version: "1".into(),
        payload: vec![3; 100].into(),
        ..StoredRecord::default()
    };
    let bytes = bytes::Bytes::from(record.encode_to_vec());
    let read = StoredRecord::decode(bytes.clone())?;
    assert_eq!(read, record);
    // The payload is a slice of what was read, not a copy.
    assert!(bytes.as_ptr_range().contains(&read.payload.as_ptr()));

    let cursors = Cursors {
        positions: [("kafka".to_owned(), 5)].into_iter().collect(),
        committed: 9,
        ..Cursors::default()
    };
    assert_eq!(Cursors::decode(&cursors.encode_to_vec()[..])?, cursors);
    Ok(())
}
