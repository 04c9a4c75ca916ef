//! A small queue with something of everything, as a crash leaves it.
#![allow(dead_code)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use waystation::queue::{DeadLetter, Item, Queue, Settings, WhenFull};
use waystation::record::Record;
use waystation::record::stored::RecordId;

pub(crate) const RECORDS: u64 = 60;
pub(crate) const CURSORS: [(&str, u64); 2] = [("cloud", 40), ("home", 25)];

pub(crate) const SETTINGS: Settings = Settings {
    max_bytes: 64 << 20,
    segment_size: 8 << 10,
    commit_delay: Duration::ZERO,
    dead_letter_bytes: 1 << 20,
    keep_free: 0,
    when_full: WhenFull::Refuse,
    max_age: None,
    duplicate_window: 4 << 20,
};

pub(crate) fn record(number: u64) -> Record {
    Record {
        vin: format!("5YJ3E1EA7KF{:06}", number % 3).into(),
        record_type: if number.is_multiple_of(10) { "alerts" } else { "V" }.into(),
        txid: Bytes::from(format!("txid-{number}")),
        received_at: 1_700_000_000_000 + number,
        client_version: "1.2.0".into(),
        payload: (0..400).map(|at| (number + at) as u8).collect(),
        origin: None,
        only: None,
    }
}

/// What a destination has refused; its transaction id is the record's number.
pub(crate) fn letter(origin: &str, record: Option<RecordId>, raw: impl Into<Bytes>) -> DeadLetter {
    DeadLetter {
        origin: origin.to_owned(),
        reason: "no".to_owned(),
        at: 1,
        vin: "5YJ3E1EA7KF000001".to_owned(),
        record_type: "V".to_owned(),
        txid: record.map_or_else(Bytes::new, |record| record.number.to_string().into()),
        raw: raw.into(),
        record,
        received_at: 1,
        client_version: String::new(),
    }
}

/// Writes it while its writer runs, so that nothing is closed in order.
pub(crate) async fn write(target: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    for (destination, _) in CURSORS {
        queue.register(destination, true);
    }
    let mut submitter = queue.submitter();
    for number in 0..RECORDS {
        submitter.store(Item::Record(record(number))).await.unwrap();
    }
    for (destination, cursor) in CURSORS {
        queue.advance(destination, cursor);
    }
    let letter = DeadLetter {
        origin: "cloud".to_owned(),
        reason: "larger than the broker takes".to_owned(),
        at: 1_700_000_001_000,
        vin: "5YJ3E1EA7KF000001".to_owned(),
        record_type: "V".to_owned(),
        txid: Bytes::from_static(b"txid-7"),
        raw: Bytes::from_static(b"raw"),
        record: Some(RecordId {
            queue: queue.id(),
            number: 7,
        }),
        received_at: 1_700_000_000_007,
        client_version: "1.2.0".to_owned(),
    };
    submitter.store(Item::DeadLetter(letter)).await.unwrap();
    // The cursors are saved once a second, and what they have passed is removed then.
    let first = dir.path().join("segments").join(format!("{:020}.redb", 0));
    while first.exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    copy(dir.path(), target);
    fs::write(target.with_extension("id"), format!("{}\n", queue.id())).unwrap();
    writer.close().unwrap();
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().unwrap().is_dir() {
            true => copy(&from, &to),
            false => drop(fs::copy(from, to).unwrap()),
        }
    }
}
