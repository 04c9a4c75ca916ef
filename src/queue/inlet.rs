//! Where records wait for their commit, and how their senders learn of it.
//!
//! First in, first out. What waits is bounded in bytes for all senders together; each sender bounds its own share by
//! handing in no more. A sender's progress counts its submissions that are on the disk, in its own order, and never
//! passes one that was refused.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::dead_letters::DeadLetter;
use super::duplicates::Fingerprints;
use super::journal::SMALL;
use super::orders::Given;
use super::pace::Pace;
use crate::record::Record;

/// What is handed in.
#[derive(Debug)]
pub enum Item {
    /// A record that a vehicle sent, and may send again: stored once.
    Sent(Record),
    /// Any other record for the destinations: stored each time.
    Record(Record),
    /// Something that cannot be delivered.
    DeadLetter(DeadLetter),
}

impl Item {
    fn bytes(&self) -> usize {
        256 + match self {
            Self::Sent(record) | Self::Record(record) => {
                let metadata = [&record.vin, &record.record_type, &record.client_version].map(|text| text.len());
                record.payload.len() + record.txid.len() + metadata.iter().sum::<usize>()
            }
            Self::DeadLetter(letter) => letter.raw.len() + letter.txid.len() + letter.client_version.len(),
        }
    }
}

/// Why a submission was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The queue is at its limit; the sender keeps the data.
    #[error("the queue is full")]
    Full,
    /// The writer failed or has stopped.
    #[error("the queue has stopped")]
    Stopped,
}

const FULL: u8 = 1;
const STOPPED: u8 = 2;

/// How far one sender's submissions have come.
#[derive(Debug, Default)]
struct Progress {
    committed: AtomicU64,
    refused: AtomicU8,
    batch: AtomicU64,
    changed: Notify,
}

impl Progress {
    fn refusal(&self) -> Option<Refusal> {
        match self.refused.load(Ordering::Acquire) {
            0 => None,
            FULL => Some(Refusal::Full),
            _ => Some(Refusal::Stopped),
        }
    }
}

/// One item with the way back to its sender.
#[derive(Debug)]
pub(crate) struct Submission {
    pub item: Item,
    /// What it is known by when it is sent again.
    pub fingerprint: Option<u128>,
    /// Set by the writer: the record is on the disk already, or in the same batch before.
    pub duplicate: bool,
    /// About what it takes, stored or in memory.
    pub bytes: usize,
    ticket: u64,
    progress: Arc<Progress>,
    _room: OwnedSemaphorePermit,
}

/// The waiting line in front of the writer.
#[derive(Debug)]
pub(crate) struct Inlet {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    room: Arc<Semaphore>,
    full: AtomicBool,
    batches: AtomicU64,
    fingerprints: Fingerprints,
}

#[derive(Debug, Default)]
struct Waiting {
    line: VecDeque<Submission>,
    orders: Vec<Given>,
    bytes: usize,
    pace: Pace,
    /// A dead letter waits, and a whole destination for it.
    urgent: bool,
    closing: bool,
    closed: bool,
}

impl Waiting {
    fn is_enough(&self) -> bool {
        self.line.len() >= ENOUGH || self.bytes >= ENOUGH_BYTES
    }
}

/// Bytes that may wait in all.
const ROOM: usize = 32 << 20;
/// With this much waiting a commit is not delayed.
const ENOUGH: usize = 32;
const ENOUGH_BYTES: usize = 64 << 10;
/// A commit that is too large for the journal costs redb's own pages besides. It waits so long for more records, for as
/// long as they keep coming, until those pages hardly count.
const GATHERED: Duration = Duration::from_millis(4);
const LARGE: usize = 512 << 10;

