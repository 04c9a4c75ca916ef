//! Damage to a queue's directory: it always opens, delivers in order what is intact, and says how much is not.
//!
//! A record is intact when its frame, byte for byte, is still somewhere in the file that holds its numbers. Every such
//! record is delivered, with two exceptions. The last commit of a crashed queue, where its segment is damaged and the
//! cursors do not know of it: it looks like a commit that the crash ended half way, and redb takes it for one. And
//! everything, when neither the cursors nor any sound segment says which queue it is of.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use rand::RngExt;
use rand::rngs::StdRng;
use waystation::queue::storage::Disk;
use waystation::queue::{Item, Queue, Settings, Writer};
use waystation::record::Record;
use waystation::record::stored::{QueueId, append_frame};

use crate::power_cuts::{SETTINGS, drain, record};
use crate::sim_disk::{SimDisk, State, below, seeded};

const DIR: &str = "/queue";
const DESTINATIONS: [&str; 2] = ["cloud", "home"];

/// A queue before anything happens to it.
struct Sound {
    state: State,
    records: BTreeMap<u64, Record>,
    /// Numbers that the cursors file knows to be committed.
    known: u64,
    /// The first number of the last commit.
    last_commit: u64,
    cursors: BTreeMap<&'static str, u64>,
    frames: Frames,
}

impl Sound {
    /// Whether a record is in the journal and in no segment.
    fn is_journaled(&self, number: u64) -> bool {
        let (_, places) = &self.frames[&number];
        places.iter().all(|(path, _)| path == Path::new(JOURNAL))
    }
}

/// The frame of each record, and the files and offsets where it is.
type Frames = BTreeMap<u64, (Vec<u8>, Vec<(PathBuf, usize)>)>;

/// What one case did.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Report {
    pub(crate) cases: u64,
    pub(crate) missing: u64,
    pub(crate) delivered: u64,
}

/// Runs one seed: a queue, and some cases of damage to it.
pub(crate) fn run(seed: u64, cases: u64) -> Report {
    let run = move || {
        let mut rng = seeded(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let sound = sound(&mut rng, &runtime);
        let mut report = Report::default();
        for _ in 0..cases {
            case(&sound, &mut rng, &runtime, &mut report);
        }
        report
    };
    std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        eprintln!("seed {seed} failed; once more: cargo run --release --example damage -- --seed {seed}");
        std::panic::resume_unwind(panic)
    })
}

fn open(state: State) -> (Arc<SimDisk>, Queue, Writer) {
    let sim = SimDisk::new(state);
    let disk: Arc<dyn Disk> = Arc::clone(&sim) as Arc<dyn Disk>;
    // A file that was damaged is no longer sparse.
    let settings = Settings {
        max_bytes: 64 << 20,
        ..SETTINGS
    };
    let opened = Queue::open_on(&disk, Path::new(DIR), settings);
    let (queue, writer) = opened.unwrap_or_else(|error| panic!("the queue does not open: {error}"));
    for destination in DESTINATIONS {
        queue.register(destination, true);
    }
    (sim, queue, writer)
}

/// Returns the first number of the last commit.
fn send(queue: &Queue, writer: &mut Writer, numbers: std::ops::Range<u64>, rng: &mut StdRng) -> u64 {
    let mut last_commit = queue.snapshot().committed;
    let mut turn = |queue: &Queue| {
        let before = queue.snapshot().committed;
        assert!(writer.turn(Instant::now()).unwrap());
        if queue.snapshot().committed > before {
            last_commit = before;
        }
    };
    let mut submitter = queue.submitter();
    let count = numbers.end - numbers.start;
    for number in numbers {
        let bytes = rng.random_range(0..3000);
        let handed_in = submitter
            .submit(Item::Record(record((0, number), bytes)))
            .now_or_never();
        handed_in.expect("there is room in the line").unwrap();
        if below(rng, 3) == 0 {
            turn(queue);
        }
    }
    while submitter.committed() < count {
        turn(queue);
    }
    last_commit
}

fn sound(rng: &mut StdRng, runtime: &tokio::runtime::Runtime) -> Sound {
    let (disk, queue, mut writer) = open(State::default());
    let total = rng.random_range(60..160);
    send(&queue, &mut writer, 0..total, rng);
    let all = runtime.block_on(drain(&queue, "cloud")).unwrap();
    assert_eq!(all.len() as u64, total);
    let mut cursors = BTreeMap::new();
    for destination in DESTINATIONS {
        let cursor = below(rng, all.len() / 2) as u64;
        queue.advance(destination, cursor);
        cursors.insert(destination, cursor);
    }
    writer.housekeep().unwrap();
    let known = queue.snapshot().committed;
    // Beyond what the cursors file knows, unless the stop is an orderly one.
    let last_commit = send(&queue, &mut writer, total..total + 20, rng);
    let rest = runtime.block_on(drain(&queue, "cloud")).unwrap();
    let all = all.into_iter().chain(rest);
    let records = all.map(|queued| (queued.id.number, queued.record)).collect();
    let orderly = below(rng, 2) == 0;
    if orderly {
        writer.finish().unwrap();
    }
    let known = if orderly { queue.snapshot().committed } else { known };
    let state = disk.die();
    let frames = frames(&state, &records, queue.id());
    Sound {
        state,
        records,
        known,
        last_commit,
        cursors,
        frames,
    }
}

