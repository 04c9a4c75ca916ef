//! Small commits are in the journal before they are in a segment: what a crash leaves there is kept, and seen from outside.
#![allow(clippy::unwrap_used)]

#[path = "support/fixture.rs"]
mod fixture;

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use fixture::copy;
use waystation::queue::{
    Depth, InspectError, Item, Queue, Settings, Step, WhenFull, WriterThread, inspect, queue_id, walk,
};
use waystation::record::Record;

const SETTINGS: Settings = Settings {
    max_bytes: 256 << 20,
    segment_size: 32 << 20,
    commit_delay: Duration::ZERO,
    dead_letter_bytes: 8 << 20,
    keep_free: 0,
    when_full: WhenFull::Refuse,
    max_age: None,
    duplicate_window: 4 << 20,
};

fn record(n: u64) -> Record {
    Record {
        vin: "5YJ3E1EA7KF000001".into(),
        record_type: "V".into(),
        txid: Bytes::from(n.to_string()),
        received_at: 1_700_000_000_000 + n,
        client_version: "1".into(),
        payload: vec![n as u8; 300].into(),
        origin: None,
        only: None,
    }
}

/// One commit each.
async fn store(queue: &Queue, numbers: std::ops::Range<u64>) {
    let mut submitter = queue.submitter();
    for n in numbers {
        submitter.store(Item::Record(record(n))).await.unwrap();
    }
}

async fn close(writer: WriterThread) {
    tokio::task::spawn_blocking(|| writer.close()).await.unwrap().unwrap();
}

/// The records as they are read by a destination that was not there before.
async fn read(queue: &Queue, records: usize) -> Vec<Record> {
    queue.register("somebody new", true);
    let mut reader = queue.reader("somebody new");
    let mut all = Vec::new();
    while all.len() < records {
        let ready = tokio::time::timeout(Duration::from_secs(20), reader.ready()).await;
        ready.expect("more is committed");
        let read = reader.next(10_000).await.unwrap().records;
        all.extend(read.into_iter().map(|queued| queued.record));
    }
    all
}

fn expected(numbers: std::ops::Range<u64>) -> Vec<Record> {
    numbers.map(record).collect()
}

#[tokio::test]
async fn what_is_in_the_journal_alone_is_seen_from_outside_and_found_by_the_next_start() {
    let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    queue.register("a", true);
    // Beyond one filling of the journal.
    store(&queue, 0..1_200).await;
    copy(dir.path(), crashed.path());
    let id = queue.id();
    close(writer).await;
    assert!(
        !dir.path().join("segments/journal").exists(),
        "an orderly stop puts it away"
    );

    let path = crashed.path();
    assert_eq!(queue_id(path).unwrap(), Some(id));
    let seen = inspect(path, Depth::Everything, |_, _| {}).unwrap();
    assert_eq!((seen.records, seen.end), (1_200, 1_200));
    assert!(seen.missing.is_empty(), "{:?}", seen.missing);
    let last = seen.segments.last().unwrap();
    assert_eq!(last.path, path.join("segments/journal"));
    assert!(
        last.first > 900 && last.oldest == Some(1_700_000_000_000 + last.first),
        "{last:?}"
    );
    let mut walked = Vec::new();
    walk::<InspectError>(path, 0..u64::MAX, |step| {
        match step {
            Step::Found(queued) => walked.push(queued.record),
            Step::Segment(..) => {}
            other => panic!("{other:?}"),
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(walked, expected(0..1_200));

    let (queue, writer) = Queue::open(path, SETTINGS).unwrap();
    assert_eq!(read(&queue, 1_200).await, expected(0..1_200));
    // Killed again, with a journal of its own.
    store(&queue, 1_200..1_210).await;
    let again = tempfile::tempdir().unwrap();
    copy(path, again.path());
    close(writer).await;
    let (queue, writer) = Queue::open(again.path(), SETTINGS).unwrap();
    assert_eq!(read(&queue, 1_210).await, expected(0..1_210));
    assert_eq!(queue.snapshot().lost, 0);
    close(writer).await;
}

#[tokio::test]
async fn without_cursors_and_segments_the_journal_says_whose_it_is() {
    let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    queue.register("a", true);
    store(&queue, 0..20).await;
    copy(dir.path(), crashed.path());
    close(writer).await;
    fs::remove_file(crashed.path().join("cursors")).unwrap();
    fs::remove_file(crashed.path().join("segments/00000000000000000000.redb")).unwrap();
    let (queue, writer) = Queue::open(crashed.path(), SETTINGS).unwrap();
    assert_eq!(read(&queue, 20).await, expected(0..20));
    close(writer).await;
}

#[tokio::test]
async fn another_queues_journal_is_set_aside() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    queue.register("a", true);
    store(&queue, 0..20).await;
    let journal = fs::read(dir.path().join("segments/journal")).unwrap();
    close(writer).await;
    let (queue, writer) = Queue::open(other.path(), SETTINGS).unwrap();
    queue.register("a", true);
    store(&queue, 0..5).await;
    close(writer).await;
    fs::write(other.path().join("segments/journal"), journal).unwrap();
    let (queue, writer) = Queue::open(other.path(), SETTINGS).unwrap();
    assert_eq!(queue.backlog(0), 5);
    close(writer).await;
    let set_aside = fs::read_dir(other.path().join("quarantine")).unwrap();
    let notes = set_aside.filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok());
    assert!(notes.into_iter().any(|note| note.contains("belongs to queue")));
}
