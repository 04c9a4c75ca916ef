//! A disk in memory that keeps apart what programs see and what a power cut leaves.
//!
//! What was synced is durable; of the rest any part survives a cut, writes torn at 512 bytes or 4 KiB. A name is durable
//! once its directory was synced. After a failed sync the pages look clean and are not on the disk.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use waystation::queue::storage::{Access, Disk, DiskFile};

const PAGE: usize = 4096;

/// A file's bytes.
#[derive(Clone, Default)]
struct Content {
    length: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
}

impl Content {
    fn read(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        if offset + buffer.len() as u64 > self.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while !buffer.is_empty() {
            let within = (offset % PAGE as u64) as usize;
            let length = (PAGE - within).min(buffer.len());
            let (part, rest) = buffer.split_at_mut(length);
            match self.pages.get(&(offset / PAGE as u64)) {
                Some(page) => part.copy_from_slice(&page[within..within + length]),
                None => part.fill(0),
            }
            buffer = rest;
            offset += length as u64;
        }
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8], mut offset: u64) {
        self.length = self.length.max(offset + bytes.len() as u64);
        while !bytes.is_empty() {
            let within = (offset % PAGE as u64) as usize;
            let length = (PAGE - within).min(bytes.len());
            let page = self.pages.entry(offset / PAGE as u64).or_insert(Arc::new([0; PAGE]));
            Arc::make_mut(page)[within..within + length].copy_from_slice(&bytes[..length]);
            bytes = &bytes[length..];
            offset += length as u64;
        }
    }

    fn set_len(&mut self, length: u64) {
        if length < self.length {
            self.pages.split_off(&length.div_ceil(PAGE as u64));
            if let Some(page) = self.pages.get_mut(&(length / PAGE as u64)) {
                Arc::make_mut(page)[(length % PAGE as u64) as usize..].fill(0);
            }
        }
        self.length = length;
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write(offset, bytes) => self.write(bytes, *offset),
            Change::SetLen(length) => self.set_len(*length),
        }
    }
}

/// A change of a file that was not synced yet.
#[derive(Clone)]
enum Change {
    Write(u64, Arc<[u8]>),
    SetLen(u64),
}

#[derive(Clone, Default)]
struct Inode {
    live: Content,
    durable: Content,
    pending: Vec<Change>,
}

/// A change of a directory that was not synced yet.
#[derive(Clone, Debug)]
enum Renaming {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    /// Within one directory, where it is atomic.
    Move(PathBuf, PathBuf),
    /// Likewise.
    Exchange(PathBuf, PathBuf),
}

impl Renaming {
    fn dir(&self) -> Option<&Path> {
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::Move(path, _) | Self::Exchange(path, _) => path.parent(),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Link(path, inode) => drop(names.insert(path.clone(), *inode)),
            Self::Unlink(path) => drop(names.remove(path)),
            Self::Move(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            Self::Exchange(one, other) => {
                let (first, second) = (names.remove(one), names.remove(other));
                names.extend(first.map(|inode| (other.clone(), inode)));
                names.extend(second.map(|inode| (one.clone(), inode)));
            }
        }
    }
}

/// Everything that a disk holds, live and durable.
#[derive(Clone, Default)]
pub(crate) struct State {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    renamings: Vec<Renaming>,
    dirs: BTreeSet<PathBuf>,
    unreadable: BTreeSet<u64>,
    unreadable_pages: BTreeSet<(u64, u64)>,
    unopenable: BTreeSet<u64>,
    stuck: BTreeSet<u64>,
    next_inode: u64,
    /// Bytes in all; none: without limit.
    pub(crate) capacity: Option<u64>,
}

impl State {
    fn used(&self) -> u64 {
        let pages = |inode: &Inode| inode.live.pages.len() as u64 * PAGE as u64;
        let linked: BTreeSet<_> = self.names.values().collect();
        linked
            .iter()
            .filter_map(|inode| self.inodes.get(inode))
            .map(pages)
            .sum()
    }

