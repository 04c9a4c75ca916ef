//! The durable queue: records in, in the order of their commits; out to each destination at its own pace.
//!
//! `writer` is the only thread that writes; `inlet` is what senders see of it, `reader` what destinations see. The
//! rules are in `docs/design.md`; the files of this folder each keep one of them.

mod backend;
mod cursor;
mod dead_letters;
mod guarded;
mod inlet;
mod inspect;
mod lost;
mod positions;
mod quarantine;
mod reader;
mod real_disk;
mod recovery;
mod segment;
mod segments;
pub mod storage;
mod tail;
mod writer;

use std::collections::BTreeSet;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub use cursor::CursorError;
pub use dead_letters::DeadLetter;
pub use inlet::{Item, Refusal, Submitter};
pub use inspect::{Depth, InspectError, Inspection, SegmentReport, inspect};
pub use reader::{Batch, Queued, ReadError, Reader};
pub use segment::SegmentError;
pub use segments::SegmentsError;
pub use storage::StorageError;
pub use writer::{Writer, WriterError};

use crate::record::stored::QueueId;
use cursor::{CursorFile, Saved};
use dead_letters::DeadLetters;
use inlet::Inlet;
use lost::Lost;
use positions::Positions;
use quarantine::Quarantine;
use real_disk::RealDisk;
use segments::Segments;
use storage::Disk;
use tail::Tail;

/// Bytes of newest records that are kept in memory.
const TAIL_BYTES: usize = 4 << 20;
/// More records than the lost end of a queue can have held.
const UNKNOWN: u64 = 1 << 32;
/// Starts after a crash whose skipped numbers are remembered.
const SKIPPED: usize = 256;

/// How a queue is to behave.
#[derive(Debug, Clone, Copy)]
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
}

/// What happens when there is no room for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Vehicles are refused and keep their records.
    Refuse,
    /// The oldest records go, whoever still needs them; counted and logged as lost.
    DropOldest,
}

