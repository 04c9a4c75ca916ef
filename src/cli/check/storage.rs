//! What the queue lies on: whether it keeps what it is given, has room, and is told what it need not keep.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::findings::Findings;
use crate::config;

/// File systems that are gone with the power.
const MEMORY: [&str; 3] = ["tmpfs", "ramfs", "devtmpfs"];
/// File systems on other machines: what they call synced need not be, and they go away.
const NETWORK: [&str; 10] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "ceph",
    "glusterfs",
    "fuse.sshfs",
    "afs",
];

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    device: String,
    at: PathBuf,
    options: String,
    kind: String,
}

/// Looks at the disk under the queue's directory.
pub(super) fn check(queue: &config::Queue, findings: &mut Findings) {
    // The last one above a relative path is empty, and means the working directory.
    let here = |above: &Path| match above.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => above.to_owned(),
    };
    let Some(existing) = queue.path.ancestors().map(here).find(|above| above.exists()) else {
        return;
    };
    let existing = existing.as_path();
    space(queue, existing, findings);
    let device = fs::metadata(existing).map(|found| found.dev()).unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    if let Some(mount) = mount_of(&mounts, existing, &number) {
        match kind(&queue.path, &mount) {
            Ok(good) => findings.good(good),
            Err(bad) => findings.bad(bad),
        }
        if let Some(warning) = discard(Path::new("/"), &queue.path, &mount) {
            findings.warn(warning);
        }
    }
}

fn space(queue: &config::Queue, existing: &Path, findings: &mut Findings) {
    let Ok(stat) = rustix::fs::statvfs(existing) else {
        return;
    };
    let (free, size) = (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize);
    // What the queue has already it need not get.
    let wanted = queue.max_bytes.saturating_sub(used(&queue.path));
    match room(queue, wanted, free, size) {
        (false, said) => findings.bad(said),
        (true, said) if free.saturating_sub(queue.keep_free) < wanted => findings.warn(said),
        (true, said) => findings.good(said),
    }
}

/// Bytes on the disk of the files in a directory and in those below it.
fn used(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => used(&entry.path()),
        Ok(found) => found.blocks() * 512,
        Err(_) => 0,
    });
    bytes.sum()
}

/// Whether the queue can begin at all, and what there is to say.
fn room(queue: &config::Queue, wanted: u64, free: u64, size: u64) -> (bool, String) {
    let shown = format!("queue.path: {}", queue.path.display());
    let (free_mib, keep_mib) = (free >> 20, queue.keep_free >> 20);
    let (max_mib, size_mib) = (queue.max_bytes >> 20, size >> 20);
    let usable = free.saturating_sub(queue.keep_free);
    if usable < wanted.min(2 * queue.segment_size) {
        let said = format!(
            "{shown}: the disk has {free_mib} MiB free, and queue.keep_free leaves {keep_mib} MiB of that to others: vehicles will be refused; free some space, or name another disk"
        );
        (false, said)
    } else if usable < wanted {
        let said = format!(
            "{shown}: the disk has {free_mib} MiB free, so that the queue is full before queue.max_bytes ({max_mib} MiB); free some space, or write a smaller queue.max_bytes"
        );
        (true, said)
    } else {
        (true, format!("{shown}: the disk has {free_mib} of {size_mib} MiB free"))
    }
}

/// Whether the file system keeps what it is given.
fn kind(path: &Path, mount: &Mount) -> Result<String, String> {
    let (shown, kind) = (path.display(), &mount.kind);
    let at = mount.at.display();
    if MEMORY.contains(&kind.as_str()) {
        return Err(format!(
            "queue.path: {shown} is in memory ({kind} at {at}): all records are gone with the power; name a directory on a disk"
        ));
    }
    if NETWORK.contains(&kind.as_str()) {
        return Err(format!(
            "queue.path: {shown} is on another machine ({kind} at {at}), which may be away and may say that it has kept what it has not; name a directory on a disk of this one"
        ));
    }
    Ok(format!("queue.path: {shown} is on {kind}, mounted at {at}"))
}

/// What to say of a flash card that is not told which blocks are free: it wears out sooner. `root`: of /sys and /etc.
fn discard(root: &Path, path: &Path, mount: &Mount) -> Option<String> {
    let device = mount.device.strip_prefix("/dev/")?;
    if !device.starts_with("mmcblk") {
        return None;
    }
    let card = device.split_once('p').map_or(device, |(card, _)| card);
    let limit = fs::read_to_string(root.join(format!("sys/block/{card}/queue/discard_max_bytes"))).ok()?;
    let shown = path.display();
    if limit.trim() == "0" {
        return Some(format!(
            "queue.path: {shown} is on the card {card}, which cannot be told what is free (no discard), and wears out sooner; use an SD card that can, or an SSD"
        ));
    }
    let trimmed = mount.options.split(',').any(|option| option == "discard")
        || root
            .join("etc/systemd/system/timers.target.wants/fstrim.timer")
            .exists();
    (!trimmed).then(|| {
        format!(
            "queue.path: {shown} is on the card {card}, which nobody tells what is free, and which wears out sooner; `systemctl enable --now fstrim.timer` does"
        )
    })
}

