//! A record that a vehicle sends twice is stored once and acknowledged each time, never before it is on the disk.
#![allow(clippy::unwrap_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/raw.rs"]
mod raw;
#[path = "support/records_file.rs"]
mod records_file;
#[path = "support/vehicle.rs"]
mod vehicle;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use daemon::Daemon;
use gateway::{Options, Running};
use records_file::{FILE, arrived};
use vehicle::{PAYLOAD, ack, record};
use waystation::queue::{Item, Queue, Refusal, Settings, Snapshot, WhenFull, WriterThread};
use waystation::record::Record;
use waystation::record::stored::{QueueId, RecordId};

const TXID: &str = "the-one-that-comes-twice";
const LONG: Duration = Duration::from_secs(30);

fn is_on_the_disk(dir: &Path, txid: &str) -> bool {
    let segments = fs::read_dir(dir.join("queue/segments")).unwrap();
    segments.into_iter().any(|segment| {
        let bytes = fs::read(segment.unwrap().path()).unwrap();
        bytes.windows(txid.len()).any(|part| part == txid.as_bytes())
    })
}

#[tokio::test]
async fn twice_in_one_commit_it_is_stored_once_and_acknowledged_twice() {
    let gateway = Running::with(Options {
        queue: "commit_delay = \"500ms\"",
        ..Options::default()
    })
    .await;
    let mut vehicle = gateway.connect(1).await;
    for txid in [TXID, TXID, "another", TXID] {
        vehicle.send(record(1, "V", txid, PAYLOAD)).await;
    }
    for txid in [TXID, TXID, "another", TXID] {
        assert_eq!(vehicle.reply().await, ack("V", txid));
        assert!(is_on_the_disk(gateway.dir.path(), txid));
    }
    let report = gateway.report();
    let queue = &report.queue;
    assert_eq!((queue.records, queue.commits, queue.duplicates), (2, 1, 2));
    assert_eq!(report.listener.acked, 4);
    assert_eq!(gateway.stop().await.lines.len(), 2);
}

/// The second connection replaces the first while the commit of the first's record is under way.
#[tokio::test]
async fn on_another_connection_its_ack_waits_for_the_commit_of_the_first() {
    let gateway = Running::with(Options {
        queue: "commit_delay = \"4s\"",
        ..Options::default()
    })
    .await;
    let mut first = gateway.connect(1).await;
    first.send(record(1, "V", TXID, PAYLOAD)).await;
    gateway
        .reports("it has come in", |report| report.listener.types["V"].records == 1)
        .await;
    let mut second = gateway.connect(1).await;
    second.send(record(1, "V", TXID, PAYLOAD)).await;
    let report = gateway
        .reports("it has come again", |report| report.listener.types["V"].records == 2)
        .await;
    assert_eq!(
        (report.listener.replaced, report.listener.acked, report.queue.commits),
        (1, 0, 0),
        "the first is under way"
    );
    assert_eq!(second.reply().await, ack("V", TXID));
    assert!(is_on_the_disk(gateway.dir.path(), TXID));
    let queue = gateway.report().queue;
    assert_eq!((queue.records, queue.commits, queue.duplicates), (1, 1, 1));
    assert_eq!(gateway.stop().await.lines.len(), 1);
}

#[tokio::test]
async fn after_the_commit_of_the_first_nothing_is_written_for_it() {
    let gateway = Running::start().await;
    for _ in 0..3 {
        let mut vehicle = gateway.connect(1).await;
        vehicle.delivers(1, TXID).await;
        vehicle.leave().await;
    }
    let queue = gateway.report().queue;
    assert_eq!((queue.records, queue.commits, queue.duplicates), (1, 1, 2));
    assert_eq!(gateway.stop().await.lines.len(), 1);
}

#[tokio::test]
async fn what_differs_in_anything_is_another_record() {
    let gateway = Running::with(Options {
        records: "V = \"lines\"\nraw = \"lines\"",
        ..Options::default()
    })
    .await;
    let (mut one, mut other) = (gateway.connect(1).await, gateway.connect(2).await);
    let mut almost = PAYLOAD.to_vec();
    *almost.last_mut().unwrap() ^= 1;
    for (topic, txid, payload) in [
        ("V", TXID, PAYLOAD),
        ("V", TXID, &almost),
        ("raw", TXID, PAYLOAD),
        ("V", "another", PAYLOAD),
    ] {
        one.send(record(1, topic, txid, payload)).await;
        assert_eq!(one.reply().await, ack(topic, txid));
    }
    other.delivers(2, TXID).await;
    assert_eq!(gateway.report().queue.duplicates, 0);
    assert_eq!(gateway.stop().await.lines.len(), 5);
}

