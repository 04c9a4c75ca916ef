//! Where the benchmark works: a folder on the disk that is measured, and one in memory.
//!
//! Both have fixed names and are locked while it runs: a second benchmark is refused, and the next start removes what an
//! interrupted one has left. The certificates stay.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::WAYSTATION;

/// A file system in memory.
pub(crate) const MEMORY: &str = "/dev/shm";
/// Vehicles that there are certificates for.
const VEHICLES: usize = 1_000;
const PKI: &str = "pki";

/// The folders, this process's alone.
pub(crate) struct Place {
    pub(crate) disk: PathBuf,
    pub(crate) memory: PathBuf,
    _locks: Vec<File>,
}

impl Place {
    /// An error says which folder cannot be had, and why.
    pub(crate) fn claim() -> Result<Self, String> {
        let disk = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        let memory = Path::new(MEMORY).join("waystation-bench");
        let mut locks = vec![claimed(&disk)?];
        // Where it is missing, what needs it says so.
        if Path::new(MEMORY).is_dir() {
            locks.push(claimed(&memory)?);
        }
        // What the brokers and others make there ends with the next start, too.
        let temporary = disk.join("tmp");
        fs::create_dir(&temporary).map_err(|error| said(&temporary, &error))?;
        tempfile::env::override_temp_dir(&temporary).map_err(|path| format!("{} is it already", path.display()))?;
        Ok(Self {
            disk,
            memory,
            _locks: locks,
        })
    }

    /// Vehicles' certificates, made once.
    pub(crate) fn pki(&self) -> PathBuf {
        let pki = self.disk.join(PKI);
        if !pki.exists() {
            // Under its name when it is whole.
            let new = self.disk.join("tmp/pki");
            let made = Command::new(WAYSTATION)
                .args(["pki", "--vehicles", &VEHICLES.to_string(), "--out"])
                .arg(&new)
                .output()
                .expect("it was built");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            fs::rename(new, &pki).expect("it is the same disk");
        }
        pki
    }
}

/// The lock of a folder, in which nothing is left but the certificates.
fn claimed(folder: &Path) -> Result<File, String> {
    let cannot = |error| said(folder, &error);
    fs::create_dir_all(folder).map_err(cannot)?;
    let lock = File::open(folder).map_err(cannot)?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => format!(
            "another benchmark is running, in {}; wait until it has ended",
            folder.display()
        ),
        TryLockError::Error(error) => cannot(error),
    })?;
    for entry in fs::read_dir(folder).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        if entry.file_name() != PKI {
            let removed = match entry.file_type().map_err(cannot)?.is_dir() {
                true => fs::remove_dir_all(entry.path()),
                false => fs::remove_file(entry.path()),
            };
            removed.map_err(cannot)?;
        }
    }
    Ok(lock)
}

fn said(folder: &Path, error: &io::Error) -> String {
    format!("{}: {error}", folder.display())
}
