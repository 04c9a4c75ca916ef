//! The three destinations, as those see them who are at their other end.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

use crate::kafka::{Consumed, Reading};
use crate::ledger::{Arrival, Ledger};
use crate::mosquitto::{Received, Subscriber};

/// What a subscriber has received since the last time.
pub(crate) fn from_subscriber(subscriber: &Subscriber, ledger: &mut Ledger) {
    for message in subscriber.take() {
        ledger.add(received(&message));
    }
}

fn received(message: &Received) -> Arrival {
    let vin = message.topic.split('/').nth(1).unwrap();
    let (record, txid) = (message.property("record"), message.property("txid"));
    let all = format!("{}\t{}\t{:?}", message.topic, message.properties, message.payload);
    Arrival::new(record, vin, txid, "", all.as_bytes())
}

/// What has been consumed from the cluster since the last time.
pub(crate) fn from_kafka(reading: &Reading, ledger: &mut Ledger) {
    for message in reading.take() {
        ledger.add(consumed(&message));
    }
}

fn consumed(message: &Consumed) -> Arrival {
    let Consumed { topic, key, .. } = message;
    let all = format!(
        "{topic}\t{key}\t{:?}\t{}\t{:?}",
        message.payload, message.timestamp, message.headers
    );
    let (record, txid) = (message.header("record"), message.header("txid"));
    Arrival::new(&record, key, &txid, topic, all.as_bytes())
}

/// All that is in the file. A line that a kill cut off is no record; it came again.
pub(crate) fn from_file(path: &Path) -> Ledger {
    let mut ledger = Ledger::default();
    for line in BufReader::new(File::open(path).unwrap()).split(b'\n') {
        let line = line.unwrap();
        if let Ok(value) = serde_json::from_slice::<Value>(&line) {
            let [record, vin, txid] = ["record", "vin", "txid"].map(|name| value[name].as_str().unwrap());
            ledger.add(Arrival::new(record, vin, txid, "", &line));
        }
    }
    ledger
}
