//! The queue's promises, through its public face: order, numbers, cursors, space, and what a crash leaves behind.
#![allow(clippy::unwrap_used)]

#[path = "support/fixture.rs"]
mod fixture;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use fixture::copy;
use waystation::queue::{
    DeadLetter, InspectError, Item, OpenError, Queue, Queued, Refusal, Settings, Step, Submitter, WhenFull,
    WriterThread, walk_dead_letters,
};
use waystation::record::Record;

const SETTINGS: Settings = Settings {
    max_bytes: 256 << 20,
    segment_size: 1 << 20,
    commit_delay: Duration::from_millis(1),
    dead_letter_bytes: 8 << 20,
    keep_free: 0,
    when_full: WhenFull::Refuse,
    max_age: None,
    duplicate_window: 4 << 20,
};

fn record(vin: &str, n: u64, bytes: usize) -> Record {
    Record {
        vin: vin.into(),
        record_type: "V".into(),
        txid: Bytes::from(format!("{vin}-{n}")),
        received_at: 1_700_000_000_000 + n,
        client_version: "1".into(),
        payload: vec![n as u8; bytes].into(),
        origin: None,
        only: None,
    }
}

async fn fill(submitter: &mut Submitter, vin: &str, numbers: std::ops::Range<u64>, bytes: usize) {
    let mut last = None;
    for n in numbers {
        last = Some(submitter.submit(Item::Record(record(vin, n, bytes))).await.unwrap());
    }
    if let Some(last) = last {
        submitter.advanced(last).await.unwrap();
    }
}

async fn drain(queue: &Queue, destination: &str, records: usize) -> Vec<Queued> {
    let mut reader = queue.reader(destination);
    let mut all = Vec::new();
    while all.len() < records {
        tokio::time::timeout(Duration::from_secs(20), reader.ready())
            .await
            .expect("more is committed");
        all.extend(reader.next(100_000).await.unwrap().records);
    }
    all
}

fn txids(records: &[Queued]) -> Vec<String> {
    records
        .iter()
        .map(|queued| String::from_utf8(queued.record.txid.to_vec()).unwrap())
        .collect()
}

fn expected(vin: &str, numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|n| format!("{vin}-{n}")).collect()
}

async fn close(writer: WriterThread) {
    tokio::task::spawn_blocking(move || writer.close())
        .await
        .unwrap()
        .unwrap();
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir.join("segments"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "redb"))
        .collect();
    paths.sort();
    paths
}

#[tokio::test]
async fn records_come_out_as_they_went_in_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    queue.register("a", true);
    fill(&mut queue.submitter(), "A", 0..1000, 300).await;
    let records = drain(&queue, "a", 1000).await;
    for (n, queued) in records.iter().enumerate() {
        assert_eq!(queued.id.number, n as u64);
        assert_eq!(queued.id.queue, queue.id());
        assert_eq!(queued.record, record("A", n as u64, 300));
    }
    close(writer).await;
}

#[tokio::test]
async fn a_restart_goes_on_at_the_cursor_and_with_the_next_number() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    let id = queue.id();
    queue.register("a", true);
    fill(&mut queue.submitter(), "A", 0..100, 100).await;
    queue.advance("a", 40);
    close(writer).await;
    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    queue.register("a", true);
    assert_eq!((queue.id(), queue.cursor("a")), (id, 40));
    fill(&mut queue.submitter(), "A", 100..150, 100).await;
    let records = drain(&queue, "a", 110).await;
    assert_eq!(txids(&records), expected("A", 40..150));
    let numbers: Vec<_> = records.iter().map(|queued| queued.id.number).collect();
    assert_eq!(numbers, (40..150).collect::<Vec<_>>(), "an orderly stop leaves no gap");
    close(writer).await;
}

