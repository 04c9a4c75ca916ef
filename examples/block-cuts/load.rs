//! One life of a queue under load: vehicles that send and wait for their acks, destinations that read and confirm.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;
use waystation::queue::{Item, Queue, Refusal};

use crate::journal::{Journal, Known, record, txid};
use crate::{DESTINATIONS, SETTINGS};

const VEHICLES: usize = 5;

#[derive(Args)]
pub(crate) struct Life {
    /// The queue's directory, on the logged file system.
    dir: PathBuf,
    /// The journal to go on with, on another file system.
    #[arg(long)]
    journal: PathBuf,
    /// The block log that QEMU is writing.
    #[arg(long)]
    log: PathBuf,
    #[arg(long)]
    seed: u64,
    /// Records in all.
    #[arg(long, default_value_t = 1000)]
    records: u64,
    /// Kills itself in the middle instead of stopping.
    #[arg(long)]
    kill: bool,
}

impl Life {
    pub(crate) fn run(self) -> Result<(), String> {
        let known = match self.journal.exists() {
            true => Known::read(&self.journal)?,
            false => Known::default(),
        };
        let journal = Journal::append(&self.journal, &self.log)
            .map_err(|error| format!("cannot open {} or the log: {error}", self.journal.display()))?;
        let (queue, writer) = Queue::open(&self.dir, SETTINGS).map_err(|error| error.to_string())?;
        journal.opened(&queue.id().to_string());
        for destination in DESTINATIONS {
            queue.register(destination, true);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .map_err(|error| error.to_string())?;
        let ended = runtime.block_on(self.live(&queue, Arc::new(journal), &known));
        drop(runtime);
        drop(queue);
        ended?;
        writer.close().map_err(|error| error.to_string())
    }

    async fn live(&self, queue: &Queue, journal: Arc<Journal>, known: &Known) -> Result<(), String> {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let mut destinations = Vec::new();
        for destination in DESTINATIONS {
            let reads = read_and_advance(queue.clone(), destination, Arc::clone(&journal), rng.random());
            destinations.push(tokio::spawn(reads));
        }
        let mut vehicles = Vec::new();
        for vehicle in 0..VEHICLES {
            let records = known.next_count(vehicle)..known.next_count(vehicle) + self.records / VEHICLES as u64;
            // A killed life dies under one of its vehicles, after a part of its records.
            let dies_at = (self.kill && vehicle == 0)
                .then(|| rng.random_range(records.start + (records.end - records.start) / 2..records.end));
            let sends = Sends {
                vehicle,
                next: records.start,
                end: records.end,
                dies_at,
                rng: StdRng::seed_from_u64(rng.random()),
            };
            vehicles.push(tokio::spawn(sends.run(queue.clone(), Arc::clone(&journal))));
        }
        for vehicle in vehicles {
            vehicle.await.map_err(|error| error.to_string())??;
        }
        // What the last records' numbers are is known when they have been read.
        for destination in DESTINATIONS {
            let mut reader = queue.reader(destination);
            loop {
                let batch = reader.next(64 << 10).await.map_err(|error| error.to_string())?;
                if batch.records.is_empty() && queue.backlog(reader.position()) == 0 {
                    break;
                }
                for queued in &batch.records {
                    journal.read(queued.id.number, txid(&queued.record).ok_or("a record of nobody")?);
                }
            }
        }
        destinations.iter().for_each(tokio::task::JoinHandle::abort);
        for destination in destinations {
            match destination.await {
                Err(error) if error.is_panic() => return Err(error.to_string()),
                Ok(Err(words)) => return Err(words),
                _ => {}
            }
        }
        Ok(())
    }
}

struct Sends {
    vehicle: usize,
    next: u64,
    end: u64,
    dies_at: Option<u64>,
    rng: StdRng,
}

impl Sends {
    async fn run(mut self, queue: Queue, journal: Arc<Journal>) -> Result<(), String> {
        let mut submitter = queue.submitter();
        let (mut first, mut acknowledged) = (self.next, 0);
        while self.next < self.end {
            let burst = match self.rng.random_range(0..4) {
                0 => self.rng.random_range(5..20),
                1 => 1,
                _ => self.rng.random_range(1..4),
            };
            for _ in 0..burst.min(self.end - self.next) {
                if self.dies_at == Some(self.next) {
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
                }
                let bytes = match self.rng.random_range(0..3) {
                    0 => self.rng.random_range(20..9000),
                    _ => self.rng.random_range(20..1500),
                };
                let sent = (self.vehicle, self.next);
                journal.sent(sent, bytes);
                // A refusal is met below.
                if submitter.submit(Item::Record(record(sent, bytes))).await.is_err() {
                    break;
                }
                self.next += 1;
            }
            // Now and then it goes on with unanswered records.
            let wanted = match self.rng.random_range(0..4) {
                0 => acknowledged + 1,
                _ => self.next - first,
            };
            while acknowledged < wanted.min(self.next - first) {
                match submitter.advanced(acknowledged).await {
                    Ok(committed) => {
                        (acknowledged..committed).for_each(|one| journal.acknowledged((self.vehicle, first + one)));
                        acknowledged = committed;
                    }
                    Err(Refusal::Full) => {
                        // Those are not sent again: each record is sent once.
                        self.next += 1;
                        submitter = queue.submitter();
                        (first, acknowledged) = (self.next, 0);
                        sleep(Duration::from_millis(20)).await;
                        break;
                    }
                    Err(error) => return Err(error.to_string()),
                }
            }
            if self.rng.random_bool(0.7) {
                sleep(Duration::from_millis(self.rng.random_range(0..200))).await;
            }
        }
        while acknowledged < self.next - first {
            let committed = match submitter.advanced(acknowledged).await {
                Ok(committed) => committed,
                Err(Refusal::Full) => break,
                Err(error) => return Err(error.to_string()),
            };
            (acknowledged..committed).for_each(|one| journal.acknowledged((self.vehicle, first + one)));
            acknowledged = committed;
        }
        Ok(())
    }
}

async fn read_and_advance(
    queue: Queue,
    destination: &'static str,
    journal: Arc<Journal>,
    seed: u64,
) -> Result<(), String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut reader = queue.reader(destination);
    loop {
        reader.ready().await;
        let batch = reader
            .next(rng.random_range(1..100_000))
            .await
            .map_err(|error| error.to_string())?;
        for queued in &batch.records {
            journal.read(queued.id.number, txid(&queued.record).ok_or("a record of nobody")?);
        }
        if !batch.records.is_empty() && rng.random_bool(0.8) {
            let confirmed = rng.random_range(0..=batch.records.len());
            let next = match batch.records.get(confirmed) {
                Some(first_left) => first_left.id.number,
                None => batch.end,
            };
            journal.advancing(destination, next);
            queue.advance(destination, next);
        }
        // Now and then it is away for a while.
        let away = if rng.random_bool(0.05) { 800 } else { 30 };
        sleep(Duration::from_millis(rng.random_range(0..away))).await;
    }
}
