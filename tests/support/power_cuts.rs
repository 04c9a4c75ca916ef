//! A queue's life under random work and power cuts, beside a model of what must be true after each.
//!
//! The real writer works on a simulated disk. Before any of its calls the power may be cut: what the disk then has is
//! opened like after any start, and every record that was acknowledged by then must be there, once and in order.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use rand::RngExt;
use rand::rngs::StdRng;
use waystation::queue::storage::Disk;
use waystation::queue::{
    DeadLetter, InspectError, Item, OpenError, PurgeError, Queue, Queued, ReadError, Settings, Step, Submitter,
    WhenFull, Writer, WriterError, walk_dead_letters_on,
};
use waystation::record::Record;

use crate::sim_disk::{Fault, SimDisk, State, below, seeded};

const DIR: &str = "/queue";
const DESTINATIONS: [&str; 2] = ["cloud", "home"];
const VEHICLES: usize = 4;
/// The sender of dead letters comes behind the vehicles.
const SENDERS: usize = VEHICLES + 1;

pub(crate) const SETTINGS: Settings = Settings {
    max_bytes: 4 << 20,
    segment_size: 24 << 10,
    commit_delay: Duration::ZERO,
    dead_letter_bytes: 1 << 20,
    keep_free: 0,
    when_full: WhenFull::Refuse,
    max_age: None,
    duplicate_window: 1 << 20,
};

/// A record by vehicle and its own count.
type Txid = (usize, u64);

/// What each number of each queue stood for.
type Numbers = BTreeMap<([u8; 16], u64), Txid>;

/// One vehicle as it lives through restarts of the gateway. What was not acknowledged then is not sent again, so that
/// every record is sent once.
struct Vehicle {
    submitter: Option<Submitter>,
    /// Its first record of this connection, and how many were sent in all.
    first: u64,
    sent: u64,
    acked: Vec<Range<u64>>,
    /// Of its first so many records any may be gone, because they were to be purged.
    purged: u64,
    /// And of its first so many all must be: the purge has ended.
    erased: u64,
}

impl Vehicle {
    fn acked(&self) -> Vec<Range<u64>> {
        let now = self
            .submitter
            .as_ref()
            .map(|submitter| self.first..self.first + submitter.committed());
        self.acked.iter().cloned().chain(now).collect()
    }
}

/// What is known at the moment of a cut.
#[derive(Clone)]
struct Seen {
    acked: Vec<Vec<Range<u64>>>,
    sent: Vec<u64>,
    purged: Vec<u64>,
    erased: Vec<u64>,
}

/// What one run did.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Report {
    pub(crate) cuts: u64,
    pub(crate) starts: u64,
    pub(crate) records: u64,
    /// By limits, counted for each destination, and again each time.
    pub(crate) dropped: u64,
}

/// Runs one seed; panics, with the seed in its words, when anything is not as it must be.
pub(crate) fn run(seed: u64) -> Report {
    let run = move || Run::new(seed).live();
    std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        eprintln!("seed {seed} failed; once more: cargo run --release --example power-cuts -- --seed {seed}");
        std::panic::resume_unwind(panic)
    })
}

/// One call fails, or all of its kind from then on. Returns how many calls there were, and which failed.
pub(crate) fn run_with_fault(seed: u64, fault: Option<Fault>) -> (u64, Option<&'static str>) {
    let run = move || Run::new(seed).with_fault(fault);
    std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        eprintln!("seed {seed} failed with {fault:?}");
        std::panic::resume_unwind(panic)
    })
}

struct Run {
    rng: StdRng,
    runtime: tokio::runtime::Runtime,
    vehicles: Arc<Mutex<Vec<Vehicle>>>,
    /// Numbers that were seen, and what they stood for: for ever.
    numbers: Numbers,
    /// How far each destination has confirmed.
    advanced: BTreeMap<&'static str, u64>,
    report: Report,
}