#[tokio::test]
async fn after_a_crash_everything_acknowledged_is_there_and_no_number_is_used_twice() {
    let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    queue.register("a", true);
    // Several segments, the last one open.
    fill(&mut queue.submitter(), "A", 0..500, 8000).await;
    copy(dir.path(), crashed.path());
    fill(&mut queue.submitter(), "A", 500..510, 100).await;
    let used = drain(&queue, "a", 510).await.last().unwrap().id.number;
    close(writer).await;

    // A start at which nothing is added behind the gap, then one at which something is.
    let (queue, writer) = Queue::open(crashed.path(), SETTINGS).unwrap();
    queue.register("a", true);
    close(writer).await;
    let (queue, writer) = Queue::open(crashed.path(), SETTINGS).unwrap();
    assert_eq!(queue.snapshot().lost, 0);
    queue.register("a", true);
    fill(&mut queue.submitter(), "B", 0..10, 100).await;
    assert_eq!(queue.backlog(queue.cursor("a")), 510, "skipped numbers are no backlog");
    let records = drain(&queue, "a", 510).await;
    assert_eq!(queue.backlog(records[499].id.number + 1), 10);
    assert_eq!(txids(&records[..500]), expected("A", 0..500));
    assert_eq!(txids(&records[500..]), expected("B", 0..10));
    assert!(
        records[500].id.number > used,
        "numbers that the lost tail may have used are skipped"
    );
    assert_eq!(queue.snapshot().lost, 0, "skipped numbers are not lost records");
    close(writer).await;
}

#[tokio::test]
async fn segments_are_deleted_when_every_destination_has_passed_them() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    queue.register("a", true);
    queue.register("b", false);
    fill(&mut queue.submitter(), "A", 0..1200, 10_000).await;
    let all = segments(dir.path()).len();
    assert!(all > 4, "{all}");
    queue.advance("a", 1200);
    fill(&mut queue.submitter(), "A", 1200..1201, 10).await;
    assert_eq!(
        drain(&queue, "b", 1201).await.len(),
        1201,
        "the slower one still finds everything"
    );
    queue.advance("b", 1200);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while segments(dir.path()).len() > 1 {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", segments(dir.path()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    close(writer).await;
}

#[tokio::test]
async fn a_full_queue_refuses_in_order_and_takes_records_again_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        max_bytes: 6 << 20,
        ..SETTINGS
    };
    let (queue, writer) = Queue::open(dir.path(), settings).unwrap();
    queue.register("a", true);
    let mut submitter = queue.submitter();
    let mut stored = 0;
    let refusal = loop {
        let handed_in = submitter.submit(Item::Record(record("A", stored, 50_000))).await;
        let outcome = match handed_in {
            Ok(ticket) => submitter.advanced(ticket).await.map(drop),
            Err(refusal) => Err(refusal),
        };
        match outcome {
            Ok(()) => stored += 1,
            Err(refusal) => break refusal,
        }
        assert!(stored < 200, "never full");
    };
    assert_eq!(refusal, Refusal::Full);
    assert!(queue.is_full());
    assert!(
        queue.snapshot().disk_bytes <= settings.max_bytes,
        "{:?}",
        queue.snapshot()
    );
    assert!(
        submitter.submit(Item::Record(record("A", 0, 1))).await.is_err(),
        "a refused sender stays refused"
    );
    assert_eq!(
        txids(&drain(&queue, "a", stored as usize).await),
        expected("A", 0..stored)
    );
    queue.advance("a", stored);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while queue.is_full() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "it stays full: {:?}",
            queue.snapshot()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fill(&mut queue.submitter(), "A", stored..stored + 1, 50_000).await;
    close(writer).await;
}

#[tokio::test]
async fn a_destination_that_is_not_required_loses_its_oldest_instead_of_filling_the_queue() {
    // Also when all that there is lies in the segment that is written to.
    for segment_size in [SETTINGS.segment_size, 32 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            max_bytes: 6 << 20,
            segment_size,
            ..SETTINGS
        };
        let (queue, writer) = Queue::open(dir.path(), settings).unwrap();
        queue.register("cloud", true);
        queue.register("file", false);
        let mut submitter = queue.submitter();
        for n in 0..400 {
            submitter.store(Item::Record(record("A", n, 50_000))).await.unwrap();
            queue.advance("cloud", n + 1);
        }
        let dropped = queue.dropped("file");
        assert!(dropped > 100, "{dropped}");
        assert_eq!(queue.cursor("file"), dropped);
        let rest = drain(&queue, "file", 400 - dropped as usize).await;
        assert_eq!(txids(&rest), expected("A", dropped..400));
        assert_eq!(queue.snapshot().lost, 0, "dropped, and counted as such; not lost");
        close(writer).await;
    }
}