    /// The disk as the next start finds it after the power went.
    pub(crate) fn cut(&self, rng: &mut StdRng) -> Self {
        // Some cuts leave everything or nothing of what was not synced: both are likely in life.
        let survives = match rng.random_range(0..4) {
            0 => 0.0,
            1 => 1.0,
            _ => rng.random_range(0.05..0.95),
        };
        let mut names = self.durable_names.clone();
        for renaming in &self.renamings {
            if rng.random_bool(survives) {
                renaming.apply(&mut names);
            }
        }
        let linked: BTreeSet<u64> = names.values().copied().collect();
        let inodes = self.inodes.iter().filter(|(number, _)| linked.contains(number));
        let inodes = inodes.map(|(number, inode)| {
            let mut content = inode.durable.clone();
            for change in &inode.pending {
                match change {
                    Change::SetLen(_) if rng.random_bool(survives) => content.apply(change),
                    Change::SetLen(_) => {}
                    Change::Write(offset, bytes) if survives > 0.0 && survives < 1.0 => {
                        tear(&mut content, *offset, bytes, survives, rng);
                    }
                    Change::Write(..) if survives > 0.0 => content.apply(change),
                    Change::Write(..) => {}
                }
            }
            let inode = Inode {
                live: content.clone(),
                durable: content,
                pending: Vec::new(),
            };
            (*number, inode)
        });
        Self {
            inodes: inodes.collect(),
            durable_names: names.clone(),
            names,
            renamings: Vec::new(),
            dirs: self.dirs.clone(),
            unreadable: self.unreadable.clone(),
            unreadable_pages: self.unreadable_pages.clone(),
            unopenable: self.unopenable.clone(),
            stuck: self.stuck.clone(),
            next_inode: self.next_inode,
            capacity: self.capacity,
        }
    }

    /// Every file.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.names.keys().cloned().collect()
    }

    /// A file's bytes as the next start reads them.
    pub(crate) fn content(&self, path: &Path) -> Vec<u8> {
        let content = &self.inodes[&self.names[path]].live;
        let mut all = vec![0; content.length as usize];
        content.read(&mut all, 0).unwrap();
        all
    }

    /// Puts a file with these bytes under a name, durably.
    pub(crate) fn put(&mut self, path: &Path, bytes: &[u8]) {
        let mut content = Content::default();
        content.write(bytes, 0);
        let inode = Inode {
            live: content.clone(),
            durable: content,
            pending: Vec::new(),
        };
        self.inodes.insert(self.next_inode, inode);
        self.names.insert(path.to_owned(), self.next_inode);
        self.durable_names.insert(path.to_owned(), self.next_inode);
        self.next_inode += 1;
    }

    /// Changes bytes of a file behind the back of whoever has it open, durably.
    pub(crate) fn overwrite(&mut self, path: &Path, at: u64, bytes: &[u8]) {
        let inode = self.names[path];
        let file = self.inodes.get_mut(&inode).unwrap();
        file.live.write(bytes, at);
        file.durable.write(bytes, at);
    }

    /// Takes a name away, durably.
    pub(crate) fn take(&mut self, path: &Path) {
        self.names.remove(path);
        self.durable_names.remove(path);
    }

    /// Puts a directory under a name.
    pub(crate) fn make_dir(&mut self, path: &Path) {
        self.take(path);
        self.dirs.insert(path.to_owned());
    }

    /// No byte of a file can be read any more.
    pub(crate) fn make_unreadable(&mut self, path: &Path) {
        self.unreadable.insert(self.names[path]);
    }

    /// A file cannot be opened any more.
    pub(crate) fn make_unopenable(&mut self, path: &Path) {
        self.unopenable.insert(self.names[path]);
    }

    /// The file system takes this file's inode for damaged: nothing can be done with it or its name.
    pub(crate) fn make_stuck(&mut self, path: &Path) {
        self.stuck.insert(self.names[path]);
    }

    fn usable(&self, path: &Path) -> io::Result<()> {
        match self.names.get(path).is_some_and(|inode| self.stuck.contains(inode)) {
            // EUCLEAN, "Structure needs cleaning".
            true => Err(io::Error::from_raw_os_error(117)),
            false => Ok(()),
        }
    }

    /// This page of a file cannot be read any more.
    pub(crate) fn make_page_unreadable(&mut self, path: &Path, page: u64) {
        self.unreadable_pages.insert((self.names[path], page));
    }

    /// A file's bytes, as far as any of it can be read: zeros for pages that cannot.
    pub(crate) fn readable(&self, path: &Path) -> Option<Vec<u8>> {
        let inode = *self.names.get(path)?;
        if self.unreadable.contains(&inode) {
            return None;
        }
        let mut content = self.content(path);
        for (_, page) in self.unreadable_pages.range((inode, 0)..(inode + 1, 0)) {
            let start = *page as usize * PAGE;
            let end = content.len().min(start + PAGE);
            content.get_mut(start..end).unwrap_or_default().fill(0);
        }
        Some(content)
    }

    /// Whether some file under a directory holds these bytes.
    pub(crate) fn holds(&self, dir: &Path, bytes: &[u8]) -> bool {
        let below = self.names.iter().filter(|(path, _)| path.starts_with(dir));
        below
            .map(|(path, _)| self.content(path))
            .any(|all| all.windows(bytes.len()).any(|window| window == bytes))
    }
}

