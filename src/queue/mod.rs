//! The durable queue: records in, in the order of their commits; out to each destination at its own pace.
//!
//! `writer` is the only thread that writes; `inlet` is what senders see of it, `reader` what destinations see. The
//! rules are in `docs/design.md`; the files of this folder each keep one of them.
//!
//! - In: `inlet`, `pace`, `orders`, `writer`; `duplicates`, `window`; `chunks`, `append` into `journal` or `segment`.
//! - Out: `reader`, `tail`, `sealed`; `positions` and `cursor` say how far each destination is.
//! - Space: `retention`, `release`. At a start: `open`, `recovery`, `replay`, `misplaced`, `meta`.
//! - Damage: `salvage`, `readable`, `retreat`, `copies`, `quarantine`, `lost`, `guarded`.
//! - What is asked for from outside: `export`, `import`, `inspect`, `purge`, `eraser`, `dead_letters`, `retry`.
//! - The disk: `storage`, `real_disk`, `backend`. `heartbeat` is the watchdog's; `segments` is what all of them share.

mod append;
mod backend;
mod chunks;
mod copies;
mod cursor;
mod dead_letters;
mod duplicates;
mod eraser;
mod export;
mod guarded;
mod heartbeat;
mod import;
mod inlet;
mod inspect;
mod journal;
mod lost;
mod meta;
mod misplaced;
mod open;
mod orders;
mod pace;
mod positions;
mod purge;
mod quarantine;
mod readable;
mod reader;
mod real_disk;
mod recovery;
mod release;
mod replay;
mod retention;
mod retreat;
mod retry;
mod salvage;
mod sealed;
mod segment;
mod segments;
pub mod storage;
mod tail;
mod window;
mod writer;

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

pub use cursor::CursorError;
pub use dead_letters::DeadLetter;
pub use duplicates::Fingerprints;
pub use export::{Step, queue_id, walk, walk_dead_letters, walk_dead_letters_on};
pub use heartbeat::Heartbeat;
pub use import::{Import, ImportError};
pub use inlet::{Item, Refusal, Submitter};
pub use inspect::{Depth, InspectError, Inspection, SegmentReport, inspect, look_for};
pub use open::OpenError;
pub use orders::{OrderError, Sealed};
pub use purge::{PurgeError, Purged};
pub use reader::{Batch, Queued, ReadError, Reader};
pub use real_disk::RealDisk;
pub use retry::{Retried, RetryError};
pub use segment::SegmentError;
pub use segments::SegmentsError;
pub use storage::StorageError;
pub use window::Window;
pub use writer::{Writer, WriterError};

use crate::record::stored::QueueId;
use inlet::Inlet;
use lost::Lost;
use positions::Positions;
use real_disk::Lock;
use segments::Segments;
use tail::Tail;

/// How a queue is to behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Disk space for records, in bytes.
    pub max_bytes: u64,
    /// Stored bytes after which a segment is sealed.
    pub segment_size: u64,
    /// How long a small commit waits for company.
    pub commit_delay: Duration,
    /// Disk space for dead letters, in bytes.
    pub dead_letter_bytes: u64,
    /// Bytes of the file system that are left free.
    pub keep_free: u64,
    /// What happens when there is no room.
    pub when_full: WhenFull,
    /// Running time after which records go, whoever still needs them.
    pub max_age: Option<Duration>,
    /// Memory for knowing records that are sent again, in bytes; 0: each is stored each time.
    pub duplicate_window: u64,
}

/// What happens when there is no room for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Vehicles are refused and keep their records.
    Refuse,
    /// The oldest records go, whoever still needs them; counted and logged as lost.
    DropOldest,
}

/// What the writer, the senders and the readers share.
pub(crate) struct Shared {
    id: QueueId,
    inlet: Arc<Inlet>,
    segments: Segments,
    dead_letters: Arc<Segments>,
    /// Held by the one that erases.
    purging: Mutex<()>,
    /// What goes from file to file is to end before its next one.
    closing: AtomicBool,
    tail: Mutex<Tail>,
    positions: Positions,
    /// One more than the number of the newest committed record.
    committed: watch::Sender<u64>,
    counts: Counts,
    lost: Mutex<Lost>,
    /// Numbers that starts after a crash passed over.
    skipped: Vec<Range<u64>>,
    /// Whether this start found segments and no cursors.
    cursors_lost: bool,
    /// Why records are refused.
    full: Mutex<Option<String>>,
    heartbeat: Heartbeat,
}

