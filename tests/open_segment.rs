//! Misfortunes of the segment that is appended to: the writer goes on, and every destination gets what is intact.
#![allow(clippy::unwrap_used)]

#[path = "support/sim_disk.rs"]
mod sim_disk;
#[path = "support/sim_queue.rs"]
mod sim_queue;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use rustix::io::Errno;
use sim_disk::{Fault, SimDisk, State, below, seeded};
use sim_queue::{LARGE, SMALL, open_with, record, settings, store, submit};
use tokio::task::unconstrained;
use waystation::queue::{Item, Queue, Refusal, Settings, Submitter, Writer};
use waystation::record::stored::append_frame;

const SETTINGS: Settings = settings(256 << 20, 32 << 20);
/// More of these than the tail and what redb keeps in memory hold.
const MANY: u64 = 80;

fn open(disk: &Arc<SimDisk>) -> (Queue, Writer) {
    open_with(disk, SETTINGS)
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

/// Where in the one segment the frame of a record begins, which is stored under the number of its own.
fn place(disk: &SimDisk, queue: &Queue, n: u64, payload: usize) -> (PathBuf, usize) {
    let mut frame = Vec::new();
    append_frame(&mut frame, queue.id(), n, &record(n, payload));
    let state = disk.state();
    let [path] = segments(&state).try_into().unwrap();
    let content = state.content(&path);
    let at = content.windows(frame.len()).position(|window| window == frame);
    (path, at.expect("it is in the segment"))
}

/// The queue, its writer, and the first sender, with so many records in the open segment, a row each.
fn filled(disk: &Arc<SimDisk>) -> (Queue, Writer, Submitter) {
    let (queue, mut writer) = open(disk);
    let mut submitter = queue.submitter();
    store(&mut submitter, &mut writer, 0..MANY, LARGE);
    (queue, writer, submitter)
}

/// The writer goes on, and so does the next start.
async fn goes_on(disk: &SimDisk, queue: &Queue, mut writer: Writer, next: u64) {
    let mut submitter = queue.submitter();
    store(&mut submitter, &mut writer, next..next + 3, SMALL);
    store(&mut submitter, &mut writer, next + 3..next + 5, LARGE);
    queue.advance("a", queue.snapshot().committed - 5);
    assert_eq!(read(queue, &mut writer, "a").await, all_but(next..next + 5, &[]));
    writer.housekeep().unwrap();
    writer.finish().unwrap();
    let (queue, mut writer) = open(&SimDisk::new(disk.die()));
    assert_eq!(read(&queue, &mut writer, "a").await, all_but(next..next + 5, &[]));
    assert_eq!(queue.snapshot().lost, 0);
}

#[tokio::test]
async fn a_page_that_cannot_be_read_costs_what_is_in_it_and_stops_nobody() {
    let disk = SimDisk::new(State::default());
    let (queue, mut writer, mut submitter) = filled(&disk);
    let (path, at) = place(&disk, &queue, 5, LARGE);
    disk.suffer(|state| state.make_page_unreadable(&path, (at + LARGE / 2) as u64 / 4096));
    // It is met by the reader, then by the writer, in the same commit.
    let mut reader = queue.reader("a");
    while reader.next(64 << 10).await.is_ok() {
        assert!(reader.position() < MANY, "it is not met");
    }
    store(&mut submitter, &mut writer, MANY..MANY + 3, LARGE);
    assert_eq!(read(&queue, &mut writer, "a").await, all_but(0..MANY + 3, &[5]));
    assert_eq!(queue.snapshot().lost, 1);
    goes_on(&disk, &queue, writer, MANY + 3).await;
}

/// As it is when nothing comes: the writer hears of it all the same.
#[tokio::test]
async fn nobody_has_to_send_for_a_damaged_open_segment_to_be_read() {
    let disk = SimDisk::new(State::default());
    let (queue, mut writer, mut submitter) = filled(&disk);
    store(&mut submitter, &mut writer, MANY..MANY + 3, SMALL);
    let (path, at) = place(&disk, &queue, 5, LARGE);
    disk.suffer(|state| state.make_page_unreadable(&path, (at + LARGE / 2) as u64 / 4096));
    assert_eq!(read(&queue, &mut writer, "a").await, all_but(0..MANY + 3, &[5]));
    assert_eq!(queue.snapshot().lost, 1);
    goes_on(&disk, &queue, writer, MANY + 3).await;
}

#[tokio::test]
async fn an_unreadable_page_met_by_nobody_keeps_the_segment_from_being_closed_no_longer() {
    let disk = SimDisk::new(State::default());
    let (queue, mut writer, _) = filled(&disk);
    let (path, _) = place(&disk, &queue, 5, LARGE);
    // All of it, also what closing and checking have to read.
    disk.suffer(|state| state.make_unreadable(&path));
    writer.finish().unwrap();
    drop(queue);
}

#[tokio::test]
async fn what_is_in_the_journal_is_not_passed_for_the_last_row_before_it() {
    let disk = SimDisk::new(State::default());
    let (queue, mut writer, mut submitter) = filled(&disk);
    store(&mut submitter, &mut writer, MANY..MANY + 1, 900_000);
    let journaled = MANY + 1..MANY + 121;
    store(&mut submitter, &mut writer, journaled.clone(), 30_000);
    // So that redb has others of its rows in memory.
    queue.register("b", true);
    let mut other = queue.reader("b");
    while other.position() < MANY / 2 {
        other.next(64 << 10).await.unwrap();
    }
    queue.advance("a", MANY);
    let (path, at) = place(&disk, &queue, MANY, 900_000);
    disk.suffer(|state| state.overwrite(&path, at as u64 + 500, b"damage"));
    assert_eq!(read(&queue, &mut writer, "a").await, all_but(journaled.clone(), &[]));
    assert_eq!(queue.snapshot().lost, 1);
    goes_on(&disk, &queue, writer, journaled.end).await;
}

#[tokio::test]
async fn a_damaged_row_key_hides_nothing() {
    let disk = SimDisk::new(State::default());
    let (queue, mut writer, _) = filled(&disk);
    let (path, at) = place(&disk, &queue, 5, LARGE);
    let key = disk.state().content(&path)[at - 8..at].to_vec();
    assert_eq!(
        key,
        5_u64.to_le_bytes(),
        "the key of a page's only row is before its value"
    );
    disk.suffer(|state| state.overwrite(&path, at as u64 - 2, &[0x40]));
    assert_eq!(read(&queue, &mut writer, "a").await, all_but(0..MANY, &[]));
    assert_eq!(queue.snapshot().lost, 0);
    goes_on(&disk, &queue, writer, MANY).await;
}

#[tokio::test]
async fn a_damaged_length_hides_nothing_behind_it() {
    let disk = SimDisk::new(State::default());
    let (queue, mut writer) = open(&disk);
    let mut submitter = queue.submitter();
    // One row.
    for n in 0..20 {
        submit(&mut submitter, n, 3000);
    }
    assert!(writer.turn(Instant::now()).unwrap());
    store(&mut submitter, &mut writer, 20..MANY, LARGE);
    queue.advance("a", 9);
    let (path, at) = place(&disk, &queue, 5, 3000);
    disk.suffer(|state| state.overwrite(&path, at as u64 + 2, &[0x40]));
    assert_eq!(read(&queue, &mut writer, "a").await, all_but(9..MANY, &[]));
    assert_eq!(queue.snapshot().lost, 0);
    goes_on(&disk, &queue, writer, MANY).await;
}

/// The same, and what redb has in memory of the segment is what was read last: the next commit reads what it needs.
async fn forgotten(disk: &Arc<SimDisk>) -> (Queue, Writer, Submitter) {
    let (queue, mut writer, mut submitter) = filled(disk);
    let mut reader = queue.reader("a");
    while reader.position() < MANY / 2 {
        reader.next(64 << 10).await.unwrap();
    }
    store(&mut submitter, &mut writer, MANY..MANY + 3, SMALL);
    (queue, writer, submitter)
}

#[tokio::test]
async fn a_commit_that_cannot_read_what_it_needs_goes_to_another_segment() {
    let mut reads = 0;
    for call in 0.. {
        let disk = SimDisk::new(State::default());
        let (queue, mut writer, mut submitter) = forgotten(&disk).await;
        disk.set_fault(Some(Fault {
            call,
            errno: Errno::IO.raw_os_error(),
            stays: false,
        }));
        let ticket = submit(&mut submitter, MANY + 3, LARGE);
        let turned = writer.turn(Instant::now());
        let (_, failed) = disk.calls();
        disk.set_fault(None);
        match failed {
            Some("read") => reads += 1,
            // Asked of the disk now and then: what it does not say counts as enough.
            Some("free") => continue,
            // What fails to be written ends the daemon.
            Some("write") => {
                turned.unwrap_err();
                break;
            }
            other => panic!("{other:?}"),
        }
        assert!(turned.unwrap());
        assert_eq!((submitter.committed(), submitter.refusal()), (ticket + 1, None));
        assert_eq!(queue.snapshot().segments, 2);
        assert_eq!(read(&queue, &mut writer, "a").await, all_but(0..MANY + 4, &[]));
        assert_eq!(queue.snapshot().lost, 0);
        goes_on(&disk, &queue, writer, MANY + 4).await;
    }
    assert!(reads > 0);
}

/// redb panics when it meets a page of no kind.
#[tokio::test]
async fn a_commit_that_panics_goes_to_another_segment() {
    let disk = SimDisk::new(State::default());
    let (queue, mut writer, mut submitter) = forgotten(&disk).await;
    let [path] = segments(&disk.state()).try_into().unwrap();
    let pages = disk.state().content(&path).len() as u64 / 4096;
    disk.suffer(|state| (1..pages).for_each(|page| state.overwrite(&path, page * 4096, &[0xee; 4096])));
    store(&mut submitter, &mut writer, MANY + 3..MANY + 4, LARGE);
    let got = read(&queue, &mut writer, "a").await;
    assert!(got.ends_with(&all_but(MANY..MANY + 4, &[])), "{got:?}");
    assert_eq!(queue.snapshot().lost, MANY + 4 - got.len() as u64);
    goes_on(&disk, &queue, writer, MANY + 4).await;
}

#[tokio::test]
async fn whatever_is_damaged_in_it_the_writer_goes_on_and_what_is_intact_is_delivered() {
    for seed in 0..20 {
        let mut rng = seeded(seed);
        let disk = SimDisk::new(State::default());
        let (queue, mut writer, mut submitter) = filled(&disk);
        store(&mut submitter, &mut writer, MANY..MANY + 3, SMALL);
        let (path, at) = place(&disk, &queue, 0, LARGE);
        let pages = disk.state().content(&path).len() as u64 / 4096;
        let damaged: Vec<u64> = match seed {
            0 => (0..pages).collect(),
            1 => (0..30).collect(),
            _ => (0..pages).filter(|_| below(&mut rng, 30) == 0).collect(),
        };
        let garbage: Vec<u8> = (0..4096).map(|_| below(&mut rng, 256) as u8).collect();
        let garbage = if seed % 2 == 0 { garbage } else { vec![0; 4096] };
        disk.suffer(|state| {
            damaged
                .iter()
                .for_each(|page| state.overwrite(&path, page * 4096, &garbage))
        });
        let content = disk.state().content(&path);
        // Each row has pages of its own, and begins at the same place in them.
        let is_intact = |n: &u64| {
            let mut frame = Vec::new();
            append_frame(&mut frame, queue.id(), *n, &record(*n, LARGE));
            let mut places = (at % 4096..content.len()).step_by(4096);
            places.any(|place| content[place..].starts_with(&frame))
        };
        let intact: Vec<u64> = (0..MANY).filter(is_intact).collect();
        let new = MANY + 3..MANY + 23;
        if seed % 4 < 2 {
            // The reader meets it first.
            let mut reader = queue.reader("a");
            while reader.ready().now_or_never().is_some() && reader.next(64 << 10).await.is_ok() {}
        }
        store(&mut submitter, &mut writer, new.clone(), LARGE);
        let got = read(&queue, &mut writer, "a").await;
        let hidden: Vec<_> = intact
            .iter()
            .chain(&[MANY, MANY + 1, MANY + 2])
            .filter(|n| !got.contains(n))
            .collect();
        assert!(hidden.is_empty(), "seed {seed}: {hidden:?} are intact and were passed");
        assert!(got.ends_with(&all_but(new.clone(), &[])), "seed {seed}: {got:?}");
        goes_on(&disk, &queue, writer, new.end).await;
    }
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

/// Commits of both kinds under way while it is read: nothing is expected of it that is not in it yet.
#[test]
fn a_sound_segment_is_not_doubted_while_it_is_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    let total = 6_000;
    let sending = runtime.spawn({
        let mut submitter = queue.submitter();
        async move {
            for n in 0..total {
                let payload = if n % 50 == 0 { 40_000 } else { 3_000 };
                submitter.store(Item::Record(record(n, payload))).await.unwrap();
            }
        }
    });
    let reading: Vec<_> = ["a", "b"]
        .map(|name| {
            queue.register(name, true);
            let (queue, mut reader) = (queue.clone(), queue.reader(name));
            runtime.spawn(async move {
                while reader.position() < total {
                    // What is in the segment alone, as near to the journal as that can be.
                    let behind = queue.snapshot().committed.saturating_sub(reader.position());
                    if behind < 1_500 && queue.snapshot().committed < total {
                        tokio::task::yield_now().await;
                        continue;
                    }
                    let (from, batch) = (reader.position(), reader.next(256 << 10).await.unwrap());
                    let numbers: Vec<_> = batch.records.iter().map(|queued| queued.id.number).collect();
                    assert_eq!(numbers, (from..batch.end).collect::<Vec<_>>());
                }
            })
        })
        .into();
    runtime.block_on(async {
        sending.await.unwrap();
        for reader in reading {
            reader.await.unwrap();
        }
    });
    assert_eq!((queue.snapshot().segments, queue.snapshot().lost), (1, 0));
    writer.close().unwrap();
}

/// What a start on the disk as it is delivers from record `MANY` on.
async fn next_start(disk: &SimDisk) -> Vec<u64> {
    let (queue, mut writer) = open(&SimDisk::new(disk.die()));
    let mut all = read(&queue, &mut writer, "a").await;
    all.retain(|number| *number >= MANY);
    all
}

/// A commit that has no space, after its read number `call` failed in the segment before, or at once. Then a small record
/// is acknowledged, and the start after a kill finds a page of that segment unreadable. `None`: there are no such reads.
async fn acknowledged_after_a_refusal(call: Option<u64>) -> Option<Vec<u64>> {
    let disk = SimDisk::new(State::default());
    let (queue, mut writer, mut submitter) = filled(&disk);
    let mut reader = queue.reader("a");
    while reader.position() < MANY / 2 {
        reader.next(64 << 10).await.unwrap();
    }
    let (path, at) = place(&disk, &queue, 5, LARGE);
    writer.housekeep().unwrap();
    let space = if call.is_some() { 4 << 20 } else { 2 << 20 };
    let capacity = disk.used() + space;
    let mut refused = queue.submitter();
    for n in 0..35 {
        submit(&mut refused, 1_000 + n, LARGE);
    }
    disk.set_capacity(Some(8 << 30));
    // After that the disk is not asked for a tenth of a second: nothing else that takes time may come between.
    writer.housekeep().unwrap();
    disk.set_capacity(Some(capacity));
    disk.set_fault(call.map(|call| Fault {
        call,
        errno: Errno::IO.raw_os_error(),
        stays: false,
    }));
    let turned = writer.turn(Instant::now());
    let (calls, failed) = disk.calls();
    disk.set_fault(None);
    disk.set_capacity(None);
    if call.is_some_and(|call| calls <= call) {
        return None;
    }
    let is_read = call.is_none() || failed == Some("read");
    if turned.is_err() || refused.refusal() != Some(Refusal::Full) || !is_read {
        return Some(vec![MANY]);
    }
    writer.housekeep().unwrap();
    let ticket = submit(&mut submitter, MANY, SMALL);
    writer.turn(Instant::now()).unwrap();
    assert_eq!(submitter.committed(), ticket + 1);
    disk.suffer(|state| state.make_page_unreadable(&path, (at + LARGE / 2) as u64 / 4096));
    Some(next_start(&disk).await)
}

#[tokio::test]
async fn what_was_refused_does_not_stand_in_the_place_of_what_was_acknowledged_after_it() {
    let mut calls = 0;
    loop {
        let Some(delivered) = acknowledged_after_a_refusal(Some(calls)).await else {
            break;
        };
        assert!(delivered.contains(&MANY), "read {calls}: {delivered:?}");
        calls += 2;
    }
    assert!(calls > 20, "{calls}");
    let delivered = acknowledged_after_a_refusal(None).await.unwrap();
    assert!(delivered.contains(&MANY), "{delivered:?}");
}

/// The power goes while the journal is put into a segment that has pages which cannot be read.
#[tokio::test]
async fn what_was_in_the_journal_is_delivered_after_a_power_cut_over_a_damaged_segment() {
    const BEFORE: u64 = 3;
    const IN_JOURNAL: std::ops::Range<u64> = BEFORE..BEFORE + 9;
    let (mut cuts, mut put_together) = (0, 0);
    for seed in 0..8 {
        let mut rng = seeded(seed);
        let disk = SimDisk::new(State::default());
        let (queue, mut writer) = open(&disk);
        let mut submitter = queue.submitter();
        store(&mut submitter, &mut writer, 0..BEFORE, LARGE);
        store(&mut submitter, &mut writer, IN_JOURNAL, SMALL);
        let [path] = segments(&disk.state()).try_into().unwrap();
        let pages = disk.state().content(&path).len() as u64 / 4096;
        disk.suffer(|state| {
            for _ in 0..4 {
                state.make_page_unreadable(&path, below(&mut rng, pages as usize) as u64);
            }
        });
        let images = Arc::new(Mutex::new(Vec::new()));
        disk.observe({
            let images = Arc::clone(&images);
            move |state| images.lock().unwrap().push(state.cut(&mut rng))
        });
        submit(&mut submitter, IN_JOURNAL.end, LARGE);
        assert!(writer.turn(Instant::now()).unwrap());
        let images = std::mem::take(&mut *images.lock().unwrap());
        for image in images {
            let disk = SimDisk::new(image);
            let (queue, mut writer) = open(&disk);
            let got = read(&queue, &mut writer, "a").await;
            let missing: Vec<_> = IN_JOURNAL.filter(|n| !got.contains(n)).collect();
            assert!(missing.is_empty(), "seed {seed}: {missing:?} are missing in {got:?}");
            assert!(got.is_sorted(), "{got:?}");
            cuts += 1;
            put_together += usize::from(disk.state().files().iter().any(|path| {
                let name = path.to_string_lossy();
                name.contains("quarantine/segments.0") && !name.ends_with(".txt")
            }));
        }
    }
    assert!(cuts >= 50 && put_together >= 5, "{put_together} of {cuts}");
}