impl Run {
    fn new(seed: u64) -> Self {
        Self {
            rng: seeded(seed),
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            vehicles: Arc::default(),
            numbers: BTreeMap::new(),
            advanced: DESTINATIONS.map(|name| (name, 0)).into(),
            report: Report::default(),
        }
    }

    fn live(mut self) -> Report {
        let mut state = State::default();
        for _ in 0..self.rng.random_range(2..6) {
            state = self.life(state);
        }
        self.report
    }

    fn vehicles(&self) -> MutexGuard<'_, Vec<Vehicle>> {
        self.vehicles.lock().unwrap()
    }

    /// From a start to an end of any kind. Returns what the next start finds.
    fn life(&mut self, state: State) -> State {
        self.report.starts += 1;
        let disk = SimDisk::new(state);
        let (queue, mut writer) = self.open(&disk);
        self.connect(&queue);
        let images: Arc<Mutex<Vec<(State, Seen)>>> = Arc::default();
        self.cut_now_and_then(&disk, &images);
        for _ in 0..self.rng.random_range(5..40) {
            match below(&mut self.rng, 40) {
                0..20 => self.send(&mut writer).unwrap(),
                20..32 => self.confirm(&queue),
                32..38 => writer.housekeep().unwrap(),
                38 => self.drop_oldest(&queue, &mut writer),
                _ => self.purge(&queue, &mut writer).unwrap().unwrap(),
            }
            if let Some(next) = self.check_cuts(&images) {
                return next;
            }
        }
        let kept = self.disconnect();
        match below(&mut self.rng, 3) {
            // Stopped, killed, or the power went between two calls.
            0 => {
                writer.finish().unwrap();
                let next = self.check_cuts(&images);
                next.unwrap_or_else(|| disk.die())
            }
            1 => disk.die(),
            _ => {
                let cut = disk.die().cut(&mut self.rng);
                self.check(cut.clone(), &kept, true);
                cut
            }
        }
    }

    /// A life that ends in a crash, then one in which calls fail, then a start on what that leaves, as the next process
    /// sees it and as a power cut leaves it.
    fn with_fault(mut self, fault: Option<Fault>) -> (u64, Option<&'static str>) {
        let disk = SimDisk::new(State::default());
        let (queue, mut writer) = self.open(&disk);
        self.connect(&queue);
        for _ in 0..3 {
            self.send(&mut writer).unwrap();
            self.confirm(&queue);
        }
        self.disconnect();
        let disk = SimDisk::new(disk.die());
        disk.set_fault(fault);
        match self.try_open(&disk) {
            Ok((queue, mut writer)) => {
                self.connect(&queue);
                if let Err(error) = self.work(&queue, &mut writer) {
                    names_a_file(&error.to_string());
                }
            }
            Err(error) => names_a_file(&error.to_string()),
        }
        let seen = self.disconnect();
        let calls = disk.calls();
        disk.set_fault(None);
        let state = disk.die();
        self.check(state.clone(), &seen, false);
        let cut = state.cut(&mut self.rng);
        self.check(cut, &seen, false);
        calls
    }

    fn work(&mut self, queue: &Queue, writer: &mut Writer) -> Result<(), WriterError> {
        for _ in 0..4 {
            self.send(writer)?;
            self.confirm(queue);
            writer.housekeep()?;
        }
        if let Err(error) = self.purge(queue, writer)? {
            names_a_file(&error.to_string());
        }
        writer.finish()
    }

    fn open(&self, disk: &Arc<SimDisk>) -> (Queue, Writer) {
        self.try_open(disk)
            .unwrap_or_else(|error| panic!("the queue does not open: {error}"))
    }

    fn try_open(&self, disk: &Arc<SimDisk>) -> Result<(Queue, Writer), OpenError> {
        let disk: Arc<dyn Disk> = Arc::clone(disk) as Arc<dyn Disk>;
        let (queue, writer) = Queue::open_on(&disk, Path::new(DIR), SETTINGS)?;
        for destination in DESTINATIONS {
            queue.register(destination, true);
        }
        Ok((queue, writer))
    }

    fn connect(&mut self, queue: &Queue) {
        let mut vehicles = self.vehicles();
        if vehicles.is_empty() {
            vehicles.extend((0..SENDERS).map(|_| Vehicle {
                submitter: Some(queue.submitter()),
                first: 0,
                sent: 0,
                acked: Vec::new(),
                purged: 0,
                erased: 0,
            }));
            return;
        }
        for vehicle in vehicles.iter_mut() {
            vehicle.submitter = Some(queue.submitter());
            vehicle.first = vehicle.sent;
        }
    }

    fn disconnect(&self) -> Seen {
        let mut vehicles = self.vehicles();
        let seen = seen(&vehicles);
        for (vehicle, acked) in vehicles.iter_mut().zip(&seen.acked) {
            vehicle.acked.clone_from(acked);
            vehicle.submitter = None;
        }
        seen
    }

    fn cut_now_and_then(&mut self, disk: &SimDisk, images: &Arc<Mutex<Vec<(State, Seen)>>>) {
        let (vehicles, images) = (Arc::clone(&self.vehicles), Arc::clone(images));
        let mut rng = seeded(self.rng.random());
        let often = self.rng.random_range(0.05..0.6);
        disk.observe(move |state| {
            if rng.random_bool(often) {
                let seen = seen(&vehicles.lock().unwrap());
                images.lock().unwrap().push((state.cut(&mut rng), seen));
            }
        });
    }

    fn send(&mut self, writer: &mut Writer) -> Result<(), WriterError> {
        let count = if below(&mut self.rng, 4) == 0 { 60 } else { 6 };
        for _ in 0..self.rng.random_range(1..count) {
            let number = below(&mut self.rng, SENDERS);
            let bytes = match below(&mut self.rng, 8) {
                0 => self.rng.random_range(0..9000),
                _ => self.rng.random_range(0..400),
            };
            let mut vehicles = self.vehicles.lock().unwrap();
            let vehicle = &mut vehicles[number];
            let Some(submitter) = vehicle
                .submitter
                .as_mut()
                .filter(|submitter| submitter.refusal().is_none())
            else {
                continue;
            };
            let item = match number {
                VEHICLES => Item::DeadLetter(dead_letter((number, vehicle.sent), bytes)),
                _ => Item::Record(record((number, vehicle.sent), bytes)),
            };
            let handed_in = submitter.submit(item).now_or_never();
            handed_in.expect("there is room in the line").unwrap();
            vehicle.sent += 1;
            self.report.records += 1;
        }
        // More than one batch when they are large.
        for _ in 0..3 {
            assert!(writer.turn(Instant::now())?);
        }
        Ok(())
    }

    /// One vehicle's records go. The outer error is the writer's.
    fn purge(&mut self, queue: &Queue, writer: &mut Writer) -> Result<Result<(), PurgeError>, WriterError> {
        let number = below(&mut self.rng, VEHICLES);
        let upto = {
            let mut vehicles = self.vehicles();
            let vehicle = &mut vehicles[number];
            vehicle.purged = vehicle.sent;
            vehicle.sent
        };
        let vin = record((number, 0), 0).vin;
        let _inside = self.runtime.enter();
        let mut purge = Box::pin(queue.purge(&vin));
        // It has asked the writer for something, and waits.
        assert!(purge.as_mut().now_or_never().is_none());
        writer.turn(Instant::now())?;
        let purged = self.runtime.block_on(purge);
        if purged.as_ref().is_ok_and(|purged| purged.left.is_empty()) {
            self.vehicles()[number].erased = upto;
        }
        Ok(purged.map(drop))
    }

    /// The limits change while it runs: half of what is there has to go, whoever needs it.
    fn drop_oldest(&mut self, queue: &Queue, writer: &mut Writer) {
        for destination in DESTINATIONS {
            for queued in &self.runtime.block_on(drain(queue, destination)).unwrap() {
                note(&mut self.numbers, queued);
            }
        }
        let tight = Settings {
            max_bytes: queue.snapshot().disk_bytes / 2,
            when_full: WhenFull::DropOldest,
            ..SETTINGS
        };
        for settings in [tight, SETTINGS] {
            let mut change = Box::pin(queue.change(settings));
            // It has asked the writer for something, and waits.
            assert!(change.as_mut().now_or_never().is_none());
            writer.turn(Instant::now()).unwrap();
            self.runtime.block_on(change).unwrap();
        }
        for destination in DESTINATIONS {
            let passed = queue.cursor(destination).max(self.advanced[destination]);
            self.report.dropped += queue.dropped(destination);
            self.advanced.insert(destination, passed);
        }
    }

    /// A destination reads some of what is queued and confirms some of that.
    fn confirm(&mut self, queue: &Queue) {
        let destination = DESTINATIONS[below(&mut self.rng, DESTINATIONS.len())];
        // What cannot be read now is read another time.
        let records = self.runtime.block_on(drain(queue, destination)).unwrap_or_default();
        for queued in &records {
            note(&mut self.numbers, queued);
        }
        let taken = match below(&mut self.rng, 3) {
            0 => records.len(),
            _ => below(&mut self.rng, records.len() + 1),
        };
        if let Some(last) = taken.checked_sub(1).and_then(|last| records.get(last)) {
            queue.advance(destination, last.id.number + 1);
            self.advanced.insert(destination, last.id.number + 1);
        }
    }

    /// Checks every image that was taken, and now and then goes on from one.
    fn check_cuts(&mut self, images: &Mutex<Vec<(State, Seen)>>) -> Option<State> {
        let taken = std::mem::take(&mut *images.lock().unwrap());
        for (image, seen) in taken {
            let goes_on = below(&mut self.rng, 150) == 0;
            self.check(image.clone(), &seen, goes_on);
            if goes_on {
                let mut vehicles = self.vehicles();
                for (number, vehicle) in vehicles.iter_mut().enumerate() {
                    vehicle.acked.clone_from(&seen.acked[number]);
                    (vehicle.purged, vehicle.erased) = (seen.purged[number], seen.erased[number]);
                }
                return Some(image);
            }
        }
        None
    }

    /// What a start after the cut finds must be what the model says.
    fn check(&mut self, image: State, seen: &Seen, goes_on: bool) {
        self.report.cuts += 1;
        let disk = SimDisk::new(image.clone());
        let (queue, _writer) = self.open(&disk);
        let set_aside = |txid: Txid| image.holds(&Path::new(DIR).join("quarantine"), &text(txid));
        let mut numbers = self.numbers.clone();
        for destination in DESTINATIONS {
            let cursor = queue.cursor(destination);
            assert!(
                cursor <= self.advanced[destination],
                "{destination} is at {cursor}, and confirmed only what is before {}",
                self.advanced[destination]
            );
            let records = self.runtime.block_on(drain(&queue, destination)).unwrap();
            let mut found = BTreeSet::new();
            let mut newest = [None; VEHICLES];
            for queued in &records {
                let (vehicle, count) = note(&mut numbers, queued);
                assert!(count < seen.sent[vehicle], "{vehicle}/{count} was never sent");
                assert!(
                    count >= seen.erased[vehicle],
                    "{vehicle}/{count} was purged, and is there"
                );
                assert!(
                    newest[vehicle] < Some(count),
                    "{vehicle}/{count} comes behind {:?}",
                    newest[vehicle]
                );
                newest[vehicle] = Some(count);
                found.insert((vehicle, count));
            }
            let (first, end) = ((queue.id().0, 0), (queue.id().0, cursor));
            let confirmed: BTreeSet<Txid> = self.numbers.range(first..end).map(|(_, txid)| *txid).collect();
            for (vehicle, acked) in seen.acked.iter().enumerate().take(VEHICLES) {
                for count in acked.iter().cloned().flatten() {
                    let txid = (vehicle, count);
                    assert!(
                        found.contains(&txid)
                            || confirmed.contains(&txid)
                            || set_aside(txid)
                            || count < seen.purged[vehicle],
                        "{vehicle}/{count} was acknowledged and is lost to {destination}, whose cursor is {cursor}"
                    );
                }
            }
        }
        let letters = dead_letters(&disk);
        assert!(letters.is_sorted(), "{letters:?}");
        for count in seen.acked.get(VEHICLES).into_iter().flatten().cloned().flatten() {
            let kept = letters.contains(&count) || set_aside((VEHICLES, count));
            assert!(kept, "dead letter {count} was durable and is lost");
        }
        if let Some(last) = letters.last() {
            assert!(*last < seen.sent[VEHICLES], "dead letter {last} was never sent");
        }
        let lost = queue.snapshot().lost;
        let aside = image.holds(&Path::new(DIR).join("quarantine"), b"<");
        assert!(lost == 0 || aside, "nothing is lost, and {lost} are said to be");
        if goes_on {
            self.numbers = numbers;
        }
    }
}

