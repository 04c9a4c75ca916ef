//! The space of consumed segments is given back beside the writer, and a queue that lacks it waits for it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
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
/// What a file system takes to free a segment's blocks.
const SLOW: Duration = Duration::from_secs(1);

/// A disk on which unlinked files take long to close, and on which nothing is free before all of them are.
#[derive(Debug, Default)]
struct SlowToFree(Arc<Mutex<BTreeSet<PathBuf>>>);

#[derive(Debug)]
struct Open {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    unlinked: Arc<Mutex<BTreeSet<PathBuf>>>,
}

fn paths(unlinked: &Mutex<BTreeSet<PathBuf>>) -> std::sync::MutexGuard<'_, BTreeSet<PathBuf>> {
    unlinked.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Open {
    fn drop(&mut self) {
        if paths(&self.unlinked).contains(&self.path) {
            std::thread::sleep(SLOW);
            paths(&self.unlinked).remove(&self.path);
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
            unlinked: Arc::clone(&self.0),
        }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        RealDisk.exchange(one, other)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        paths(&self.0).extend(
            path.extension()
                .is_some_and(|end| end == "redb")
                .then(|| path.to_owned()),
        );
        RealDisk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
    fn free(&self, _: &Path) -> io::Result<u64> {
        Ok(if paths(&self.0).is_empty() { 512 << 20 } else { 0 })
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
    let unlinked = Arc::clone(&disk.0);
    let (queue, mut writer) = Queue::open_on(&(disk as _), dir.path(), SETTINGS).unwrap();
    queue.register("cloud", true);
    let mut submitter = queue.submitter();
    for n in 0..60 {
        runtime.block_on(submitter.submit(record(n))).unwrap();
        writer.turn(Instant::now()).unwrap();
    }
    queue.advance("cloud", submitter.committed());

    let begun = Instant::now();
    writer.housekeep().unwrap();
    assert!(begun.elapsed() < SLOW, "the writer waited until {:?}", begun.elapsed());
    assert!(!paths(&unlinked).is_empty(), "segments are consumed and not yet free");

    // Until they are, the disk has nothing: the queue waits for that, and does not call itself full.
    runtime.block_on(submitter.submit(record(60))).unwrap();
    writer.turn(Instant::now()).unwrap();
    assert_eq!(submitter.committed(), 61);
    assert!(!queue.is_full());
    assert!(paths(&unlinked).is_empty());
    writer.finish().unwrap();
}
