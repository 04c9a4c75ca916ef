//! Single misfortunes of a disk, each made on purpose: what was acknowledged is delivered, and the start goes on.
#![allow(clippy::unwrap_used)]

#[path = "support/sim_disk.rs"]
mod sim_disk;
#[path = "support/sim_queue.rs"]
mod sim_queue;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use rustix::io::Errno;
use sim_disk::{Fault, SimDisk, State};
use sim_queue::{DIR, LARGE, SMALL, open_with, record, settings, store, submit};
use waystation::queue::storage::Disk;
use waystation::queue::{Item, Queue, RealDisk, Refusal, Settings, Writer};

const SETTINGS: Settings = settings(64 << 20, 4 << 20);

fn open(disk: &Arc<SimDisk>) -> (Queue, Writer) {
    open_with(disk, SETTINGS)
}

/// A disk as a crash leaves it, once so many records have been stored on it.
fn crashed(records: u64, payload: usize) -> State {
    let disk = SimDisk::new(State::default());
    let (queue, mut writer) = open(&disk);
    store(&mut queue.submitter(), &mut writer, 0..records, payload);
    disk.die()
}

/// The same of a queue that has several segments, after an orderly stop; and where the second one begins.
fn segmented() -> (State, u64) {
    let disk = SimDisk::new(State::default());
    let (queue, mut writer) = open(&disk);
    store(&mut queue.submitter(), &mut writer, 0..60, LARGE);
    writer.finish().unwrap();
    let state = disk.die();
    let second = names(&state, "segments")[1].trim_end_matches(".redb").parse().unwrap();
    (state, second)
}

/// What a destination gets next, as long as there is something.
async fn read(queue: &Queue, destination: &str) -> Vec<String> {
    let mut reader = queue.reader(destination);
    let mut all = Vec::new();
    while reader.ready().now_or_never().is_some() {
        let batch = reader.next(64 << 10).await.unwrap();
        all.extend(
            batch
                .records
                .iter()
                .map(|queued| String::from_utf8_lossy(&queued.record.txid).into_owned()),
        );
    }
    all
}

fn texts(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|n| n.to_string()).collect()
}

fn names(state: &State, dir: &str) -> Vec<String> {
    let dir = Path::new(DIR).join(dir);
    let files = state.files().into_iter().filter(|path| path.parent() == Some(&dir));
    files
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect()
}

fn segment(first: u64) -> PathBuf {
    Path::new(DIR).join(format!("segments/{first:020}.redb"))
}

/// The next start skips numbers, and until it has stored something there is no segment before them.
#[tokio::test]
async fn records_behind_skipped_numbers_are_delivered_though_their_segment_had_no_space() {
    let disk = SimDisk::new(State::default());
    let (queue, mut writer) = open(&disk);
    store(&mut queue.submitter(), &mut writer, 0..10, SMALL);
    queue.advance("a", 10);
    writer.housekeep().unwrap();
    let disk = SimDisk::new(disk.die());
    let (queue, mut writer) = open(&disk);
    writer.housekeep().unwrap();
    let mut submitter = queue.submitter();
    store(&mut submitter, &mut writer, 10..13, SMALL);
    assert!(queue.backlog(0) >= 3);
    assert_eq!(
        names(&disk.state(), "segments").len(),
        2,
        "the segment for them and the journal"
    );

    disk.set_capacity(Some(disk.used()));
    let mut other = queue.submitter();
    submit(&mut other, 99, LARGE);
    writer.turn(Instant::now()).unwrap();
    assert_eq!(other.refusal(), Some(Refusal::Full));
    assert_eq!(names(&disk.state(), "segments"), ["journal"]);

    assert_eq!(read(&queue, "a").await, texts(10..13));
    disk.set_capacity(None);
    writer.housekeep().unwrap();
    store(&mut submitter, &mut writer, 13..15, LARGE);
    assert_eq!(read(&queue, "a").await, texts(10..15));
    assert_eq!(queue.snapshot().lost, 0);
    writer.finish().unwrap();
    let (queue, _writer) = open(&SimDisk::new(disk.die()));
    assert_eq!(read(&queue, "a").await, texts(10..15));
    assert_eq!(queue.snapshot().lost, 0);
}

/// What a command of root's makes in a queue has to be openable by the gateway, which is another user.
#[tokio::test]
async fn what_root_makes_in_a_queue_belongs_to_its_user() {
    const NOBODY: u32 = 65_534;
    assert!(
        rustix::process::geteuid().is_root(),
        "this test gives files away and needs root: sudo env \"PATH=$PATH\" scripts/test.sh --test disk_faults"
    );
    let dir = tempfile::tempdir().unwrap();
    chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let (queue, writer) = Queue::open(&dir.path().join("queue"), SETTINGS).unwrap();
    queue.register("a", true);
    let mut submitter = queue.submitter();
    for payload in [SMALL, LARGE] {
        submitter.store(Item::Record(record(0, payload))).await.unwrap();
    }
    tokio::task::spawn_blocking(|| writer.close()).await.unwrap().unwrap();
    let mut folders = vec![dir.path().to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let found = fs::metadata(&path).unwrap();
            assert_eq!((found.uid(), found.gid()), (NOBODY, NOBODY), "{}", path.display());
            files += 1;
            folders.extend(found.is_dir().then_some(path));
        }
    }
    assert!(files >= 6, "{files}");
}