/// Running totals since the start.
#[derive(Debug, Default)]
struct Counts {
    records: AtomicU64,
    commits: AtomicU64,
    refused: AtomicU64,
    lost: AtomicU64,
    duplicates: AtomicU64,
}

impl Counts {
    fn committed(&self, records: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    fn duplicates(&self, records: usize) {
        self.duplicates.fetch_add(records as u64, Ordering::Relaxed);
    }

    fn refused(&self, records: usize) {
        self.refused.fetch_add(records as u64, Ordering::Relaxed);
    }
}

impl Shared {
    fn tail(&self) -> MutexGuard<'_, Tail> {
        // A tail that a panic left half changed would only lack chunks, which are then read from the disk.
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report_lost(&self, from: u64, to: u64, reason: &str) {
        if to <= from {
            return;
        }
        let new = self.lost.lock().unwrap_or_else(PoisonError::into_inner).add(from..to);
        for range in new {
            let lost = range.end - range.start;
            self.counts.lost.fetch_add(lost, Ordering::Relaxed);
            let (from, to) = (range.start, range.end - 1);
            tracing::error!(from, to, lost, reason, "records lost: they cannot be read");
        }
    }
}

/// An open queue. Clones are handles to the same one.
#[derive(Clone)]
pub struct Queue(Arc<Shared>);

/// The running writer thread, with the directory's lock. Dropped, it ends the thread too.
pub struct WriterThread {
    /// `None` once it was waited for.
    thread: Option<JoinHandle<Result<(), WriterError>>>,
    shared: Arc<Shared>,
    _lock: Lock,
}

/// Where a queue stands.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Snapshot {
    /// One more than the newest committed number.
    pub committed: u64,
    /// Segment files.
    pub segments: usize,
    /// Bytes that they take on the disk.
    pub disk_bytes: u64,
    /// Whether vehicles are refused for lack of space.
    pub full: bool,
    /// Why, while they are.
    pub full_reason: Option<String>,
    /// Records committed since the start.
    pub records: u64,
    /// Commits since the start.
    pub commits: u64,
    /// Records refused since the start.
    pub refused: u64,
    /// Records that could not be read back since the start.
    pub lost: u64,
    /// Records that were sent again since the start, and were stored already.
    pub duplicates: u64,
}

impl Queue {
    /// Whether a process has the queue in this directory open. For a moment a process that opens it then is refused.
    pub fn in_use(dir: &Path) -> Result<bool, StorageError> {
        real_disk::is_locked(dir)
    }

    /// The queue's identity, part of every record's.
    pub fn id(&self) -> QueueId {
        self.0.id
    }

    /// A new sender.
    pub fn submitter(&self) -> Submitter {
        Submitter::new(Arc::clone(&self.0.inlet))
    }

    /// Whether new vehicles should be turned away until there is room.
    pub fn is_full(&self) -> bool {
        self.0.inlet.is_full()
    }

    /// Makes a destination known. A new one begins at the oldest record.
    pub fn register(&self, destination: &str, required: bool) {
        let oldest = self.0.segments.first().unwrap_or_else(|| *self.0.committed.borrow());
        self.0.positions.register(destination, oldest, required);
    }

    /// Makes a destination known. A new one begins with what comes from now on; but when the cursors were lost nobody
    /// knows which one is new.
    pub fn register_from_now(&self, destination: &str, required: bool) {
        if self.0.cursors_lost {
            return self.register(destination, required);
        }
        let newest = *self.0.committed.borrow();
        self.0.positions.register(destination, newest, required);
    }

    /// Bounds the segments, in bytes, that a destination which is not required may hold: beyond that its oldest records go.
    pub fn set_max_backlog(&self, destination: &str, max_bytes: Option<u64>) {
        self.0.positions.set_max_backlog(destination, max_bytes);
    }

