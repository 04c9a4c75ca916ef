//! The files and sockets that destinations make on this machine: whether they can be made.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::directory;
use super::findings::Findings;
use crate::config::{self, Config, DestinationKind};

/// What systemd makes when the service starts, and takes away when it ends.
pub(super) const RUNTIME: &str = "/run/waystation";

/// Where a destination writes.
pub(super) struct Output<'c> {
    pub(super) key: String,
    pub(super) path: &'c Path,
    pub(super) is_socket: bool,
}

impl Output<'_> {
    /// What it is made in.
    pub(super) fn folder(&self) -> &Path {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.unwrap_or(Path::new("."))
    }
}

pub(super) fn of(config: &Config) -> impl Iterator<Item = Output<'_>> {
    config.destinations.iter().filter_map(|destination| {
        let (key, path, is_socket) = match &destination.kind {
            DestinationKind::Log(config::Log { path: Some(path) }) => ("path", path.as_path(), false),
            DestinationKind::Zmq(zmq) => ("bind", zmq.ipc()?, true),
            _ => return None,
        };
        let key = format!("destinations.{}.{key}", destination.name);
        Some(Output { key, path, is_socket })
    })
}

pub(super) fn check(config: &Config, findings: &mut Findings) {
    use rustix::fs::Access;
    for output in of(config) {
        let (key, folder) = (&output.key, output.folder());
        let (shown, shown_folder) = (output.path.display(), folder.display());
        match fs::metadata(output.path).ok() {
            Some(found) if found.is_dir() => {
                findings.bad(format!("{key}: {shown} is a directory; name a file in it"));
            }
            Some(found) if output.is_socket && !found.file_type().is_socket() => {
                findings.bad(format!("{key}: {shown} is a file and no socket; name another"));
            }
            // The folder need not be writable for one that is there.
            Some(_) if !output.is_socket => {
                findings.either(
                    match rustix::fs::access(output.path, Access::READ_OK | Access::WRITE_OK) {
                        Ok(()) => Ok(format!("{key}: {shown} can be written")),
                        Err(error) => Err(format!(
                            "{key}: cannot write {shown}: {error}; make it the service user's, or name another file"
                        )),
                    },
                );
            }
            _ if folder.exists() => directory(key, folder, findings),
            _ if output.is_socket && folder.starts_with(RUNTIME) => {
                findings.note(format!("{key}: {shown_folder} is made when the service starts"));
            }
            _ => findings.bad(format!("{key}: the directory {shown_folder} does not exist; make it")),
        }
    }
}
