//! The start: puts in order what a crash or a damaged disk left, and says what had to be set aside.
//!
//! The next number is beyond every one that may have been used, whatever is lost.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::Access;
use rustix::io::Errno;
use tokio::sync::watch;

use super::cursor::{CursorError, CursorFile, Saved};
use super::dead_letters::DeadLetters;
use super::duplicates::{Duplicates, Fingerprints};
use super::heartbeat::Heartbeat;
use super::inlet::Inlet;
use super::lost::Lost;
use super::positions::Positions;
use super::quarantine::Quarantine;
use super::real_disk::{self, Lock, RealDisk};
use super::release::Release;
use super::segments::{Segments, SegmentsError};
use super::storage::{self, Disk, StorageError};
use super::tail::Tail;
use super::writer::Writer;
use super::{Counts, Queue, Settings, Shared, WriterThread};
use crate::record::epoch_ms;
use crate::record::stored::QueueId;

/// More records than the lost end of a queue can have held.
const UNKNOWN: u64 = 1 << 32;
/// The time as a number of a record, where it counts on: a million numbers a second, and for centuries less than 2^53, up to
/// which every reader of JSON knows numbers apart.
const CLOCK_BITS: u32 = 10;
/// Whoever asks whether a queue is in use holds its lock for a moment; a gateway holds it for longer than this.
const LOOKED_AT: Duration = Duration::from_millis(500);
/// Starts after a crash whose skipped numbers are remembered.
const SKIPPED: usize = 256;
/// Bytes of newest records that are kept in memory.
const TAIL_BYTES: usize = 4 << 20;

/// Why a queue could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by another process; `fuser -v {}` shows which; stop that first", .0.display(), .0.display())]
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

impl Queue {
    /// Opens the queue in a directory, making it if it is not there, and starts its writer. Whatever a crash or a
    /// damaged disk left is put in order first.
    pub fn open(dir: &Path, settings: Settings) -> Result<(Self, WriterThread), OpenError> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        storage::create_dir(&*disk, dir)?;
        let lock = take_lock(dir)?;
        may_write(dir)?;
        let (queue, writer) = Self::open_on(&disk, dir, settings)?;
        let shared = Arc::clone(&queue.0);
        let thread = std::thread::Builder::new()
            .name("queue-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(OpenError::Thread)?;
        let thread = WriterThread {
            thread: Some(thread),
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
        let known = saved.as_ref().map_or(0, |saved| saved.committed);
        let (segments, found) = Segments::recover(disk, &dir.join("segments"), &quarantine, expected, known)?;
        let known_letters = saved.as_ref().map_or(0, |saved| saved.dead_letter_next);
        let letters = dir.join("dead-letters");
        let (letters, found) = Segments::recover(disk, &letters, &quarantine, found, known_letters)?;
        // A dead letter may be all that there is of a queue so far.
        let id = found.unwrap_or_else(QueueId::random);
        let without_cursors = saved.is_none() && found.is_some();
        let cursors_lost = saved.is_none() && segments.count() > 0;
        let reserved = saved.as_ref().map_or(0, |saved| saved.reserved);
        let positions = saved.as_ref().map(|saved| saved.positions.clone()).unwrap_or_default();
        let optional = saved.as_ref().map(|saved| saved.optional.clone()).unwrap_or_default();
        let highest = positions.values().copied().max().unwrap_or_default();
        let next = segments.end().max(known).max(reserved).max(highest);
        // Without the cursors nobody knows which numbers were used beyond what can be read, and they may be lost again.
        let next = match without_cursors {
            true => (next + UNKNOWN).max(epoch_ms() << CLOCK_BITS),
            false => next,
        };
        if without_cursors {
            tracing::warn!(
                next,
                "the cursors are lost: every destination begins again at the oldest record, and numbers go on far behind"
            );
        }
        let mut skipped = saved.as_ref().map_or(Vec::new(), |saved| saved.skipped.clone());
        let end = segments.end().max(known);
        skipped.retain(|range| range.end <= end);
        if next > end {
            skipped.push(end..next);
        }
        // Only what `backlog` says depends on them.
        skipped.drain(..skipped.len().saturating_sub(SKIPPED));
        let letters = Arc::new(letters);
        let dead_letter_next = known_letters.max(letters.end());
        tracing::info!(queue = %id, next, segments = segments.count(), "queue opened");
        let fingerprints = Fingerprints::new();
        let mut duplicates = Duplicates::new(settings.duplicate_window);
        duplicates.recall(&segments, id, &skipped, fingerprints);
        let shared = Arc::new(Shared {
            id,
            inlet: Arc::new(Inlet::new(fingerprints)),
            committed: watch::Sender::new(segments.end()),
            segments,
            dead_letters: Arc::clone(&letters),
            purging: Mutex::default(),
            closing: AtomicBool::new(false),
            tail: Mutex::new(Tail::new(TAIL_BYTES)),
            positions: Positions::new(positions.clone(), &optional),
            counts: Counts::default(),
            lost: Mutex::new(Lost::never_used(&skipped)),
            skipped,
            cursors_lost,
            full: Mutex::default(),
            heartbeat: Heartbeat::default(),
        });
        if let Some(oldest) = shared.positions.oldest() {
            if let Some((first, _)) = shared.segments.oldest_sealed().filter(|(_, end)| *end <= oldest) {
                tracing::info!(
                    from = first,
                    to = oldest - 1,
                    "every destination has had these by its cursor: they are removed"
                );
            }
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
            duplicates,
            next,
            release: Release::default(),
            no_space: None,
            plenty: None,
            started: Instant::now(),
            ran_before,
        };
        Ok((Self(shared), writer))
    }

    /// Takes away a destination's place in a queue on which no gateway runs. `false`: it had none.
    pub fn forget_in(dir: &Path, destination: &str) -> Result<bool, OpenError> {
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
}

/// A folder that is another user's would be found at the first record, and at each start again.
fn may_write(dir: &Path) -> Result<(), StorageError> {
    for folder in ["segments", "dead-letters"].map(|name| dir.join(name)) {
        // What is not there is made, and whatever else is wrong shows itself.
        if let Err(denied @ Errno::ACCESS) = rustix::fs::access(&folder, Access::WRITE_OK | Access::EXEC_OK) {
            return Err(storage::failed("write in", &folder)(denied.into()));
        }
    }
    Ok(())
}

fn take_lock(dir: &Path) -> Result<Lock, OpenError> {
    let deadline = Instant::now() + LOOKED_AT;
    loop {
        match real_disk::lock(dir) {
            Err(error) if error.source.kind() == std::io::ErrorKind::WouldBlock => {
                if Instant::now() >= deadline {
                    return Err(OpenError::InUse(dir.to_owned()));
                }
                std::thread::sleep(LOOKED_AT / 10);
            }
            other => return Ok(other?),
        }
    }
}
