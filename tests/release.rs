//! The space of consumed segments is given back beside the writer, and a queue that lacks it waits for it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use waystation::queue::storage::{Access, Disk, DiskFile};
use waystation::queue::{Item, Queue, RealDisk, Settings, WhenFull};
use waystation::record::Record;

const SETTINGS: Settings = Settings {
    max_bytes: 256 << 20,
    segment_size: 1 << 20,
    commit_delay: Duration::ZERO,
    dead_letter_bytes: 8 << 20,
    keep_free: 0,
    when_full: WhenFull::Refuse,
    max_age: None,
    duplicate_window: 4 << 20,
};
/// So long a test that fails hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// What happened on the disk, and whether blocks may be freed.
#[derive(Debug, Default)]
struct State {
    /// Unlinked segments whose blocks are not free.
    unlinked: BTreeSet<PathBuf>,
    /// How often somebody asked what is free while there were some.
    asked: usize,
    frees: bool,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

fn state(shared: &Shared) -> MutexGuard<'_, State> {
    shared.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A disk on which the blocks of unlinked segments are free when the test says so, and nothing is before all of them are.
#[derive(Debug, Default)]
struct SlowToFree(Shared);

#[derive(Debug)]
struct Open {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    shared: Shared,
}

impl Drop for Open {
    fn drop(&mut self) {
        let found = state(&self.shared);
        if found.unlinked.contains(&self.path) {
            let waited = self.shared.1.wait_timeout_while(found, PATIENCE, |state| !state.frees);
            let (mut found, _) = waited.unwrap_or_else(PoisonError::into_inner);
            found.unlinked.remove(&self.path);
        }
    }
}

impl Disk for SlowToFree {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<(PathBuf, bool)>> {
        RealDisk.list(dir)
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(Open {
            file: RealDisk.open(path, access)?,
            path: path.to_owned(),
            shared: Arc::clone(&self.0),
        }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        RealDisk.exchange(one, other)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        if path.extension().is_some_and(|end| end == "redb") {
            state(&self.0).unlinked.insert(path.to_owned());
        }
        RealDisk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
    fn identity(&self, dir: &Path) -> io::Result<(u64, u64)> {
        RealDisk.identity(dir)
    }
    fn free(&self, _: &Path) -> io::Result<u64> {
        let mut state = state(&self.0);
        if state.unlinked.is_empty() {
            return Ok(512 << 20);
        }
        state.asked += 1;
        Ok(0)
    }
}

impl DiskFile for Open {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
    fn used(&self) -> io::Result<u64> {
        self.file.used()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
    fn forget(&self) -> io::Result<()> {
        self.file.forget()
    }
}

fn record(n: u64) -> Item {
    Item::Record(Record {
        vin: "5YJ3E1EA7KF000001".into(),
        record_type: "V".into(),
        txid: Bytes::from(format!("{n}")),
        received_at: 1_700_000_000_000 + n,
        client_version: "1".into(),
        payload: vec![n as u8; 50_000].into(),
        origin: None,
        only: None,
    })
}

#[test]
fn space_on_its_way_holds_up_nobody_and_refuses_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let disk = Arc::new(SlowToFree::default());
    let shared = Arc::clone(&disk.0);
    let (queue, mut writer) = Queue::open_on(&(disk as _), dir.path(), SETTINGS).unwrap();
    queue.register("cloud", true);
    let mut submitter = queue.submitter();
    for n in 0..60 {
        runtime.block_on(submitter.submit(record(n))).unwrap();
        writer.turn(Instant::now()).unwrap();
    }
    queue.advance("cloud", submitter.committed());

    writer.housekeep().unwrap();
    let asked = {
        let state = state(&shared);
        assert!(!state.unlinked.is_empty(), "the writer waited for the blocks");
        state.asked
    };

    // Until they are free, the disk has nothing: the queue waits for that, and does not call itself full.
    let freeing = std::thread::spawn({
        let shared = Arc::clone(&shared);
        move || {
            let begun = Instant::now();
            while state(&shared).asked == asked && begun.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(50));
            }
            state(&shared).frees = true;
            shared.1.notify_all();
        }
    });
    runtime.block_on(submitter.submit(record(60))).unwrap();
    writer.turn(Instant::now()).unwrap();
    assert_eq!(submitter.committed(), 61);
    assert!(!queue.is_full());
    assert!(state(&shared).unlinked.is_empty());
    writer.finish().unwrap();
    freeing.join().unwrap();
}

#[test]
fn acks_wait_for_a_few_segments_to_go_and_not_for_hundreds() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (queue, mut writer) = Queue::open_on(
        &(Arc::new(RealDisk) as _),
        dir.path(),
        Settings {
            segment_size: 100_000,
            ..SETTINGS
        },
    )
    .unwrap();
    queue.register("cloud", true);
    let mut submitter = queue.submitter();
    for n in 0..90 {
        runtime.block_on(submitter.submit(record(n))).unwrap();
        writer.turn(Instant::now()).unwrap();
    }
    let segments = queue.snapshot().segments;
    assert!(segments > 40, "{segments}");
    queue.advance("cloud", submitter.committed());
    writer.housekeep().unwrap();
    assert_eq!(queue.snapshot().segments, segments - 16);
    for _ in 0..segments / 16 {
        writer.housekeep().unwrap();
    }
    assert_eq!(queue.snapshot().segments, 1, "the open one");
}
