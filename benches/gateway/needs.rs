//! What the figures need of the machine, looked for before the first is measured: a run of half an hour is not to find out
//! at its end.

use std::path::Path;

use crate::daemon::{SETPRIV, sought};
use crate::disk::counters;
use crate::kafka_broker;
use crate::mosquitto;
use crate::place::{MEMORY, Place};

const GB: u64 = 1_000_000_000;
/// The largest queue of `backlog`, and the small one beside it.
const BACKLOG: u64 = 13 * GB;
/// What a round of a drain leaves in the broker's log, and the queue that it came from.
const DRAINED: u64 = 2 * GB;
/// Seconds of full load.
const IN_MEMORY: u64 = 2 * GB;

/// Everything that these figures need and that is not there, each with what brings it.
pub(crate) fn missing(figures: &[&str], rounds: usize, place: &Place) -> Vec<String> {
    let mut missing = Vec::new();
    missing.extend(sought("setpriv", SETPRIV).err());
    missing.extend(sought("taskset", SETPRIV).err());
    for figure in figures {
        match *figure {
            "wear" => missing.extend(counters(&place.disk).err().map(|why| {
                format!("{why}: wear counts what reaches the disk; put the checkout's target folder on a block device")
            })),
            "speed" if !Path::new(MEMORY).is_dir() => {
                missing.push(format!("{MEMORY} is missing; mount it: mount -t tmpfs tmpfs {MEMORY}"));
            }
            "speed" => missing.extend(room(Path::new(MEMORY), IN_MEMORY, "mount -o remount,size=3G /dev/shm")),
            "backlog" => missing.extend(room(&place.disk, BACKLOG, "make room there")),
            "kafka" => {
                missing.extend(kafka_broker::missing());
                missing.extend(room(&place.disk, DRAINED * rounds as u64, "make room there"));
            }
            "mqtt" => missing.extend(sought("mosquitto", mosquitto::INSTALL).err()),
            _ => {}
        }
    }
    missing.sort();
    missing.dedup();
    missing
}

/// Why a folder has not so many bytes.
fn room(folder: &Path, bytes: u64, remedy: &str) -> Option<String> {
    let shown = folder.display();
    match rustix::fs::statvfs(folder) {
        Ok(stat) if stat.f_bavail * stat.f_frsize >= bytes => None,
        Ok(stat) => Some(format!(
            "{shown} has {:.1} GB free, {:.1} are needed: {remedy}",
            (stat.f_bavail * stat.f_frsize) as f64 / GB as f64,
            bytes as f64 / GB as f64
        )),
        Err(error) => Some(format!("{shown}: {error}")),
    }
}
