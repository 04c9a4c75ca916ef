//! A queue's life under random work and power cuts, beside a model of what must be true after each.
//!
//! The real writer works on a simulated disk. Before any of its calls the power may be cut: what the disk then has is
//! opened like after any start, and every record that was acknowledged by then must be there, once and in order.
//! Vehicles send again what was not acknowledged, and now and then what was: within the window it is stored once.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
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

/// What each number of each queue stood for, and the one number of each record.
#[derive(Default, Clone)]
struct Numbers {
    records: BTreeMap<([u8; 16], u64), Txid>,
    stored: BTreeMap<Txid, u64>,
}

/// One vehicle as it lives through restarts of the gateway. What was not acknowledged then is sent again before anything
/// new, or never.
struct Vehicle {
    submitter: Option<Submitter>,
    /// What it handed in on this connection, in that order.
    handed: Vec<u64>,
    /// What it is going to send again first.
    again: VecDeque<u64>,
    /// What is before this one and was not acknowledged is never sent again.
    given_up: u64,
    /// How many records it has made in all.
    sent: u64,
    /// Acknowledged on earlier connections.
    acked: Vec<u64>,
    /// Of these, those that the gateway has to know when they are sent again.
    known: Vec<u64>,
    /// Of its first so many records any may be gone, because they were to be purged.
    purged: u64,
    /// And of its first so many all must be: the purge has ended.
    erased: u64,
}

impl Vehicle {
    fn acked_now(&self) -> &[u64] {
        let submitter = self.submitter.as_ref();
        let acked = submitter.map_or(0, |submitter| submitter.committed() as usize);
        &self.handed[..acked]
    }

    fn acked(&self) -> Vec<u64> {
        [&self.acked, self.acked_now()].concat()
    }

    /// What it sends next: something that was not acknowledged, now and then something that was, or else a new record.
    fn next(&mut self, rng: &mut StdRng) -> u64 {
        if let Some(count) = self.again.pop_front() {
            return count;
        }
        if below(rng, 8) == 0 {
            let old = if below(rng, 2) == 0 {
                &self.known[..]
            } else {
                &self.handed
            };
            let last = old.len().saturating_sub(40);
            let old = old.get(last + below(rng, (old.len() - last).max(1)));
            // What is to be purged may be stored again, but then nobody can say what has to be there.
            if let Some(count) = old.filter(|count| **count >= self.purged) {
                return *count;
            }
        }
        self.fresh()
    }

    fn fresh(&mut self) -> u64 {
        self.sent += 1;
        self.sent - 1
    }
}