#[tokio::test]
async fn a_batch_whose_write_fails_is_refused_and_not_left_waiting() {
    let disk = SimDisk::new(State::default());
    let (queue, mut writer) = open(&disk);
    let mut submitter = queue.submitter();
    store(&mut submitter, &mut writer, 0..3, SMALL);
    for payload in [SMALL, LARGE] {
        let mut submitter = queue.submitter();
        submit(&mut submitter, 3, payload);
        disk.set_fault(Some(Fault {
            call: 0,
            errno: Errno::IO.raw_os_error(),
            stays: true,
        }));
        writer.turn(Instant::now()).unwrap_err();
        disk.set_fault(None);
        let told = submitter.advanced(0).now_or_never();
        assert_eq!(told.expect("it waits no longer"), Err(Refusal::Stopped));
    }
    let (queue, _writer) = open(&SimDisk::new(disk.die()));
    assert_eq!(read(&queue, "a").await[..3], texts(0..3));
}

#[tokio::test]
async fn a_full_disk_without_a_quarantine_keeps_nothing_from_starting() {
    let mut state = crashed(5, SMALL);
    let mess = Path::new(DIR).join("segments/notes");
    state.put(&mess, b"not a segment");
    // A segment in which nothing is intact: its records are in the journal alone.
    state.put(&segment(0), &[7; 20_000]);
    let disk = SimDisk::new(state);
    disk.set_capacity(Some(disk.used()));
    let (queue, _writer) = open(&disk);
    assert_eq!(read(&queue, "a").await, texts(0..5));
    let left = names(&disk.state(), "segments");
    assert!(left.iter().any(|name| name.starts_with("notes.aside.")), "{left:?}");
    assert!(
        left.iter()
            .any(|name| name.starts_with("00000000000000000000.redb.aside.")),
        "{left:?}"
    );

    // Once more, and they are left as they are.
    let disk = SimDisk::new(disk.die());
    let (queue, _writer) = open(&disk);
    assert_eq!(read(&queue, "a").await, texts(0..5));
    assert_eq!(names(&disk.state(), "segments"), left);

    // With space again they go where they belong.
    let disk = SimDisk::new(disk.die());
    disk.set_capacity(None);
    let (queue, _writer) = open(&disk);
    assert_eq!(read(&queue, "a").await, texts(0..5));
    let aside = names(&disk.state(), "quarantine");
    assert!(
        aside.iter().any(|name| name.starts_with("segments.notes.aside.")),
        "{aside:?}"
    );
    assert!(
        names(&disk.state(), "segments")
            .iter()
            .all(|name| !name.contains("aside"))
    );
}

#[tokio::test]
async fn a_segment_of_which_nothing_is_left_holds_up_nobody_on_a_full_disk() {
    let (mut state, second) = segmented();
    state.put(&segment(0), &[7; 20_000]);
    let disk = SimDisk::new(state);
    disk.set_capacity(Some(disk.used()));
    let (queue, _writer) = open(&disk);
    assert_eq!(read(&queue, "a").await, texts(second..60));
    assert_eq!(queue.snapshot().lost, second);
    let left = names(&disk.state(), "segments");
    assert!(left.iter().any(|name| name.contains(".aside.")), "{left:?}");
}

#[tokio::test]
async fn a_file_in_the_place_of_the_quarantine_makes_way() {
    let mut state = crashed(5, SMALL);
    state.put(&Path::new(DIR).join("quarantine"), b"in the way");
    state.put(&Path::new(DIR).join("segments/notes"), b"not a segment");
    let disk = SimDisk::new(state);
    let (queue, _writer) = open(&disk);
    assert_eq!(read(&queue, "a").await, texts(0..5));
    let aside = names(&disk.state(), "quarantine");
    assert!(
        aside.iter().any(|name| name.starts_with("segments.notes.")),
        "{aside:?}"
    );
    assert!(
        names(&disk.state(), "")
            .iter()
            .any(|name| name.starts_with("quarantine.aside."))
    );
}