/// Applies some of a write's sectors.
fn tear(content: &mut Content, offset: u64, bytes: &[u8], survives: f64, rng: &mut StdRng) {
    if rng.random_bool(0.5) {
        if rng.random_bool(survives) {
            content.write(bytes, offset);
        }
        return;
    }
    let sector = if rng.random_bool(0.5) { 512 } else { PAGE as u64 };
    let mut at = 0;
    while at < bytes.len() {
        let end = (sector - (offset + at as u64) % sector) as usize + at;
        let end = end.min(bytes.len());
        if rng.random_bool(survives) {
            content.write(&bytes[at..end], offset + at as u64);
        }
        at = end;
    }
}

/// A call that fails.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    /// Which call, counted from when the fault was set.
    pub(crate) call: u64,
    /// How.
    pub(crate) errno: i32,
    /// Whether all later calls of its kind fail as well.
    pub(crate) stays: bool,
}

#[derive(Default)]
struct Inner {
    state: State,
    calls: u64,
    fault: Option<Fault>,
    failed: Option<&'static str>,
    /// The last word on what fails: once the power is cut, everything.
    dead: bool,
}

type Observer = Box<dyn FnMut(&State) + Send>;

/// The disk.
pub(crate) struct SimDisk {
    inner: Arc<Mutex<Inner>>,
    observer: Arc<Mutex<Option<Observer>>>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SimDisk")
    }
}

impl SimDisk {
    pub(crate) fn new(state: State) -> Arc<Self> {
        let inner = Inner {
            state,
            ..Inner::default()
        };
        Arc::new(Self {
            inner: Arc::new(Mutex::new(inner)),
            observer: Arc::default(),
        })
    }

    /// Is called with the state before each call that changes something.
    pub(crate) fn observe(&self, observer: impl FnMut(&State) + Send + 'static) {
        *self.observer.lock().unwrap() = Some(Box::new(observer));
    }

    /// The process dies here; what it does from now on reaches nothing.
    pub(crate) fn die(&self) -> State {
        self.observer.lock().unwrap().take();
        let mut inner = self.lock();
        inner.dead = true;
        inner.state.clone()
    }

    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        let mut inner = self.lock();
        inner.calls = 0;
        inner.fault = fault;
        inner.failed = None;
    }

    pub(crate) fn set_capacity(&self, capacity: Option<u64>) {
        self.lock().state.capacity = capacity;
    }

    pub(crate) fn used(&self) -> u64 {
        self.lock().state.used()
    }

    /// Something happens to it while it is in use.
    pub(crate) fn suffer(&self, what: impl FnOnce(&mut State)) {
        what(&mut self.lock().state);
    }

    /// Everything that it holds now.
    pub(crate) fn state(&self) -> State {
        self.lock().state.clone()
    }

    /// Calls since the fault was set, and the one that failed.
    pub(crate) fn calls(&self) -> (u64, Option<&'static str>) {
        let inner = self.lock();
        (inner.calls, inner.failed)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    fn call(&self, kind: &'static str) -> io::Result<MutexGuard<'_, Inner>> {
        call(&self.inner, &self.observer, kind)
    }
}

fn is_change(kind: &str) -> bool {
    !matches!(
        kind,
        "open" | "list" | "identity" | "read" | "len" | "used" | "free" | "forget"
    )
}

fn call<'a>(
    inner: &'a Mutex<Inner>,
    observer: &Mutex<Option<Observer>>,
    kind: &'static str,
) -> io::Result<MutexGuard<'a, Inner>> {
    if is_change(kind) {
        let state = inner.lock().unwrap();
        if let Some(observer) = observer.lock().unwrap().as_mut().filter(|_| !state.dead) {
            observer(&state.state);
        }
    }
    let mut guard = inner.lock().unwrap();
    if guard.dead {
        return Err(io::Error::other("the process is dead"));
    }
    let number = guard.calls;
    guard.calls += 1;
    if let Some(fault) = guard.fault
        && (number == fault.call || fault.stays && guard.failed == Some(kind))
    {
        guard.failed = Some(kind);
        return Err(io::Error::from_raw_os_error(fault.errno));
    }
    Ok(guard)
}

