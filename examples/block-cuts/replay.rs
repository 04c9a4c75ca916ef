//! Makes the images of power cuts one after the other, mounts each, checks the queue in it.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use clap::Args;

use crate::block_log::{BlockLog, Kind};
use crate::check::{Found, check};
use crate::cuts::{Cut, plan};
use crate::disk::Disk;
use crate::journal::Known;

#[derive(Args)]
pub(crate) struct Replay {
    /// Has `base.img`, `log.img` and `journal`; takes the images and the mount point.
    dir: PathBuf,
    /// Which cuts, and what reached the disk.
    #[arg(long)]
    seed: u64,
    #[arg(long, default_value_t = 1000)]
    cuts: usize,
    /// Sectors that no cut tears, from the first to the last of the file system's superblock, as `2-3`.
    #[arg(long, value_parser = sectors, default_value = "2-3")]
    superblock: Range<usize>,
    /// This cut of them alone.
    #[arg(long)]
    only: Option<u64>,
    /// Leaves the cut's image as `cut.img`, and does not mount it.
    #[arg(long, requires = "only")]
    no_check: bool,
}

impl Replay {
    pub(crate) fn run(self) -> Result<String, String> {
        let started = Instant::now();
        let log = BlockLog::open(&self.dir.join("log.img"))?;
        let known = Known::read(&self.dir.join("journal"))?;
        let mut disk = Disk::read(&self.dir.join("base.img"))?;
        let mut applied = 0;
        let (mut done, mut at_a_flush, mut demanded, mut more) = (0, 0, 0, 0);
        for cut in plan(&log, self.cuts, self.seed) {
            for entry in &log.entries[applied..cut.durable] {
                disk.write(entry.sector as usize * crate::block_log::SECTOR, &log.data(entry));
            }
            applied = cut.durable;
            if self.only.is_some_and(|only| only != cut.number) {
                continue;
            }
            let found = self
                .cut(&log, &disk, &known, cut)
                .map_err(|why| self.failed(cut, &why))?;
            done += 1;
            at_a_flush += u64::from(cut.durable == cut.entries);
            demanded += found.acknowledged;
            more += found.more;
            if done % 100 == 0 {
                eprintln!("{done} power cuts, {:.0?}", started.elapsed());
            }
        }
        let count = |kind| log.entries.iter().filter(|entry| entry.kind == kind).count();
        Ok(format!(
            "{done} power cuts, {at_a_flush} at a flush and the others in the writes behind one, of {} writes and {} \
             flushes with {} records acknowledged, seed {}: nothing acknowledged was lost \
             ({demanded} times a record was demanded, {more} times one was there before its ack was seen)",
            count(Kind::Write),
            count(Kind::Flush),
            known.acknowledged.len(),
            self.seed,
        ))
    }

    fn cut(&self, log: &BlockLog, durable: &Disk, known: &Known, cut: Cut) -> Result<Found, String> {
        let image = self.dir.join("cut.img");
        let mut disk = durable.clone();
        cut.apply(log, &mut disk, self.seed, &self.superblock);
        disk.save(&image);
        if self.no_check {
            return Ok(Found::default());
        }
        let mounted = Mounted::new(&image, &self.dir.join("cut"))?;
        let checked = std::panic::catch_unwind(|| check(&mounted.at.join("queue"), known, cut.entries as u64));
        drop(mounted);
        checked.unwrap_or_else(|_| Err("panicked".to_owned()))
    }

    fn failed(&self, cut: Cut, why: &str) -> String {
        format!(
            "cut {} of {} with seed {}, behind entry {} of the log with everything before entry {} on the disk: {why}",
            cut.number, self.cuts, self.seed, cut.entries, cut.durable
        )
    }
}

/// A mounted image; it is unmounted when this is dropped.
struct Mounted {
    at: PathBuf,
}

impl Mounted {
    fn new(image: &Path, at: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(at).map_err(|error| format!("cannot make {}: {error}", at.display()))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(at))?;
        Ok(Self { at: at.to_owned() })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(words) = run(Command::new("umount").arg(&self.at)) {
            eprintln!("{words}; it is detached when nobody uses it any more");
            let _detached = run(Command::new("umount").arg("--lazy").arg(&self.at));
        }
    }
}

fn sectors(words: &str) -> Result<Range<usize>, String> {
    let ends = words
        .split_once('-')
        .and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    let (first, last): (usize, usize) = ends.ok_or("not like 2-3")?;
    Ok(first..last + 1)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}