/// As after damage to an inode that nobody has let fsck look at.
#[tokio::test]
async fn a_file_that_can_be_neither_opened_nor_moved_costs_what_is_in_it_and_nothing_else() {
    let (state, second) = segmented();
    let last = names(&state, "segments")
        .last()
        .unwrap()
        .trim_end_matches(".redb")
        .parse()
        .unwrap();
    let journaled = crashed(5, SMALL);
    let temporary = Path::new(DIR).join("segments/some.tmp");
    let mut unfinished = state.clone();
    unfinished.put(&temporary, b"unfinished");
    let journal = Path::new(DIR).join("segments/journal");
    for (mut state, stuck, delivered) in [
        (state.clone(), segment(0), second..60),
        (state.clone(), segment(last), 0..last),
        (unfinished, temporary, 0..60),
        (journaled, journal, 0..0),
    ] {
        state.make_stuck(&stuck);
        let disk = SimDisk::new(state);
        for start in 0..2 {
            let (queue, mut writer) = open(&disk);
            let mut submitter = queue.submitter();
            store(&mut submitter, &mut writer, 100..103, SMALL);
            store(&mut submitter, &mut writer, 103..104, LARGE);
            let all = match start {
                0 => [texts(delivered.clone()), texts(100..104)].concat(),
                _ => texts(100..104),
            };
            let mut got = Vec::new();
            let mut reader = queue.reader("a");
            while got.len() < all.len() {
                // It is tried again before it is given up.
                if let Ok(batch) = reader.next(1 << 20).await {
                    let texts = batch.records.iter().map(|queued| queued.record.txid.clone());
                    got.extend(texts.map(|txid| String::from_utf8_lossy(&txid).into_owned()));
                }
            }
            assert_eq!(got, all, "{}", stuck.display());
            queue.advance("a", queue.snapshot().committed);
            // Also to remove it does not work.
            writer.housekeep().unwrap();
            writer.finish().unwrap();
        }
    }
}

#[tokio::test]
async fn an_older_segment_that_cannot_be_opened_keeps_nothing_from_starting() {
    let (mut state, second) = segmented();
    state.make_unopenable(&segment(0));
    let disk = SimDisk::new(state);
    let (queue, _writer) = open(&disk);
    let mut reader = queue.reader("a");
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut delivered = Vec::new();
    while delivered.len() < 60 - second as usize {
        assert!(Instant::now() < deadline, "{delivered:?}");
        // It is tried again before it is given up.
        if let Ok(batch) = reader.next(1 << 20).await {
            delivered.extend(
                batch
                    .records
                    .iter()
                    .map(|queued| String::from_utf8_lossy(&queued.record.txid).into_owned()),
            );
        }
    }
    assert_eq!(delivered, texts(second..60));
    assert_eq!(queue.snapshot().lost, second);
}

#[tokio::test]
async fn a_directory_that_is_moved_away_and_back_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (dir.path().join("queue"), dir.path().join("moved"));
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let (queue, mut writer) = Queue::open_on(&disk, &here, SETTINGS).unwrap();
    queue.register("a", true);
    store(&mut queue.submitter(), &mut writer, 0..100, LARGE);
    let mut reader = queue.reader("a");
    for replaced in [false, true] {
        fs::rename(&here, &there).unwrap();
        if replaced {
            fs::create_dir_all(here.join("segments")).unwrap();
        }
        for _ in 0..10 {
            reader.next(64 << 10).await.unwrap_err();
        }
        if replaced {
            fs::remove_dir_all(&here).unwrap();
        }
        fs::rename(&there, &here).unwrap();
    }
    assert_eq!(read(&queue, "a").await, texts(0..100));
    assert_eq!(queue.snapshot().lost, 0);
}

/// A commit in a segment was interrupted, or is newer than the journal, and the segment is damaged besides.
#[tokio::test]
async fn what_a_damaged_segment_lacks_comes_from_the_journal() {
    let disk = SimDisk::new(State::default());
    let (queue, mut writer) = open(&disk);
    let mut submitter = queue.submitter();
    store(&mut submitter, &mut writer, 0..5, SMALL);
    store(&mut submitter, &mut writer, 5..6, LARGE);
    let mut state = disk.die();
    let bytes = state.content(&segment(0));
    // Every copy of some goes, and what redb needs to read the rest; two and the last stay.
    let mut damaged = bytes.clone();
    damaged[..4096].fill(0);
    for n in [0, 1, 4u8] {
        let payload = [n; SMALL];
        let mut from = 0;
        while let Some(at) = damaged[from..].windows(SMALL).position(|window| window == payload) {
            damaged[from + at] = !n;
            from += at + 1;
            if n == 0 {
                break;
            }
        }
    }
    state.put(&segment(0), &damaged);
    let disk = SimDisk::new(state);
    for _ in 0..2 {
        let (queue, _writer) = open(&disk);
        assert_eq!(read(&queue, "a").await, texts(0..6));
        assert_eq!(queue.snapshot().lost, 0);
    }
    let state = disk.state();
    let aside = names(&state, "quarantine");
    let set_aside = |what: &str| {
        aside
            .iter()
            .filter(|name| name.starts_with(what) && !name.ends_with(".txt"))
            .count()
    };
    assert_eq!(
        (set_aside("segments.journal."), set_aside("segments.0")),
        (0, 1),
        "{aside:?}"
    );
}