impl Inlet {
    pub(crate) fn new(fingerprints: Fingerprints) -> Self {
        Self {
            waiting: Mutex::default(),
            arrived: Condvar::new(),
            room: Arc::new(Semaphore::new(ROOM)),
            full: AtomicBool::new(false),
            batches: AtomicU64::new(0),
            fingerprints,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A panic while it is held leaves a line that is still whole: every change is one push or one drain.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch, at most `max_bytes` but at least one if any waits. Waits until something does, or there are
    /// orders, or `deadline`; a batch that would be small waits `delay` for company. `None`: closed, and nothing is left.
    pub(crate) fn take(&self, max_bytes: usize, delay: Duration, deadline: Instant) -> Option<Vec<Submission>> {
        let mut waiting = self.lock();
        while waiting.line.is_empty() {
            if !waiting.orders.is_empty() {
                return Some(Vec::new());
            }
            if waiting.closing {
                waiting.closed = true;
                return None;
            }
            let now = Instant::now();
            if now >= deadline {
                return Some(Vec::new());
            }
            waiting = self.wait(waiting, deadline - now);
        }
        let ready = Instant::now() + delay;
        while !waiting.is_enough() && !waiting.pace.is_busy() && !waiting.closing && !waiting.urgent {
            let now = Instant::now();
            if now >= ready {
                break;
            }
            waiting = self.wait(waiting, ready - now);
        }
        let gathered = Instant::now() + GATHERED;
        while waiting.bytes > SMALL && waiting.bytes < LARGE && !waiting.closing && !waiting.urgent {
            let before = waiting.bytes;
            waiting = self.wait(waiting, GATHERED / 4);
            if waiting.bytes == before || Instant::now() >= gathered {
                break;
            }
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(next) = waiting.line.front() {
            if !batch.is_empty() && bytes + next.bytes > max_bytes {
                break;
            }
            bytes += next.bytes;
            batch.extend(waiting.line.pop_front());
        }
        waiting.bytes -= bytes;
        waiting.urgent = false;
        waiting.pace.count(batch.len(), Instant::now());
        Some(batch)
    }

    fn wait<'a>(&self, waiting: MutexGuard<'a, Waiting>, timeout: Duration) -> MutexGuard<'a, Waiting> {
        self.arrived
            .wait_timeout(waiting, timeout)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// Asks the writer for something. Dropped, which tells the asker, when there is none any more.
    pub(crate) fn order(&self, given: Given) {
        let mut waiting = self.lock();
        if !waiting.closed {
            waiting.orders.push(given);
        }
        drop(waiting);
        self.arrived.notify_all();
    }

    /// What the writer has been asked for.
    pub(crate) fn take_orders(&self) -> Vec<Given> {
        std::mem::take(&mut self.lock().orders)
    }

    /// No more submissions after those that wait.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.arrived.notify_all();
    }

    /// Refuses what waits and all that may come.
    pub(crate) fn fail(&self) {
        let rest = {
            let mut waiting = self.lock();
            waiting.closing = true;
            waiting.closed = true;
            waiting.bytes = 0;
            waiting.orders.clear();
            std::mem::take(&mut waiting.line)
        };
        drop(rest);
    }

    /// Releases the acks of a batch that is on the disk: one wake-up for each sender in it.
    pub(crate) fn committed(&self, batch: Vec<Submission>) {
        self.settle(batch, |submission| {
            submission
                .progress
                .committed
                .store(submission.ticket + 1, Ordering::Release);
        });
    }

    /// Tells the senders of a batch that there is no room for it.
    pub(crate) fn refuse(&self, batch: Vec<Submission>) {
        self.settle(batch, |submission| {
            submission.progress.refused.store(FULL, Ordering::Release)
        });
    }

    fn settle(&self, batch: Vec<Submission>, tell: impl Fn(&Submission)) {
        let number = self.batches.fetch_add(1, Ordering::Relaxed) + 1;
        let mut senders = Vec::new();
        for submission in &batch {
            tell(submission);
            if submission.progress.batch.swap(number, Ordering::Relaxed) != number {
                senders.push(Arc::clone(&submission.progress));
            }
        }
        for sender in senders {
            sender.changed.notify_one();
        }
    }

    /// Whether new senders should be turned away for now.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }
}

impl Submission {
    /// Whether an earlier submission of the same sender was refused; then this one must not be stored either.
    pub(crate) fn is_void(&self) -> bool {
        self.progress.refusal().is_some()
    }
}

impl Drop for Submission {
    /// One that nobody has decided on, for an error or a panic of the writer, is not stored.
    fn drop(&mut self) {
        let is_stored = self.progress.committed.load(Ordering::Relaxed) > self.ticket;
        if !is_stored && !self.is_void() {
            self.progress.refused.store(STOPPED, Ordering::Release);
            self.progress.changed.notify_one();
        }
    }
}

/// One sender's way into the queue.
#[derive(Debug)]
pub struct Submitter {
    inlet: Arc<Inlet>,
    progress: Arc<Progress>,
    submitted: u64,
}

impl Submitter {
    pub(crate) fn new(inlet: Arc<Inlet>) -> Self {
        Self {
            inlet,
            progress: Arc::default(),
            submitted: 0,
        }
    }

