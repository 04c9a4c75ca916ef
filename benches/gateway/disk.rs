//! The disk by itself: appends and overwrites with fdatasync, and what reaches the device.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// Milliseconds that each of so many appends of `bytes` with an fdatasync took, in order of length.
pub(crate) fn syncs(dir: &Path, times: usize, bytes: usize) -> Vec<f64> {
    let mut file = File::create(dir.join("appended")).expect("the folder can be written to");
    let batch = vec![b'x'; bytes];
    timed(times, Duration::ZERO, |_| {
        file.write_all(&batch)?;
        file.sync_data()
    })
}

/// A thousand a second for three seconds: long enough to see the moments at which the disk stands still.
const PACED: (usize, Duration) = (3_000, Duration::from_millis(1));

/// The same, paced, of a payload each: the file grows, and the file system's journal has to know of it.
pub(crate) fn paced_appends(dir: &Path) -> Vec<f64> {
    let mut file = File::create(dir.join("appended")).expect("the folder can be written to");
    timed(PACED.0, PACED.1, |_| {
        file.write_all(&[b'x'; 600])?;
        file.sync_data()
    })
}

/// The same, paced, over blocks that are there already, in turn, as the queue's journal has them.
pub(crate) fn paced_overwrites(dir: &Path) -> Vec<f64> {
    const BLOCK: usize = 4096;
    const BLOCKS: usize = 1_024;
    let path = dir.join("overwritten");
    std::fs::write(&path, vec![0; BLOCK * BLOCKS]).expect("the folder can be written to");
    let file = File::options().write(true).open(&path).expect("it was just made");
    file.sync_all().expect("the disk works");
    timed(PACED.0, PACED.1, |number| {
        file.write_all_at(&[b'x'; BLOCK], (number % BLOCKS * BLOCK) as u64)?;
        file.sync_data()
    })
}

fn timed(times: usize, every: Duration, mut write: impl FnMut(usize) -> io::Result<()>) -> Vec<f64> {
    let started = Instant::now();
    let mut took: Vec<_> = (0..times)
        .map(|number| {
            std::thread::sleep((every * number as u32).saturating_sub(started.elapsed()));
            let begun = Instant::now();
            write(number).expect("the disk works, and has room");
            begun.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    took.sort_by(f64::total_cmp);
    took
}

/// Bytes that were written to the device that a folder is on, by anybody.
pub(crate) fn device_bytes(dir: &Path) -> f64 {
    let stat = counters(dir).unwrap_or_else(|why| panic!("{why}"));
    // The seventh: sectors written, of 512 bytes.
    let sectors = stat
        .split_whitespace()
        .nth(6)
        .and_then(|field| field.parse::<f64>().ok());
    sectors.expect("Linux has it") * 512.0
}

/// What the device that a folder is on has counted, as text; an error where there is no such device.
pub(crate) fn counters(dir: &Path) -> Result<String, String> {
    let device = std::fs::metadata(dir).expect("it is there").dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let path = format!("/sys/dev/block/{major}:{minor}/stat");
    std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))
}

/// The share `share` of sorted values.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() as f64 * share) as usize).min(sorted.len() - 1)]
}

const LONGEST_REST: Duration = Duration::from_secs(180);

/// Milliseconds of the disk's slowest fdatasyncs.
pub(crate) fn slowest_sync(dir: &Path) -> f64 {
    quantile(&syncs(dir, 300, 600), 0.99)
}

/// Gigabytes keep a disk busy for a while after they were written, and that is not what is measured. Waits until it is
/// about as fast as `quick` again.
pub(crate) fn come_to_rest(dir: &Path, quick: f64) {
    rustix::fs::sync();
    let begun = Instant::now();
    while slowest_sync(dir) > 2.0 * quick && begun.elapsed() < LONGEST_REST {
        std::thread::sleep(Duration::from_secs(5));
    }
    eprintln!("  the disk has rested for {} s", begun.elapsed().as_secs());
}