/// The frame of each record, and where in the files it is.
fn frames(state: &State, records: &BTreeMap<u64, Record>, queue: QueueId) -> Frames {
    let mut frames = Frames::new();
    let mut by_header = HashMap::new();
    for (number, record) in records {
        let mut frame = Vec::new();
        append_frame(&mut frame, queue, *number, record);
        by_header.insert(frame[..12].to_vec(), *number);
        frames.insert(*number, (frame, Vec::new()));
    }
    for path in segments(state).into_iter().chain(journal(state)) {
        let bytes = state.content(&path);
        let written = (0..bytes.len()).step_by(4096).filter(|page| {
            let end = bytes.len().min(page + 4096);
            bytes[*page..end] != [0; 4096][..end - page]
        });
        for at in written.flat_map(|page| page.saturating_sub(11)..page + 4096) {
            let number = bytes.get(at..at + 12).and_then(|header| by_header.get(header));
            if let Some((frame, places)) = number.and_then(|number| frames.get_mut(number))
                && bytes[at..].starts_with(frame)
            {
                places.push((path.clone(), at));
            }
        }
    }
    frames
}

/// The numbers whose frames are still in the file that holds them.
fn intact(sound: &Sound, state: &State) -> BTreeSet<u64> {
    let mut files = BTreeMap::new();
    let mut intact = BTreeSet::new();
    for (number, segment) in files_of(sound) {
        let holder = match journal(&sound.state).filter(|_| sound.is_journaled(number)) {
            Some(journal) => journal,
            None => segment,
        };
        let content = files
            .entry(holder.clone())
            .or_insert_with(|| state.readable(&holder).unwrap_or_default());
        let (frame, places) = &sound.frames[&number];
        let there = |(path, at): &(PathBuf, usize)| {
            *path == holder && content.get(*at..).is_some_and(|bytes| bytes.starts_with(frame))
        };
        if places.iter().any(there) {
            intact.insert(number);
        }
    }
    intact
}

fn case(sound: &Sound, rng: &mut StdRng, runtime: &tokio::runtime::Runtime, report: &mut Report) {
    let mut state = sound.state.clone();
    let mut damaged = BTreeSet::new();
    let mut what = Vec::new();
    for _ in 0..rng.random_range(1..4) {
        damage(&mut state, rng, &mut damaged, &mut what);
    }
    let cursors_intact = !damaged.contains(Path::new("/queue/cursors"));
    let mut intact = intact(sound, &state);
    let newest = segments(&sound.state).pop().unwrap();
    let known = if cursors_intact { sound.known } else { 0 };
    if damaged.contains(&newest) {
        intact.retain(|number| *number < sound.last_commit.max(known));
    }
    if damaged.contains(Path::new(JOURNAL)) {
        intact.retain(|number| *number < known || !sound.is_journaled(*number));
    }
    if !cursors_intact && segments(&sound.state).iter().all(|path| damaged.contains(path)) {
        intact.clear();
    }
    // Whole files under each other's names are as good as ever.
    let only_swapped = what
        .iter()
        .all(|what| what.starts_with("6 ") || what.starts_with("12 "));
    if only_swapped {
        intact = sound.records.keys().copied().collect();
    }
    let (_disk, queue, mut writer) = open(state);
    let mut missing = BTreeSet::new();
    for destination in DESTINATIONS {
        let cursor = queue.cursor(destination);
        if cursors_intact {
            assert_eq!(cursor, sound.cursors[destination], "{what:?}");
        }
        // Without the cursors and the oldest segment nobody knows what there was.
        let oldest_intact = !damaged.contains(&segments(&sound.state)[0]);
        assert!(
            cursor <= sound.cursors[destination] || !cursors_intact && !oldest_intact,
            "{what:?}"
        );
        let mut newest = None;
        let mut found = BTreeSet::new();
        for queued in read(&queue, destination, runtime) {
            let number = queued.0;
            assert!(newest < Some(number), "{number} behind {newest:?}: {what:?}");
            newest = Some(number);
            let same = sound.records.get(&number) == Some(&queued.1);
            assert!(same, "{number} is another: {what:?}");
            found.insert(number);
        }
        let hidden: Vec<_> = intact
            .range(cursor..)
            .filter(|number| !found.contains(number))
            .collect();
        assert!(
            hidden.is_empty(),
            "{hidden:?} are intact and not delivered to {destination}: {what:?}"
        );
        let expected = sound.records.range(cursor..).map(|(number, _)| *number);
        missing.extend(expected.filter(|number| !found.contains(number)));
        report.delivered += found.len() as u64;
    }
    let lost = queue.snapshot().lost;
    let certain = missing.iter().filter(|number| **number < sound.known).count() as u64;
    if cursors_intact {
        assert!(lost >= certain, "{lost} are said to be lost, {certain} are: {what:?}");
    }
    // A segment under another one's name is found by the readers that pass that name again, and lost to those before.
    let swapped = what.iter().any(|what| what.starts_with("6 "));
    assert!(
        swapped && !only_swapped || lost <= missing.len() as u64,
        "{lost} are said to be lost, {} are: {what:?}",
        missing.len()
    );
    report.cases += 1;
    report.missing += missing.len() as u64;

    // And it goes on.
    send(&queue, &mut writer, 1000..1005, rng);
    let records = read(&queue, "cloud", runtime);
    let new: Vec<_> = records
        .iter()
        .filter(|(_, record)| record.received_at >= 1000)
        .collect();
    assert_eq!(new.len(), 5, "{what:?}");
    let last = sound.records.keys().next_back().copied();
    assert!(Some(new[0].0) > last, "a number is used again: {what:?}");
    // What nobody is handed is not known either: sent again, it is stored.
    let mut submitter = queue.submitter();
    for number in &missing {
        let handed_in = submitter
            .submit(Item::Sent(sound.records[number].clone()))
            .now_or_never();
        handed_in.expect("there is room in the line").unwrap();
    }
    while submitter.committed() < missing.len() as u64 {
        assert!(writer.turn(Instant::now()).unwrap());
    }
    assert_eq!(queue.snapshot().duplicates, 0, "{what:?}");
}