    /// Hands an item in, after waiting for room. It is stored when `committed` exceeds the number returned.
    /// Cancel-safe: if it does not return, nothing was handed in.
    pub async fn submit(&mut self, item: Item) -> Result<u64, Refusal> {
        let bytes = item.bytes();
        // Here, and not in the writer: there are several of these, and one of that.
        let fingerprint = match &item {
            Item::Sent(record) => Some(self.inlet.fingerprints.of(record)),
            Item::Record(_) | Item::DeadLetter(_) => None,
        };
        let permits = u32::try_from(bytes)
            .ok()
            .filter(|bytes| (*bytes as usize) < ROOM)
            .unwrap_or(ROOM as u32);
        let room = Arc::clone(&self.inlet.room)
            .acquire_many_owned(permits)
            .await
            .map_err(|_| Refusal::Stopped)?;
        if let Some(refusal) = self.progress.refusal() {
            return Err(refusal);
        }
        let ticket = self.submitted;
        let progress = Arc::clone(&self.progress);
        // For what the writer may be waiting for, and not for each record: that would wake it for nothing.
        let wakes = {
            let mut waiting = self.inlet.lock();
            if waiting.closed {
                return Err(Refusal::Stopped);
            }
            let before = (waiting.line.is_empty(), waiting.is_enough());
            waiting.bytes += bytes;
            let urgent = matches!(item, Item::DeadLetter(_));
            waiting.urgent |= urgent;
            waiting.line.push_back(Submission {
                item,
                fingerprint,
                duplicate: false,
                bytes,
                ticket,
                progress,
                _room: room,
            });
            urgent || before != (waiting.line.is_empty(), waiting.is_enough())
        };
        if wakes {
            self.inlet.arrived.notify_one();
        }
        self.submitted += 1;
        Ok(ticket)
    }

    /// How many of this sender's submissions are on the disk.
    pub fn committed(&self) -> u64 {
        self.progress.committed.load(Ordering::Acquire)
    }

    /// Why nothing more of this sender will be stored, if that is so.
    pub fn refusal(&self) -> Option<Refusal> {
        self.progress.refusal()
    }

    /// Waits until more than `seen` submissions are on the disk, or one is refused. Cancel-safe.
    pub async fn advanced(&self, seen: u64) -> Result<u64, Refusal> {
        loop {
            let changed = self.progress.changed.notified();
            let committed = self.committed();
            if committed > seen {
                return Ok(committed);
            }
            if let Some(refusal) = self.refusal() {
                return Err(refusal);
            }
            changed.await;
        }
    }

    /// Hands an item in and waits until it is on the disk.
    pub async fn store(&mut self, item: Item) -> Result<(), Refusal> {
        let ticket = self.submit(item).await?;
        self.advanced(ticket).await.map(drop)
    }
}
