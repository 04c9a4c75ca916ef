//! The disk by itself: appends with fdatasync, and what reaches the device.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

/// Milliseconds that each of so many appends of `bytes` with an fdatasync took, in order of length.
pub(crate) fn syncs(dir: &Path, times: usize, bytes: usize) -> Vec<f64> {
    let mut file = File::create(dir.join("appended")).expect("the folder can be written to");
    let batch = vec![b'x'; bytes];
    let mut took: Vec<_> = (0..times)
        .map(|_| {
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
    let device = std::fs::metadata(dir).expect("it is there").dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let path = format!("/sys/dev/block/{major}:{minor}/stat");
    let stat = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    // The seventh: sectors written, of 512 bytes.
    let sectors = stat
        .split_whitespace()
        .nth(6)
        .and_then(|field| field.parse::<f64>().ok());
    sectors.expect("Linux has it") * 512.0
}

/// The share `share` of sorted values.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() as f64 * share) as usize).min(sorted.len() - 1)]
}