#[tokio::test]
async fn what_is_too_old_goes_a_segment_at_a_time_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        max_age: Some(Duration::from_secs(2)),
        ..SETTINGS
    };
    let (queue, writer) = Queue::open(dir.path(), settings).unwrap();
    queue.register("a", true);
    fill(&mut queue.submitter(), "A", 0..50, 100).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let mut new = 0;
    while queue.dropped("a") < 50 {
        assert!(tokio::time::Instant::now() < deadline, "{} dropped", queue.dropped("a"));
        fill(&mut queue.submitter(), "B", new..new + 1, 100).await;
        new += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let dropped = queue.dropped("a");
    fill(&mut queue.submitter(), "C", 0..1, 100).await;
    assert!(
        queue.cursor("a") >= dropped && queue.backlog(queue.cursor("a")) > 0,
        "the new ones stay"
    );
    assert_eq!(queue.snapshot().lost, 0, "dropped, and counted as such; not lost");
    close(writer).await;
}

#[tokio::test]
async fn a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let (_queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    let second = Queue::open(dir.path(), SETTINGS);
    assert!(matches!(second, Err(OpenError::InUse(path)) if path == dir.path()));
    close(writer).await;
    let (_queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    close(writer).await;
}

#[tokio::test]
async fn what_cannot_be_read_is_set_aside_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    queue.register("a", true);
    fill(&mut queue.submitter(), "A", 0..600, 10_000).await;
    close(writer).await;
    let paths = segments(dir.path());
    // The second segment is cut short, garbage stands among them, the cursors are gone.
    let first_of = |path: &Path| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    let (from, to) = (first_of(&paths[1]), first_of(&paths[2]));
    fs::write(&paths[1], b"not a database any more").unwrap();
    fs::write(dir.path().join("segments/notes.txt"), b"hello").unwrap();
    fs::write(dir.path().join("cursors"), b"").unwrap();

    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    queue.register("a", true);
    let records = drain(&queue, "a", 600 - (to - from) as usize).await;
    assert_eq!(
        txids(&records),
        [expected("A", 0..from), expected("A", to..600)].concat()
    );
    let set_aside = fs::read_dir(dir.path().join("quarantine")).unwrap().count();
    assert_eq!(set_aside, 4, "two files, each with a note");
    fill(&mut queue.submitter(), "B", 0..5, 10).await;
    assert_eq!(
        txids(&drain(&queue, "a", 605 - (to - from) as usize).await[600 - (to - from) as usize..]),
        expected("B", 0..5)
    );
    close(writer).await;
}

#[tokio::test]
async fn a_flipped_bit_costs_its_record_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    queue.register("a", true);
    fill(&mut queue.submitter(), "A", 0..3, 100_000).await;
    fill(&mut queue.submitter(), "A", 3..40, 100_000).await;
    close(writer).await;
    // In the payload of record 2, which is a run of 2s.
    let path = &segments(dir.path())[0];
    let mut bytes = fs::read(path).unwrap();
    let at = bytes
        .windows(1000)
        .position(|window| window.iter().all(|byte| *byte == 2))
        .unwrap();
    bytes[at + 500] ^= 1;
    fs::write(path, bytes).unwrap();

    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    queue.register("a", true);
    let records = drain(&queue, "a", 39).await;
    assert_eq!(txids(&records), [expected("A", 0..2), expected("A", 3..40)].concat());
    assert_eq!(queue.snapshot().lost, 1);
    close(writer).await;
}

