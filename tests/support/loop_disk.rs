//! A small real file system of its own: ext4 in a file, mounted where a test wants it.
#![allow(dead_code)]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted disk; it is unmounted when this is dropped.
pub(crate) struct LoopDisk {
    mount: PathBuf,
}

impl LoopDisk {
    /// Makes and mounts a disk of so many MiB. The image lies beside the mount point.
    pub(crate) fn new(mount: &Path, mebibytes: u64) -> Self {
        let image = mount.with_extension("img");
        File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
        std::fs::create_dir_all(mount).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image));
        run(as_root("mount").args(["-o", "loop"]).arg(&image).arg(mount));
        let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
        run(as_root("chown").arg(format!("{user}:{group}")).arg(mount));
        Self {
            mount: mount.to_owned(),
        }
    }

    /// Puts a file on it that leaves so many bytes free, more or less; as far as there are so many.
    pub(crate) fn leave(&self, bytes: u64) {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.mount.join("filler"))
            .unwrap();
        let block = vec![0x5a; 64 << 10];
        while self.free() > bytes + block.len() as u64 {
            if file.write_all(&block).and_then(|()| file.sync_all()).is_err() {
                break;
            }
        }
        if bytes == 0 {
            // To the last block.
            while file.write_all(&block[..4096]).and_then(|()| file.sync_all()).is_ok() {}
        }
    }

    /// Takes that file away.
    pub(crate) fn make_room(&self) {
        std::fs::remove_file(self.mount.join("filler")).unwrap();
    }

    /// As the kernel does with a file system in which something is wrong. Nobody may have a file of it open for writing.
    pub(crate) fn turn_read_only(&self) {
        run(as_root("mount").args(["-o", "remount,ro"]).arg(&self.mount));
    }

    pub(crate) fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.mount).unwrap();
        stat.f_bavail * stat.f_frsize
    }
}

/// Nothing can be written to a disk while there is this.
pub(crate) struct Frozen(PathBuf);

impl LoopDisk {
    /// Has every write to it wait.
    pub(crate) fn freeze(&self) -> Frozen {
        run(as_root("fsfreeze").arg("--freeze").arg(&self.mount));
        Frozen(self.mount.clone())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        run(as_root("fsfreeze").arg("--unfreeze").arg(&self.0));
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let unmounted = as_root("umount").arg("-l").arg(&self.mount).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.mount.display());
        }
    }
}

fn as_root(program: &str) -> Command {
    if rustix::process::getuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

fn run(command: &mut Command) {
    let advice = "this test mounts a disk of its own: run it as root or with passwordless sudo, after: apt-get install -y e2fsprogs mount";
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; {advice}"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {words}; {advice}");
}
