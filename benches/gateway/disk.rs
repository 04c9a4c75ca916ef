//! The disk by itself: appends with fdatasync, and what reaches the device.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Milliseconds that each of so many appends of `bytes` with an fdatasync took, in order of length.
pub(crate) fn syncs(dir: &Path, times: usize, bytes: usize) -> Vec<f64> {
    appends(dir, times, bytes, Duration::ZERO)
}

/// The same for three seconds of a thousand a second: long enough to see the moments at which the disk stands still.
pub(crate) fn paced_syncs(dir: &Path) -> Vec<f64> {
    appends(dir, 3_000, 600, Duration::from_millis(1))
}

fn appends(dir: &Path, times: usize, bytes: usize, every: Duration) -> Vec<f64> {
    let mut file = File::create(dir.join("appended")).expect("the folder can be written to");
    let batch = vec![b'x'; bytes];
    let started = Instant::now();
    let mut took: Vec<_> = (0..times)
        .map(|number| {
            std::thread::sleep((every * number as u32).saturating_sub(started.elapsed()));
            let begun = Instant::now();
            file.write_all(&batch).expect("the disk has room");
            file.sync_data().expect("the disk works");
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