/// Reads again what fails, as the forwarder does.
fn read(queue: &Queue, destination: &str, runtime: &tokio::runtime::Runtime) -> Vec<(u64, Record)> {
    for _ in 0..200 {
        if let Ok(records) = runtime.block_on(drain(queue, destination)) {
            let records = records.into_iter().map(|queued| (queued.id.number, queued.record));
            return records.collect();
        }
    }
    panic!("{destination} cannot read on");
}

/// Each record's number with the file that holds it.
fn files_of(sound: &Sound) -> Vec<(u64, PathBuf)> {
    let segments = segments(&sound.state);
    let holder = |number: u64| segments.iter().rev().find(|path| first_of(path) <= number).cloned();
    // Others were consumed before.
    let held = sound
        .records
        .keys()
        .filter_map(|number| Some((*number, holder(*number)?)));
    held.collect()
}

const JOURNAL: &str = "/queue/segments/journal";

fn journal(state: &State) -> Option<PathBuf> {
    let path = PathBuf::from(JOURNAL);
    state.files().contains(&path).then_some(path)
}

fn segments(state: &State) -> Vec<PathBuf> {
    let in_segments =
        |path: &PathBuf| path.starts_with("/queue/segments") && path.extension().is_some_and(|end| end == "redb");
    state.files().into_iter().filter(in_segments).collect()
}

fn first_of(path: &Path) -> u64 {
    path.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

fn damage(state: &mut State, rng: &mut StdRng, damaged: &mut BTreeSet<PathBuf>, what: &mut Vec<String>) {
    let mut files = segments(state);
    let cursors = PathBuf::from("/queue/cursors");
    if state.files().contains(&cursors) && below(rng, 6) == 0 {
        files = vec![cursors];
    } else if let Some(journal) = journal(state).filter(|_| below(rng, 4) == 0) {
        files = vec![journal];
    }
    if files.is_empty() {
        return;
    }
    let path = files[below(rng, files.len())].clone();
    let mut bytes = state.content(&path);
    let kind = below(rng, 13);
    what.push(format!("{kind} on {}", path.display()));
    match kind {
        0 | 1 => {
            for _ in 0..rng.random_range(1..20) {
                if let Some(length) = bytes.len().checked_sub(1) {
                    let at = below(rng, length + 1);
                    bytes[at] ^= 1 << below(rng, 8);
                }
            }
            state.put(&path, &bytes);
        }
        2 | 3 => {
            let pages = bytes.chunks_mut(4096).filter(|_| rng.random_bool(0.1));
            pages.for_each(|page| page.fill(0));
            state.put(&path, &bytes);
        }
        4 => {
            bytes.truncate(below(rng, bytes.len() + 1));
            state.put(&path, &bytes);
        }
        5 => {
            let garbage = rng.random_range(1..9000);
            bytes.extend((0..garbage).map(|_| rng.random::<u8>()));
            state.put(&path, &bytes);
        }
        6 => {
            let other = files[below(rng, files.len())].clone();
            let others = state.content(&other);
            state.put(&other, &bytes);
            state.put(&path, &others);
            if other != path {
                damaged.insert(other);
            }
        }
        7 => state.take(&path),
        8 => state.make_unreadable(&path),
        9 => state.put(&path, &[]),
        10 => state.make_dir(&path),
        11 => {
            let pages: Vec<_> = (0..bytes.len().div_ceil(4096))
                .filter(|_| below(rng, 20) == 0)
                .collect();
            pages
                .into_iter()
                .for_each(|page| state.make_page_unreadable(&path, page as u64));
        }
        _ => {
            state.put(&path.with_file_name("notes.txt"), b"hello");
            state.put(&path.with_extension("tmp"), b"half");
            return;
        }
    }
    damaged.insert(path);
}