    /// Bytes on the disk of the segments that hold records from a cursor on.
    pub fn held_bytes(&self, cursor: u64) -> u64 {
        self.0.segments.bytes_from(cursor)
    }

    /// A reader at a destination's cursor.
    pub fn reader(&self, destination: &str) -> Reader {
        Reader::new(Arc::clone(&self.0), destination, self.cursor(destination))
    }

    /// A record that a destination's cursor has not passed. `None`: it was erased, dropped, or cannot be read any more.
    pub async fn record(&self, destination: &str, number: u64) -> Result<Option<Queued>, ReadError> {
        let mut reader = Reader::new(Arc::clone(&self.0), destination, number);
        // As little as is read at all: the chunk that holds it.
        let batch = reader.next(1).await?;
        Ok(batch.records.into_iter().find(|queued| queued.id.number == number))
    }

    /// Moves a destination's cursor: everything before `next` is confirmed by it, durably in its dead letters, or not
    /// routed to it.
    pub fn advance(&self, destination: &str, next: u64) {
        self.0.positions.advance(destination, next);
    }

    /// A destination's cursor.
    pub fn cursor(&self, destination: &str) -> u64 {
        self.0.positions.get(destination).unwrap_or_default()
    }

    /// Records from a cursor to the newest.
    pub fn backlog(&self, cursor: u64) -> u64 {
        let committed = *self.0.committed.borrow();
        let first = self.0.segments.first().unwrap_or(committed);
        backlog(cursor, first, committed, &self.0.skipped)
    }

    /// Records that a destination that is not required has lost to lack of space since the start.
    pub fn dropped(&self, destination: &str) -> u64 {
        self.0.positions.dropped(destination)
    }

    /// Names of destinations that hold a place.
    pub fn known_destinations(&self) -> Vec<String> {
        self.0.positions.all().into_keys().collect()
    }

    /// How long ago the writer last showed that it is not stuck.
    pub fn writer_silence(&self) -> Duration {
        self.0.heartbeat.silence()
    }

    /// Where it stands.
    pub fn snapshot(&self) -> Snapshot {
        let counts = &self.0.counts;
        Snapshot {
            committed: *self.0.committed.borrow(),
            segments: self.0.segments.count(),
            disk_bytes: self.0.segments.disk_bytes(),
            full: self.is_full(),
            full_reason: self.0.full.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            records: counts.records.load(Ordering::Relaxed),
            commits: counts.commits.load(Ordering::Relaxed),
            refused: counts.refused.load(Ordering::Relaxed),
            lost: counts.lost.load(Ordering::Relaxed),
            duplicates: counts.duplicates.load(Ordering::Relaxed),
        }
    }
}

impl WriterThread {
    /// Commits what waits, saves the cursors, closes the files. To be called when senders and readers have ended.
    pub fn close(mut self) -> Result<(), WriterError> {
        self.end().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn end(&mut self) -> std::thread::Result<Result<(), WriterError>> {
        self.shared.closing.store(true, Ordering::Relaxed);
        self.shared.inlet.close();
        let ended = self.thread.take().map_or(Ok(Ok(())), JoinHandle::join);
        // The directory's lock is given back when nobody changes anything in it any more.
        let _nobody_erases = self.shared.purging.lock().unwrap_or_else(PoisonError::into_inner);
        ended
    }

    /// Whether the thread has ended by itself, which only a failure makes it do.
    pub fn has_failed(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        // Whoever drops it has an error of its own to tell, and the log has this one.
        self.end().map(drop).unwrap_or_default();
    }
}

/// Records from a cursor to the end, without the numbers that were skipped.
fn backlog(cursor: u64, first: u64, end: u64, skipped: &[Range<u64>]) -> u64 {
    let from = cursor.max(first);
    let overlap = |range: &Range<u64>| range.end.min(end).saturating_sub(range.start.max(from));
    let skipped: u64 = skipped.iter().map(overlap).sum();
    end.saturating_sub(from).saturating_sub(skipped)
}
