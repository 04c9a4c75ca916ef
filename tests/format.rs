//! Queues that released builds have written open in this one, and one from a newer build is left alone.
#![allow(clippy::unwrap_used)]

#[path = "support/fixture.rs"]
mod fixture;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use redb::ReadableTable;
use waystation::queue::{Item, Queue, Queued};

async fn drain(queue: &Queue, destination: &str) -> Vec<Queued> {
    let mut reader = queue.reader(destination);
    let mut records = Vec::new();
    while queue.snapshot().committed > reader.position() {
        records.extend(reader.next(64 << 10).await.unwrap().records);
    }
    records
}

#[tokio::test]
async fn a_queue_of_format_1_opens_with_everything_in_it() {
    let dir = tempfile::tempdir().unwrap();
    fixture::copy(Path::new("tests/data/queue-format-1"), dir.path());
    let (queue, writer) = Queue::open(dir.path(), fixture::SETTINGS).unwrap();
    assert_eq!(
        queue.id().to_string(),
        fs::read_to_string("tests/data/queue-format-1.id").unwrap().trim()
    );
    for (destination, cursor) in fixture::CURSORS {
        queue.register(destination, true);
        assert_eq!(queue.cursor(destination), cursor);
        let records = drain(&queue, destination).await;
        let expected: Vec<_> = (cursor..fixture::RECORDS).map(fixture::record).collect();
        assert_eq!(
            records.iter().map(|queued| queued.record.clone()).collect::<Vec<_>>(),
            expected
        );
        let numbers: Vec<_> = records.iter().map(|queued| queued.id.number).collect();
        assert_eq!(numbers, (cursor..fixture::RECORDS).collect::<Vec<_>>());
    }
    queue
        .submitter()
        .store(Item::Record(fixture::record(1000)))
        .await
        .unwrap();
    let last = drain(&queue, "cloud").await.pop().unwrap();
    assert_eq!(last.record, fixture::record(1000));
    assert_eq!(queue.snapshot().lost, 0);
    assert!(!dir.path().join("quarantine").exists());
    tokio::task::spawn_blocking(|| writer.close()).await.unwrap().unwrap();
}

/// Changes a row of a segment's meta table.
fn change_meta(segment: &Path, key: &str, change: impl FnOnce(&mut Vec<u8>)) {
    const META: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("meta");
    let database = redb::Database::open(segment).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut table = transaction.open_table(META).unwrap();
    let mut row = table.get(key).unwrap().unwrap().value().to_vec();
    change(&mut row);
    table.insert(key, row.as_slice()).unwrap();
    drop(table);
    transaction.commit().unwrap();
}

/// Every file's bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(self::files(&path)),
            false => drop(files.insert(path.clone(), fs::read(path).unwrap())),
        }
    }
    files
}

#[test]
fn a_flipped_bit_in_the_format_is_damage_and_not_a_newer_build() {
    let dir = tempfile::tempdir().unwrap();
    fixture::copy(Path::new("tests/data/queue-format-1"), dir.path());
    let newest = files(&dir.path().join("segments")).into_keys().next_back().unwrap();
    change_meta(&newest, "format", |row| row[7] ^= 1);
    let (_queue, writer) = Queue::open(dir.path(), fixture::SETTINGS).unwrap();
    assert!(dir.path().join("quarantine").exists());
    writer.close().unwrap();
}

#[tokio::test]
async fn a_segment_whose_own_place_is_damaged_costs_none_of_its_records() {
    let dir = tempfile::tempdir().unwrap();
    fixture::copy(Path::new("tests/data/queue-format-1"), dir.path());
    let segment = dir.path().join(format!("segments/{:020}.redb", 36));
    // A flipped bit: this would be four million million lost records.
    change_meta(&segment, "follows", |row| row[5] ^= 1 << 2);

    let (queue, writer) = Queue::open(dir.path(), fixture::SETTINGS).unwrap();
    queue.register("home", true);
    let records = drain(&queue, "home").await;
    let numbers: Vec<_> = records.iter().map(|queued| queued.id.number).collect();
    assert_eq!(numbers, (25..60).collect::<Vec<_>>());
    assert_eq!(queue.snapshot().lost, 0);
    tokio::task::spawn_blocking(|| writer.close()).await.unwrap().unwrap();
}

#[test]
fn a_queue_from_a_newer_build_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    fixture::copy(Path::new("tests/data/queue-format-1"), dir.path());
    let newest = files(&dir.path().join("segments")).into_keys().next_back().unwrap();
    // The number and its checksum, as in every format.
    let number = 2_u64.to_le_bytes();
    let newer = [number, xxhash_rust::xxh3::xxh3_64(&number).to_le_bytes()].concat();
    change_meta(&newest, "format", |row| row.clone_from(&newer));

    let before = files(dir.path());
    let Err(error) = Queue::open(dir.path(), fixture::SETTINGS) else {
        panic!("it opened");
    };
    let error = error.to_string();
    assert!(
        error.contains("format 2 is newer") && error.contains(newest.to_str().unwrap()),
        "{error}"
    );
    assert_eq!(files(dir.path()), before);
}