#[tokio::test]
async fn the_records_of_a_connection_itself_are_none_whatever_it_is_called() {
    let gateway = Running::with(Options {
        records: "V = \"lines\"\nconnectivity = \"lines\"",
        ..Options::default()
    })
    .await;
    let id = "6e8f1a52-9b1d-4c7e-8a54-0123456789ab";
    for round in 1..=3 {
        let mut dial = gateway.dial(1);
        dial.headers = vec![("x-txid", id.to_owned())];
        let mut vehicle = dial.connect().await.unwrap();
        vehicle.delivers(1, id).await;
        vehicle.leave().await;
        gateway.delivers(1 + 2 * round).await;
    }
    let lines = gateway.stop().await.lines;
    let mut statuses: Vec<_> = lines
        .iter()
        .filter_map(|line| line["payload"]["status"].as_str())
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [["CONNECTED"; 3], ["DISCONNECTED"; 3]].concat());
    assert_eq!(lines.len(), 7, "and the vehicle's own record once");
}

/// A daemon with a destination for the vehicle's records alone.
fn daemon(queue: &str) -> Daemon {
    Daemon::new(1, queue, &FILE.replace("\"*\"", "raw"))
}

/// Records that the destination has had. A kill may have it get one again, under the same id.
fn stored(daemon: &Daemon) -> usize {
    daemon.wait_drained("file", LONG);
    arrived(daemon).into_iter().collect::<BTreeSet<_>>().len()
}

#[test]
fn after_a_kill_it_is_known_again_delivered_or_not() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut daemon = daemon("");
    daemon.start();
    let send = |daemon: &Daemon, txid: &str| {
        runtime.block_on(raw::send_one(daemon, "raw", txid.as_bytes(), b"payload"));
    };
    send(&daemon, "first");
    assert_eq!(stored(&daemon), 1);
    daemon.kill_9();
    daemon.edit("records.jsonl", "/dev/full");
    daemon.start();
    send(&daemon, "first");
    send(&daemon, "second");
    assert_eq!(duplicates(&daemon), 1);
    daemon.kill_9();
    daemon.edit("/dev/full", "records.jsonl");
    daemon.start();
    send(&daemon, "second");
    assert_eq!((duplicates(&daemon), stored(&daemon)), (1, 2));
    assert!(daemon.metrics().contains("\nwaystation_duplicates_total 1\n"));
}

#[test]
fn after_an_orderly_stop_it_is_known_again_while_it_waits_for_a_destination() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut daemon = daemon("");
    daemon.edit("records.jsonl", "/dev/full");
    daemon.start();
    let send = |daemon: &Daemon| runtime.block_on(raw::send_one(daemon, "raw", b"once", b"payload"));
    send(&daemon);
    let (status, _) = daemon.terminate();
    assert!(status.success(), "{status}");
    daemon.edit("/dev/full", "records.jsonl");
    daemon.start();
    send(&daemon);
    assert_eq!((duplicates(&daemon), stored(&daemon)), (1, 1));
}

fn duplicates(daemon: &Daemon) -> u64 {
    daemon.status()["queue"]["duplicates"].as_u64().unwrap()
}

#[test]
fn off_is_off_and_a_reload_changes_it() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut daemon = daemon("duplicate_window = \"off\"");
    daemon.start();
    let twice = |daemon: &Daemon, txid: &str| {
        for _ in 0..2 {
            runtime.block_on(raw::send_one(daemon, "raw", txid.as_bytes(), b"payload"));
        }
        (duplicates(daemon), stored(daemon))
    };
    assert_eq!(twice(&daemon, "off"), (0, 2));
    daemon.edit("\"off\"", "\"64 KiB\"");
    assert!(!daemon.reload().contains("restart"), "{}", daemon.log());
    assert_eq!(twice(&daemon, "on"), (1, 3));
    daemon.edit("\"64 KiB\"", "\"off\"");
    daemon.reload();
    assert_eq!(twice(&daemon, "off again"), (1, 5));
}

const SETTINGS: Settings = Settings {
    max_bytes: 256 << 20,
    segment_size: 1 << 20,
    commit_delay: Duration::ZERO,
    dead_letter_bytes: 8 << 20,
    keep_free: 0,
    when_full: WhenFull::Refuse,
    max_age: None,
    duplicate_window: 1 << 20,
};

fn sent(n: u64, bytes: usize) -> Record {
    Record {
        vin: "5YJ3E1EA7KF000001".into(),
        record_type: "V".into(),
        txid: Bytes::from(n.to_string()),
        received_at: 1_700_000_000_000,
        client_version: "1".into(),
        payload: vec![n as u8; bytes].into(),
        origin: None,
        only: None,
    }
}

/// A vehicle's connection that sends one record.
async fn send(queue: &Queue, n: u64, bytes: usize) -> Result<(), Refusal> {
    queue.submitter().store(Item::Sent(sent(n, bytes))).await
}