fn not_found() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::NOENT.raw_os_error())
}

impl Disk for SimDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.call("create_dir")?;
        if inner.state.names.contains_key(path) {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::EXIST.raw_os_error()));
        }
        let free = inner
            .state
            .capacity
            .map(|capacity| capacity.saturating_sub(inner.state.used()));
        if !inner.state.dirs.contains(path) && free.is_some_and(|free| free < PAGE as u64) {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error()));
        }
        for dir in path.ancestors() {
            inner.state.dirs.insert(dir.to_owned());
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(PathBuf, bool)>> {
        let inner = self.call("list")?;
        let files = inner.state.names.keys().map(|path| (path.clone(), true));
        let dirs = inner.state.dirs.iter().map(|path| (path.clone(), false));
        Ok(files
            .chain(dirs)
            .filter(|(path, _)| path.parent() == Some(dir))
            .collect())
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let kind = if access == Access::Create { "create" } else { "open" };
        let mut inner = self.call(kind)?;
        if inner.state.dirs.contains(path) {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::ISDIR.raw_os_error()));
        }
        inner.state.usable(path)?;
        let existing = inner.state.names.get(path).copied();
        if existing.is_some_and(|inode| inner.state.unopenable.contains(&inode)) {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()));
        }
        let inode = match (existing, access) {
            (Some(inode), Access::Create) => {
                let file = inner.state.inodes.get_mut(&inode).unwrap();
                file.live.set_len(0);
                file.pending.push(Change::SetLen(0));
                inode
            }
            (Some(inode), _) => inode,
            (None, Access::Create) => {
                let inode = inner.state.next_inode;
                inner.state.next_inode += 1;
                inner.state.inodes.insert(inode, Inode::default());
                inner.state.names.insert(path.to_owned(), inode);
                inner.state.renamings.push(Renaming::Link(path.to_owned(), inode));
                inode
            }
            (None, _) => return Err(not_found()),
        };
        Ok(Arc::new(SimFile {
            inner: Arc::clone(&self.inner),
            observer: Arc::clone(&self.observer),
            inode,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.call("rename")?;
        inner.state.usable(from)?;
        inner.state.usable(to)?;
        if inner.state.dirs.remove(from) {
            inner.state.dirs.insert(to.to_owned());
            return Ok(());
        }
        let inode = inner.state.names.remove(from).ok_or_else(not_found)?;
        inner.state.names.insert(to.to_owned(), inode);
        if from.parent() == to.parent() {
            inner
                .state
                .renamings
                .push(Renaming::Move(from.to_owned(), to.to_owned()));
        } else {
            inner.state.renamings.push(Renaming::Link(to.to_owned(), inode));
            inner.state.renamings.push(Renaming::Unlink(from.to_owned()));
        }
        Ok(())
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        let mut inner = self.call("exchange")?;
        inner.state.usable(one)?;
        inner.state.usable(other)?;
        let renaming = Renaming::Exchange(one.to_owned(), other.to_owned());
        renaming.apply(&mut inner.state.names);
        inner.state.renamings.push(renaming);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.call("remove")?;
        inner.state.usable(path)?;
        inner.state.names.remove(path).ok_or_else(not_found)?;
        inner.state.renamings.push(Renaming::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.call("sync_dir")?;
        let state = &mut inner.state;
        let (here, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut state.renamings)
            .into_iter()
            .partition(|renaming| renaming.dir() == Some(dir));
        here.iter()
            .for_each(|renaming| renaming.apply(&mut state.durable_names));
        state.renamings = rest;
        Ok(())
    }

    fn identity(&self, dir: &Path) -> io::Result<(u64, u64)> {
        let inner = self.call("identity")?;
        let there = inner.state.dirs.contains(dir);
        there.then_some((0, 0)).ok_or_else(not_found)
    }

    fn free(&self, _: &Path) -> io::Result<u64> {
        let inner = self.call("free")?;
        Ok(match inner.state.capacity {
            Some(capacity) => capacity.saturating_sub(inner.state.used()),
            None => u64::MAX,
        })
    }
}

#[derive(Clone)]
struct SimFile {
    inner: Arc<Mutex<Inner>>,
    observer: Arc<Mutex<Option<Observer>>>,
    inode: u64,
}

impl fmt::Debug for SimFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SimFile({})", self.inode)
    }
}