/// What is known at the moment of a cut.
#[derive(Clone)]
struct Seen {
    acked: Vec<Vec<u64>>,
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
    /// Records that were known when they were sent again.
    pub(crate) duplicates: u64,
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
    /// What decides how large each record is: sent again, it has to be the same.
    sizes: u64,
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
            sizes: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            rng: seeded(seed),
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            vehicles: Arc::default(),
            numbers: Numbers::default(),
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
        let there = self.there(&state);
        let disk = SimDisk::new(state);
        let (queue, mut writer) = self.open(&disk);
        self.connect(&queue, Some(&there));
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
        self.report.duplicates += queue.snapshot().duplicates;
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
        self.connect(&queue, None);
        for _ in 0..3 {
            self.send(&mut writer).unwrap();
            self.confirm(&queue);
        }
        self.disconnect();
        let disk = SimDisk::new(disk.die());
        disk.set_fault(fault);
        match self.try_open(&disk) {
            Ok((queue, mut writer)) => {
                // A start that could not read something does not know what is in it.
                self.connect(&queue, None);
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

    /// The records that are in the segments.
    fn there(&self, state: &State) -> BTreeSet<Txid> {
        let disk = SimDisk::new(state.clone());
        let (queue, _writer) = self.open(&disk);
        queue.register("somebody new", true);
        let records = self.runtime.block_on(drain(&queue, "somebody new")).unwrap();
        let mut numbers = Numbers::default();
        records.iter().map(|queued| numbers.note(queued)).collect()
    }

    /// `there`: what a start found, if vehicles send again what they sent before.
    fn connect(&mut self, queue: &Queue, there: Option<&BTreeSet<Txid>>) {
        let mut vehicles = self.vehicles.lock().unwrap();
        if vehicles.is_empty() {
            vehicles.extend((0..SENDERS).map(|_| Vehicle {
                submitter: None,
                handed: Vec::new(),
                again: VecDeque::new(),
                given_up: 0,
                sent: 0,
                acked: Vec::new(),
                known: Vec::new(),
                purged: 0,
                erased: 0,
            }));
        }
        for (number, vehicle) in vehicles.iter_mut().enumerate() {
            vehicle.submitter = Some(queue.submitter());
            vehicle.handed.clear();
            let there = there.filter(|_| number != VEHICLES && below(&mut self.rng, 3) > 0);
            let is_there = |count: u64| there.is_some_and(|there| there.contains(&(number, count)));
            let acked: BTreeSet<u64> = vehicle.acked.iter().copied().collect();
            vehicle.known = acked.iter().copied().filter(|count| is_there(*count)).collect();
            let not_acked = vehicle.given_up.max(vehicle.purged)..vehicle.sent;
            // What every destination has had, and is in no segment any more, would be stored again.
            let again = not_acked.filter(|count| {
                !acked.contains(count) && (is_there(*count) || !self.numbers.stored.contains_key(&(number, *count)))
            });
            vehicle.again = again.collect();
            if there.is_none() {
                vehicle.again.clear();
                vehicle.given_up = vehicle.sent;
            }
        }
    }

    /// The bytes of a record's payload.
    fn size(&self, (vehicle, count): Txid) -> usize {
        let mut rng = seeded(self.sizes ^ (vehicle as u64) << 32 ^ count);
        match below(&mut rng, 8) {
            0 => rng.random_range(0..9000),
            _ => rng.random_range(0..400),
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
            let mut vehicles = self.vehicles.lock().unwrap();
            let vehicle = &mut vehicles[number];
            let submitter = vehicle.submitter.as_ref();
            if submitter.is_none_or(|submitter| submitter.refusal().is_some()) {
                continue;
            }
            let count = match number {
                VEHICLES => vehicle.fresh(),
                _ => vehicle.next(&mut self.rng),
            };
            let bytes = self.size((number, count));
            let item = match number {
                VEHICLES => Item::DeadLetter(dead_letter((number, count), bytes)),
                _ => Item::Sent(record((number, count), bytes)),
            };
            let submitter = vehicle.submitter.as_mut().expect("it was there just above");
            let handed_in = submitter.submit(item).now_or_never();
            handed_in.expect("there is room in the line").unwrap();
            vehicle.handed.push(count);
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
            vehicle.again.clear();
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
                self.numbers.note(queued);
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
            self.numbers.note(queued);
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
                let (vehicle, count) = numbers.note(queued);
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
            let confirmed: BTreeSet<Txid> = self.numbers.records.range(first..end).map(|(_, txid)| *txid).collect();
            for (vehicle, acked) in seen.acked.iter().enumerate().take(VEHICLES) {
                for count in acked.iter().copied() {
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
        for count in seen.acked.get(VEHICLES).into_iter().flatten().copied() {
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

impl Numbers {
    /// A number stands for one record and a record has one number, whatever happens.
    fn note(&mut self, queued: &Queued) -> Txid {
        let text = String::from_utf8(queued.record.txid.to_vec()).unwrap();
        let (vehicle, count) = text.trim_matches(['<', '>']).split_once('/').unwrap();
        let txid = (vehicle.parse().unwrap(), count.parse().unwrap());
        let number = queued.id.number;
        let before = self.records.insert((queued.id.queue.0, number), txid);
        assert!(
            before.is_none_or(|before| before == txid),
            "number {number} stood for {before:?} and stands for {txid:?}"
        );
        let before = self.stored.insert(txid, number);
        assert!(
            before.is_none_or(|before| before == number),
            "{txid:?} is stored twice, as {before:?} and as {number}"
        );
        txid
    }
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