fn counted(queue: &Queue) -> (u64, u64) {
    let Snapshot {
        records, duplicates, ..
    } = queue.snapshot();
    (records, duplicates)
}

async fn close(writer: WriterThread) {
    tokio::task::spawn_blocking(move || writer.close())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_full_window_forgets_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        duplicate_window: 10 * 24,
        ..SETTINGS
    };
    let (queue, writer) = Queue::open(dir.path(), settings).unwrap();
    queue.register("a", true);
    for n in 0..11 {
        send(&queue, n, 100).await.unwrap();
    }
    for n in 1..11 {
        send(&queue, n, 100).await.unwrap();
    }
    assert_eq!(counted(&queue), (11, 10), "the last ten are known");
    send(&queue, 0, 100).await.unwrap();
    assert_eq!(counted(&queue), (12, 10), "the one before is not");
    close(writer).await;

    // So it is after a start, by the order of their commits: 0 is the newest, and 1 was forgotten for it.
    let (queue, writer) = Queue::open(dir.path(), settings).unwrap();
    queue.register("a", true);
    for n in [0, 2, 10] {
        send(&queue, n, 100).await.unwrap();
    }
    assert_eq!(counted(&queue), (0, 3));
    send(&queue, 1, 100).await.unwrap();
    assert_eq!(counted(&queue), (1, 3));
    close(writer).await;
}

#[tokio::test]
async fn what_was_refused_is_stored_when_it_comes_again_and_what_was_stored_is_acknowledged_when_all_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        max_bytes: 6 << 20,
        ..SETTINGS
    };
    let (queue, writer) = Queue::open(dir.path(), settings).unwrap();
    queue.register("a", true);
    let mut stored = 0;
    while send(&queue, stored, 50_000).await.is_ok() {
        stored += 1;
    }
    assert!(queue.is_full());
    assert_eq!(send(&queue, 0, 50_000).await, Ok(()), "it is on the disk");
    assert_eq!(send(&queue, stored, 50_000).await, Err(Refusal::Full));
    assert_eq!(counted(&queue), (stored, 1));
    // Behind a refused record of the same sender nothing is acknowledged, be it on the disk.
    let mut submitter = queue.submitter();
    submitter.submit(Item::Sent(sent(stored, 50_000))).await.unwrap();
    let behind = submitter.submit(Item::Sent(sent(0, 50_000))).await;
    let last = behind.unwrap_or_default();
    assert_eq!(submitter.advanced(last).await, Err(Refusal::Full));
    assert_eq!(submitter.committed(), 0);

    queue.advance("a", stored);
    let deadline = tokio::time::Instant::now() + LONG;
    while queue.is_full() {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", queue.snapshot());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let before = counted(&queue);
    send(&queue, stored, 50_000).await.unwrap();
    assert_eq!(counted(&queue), (before.0 + 1, before.1));
    close(writer).await;
}

#[tokio::test]
async fn imported_records_dead_letters_and_the_gateways_own_are_stored_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    queue.register("a", true);
    let imported = Record {
        origin: Some(RecordId {
            queue: QueueId([7; 16]),
            number: 1,
        }),
        ..sent(1, 10)
    };
    let retried = Record {
        only: Some("a".into()),
        ..imported.clone()
    };
    let mut submitter = queue.submitter();
    for record in [imported, retried, sent(1, 10)] {
        for _ in 0..2 {
            submitter.store(Item::Record(record.clone())).await.unwrap();
        }
    }
    assert_eq!(counted(&queue), (6, 0));
    send(&queue, 1, 10).await.unwrap();
    assert_eq!(counted(&queue), (7, 0), "none of them is the vehicle's");
    close(writer).await;
}

/// A start passes over what it cannot read, and a vehicle's record in it is stored again: rather twice than not at all.
#[tokio::test]
async fn a_damaged_record_is_not_known_again() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    queue.register("a", true);
    for n in 0..30 {
        send(&queue, n, 2000).await.unwrap();
    }
    close(writer).await;
    let segment = fs::read_dir(dir.path().join("segments")).unwrap().next().unwrap();
    let path = segment.unwrap().path();
    let mut bytes = fs::read(&path).unwrap();
    let mut damaged = 0;
    for at in 0..bytes.len() - 1000 {
        // redb leaves stale copies in free pages: all of them.
        if bytes[at..at + 1000].iter().all(|byte| *byte == 7) {
            bytes[at + 500] ^= 1;
            damaged += 1;
        }
    }
    assert!(damaged > 0);
    fs::write(&path, bytes).unwrap();

    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    queue.register("a", true);
    for n in 0..30 {
        send(&queue, n, 2000).await.unwrap();
    }
    let (records, duplicates) = counted(&queue);
    assert_eq!((records, duplicates), (1, 29));
    close(writer).await;
}