/// Counts of the dead letters that can be read, in their order.
fn dead_letters(disk: &Arc<SimDisk>) -> Vec<u64> {
    let disk: Arc<dyn Disk> = Arc::clone(disk) as Arc<dyn Disk>;
    let mut counts = Vec::new();
    walk_dead_letters_on::<InspectError>(&*disk, Path::new(DIR), u64::MAX, |step| {
        if let Step::Found((_, letter)) = step {
            counts.push(letter.at);
        }
        Ok(())
    })
    .unwrap();
    counts
}

fn names_a_file(message: &str) {
    assert!(message.contains("/queue"), "no file in {message:?}");
}

fn seen(vehicles: &[Vehicle]) -> Seen {
    Seen {
        acked: vehicles.iter().map(Vehicle::acked).collect(),
        sent: vehicles.iter().map(|vehicle| vehicle.sent).collect(),
        purged: vehicles.iter().map(|vehicle| vehicle.purged).collect(),
        erased: vehicles.iter().map(|vehicle| vehicle.erased).collect(),
    }
}

/// A number stands for one record, whatever happens.
fn note(numbers: &mut Numbers, queued: &Queued) -> Txid {
    let text = String::from_utf8(queued.record.txid.to_vec()).unwrap();
    let (vehicle, count) = text.trim_matches(['<', '>']).split_once('/').unwrap();
    let txid = (vehicle.parse().unwrap(), count.parse().unwrap());
    let before = numbers.insert((queued.id.queue.0, queued.id.number), txid);
    assert!(
        before.is_none_or(|before| before == txid),
        "number {} stood for {before:?} and stands for {txid:?}",
        queued.id.number
    );
    txid
}