impl SimFile {
    fn call(&self, kind: &'static str) -> io::Result<MutexGuard<'_, Inner>> {
        call(&self.inner, &self.observer, kind)
    }
}

impl DiskFile for SimFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.call("len")?.state.inodes[&self.inode].live.length)
    }

    fn used(&self) -> io::Result<u64> {
        let inner = self.call("used")?;
        Ok(inner.state.inodes[&self.inode].live.pages.len() as u64 * PAGE as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let inner = self.call("read")?;
        let pages = offset / PAGE as u64..(offset + buffer.len() as u64).div_ceil(PAGE as u64);
        let mut bad = inner
            .state
            .unreadable_pages
            .range((self.inode, pages.start)..(self.inode, pages.end));
        if inner.state.unreadable.contains(&self.inode) || bad.next().is_some() {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()));
        }
        inner.state.inodes[&self.inode].live.read(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.call("write")?;
        let free = inner
            .state
            .capacity
            .map(|capacity| capacity.saturating_sub(inner.state.used()));
        let file = inner.state.inodes.get_mut(&self.inode).unwrap();
        if let Some(free) = free {
            let pages = offset / PAGE as u64..(offset + bytes.len() as u64).div_ceil(PAGE as u64);
            let new = pages.filter(|page| !file.live.pages.contains_key(page)).count();
            if new as u64 * PAGE as u64 > free {
                return Err(io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error()));
            }
        }
        file.live.write(bytes, offset);
        file.pending.push(Change::Write(offset, bytes.into()));
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut inner = self.call("set_len")?;
        let file = inner.state.inodes.get_mut(&self.inode).unwrap();
        file.live.set_len(length);
        file.pending.push(Change::SetLen(length));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let synced = self.call("sync");
        let (mut inner, failed) = match synced {
            Ok(inner) => (inner, None),
            Err(error) => (self.inner.lock().unwrap(), Some(error)),
        };
        if inner.dead {
            return Err(io::Error::other("the process is dead"));
        }
        let file = inner.state.inodes.get_mut(&self.inode).unwrap();
        let pending = std::mem::take(&mut file.pending);
        match failed {
            // The pages look clean from here on, and nobody writes them out any more.
            Some(error) => Err(error),
            None => {
                pending.iter().for_each(|change| file.durable.apply(change));
                Ok(())
            }
        }
    }

    fn forget(&self) -> io::Result<()> {
        let mut inner = self.call("forget")?;
        let file = inner.state.inodes.get_mut(&self.inode).unwrap();
        let mut content = file.durable.clone();
        file.pending.iter().for_each(|change| content.apply(change));
        file.live = content;
        Ok(())
    }
}

/// A generator that gives the same for the same seed.
pub(crate) fn seeded(seed: u64) -> StdRng {
    use rand::SeedableRng;
    StdRng::seed_from_u64(seed)
}

/// Any of `0..bound`.
pub(crate) fn below(rng: &mut impl Rng, bound: usize) -> usize {
    rng.random_range(0..bound)
}