/// The mount that a path is on: of those with its device, or else of all, the one mounted deepest above it.
fn mount_of(mountinfo: &str, path: &Path, device: &str) -> Option<Mount> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mounts = mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let at = PathBuf::from(left.get(4)?.replace("\\040", " "));
        let mount = Mount {
            device: (*right.get(1)?).to_owned(),
            at,
            options: format!("{},{}", left.get(5)?, right.get(2)?),
            kind: (*right.first()?).to_owned(),
        };
        path.starts_with(&mount.at)
            .then(|| (*left.get(2).unwrap_or(&"") == device, mount))
    });
    mounts
        .max_by_key(|(same, mount)| (*same, mount.at.components().count()))
        .map(|(_, mount)| mount)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MOUNTS: &str = "\
22 1 179:2 / / rw,noatime shared:1 - ext4 /dev/mmcblk0p2 rw
23 22 0:21 / /run rw,nosuid shared:2 - tmpfs tmpfs rw,size=800k
30 22 0:45 / /mnt/my\\040nas rw shared:9 - nfs4 nas:/export rw,vers=4.2
31 22 8:1 / /data rw shared:10 - ext4 /dev/sda1 rw,discard
";

    fn mount(path: &str, device: &str) -> Mount {
        mount_of(MOUNTS, Path::new(path), device).unwrap()
    }

    fn queue() -> config::Queue {
        config::Queue {
            path: "/var/lib/waystation/queue".into(),
            max_bytes: 4 << 30,
            segment_size: 32 << 20,
            commit_delay: Duration::ZERO,
            when_full: config::WhenFull::Refuse,
            keep_free: 64 << 20,
            max_age: None,
            dead_letter_bytes: 64 << 20,
            duplicate_window: 0,
        }
    }

    #[test]
    fn memory_and_other_machines_are_no_place_for_a_queue() {
        let path = Path::new("/x");
        assert!(
            kind(path, &mount("/no/such/place", "179:2"))
                .unwrap()
                .contains("is on ext4")
        );
        assert!(
            kind(path, &mount("/run/queue", "0:21"))
                .unwrap_err()
                .contains("is in memory (tmpfs at /run)")
        );
        assert!(
            kind(path, &mount("/mnt/my nas/queue", "0:45"))
                .unwrap_err()
                .contains("is on another machine (nfs4")
        );
    }

    #[test]
    fn a_card_that_nobody_trims_is_a_warning_with_the_fix() {
        let root = tempfile::tempdir().unwrap();
        let queue = root.path().join("sys/block/mmcblk0/queue");
        fs::create_dir_all(&queue).unwrap();
        let said = |limit: &str| {
            fs::write(queue.join("discard_max_bytes"), limit).unwrap();
            discard(root.path(), Path::new("/x"), &mount("/no/such/place", "179:2"))
        };
        assert!(said("0\n").unwrap().contains("cannot be told what is free"));
        assert!(
            said("4194304\n")
                .unwrap()
                .contains("systemctl enable --now fstrim.timer")
        );
        let wants = root.path().join("etc/systemd/system/timers.target.wants");
        fs::create_dir_all(&wants).unwrap();
        fs::write(wants.join("fstrim.timer"), "").unwrap();
        assert_eq!(said("4194304\n"), None);
        assert_eq!(
            discard(root.path(), Path::new("/x"), &mount("/data/queue", "8:1")),
            None
        );
    }

    #[test]
    fn a_disk_that_is_nearly_full_is_a_fault_and_a_small_one_a_warning() {
        let queue = queue();
        let (good, said) = room(&queue, 4 << 30, 100 << 20, 8 << 30);
        assert!(!good && said.contains("vehicles will be refused"), "{said}");
        let (good, said) = room(&queue, 4 << 30, 2 << 30, 8 << 30);
        assert!(
            good && said.contains("full before queue.max_bytes (4096 MiB)"),
            "{said}"
        );
        let (good, said) = room(&queue, 1 << 30, 2 << 30, 8 << 30);
        assert!(
            good && said.ends_with("the disk has 2048 of 8192 MiB free"),
            "what it has counts: {said}"
        );
        let (good, said) = room(&queue, 4 << 30, 6 << 30, 8 << 30);
        assert!(good && said.ends_with("the disk has 6144 of 8192 MiB free"), "{said}");
    }
}