fn text((vehicle, count): Txid) -> Vec<u8> {
    format!("<{vehicle}/{count}>").into_bytes()
}

fn dead_letter((sender, count): Txid, bytes: usize) -> DeadLetter {
    DeadLetter {
        origin: "cloud".to_owned(),
        reason: "refused".to_owned(),
        at: count,
        vin: "nobody".to_owned(),
        record_type: "V".to_owned(),
        txid: text((sender, count)).into(),
        raw: Bytes::from(vec![count as u8; bytes]),
        record: None,
        received_at: count,
        client_version: "1.2.0".to_owned(),
    }
}

pub(crate) fn record((vehicle, count): Txid, bytes: usize) -> Record {
    Record {
        vin: format!("vehicle-{vehicle}").into(),
        record_type: "V".into(),
        txid: text((vehicle, count)).into(),
        received_at: count,
        client_version: "1.2.0".into(),
        payload: Bytes::from(vec![count as u8; bytes]),
        origin: None,
        only: None,
    }
}

/// All that is committed, from a destination's cursor on.
pub(crate) async fn drain(queue: &Queue, destination: &str) -> Result<Vec<Queued>, ReadError> {
    let mut reader = queue.reader(destination);
    let mut records = Vec::new();
    loop {
        let before = reader.position();
        let batch = reader.next(16 << 10).await?;
        records.extend(batch.records);
        if reader.position() == before {
            return Ok(records);
        }
    }
}
