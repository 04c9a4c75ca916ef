//! Misfortunes of the segment that is appended to: the writer goes on, and every destination gets what is intact.
#![allow(clippy::unwrap_used)]

#[path = "support/sim_disk.rs"]
mod sim_disk;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use rustix::io::Errno;
use sim_disk::{Fault, SimDisk, State};
use tokio::task::unconstrained;
use waystation::queue::storage::Disk;
use waystation::queue::{Item, Queue, Refusal, Settings, Submitter, WhenFull, Writer};
use waystation::record::Record;

const DIR: &str = "/queue";
const SETTINGS: Settings = Settings {
    max_bytes: 256 << 20,
    segment_size: 32 << 20,
    commit_delay: std::time::Duration::ZERO,
    dead_letter_bytes: 1 << 20,
    keep_free: 0,
    when_full: WhenFull::Refuse,
    max_age: None,
    duplicate_window: 1 << 20,
};
const SMALL: usize = 300;
/// More than the journal takes, and a row of its own.
const LARGE: usize = 100_000;
/// More of these than the tail and what redb keeps in memory hold.
const MANY: u64 = 80;

fn record(n: u64, payload: usize) -> Record {
    Record {
        vin: "5YJ3E1EA7KF000001".into(),
        record_type: "V".into(),
        txid: Bytes::from(n.to_string()),
        received_at: 1_700_000_000_000 + n,
        client_version: "1".into(),
        payload: vec![n as u8; payload].into(),
        origin: None,
        only: None,
    }
}

fn open(disk: &Arc<SimDisk>) -> (Queue, Writer) {
    let disk: Arc<dyn Disk> = Arc::<SimDisk>::clone(disk);
    let (queue, writer) = Queue::open_on(&disk, Path::new(DIR), SETTINGS).unwrap();
    queue.register("a", true);
    (queue, writer)
}

fn submit(submitter: &mut Submitter, n: u64, payload: usize) -> u64 {
    let handed = unconstrained(submitter.submit(Item::Record(record(n, payload)))).now_or_never();
    handed.expect("there is room in the line").unwrap()
}

/// Hands records in and lets the writer have them, a commit each.
fn store(submitter: &mut Submitter, writer: &mut Writer, numbers: std::ops::Range<u64>, payload: usize) {
    for n in numbers {
        let ticket = submit(submitter, n, payload);
        assert!(writer.turn(Instant::now()).unwrap());
        assert_eq!((submitter.committed(), submitter.refusal()), (ticket + 1, None));
    }
}

/// What a destination gets from its place on. What fails is tried again, as the forwarder does, and the writer turns
/// meanwhile.
async fn read(queue: &Queue, writer: &mut Writer, destination: &str) -> Vec<u64> {
    let mut reader = queue.reader(destination);
    let (mut all, mut failures) = (Vec::new(), 0);
    while unconstrained(reader.ready()).now_or_never().is_some() {
        match reader.next(1 << 20).await {
            Ok(batch) => all.extend(batch.records.iter().map(|queued| {
                let txid = String::from_utf8_lossy(&queued.record.txid);
                txid.parse::<u64>().unwrap()
            })),
            Err(error) => {
                failures += 1;
                assert!(failures < 20, "{error}");
                assert!(writer.turn(Instant::now()).unwrap());
            }
        }
    }
    all
}

fn segments(state: &State) -> Vec<PathBuf> {
    let files = state.files().into_iter();
    files
        .filter(|path| path.extension().is_some_and(|end| end == "redb"))
        .collect()
}

fn all_but(numbers: std::ops::Range<u64>, lacks: &[u64]) -> Vec<u64> {
    numbers.filter(|number| !lacks.contains(number)).collect()
}

/// The disk is full in the commit, and still when what it left is looked at.
#[tokio::test]
async fn no_number_stands_for_two_records_though_the_disk_is_full_twice() {
    let (mut call, mut found) = (0, 0);
    loop {
        let disk = SimDisk::new(State::default());
        let (queue, mut writer) = open(&disk);
        let mut submitter = queue.submitter();
        store(&mut submitter, &mut writer, 0..MANY, LARGE);
        store(&mut submitter, &mut writer, MANY..MANY + 3, SMALL);
        disk.set_capacity(Some(disk.used() + (8 << 20)));
        disk.set_fault(Some(Fault {
            call,
            errno: Errno::NOSPC.raw_os_error(),
            stays: true,
        }));
        let mut refused = queue.submitter();
        // More than the journal takes, and yet in one row with what is in it.
        for _ in 0..110 {
            submit(&mut refused, 1000, SMALL);
        }
        let turned = writer.turn(Instant::now());
        let (calls, failed) = disk.calls();
        disk.set_fault(None);
        disk.set_capacity(None);
        if calls <= call {
            break;
        }
        call += 1;
        if turned.is_err() || failed != Some("sync") {
            continue;
        }
        found += 1;
        assert_eq!(refused.refusal(), Some(Refusal::Full));
        // One is behind already, the other comes when there is more.
        let mut early = queue.reader("a");
        let mut got = Vec::new();
        while unconstrained(early.ready()).now_or_never().is_some() {
            let batch = early.next(16 << 20).await.unwrap();
            got.extend(batch.records.into_iter().map(|queued| queued.record.txid));
        }
        writer.housekeep().unwrap();
        store(&mut submitter, &mut writer, MANY + 3..MANY + 6, SMALL);
        store(&mut submitter, &mut writer, MANY + 6..MANY + 8, LARGE);
        while unconstrained(early.ready()).now_or_never().is_some() {
            let batch = early.next(16 << 20).await.unwrap();
            got.extend(batch.records.into_iter().map(|queued| queued.record.txid));
        }
        got.retain(|txid| **txid != *b"1000");
        let expected: Vec<_> = (0..MANY + 8).map(|n| Bytes::from(n.to_string())).collect();
        assert_eq!(got, expected, "call {call}");
        assert_eq!(queue.snapshot().lost, 0);
        writer.finish().unwrap();
        let (queue, mut writer) = open(&SimDisk::new(disk.die()));
        let mut got = read(&queue, &mut writer, "a").await;
        got.retain(|number| *number != 1000);
        assert_eq!(got, all_but(0..MANY + 8, &[]), "call {call}, after a stop");
    }
    assert!(found > 0, "no sync was among {call} calls");
}
