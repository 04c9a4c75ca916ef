//! What redb sees of a segment's file: the file itself for the segment that is appended to, a copy in memory of what it
//! would change for every other.
//!
//! A segment that is only read is never written to: a repair after a crash happens in memory, so it needs no space, no
//! right to write, and cannot make things worse.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::storage::DiskFile;

/// The file itself.
#[derive(Debug, Clone)]
pub(crate) struct Direct {
    file: Arc<dyn DiskFile>,
    abandoned: Arc<AtomicBool>,
    failed: Arc<AtomicBool>,
}

impl Direct {
    pub(crate) fn new(file: Arc<dyn DiskFile>) -> Self {
        Self {
            file,
            abandoned: Arc::default(),
            failed: Arc::default(),
        }
    }

    /// From here on every call fails, so that nothing is written any more, whatever redb does when it is dropped.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    /// A commit is on the disk: whatever failed before it was made good.
    pub(crate) fn committed(&self) {
        self.failed.store(false, Ordering::Release);
    }

    /// Whether a change of it has failed: nobody knows what is on the disk of what was to be written last.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub(crate) fn used(&self) -> io::Result<u64> {
        self.file.used()
    }

    fn change(&self, change: impl FnOnce(&dyn DiskFile) -> io::Result<()>) -> io::Result<()> {
        self.check()?;
        change(&*self.file).inspect_err(|_| self.failed.store(true, Ordering::Release))
    }

    fn check(&self) -> io::Result<()> {
        match self.abandoned.load(Ordering::Acquire) {
            true => Err(io::Error::other("this segment is not written to any more")),
            false => Ok(()),
        }
    }
}

impl StorageBackend for Direct {
    fn len(&self) -> io::Result<u64> {
        self.check()?;
        self.file.length()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check()?;
        self.file.read_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|file| file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(|file| file.sync())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(|file| file.write_at(data, offset))
    }
}

const PAGE: usize = 4096;

/// The file below, and above it the pages that were written, in memory. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Overlay {
    file: Arc<dyn DiskFile>,
    changed: Arc<Mutex<Changed>>,
    ended: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Changed {
    length: u64,
    /// Bytes of the file that are still its own; what was cut off and added again is zeros.
    below: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
}

impl Overlay {
    pub(crate) fn new(file: Arc<dyn DiskFile>) -> io::Result<Self> {
        let length = file.length()?;
        Ok(Self {
            file,
            changed: Arc::new(Mutex::new(Changed {
                length,
                below: length,
                pages: BTreeMap::new(),
            })),
            ended: Arc::default(),
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().length == 0
    }

    /// From here on every call fails.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    fn check(&self) -> io::Result<()> {
        match self.ended.load(Ordering::Acquire) {
            true => Err(io::Error::other("this segment is not read any more")),
            false => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Changed> {
        // Every change under it is whole: a page at a time.
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_below(&self, changed: &Changed, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let own = changed.below.saturating_sub(offset).min(out.len() as u64) as usize;
        let (own, beyond) = out.split_at_mut(own);
        beyond.fill(0);
        match own.is_empty() {
            true => Ok(()),
            false => self.file.read_at(own, offset),
        }
    }
}

/// The parts of a range by page: the page, where in it, and where in the range.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % PAGE as u64) as usize;
        let taken = (PAGE - within).min(length - done);
        let part = (taken > 0).then_some((at / PAGE as u64, within, done..done + taken));
        done += taken;
        part
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        self.check()?;
        Ok(self.lock().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check()?;
        let changed = self.lock();
        if offset + out.len() as u64 > changed.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_below(&changed, offset, out)?;
        for (page, within, part) in parts(offset, out.len()) {
            if let Some(bytes) = changed.pages.get(&page) {
                let length = part.len();
                out[part].copy_from_slice(&bytes[within..within + length]);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        let mut changed = self.lock();
        if len < changed.length {
            changed.below = changed.below.min(len);
            changed.pages.split_off(&len.div_ceil(PAGE as u64));
            if let Some(page) = changed.pages.get_mut(&(len / PAGE as u64)) {
                page[(len % PAGE as u64) as usize..].fill(0);
            }
        }
        changed.length = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        let mut changed = self.lock();
        for (page, within, part) in parts(offset, data.len()) {
            if !changed.pages.contains_key(&page) {
                let mut bytes = Box::new([0; PAGE]);
                self.read_below(&changed, page * PAGE as u64, bytes.as_mut_slice())?;
                changed.pages.insert(page, bytes);
            }
            if let Some(bytes) = changed.pages.get_mut(&page) {
                bytes[within..within + part.len()].copy_from_slice(&data[part]);
            }
        }
        changed.length = changed.length.max(offset + data.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::queue::real_disk::RealDisk;
    use crate::queue::storage::{Access, Disk};

    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
        Read(u64, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..30_000_u64, proptest::collection::vec(any::<u8>(), 1..9000))
                .prop_map(|(at, bytes)| Step::Write(at, bytes)),
            (0..40_000_u64).prop_map(Step::SetLen),
            (0..30_000_u64, 1..9000_usize).prop_map(|(at, length)| Step::Read(at, length)),
        ]
    }

    proptest! {
        #[test]
        fn an_overlay_reads_like_a_file_and_leaves_the_one_below_alone(steps in proptest::collection::vec(step(), 1..40)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("file");
            let original: Vec<u8> = (0..20_000_u32).map(|n| (n % 251) as u8).collect();
            std::fs::write(&path, &original).unwrap();
            let overlay = Overlay::new(RealDisk.open(&path, Access::Read).unwrap()).unwrap();
            let mut model = original.clone();
            for step in steps {
                match step {
                    Step::Write(at, bytes) => {
                        overlay.write(at, &bytes).unwrap();
                        let end = at as usize + bytes.len();
                        model.resize(model.len().max(end), 0);
                        model[at as usize..end].copy_from_slice(&bytes);
                    }
                    Step::SetLen(length) => {
                        overlay.set_len(length).unwrap();
                        model.resize(length as usize, 0);
                    }
                    Step::Read(at, length) => {
                        let mut out = vec![0; length];
                        let read = overlay.read(at, &mut out).is_ok();
                        let expected = model.get(at as usize..at as usize + length);
                        prop_assert_eq!(read.then_some(out.as_slice()), expected);
                    }
                }
                prop_assert_eq!(overlay.len().unwrap(), model.len() as u64);
            }
            prop_assert_eq!(std::fs::read(&path).unwrap(), original);
        }
    }
}