#[tokio::test]
async fn a_sealed_segment_of_another_queue_is_not_delivered_as_this_ones() {
    let filled = async |vin: &str| {
        let dir = tempfile::tempdir().unwrap();
        let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
        queue.register("a", true);
        for n in 0..40 {
            fill(&mut queue.submitter(), vin, n..n + 1, 100_000).await;
        }
        close(writer).await;
        dir
    };
    let (dir, other) = (filled("A").await, filled("B").await);
    let (own, foreign) = (segments(dir.path()), segments(other.path()));
    assert_eq!(own[1].file_name(), foreign[1].file_name());
    let first_of = |path: &Path| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    let (from, to) = (first_of(&own[1]), first_of(&own[2]));
    fs::copy(&foreign[1], &own[1]).unwrap();

    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    queue.register("a", true);
    let records = drain(&queue, "a", 40 - (to - from) as usize).await;
    assert_eq!(
        txids(&records),
        [expected("A", 0..from), expected("A", to..40)].concat()
    );
    assert_eq!(queue.snapshot().lost, to - from);
    close(writer).await;
}

#[tokio::test]
async fn of_a_segment_that_does_not_open_everything_intact_is_delivered_and_then_it_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    queue.register("a", true);
    fill(&mut queue.submitter(), "A", 0..6000, 600).await;
    close(writer).await;
    // The first pages of every segment, without which redb opens none; and a bit of one record.
    let paths = segments(dir.path());
    assert!(paths.len() > 2);
    for path in &paths {
        let mut bytes = fs::read(path).unwrap();
        bytes[..4096].fill(0xaa);
        // redb leaves stale copies in free pages: all of them.
        let copies = bytes.windows(9).enumerate();
        let copies = copies.filter(|(_, window)| *window == b"\x22\x06A-3000\x29");
        let copies: Vec<_> = copies.map(|(at, _)| at).collect();
        copies.into_iter().for_each(|at| bytes[at + 100] ^= 1);
        fs::write(path, bytes).unwrap();
    }
    let expected = [expected("A", 0..3000), expected("A", 3001..6000)].concat();
    let quarantine = dir.path().join("quarantine");
    let files_of = |end: &str| {
        let names = fs::read_dir(&quarantine).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.to_str().unwrap().ends_with(end)).count()
    };
    for half in [0, 3000] {
        let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
        queue.register("a", true);
        let records = drain(&queue, "a", 5999 - half).await;
        assert!(txids(&records) == expected[half..], "others than are intact");
        assert_eq!(queue.snapshot().lost, u64::from(half == 0));
        queue.advance("a", if half == 0 { 3001 } else { 6000 });
        close(writer).await;
        assert!(files_of(".redb.txt") > 0, "a note says what is wrong");
    }
    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    queue.register("a", true);
    fill(&mut queue.submitter(), "B", 0..5, 10).await;
    assert_eq!(txids(&drain(&queue, "a", 5).await), self::expected("B", 0..5));
    close(writer).await;
    let kept = fs::read_dir(&quarantine).unwrap().map(|entry| entry.unwrap().path());
    let kept: Vec<_> = kept
        .filter(|path| path.extension().is_some_and(|end| end != "txt"))
        .collect();
    assert_eq!(
        kept.len(),
        paths.len(),
        "nothing that may hold a record is deleted: {kept:?}"
    );
}

#[tokio::test]
async fn a_damaged_frame_costs_its_own_record_and_not_the_rest_of_its_row() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    queue.register("a", true);
    fill(&mut queue.submitter(), "A", 0..300, 100).await;
    close(writer).await;
    let path = &segments(dir.path())[0];
    let mut bytes = fs::read(path).unwrap();
    let copies: Vec<_> = bytes
        .windows(5)
        .enumerate()
        .filter(|(_, window)| *window == b"A-150")
        .map(|(at, _)| at)
        .collect();
    copies.into_iter().for_each(|at| bytes[at] ^= 1);
    fs::write(path, bytes).unwrap();
    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    queue.register("a", true);
    let records = drain(&queue, "a", 299).await;
    assert_eq!(
        txids(&records),
        [expected("A", 0..150), expected("A", 151..300)].concat()
    );
    assert_eq!(queue.snapshot().lost, 1);
    close(writer).await;
}

