//! A gateway whose destinations write to files of their names, what is sent to it, and what has arrived in them.
#![allow(dead_code)]

use std::fs;

use prost::Message;
use serde_json::Value as Json;
use waystation::record::proto::vehicle_data::{Datum, Field, Payload, Value, value};

use crate::daemon::Daemon;
use crate::raw;

/// A destination that writes to the file of its name.
pub(crate) fn file(name: &str, more: &str) -> String {
    format!("[destinations.{name}]\ntype = \"log\"\npath = \"{name}.jsonl\"\n{more}\n")
}

pub(crate) fn daemon(vehicles: usize, queue: &str, destinations: &[(&str, &str)]) -> Daemon {
    let names: Vec<_> = destinations.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let files: Vec<_> = destinations.iter().map(|(name, more)| file(name, more)).collect();
    let names = names.join(", ");
    let rest = format!("[records]\nV = [{names}]\nalerts = [{names}]\n{}", files.join("\n"));
    Daemon::new(vehicles, queue, &rest)
}

pub(crate) fn v(fields: &[Field]) -> Vec<u8> {
    let datum = |field: &Field| Datum {
        key: (*field).into(),
        value: Some(Value {
            value: Some(value::Value::IntValue(7)),
        }),
    };
    let payload = Payload {
        data: fields.iter().map(datum).collect(),
        ..Payload::default()
    };
    payload.encode_to_vec()
}

pub(crate) fn send(daemon: &Daemon, vehicle: usize, records: &[(&str, String, Vec<u8>)]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(raw::send_all(daemon, vehicle, records));
}

/// So many V records of one field, with these transaction ids.
pub(crate) fn numbered(from: usize, to: usize) -> Vec<(&'static str, String, Vec<u8>)> {
    (from..to)
        .map(|number| ("V", number.to_string(), v(&[Field::Soc])))
        .collect()
}

pub(crate) fn lines(daemon: &Daemon, name: &str) -> Vec<Json> {
    let text = fs::read_to_string(daemon.path(&format!("{name}.jsonl"))).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn txids(daemon: &Daemon, name: &str) -> Vec<String> {
    let lines = lines(daemon, name);
    lines
        .iter()
        .map(|line| line["txid"].as_str().unwrap().to_owned())
        .collect()
}

pub(crate) fn held(daemon: &Daemon, name: &str) -> Option<String> {
    let status = daemon.status();
    let mut destinations = status["destinations"].as_array().unwrap().iter();
    let one = destinations.find(|one| one["name"] == name).unwrap();
    one["held"].as_str().map(str::to_owned)
}