/// Why a queue could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by another process; `fuser -v {}` shows which; stop that first", .0.display(), .0.join("lock").display())]
    InUse(PathBuf),
    /// The file system refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The cursors file could not be opened or made.
    #[error(transparent)]
    Cursors(#[from] CursorError),
    /// The segments could not be taken stock of.
    #[error(transparent)]
    Segments(#[from] SegmentsError),
    /// The writer thread could not be started.
    #[error("cannot start the queue's writer thread: {0}")]
    Thread(std::io::Error),
}

/// What the writer, the senders and the readers share.
pub(crate) struct Shared {
    id: QueueId,
    inlet: Arc<Inlet>,
    segments: Segments,
    tail: Mutex<Tail>,
    positions: Positions,
    /// One more than the number of the newest committed record.
    committed: watch::Sender<u64>,
    counts: Counts,
    lost: Mutex<Lost>,
    /// Numbers that starts after a crash passed over.
    skipped: Vec<Range<u64>>,
    /// Why records are refused.
    full: Mutex<Option<String>>,
    started: Instant,
    last_beat: AtomicU64,
}

/// Running totals since the start.
#[derive(Debug, Default)]
struct Counts {
    records: AtomicU64,
    bytes: AtomicU64,
    commits: AtomicU64,
    refused: AtomicU64,
    lost: AtomicU64,
}

impl Counts {
    fn committed(&self, records: usize, bytes: u64) {
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
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

    fn beat(&self) {
        self.last_beat
            .store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }
}

/// An open queue. Clones are handles to the same one.
#[derive(Clone)]
pub struct Queue(Arc<Shared>);

/// The running writer thread; it holds the directory's lock.
pub struct WriterThread {
    thread: JoinHandle<Result<(), WriterError>>,
    shared: Arc<Shared>,
    _lock: File,
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
}

impl Queue {
    /// Opens the queue in a directory, making it if it is not there, and starts its writer. Whatever a crash or a
    /// damaged disk left is put in order first.
    pub fn open(dir: &Path, settings: Settings) -> Result<(Self, WriterThread), OpenError> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        storage::create_dir(&*disk, dir)?;
        let lock = take_lock(dir)?;
        let (queue, writer) = Self::open_on(&disk, dir, settings)?;
        let shared = Arc::clone(&queue.0);
        let thread = std::thread::Builder::new()
            .name("queue-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(OpenError::Thread)?;
        let thread = WriterThread {
            thread,
            shared,
            _lock: lock,
        };
        Ok((queue, thread))
    }

    /// Opens the queue in a directory of any disk, without lock and thread: whoever calls drives the writer. For tests
    /// of what a disk can do.
    pub fn open_on(disk: &Arc<dyn Disk>, dir: &Path, settings: Settings) -> Result<(Self, Writer), OpenError> {
        storage::create_dir(&**disk, dir)?;
        let quarantine = Quarantine::new(disk, dir.join("quarantine"));
        let (cursors, saved) = CursorFile::open(disk, &dir.join("cursors"), &quarantine)?;
        let expected = saved.as_ref().map(|saved| saved.queue);
        let (segments, found) = Segments::recover(disk, &dir.join("segments"), &quarantine, expected)?;
        let id = found.unwrap_or_else(QueueId::random);
        let (letters, _) = Segments::recover(disk, &dir.join("dead-letters"), &quarantine, Some(id))?;
        if saved.is_none() && segments.count() > 0 {
            tracing::warn!("the cursors are lost: every destination begins again at the oldest record");
        }
        let known = saved.as_ref().map_or(0, |saved| saved.committed);
        let reserved = saved.as_ref().map_or(0, |saved| saved.reserved);
        let positions = saved.as_ref().map(|saved| saved.positions.clone()).unwrap_or_default();
        let optional = saved.as_ref().map(|saved| saved.optional.clone()).unwrap_or_default();
        let highest = positions.values().copied().max().unwrap_or_default();
        let next = segments.end().max(known).max(reserved).max(highest);
        // Without the cursors nobody knows which numbers were used beyond what can be read.
        let next = if saved.is_none() && found.is_some() {
            next + UNKNOWN
        } else {
            next
        };
        let mut skipped = saved.as_ref().map_or(Vec::new(), |saved| saved.skipped.clone());
        let end = segments.end().max(known);
        skipped.retain(|range| range.end <= end);
        if next > end {
            skipped.push(end..next);
        }
        // Only what `backlog` says depends on them.
        skipped.drain(..skipped.len().saturating_sub(SKIPPED));
        let dead_letter_next = saved
            .as_ref()
            .map_or(0, |saved| saved.dead_letter_next)
            .max(letters.end());
        tracing::info!(queue = %id, next, segments = segments.count(), "queue opened");
        let shared = Arc::new(Shared {
            id,
            inlet: Arc::new(Inlet::new()),
            committed: watch::Sender::new(segments.end()),
            segments,
            tail: Mutex::new(Tail::new(TAIL_BYTES)),
            positions: Positions::new(positions.clone(), &optional),
            counts: Counts::default(),
            lost: Mutex::new(Lost::never_used(&skipped)),
            skipped,
            full: Mutex::default(),
            started: Instant::now(),
            last_beat: AtomicU64::new(0),
        });
        if let Some(oldest) = shared.positions.oldest() {
            let from = shared.segments.end().max(oldest);
            shared.report_lost(from, known, "they were committed and are in no segment");
        }
        let saved = saved.unwrap_or(Saved {
            queue: id,
            committed: 0,
            reserved: 0,
            positions,
            dead_letter_next: 0,
            skipped: Vec::new(),
            running: 0,
            optional: BTreeSet::new(),
        });
        let dead_letters = DeadLetters::new(letters, id, dead_letter_next, settings.dead_letter_bytes);
        let ran_before = saved.running;
        let writer = Writer {
            shared: Arc::clone(&shared),
            settings,
            cursors,
            saved,
            dead_letters,
            next,
            no_space: None,
            started: Instant::now(),
            ran_before,
        };
        Ok((Self(shared), writer))
    }

    /// Whether a process has the queue in this directory open. For a moment a process that opens it then is refused.
    pub fn in_use(dir: &Path) -> Result<bool, StorageError> {
        real_disk::is_locked(&dir.join("lock"))
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

    /// A reader at a destination's cursor.
    pub fn reader(&self, destination: &str) -> Reader {
        Reader::new(Arc::clone(&self.0), destination, self.cursor(destination))
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

    /// Takes away the place of a destination that the configuration no longer names. `false`: it had none. Not while a
    /// gateway runs.
    pub fn forget(dir: &Path, destination: &str) -> Result<bool, OpenError> {
        let _lock = take_lock(dir)?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let quarantine = Quarantine::new(&disk, dir.join("quarantine"));
        let (mut cursors, saved) = CursorFile::open(&disk, &dir.join("cursors"), &quarantine)?;
        let Some(mut saved) = saved else { return Ok(false) };
        if saved.positions.remove(destination).is_none() {
            return Ok(false);
        }
        cursors.save(&saved)?;
        Ok(true)
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
        let beat = Duration::from_millis(self.0.last_beat.load(Ordering::Relaxed));
        self.0.started.elapsed().saturating_sub(beat)
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
        }
    }
}

impl WriterThread {
    /// Commits what waits, saves the cursors, closes the files. To be called when senders and readers have ended.
    pub fn close(self) -> Result<(), WriterError> {
        self.shared.inlet.close();
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Whether the thread has ended by itself, which only a failure makes it do.
    pub fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }
}

fn take_lock(dir: &Path) -> Result<File, OpenError> {
    real_disk::lock(&dir.join("lock")).map_err(|error| match error.source.kind() {
        std::io::ErrorKind::WouldBlock => OpenError::InUse(dir.to_owned()),
        _ => OpenError::Storage(error),
    })
}

/// Records from a cursor to the end, without the numbers that were skipped.
fn backlog(cursor: u64, first: u64, end: u64, skipped: &[Range<u64>]) -> u64 {
    let from = cursor.max(first);
    let overlap = |range: &Range<u64>| range.end.min(end).saturating_sub(range.start.max(from));
    let skipped: u64 = skipped.iter().map(overlap).sum();
    end.saturating_sub(from).saturating_sub(skipped)
}