#[tokio::test]
async fn files_of_one_name_that_are_set_aside_at_once_do_not_replace_each_other() {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["segments", "dead-letters"] {
        fs::create_dir_all(dir.path().join(folder)).unwrap();
        fs::write(dir.path().join(folder).join(format!("{:020}.redb", 0)), folder).unwrap();
    }
    let (_queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    close(writer).await;
    let aside = fs::read_dir(dir.path().join("quarantine")).unwrap();
    let contents: BTreeSet<_> = aside
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    assert!(
        contents.contains("segments") && contents.contains("dead-letters"),
        "{contents:?}"
    );
}

#[tokio::test]
async fn a_dead_letter_before_any_record_is_there_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    let letter = DeadLetter {
        origin: "listener".to_owned(),
        reason: "no record".to_owned(),
        at: 7,
        vin: "5YJ3E1EA7KF000001".to_owned(),
        record_type: String::new(),
        txid: Bytes::new(),
        raw: Bytes::from_static(b"raw"),
        record: None,
        received_at: 7,
        client_version: String::new(),
    };
    queue.submitter().store(Item::DeadLetter(letter)).await.unwrap();
    let crashed = tempfile::tempdir().unwrap();
    copy(dir.path(), crashed.path());
    let id = queue.id();
    close(writer).await;

    // The cursors were not saved yet.
    assert!(!crashed.path().join("cursors").exists());
    let (queue, writer) = Queue::open(crashed.path(), SETTINGS).unwrap();
    assert_eq!(queue.id(), id);
    let mut found = Vec::new();
    walk_dead_letters::<InspectError>(crashed.path(), u64::MAX, |step| {
        if let Step::Found((_, letter)) = step {
            found.push((letter.at, letter.reason));
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(found, [(7, "no record".to_owned())]);
    close(writer).await;
}

/// As when something else keeps a gateway from starting.
#[tokio::test]
async fn a_writer_that_is_dropped_has_ended_and_left_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    let mut submitter = queue.submitter();
    fill(&mut submitter, "A", 0..3, 100).await;
    assert!(Queue::in_use(dir.path()).unwrap());
    drop(writer);
    assert!(!Queue::in_use(dir.path()).unwrap());
    let late = submitter.submit(Item::Record(record("A", 3, 100))).await;
    assert_eq!(late, Err(Refusal::Stopped));
    assert!(!dir.path().join("segments/journal").exists(), "it has put it away");
}

/// Whoever thinks that the lock file is in the way must not get a second writer for it.
#[tokio::test]
async fn a_queue_whose_lock_file_is_gone_is_still_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let (_queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
    fs::remove_file(dir.path().join("lock")).unwrap();
    assert!(Queue::in_use(dir.path()).unwrap());
    assert!(matches!(
        Queue::open(dir.path(), SETTINGS).map(drop),
        Err(OpenError::InUse(_))
    ));
    assert!(
        Queue::in_use(dir.path()).unwrap(),
        "who was refused has taken nothing away"
    );
    drop(writer);
    drop(Queue::open(dir.path(), SETTINGS).unwrap());
}

/// A dead letter keeps the queue's id when everything else is delivered and gone.
#[tokio::test]
async fn no_number_comes_twice_though_the_cursors_are_lost_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut numbers = BTreeSet::new();
    for round in 0..4 {
        let (queue, writer) = Queue::open(dir.path(), SETTINGS).unwrap();
        queue.register("a", true);
        let mut submitter = queue.submitter();
        fill(&mut submitter, "A", round * 5..round * 5 + 5, 100).await;
        for queued in drain(&queue, "a", 5).await {
            assert!(numbers.insert((queued.id.queue.0, queued.id.number)), "{queued:?}");
        }
        submitter
            .store(Item::DeadLetter(fixture::letter("a", None, "raw")))
            .await
            .unwrap();
        queue.advance("a", queue.snapshot().committed);
        tokio::task::spawn_blocking(|| writer.close()).await.unwrap().unwrap();
        fs::remove_file(dir.path().join("cursors")).unwrap();
    }
    assert_eq!(numbers.len(), 20);
}
