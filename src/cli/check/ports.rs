//! Whether a port can be listened on, and who has it if not.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;

use super::findings::Findings;
use crate::system::access;

/// `running`: a gateway runs on this configuration's queue, and probably has the port.
pub(super) fn check(key: &str, address: SocketAddr, running: bool, findings: &mut Findings) {
    match TcpListener::bind(address) {
        Ok(_) => findings.good(format!("{key}: {address} is free")),
        Err(error) if running && error.kind() == ErrorKind::AddrInUse => findings.note(format!(
            "{key}: {address} is in use, by the running gateway if it has this configuration"
        )),
        Err(source) => {
            let owner = Some(source.kind())
                .filter(|kind| *kind == ErrorKind::AddrInUse)
                .and_then(|_| owner(address.port()));
            let said = format!("{key}: {}", access::cannot_listen(address, &source));
            match owner {
                // What it has is handed to the service: socket activation.
                Some(owner) if owner.ends_with(" 1") && key == "listener.bind" => {
                    findings.note(format!(
                        "{key}: {address} is systemd's, which hands it over if a socket unit is the gateway's"
                    ));
                }
                Some(owner) => findings.bad(format!("{said} (now: {owner})")),
                None => findings.bad(said),
            }
        }
    }
}

/// The process that listens on a port, as far as this user may know.
fn owner(port: u16) -> Option<String> {
    const LISTENING: &str = "0A";
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let sockets: Vec<u64> = tables
        .iter()
        .flat_map(|table| table.lines().skip(1))
        .filter_map(|line| {
            let parts: Vec<&str> = line.split_whitespace().collect();
            let (_, local) = parts.get(1)?.rsplit_once(':')?;
            let matches = u16::from_str_radix(local, 16) == Ok(port) && *parts.get(3)? == LISTENING;
            matches.then(|| parts.get(9)?.parse().ok()).flatten()
        })
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    for process in processes {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let Ok(open) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let inodes = open
            .flatten()
            .filter_map(|file| Some(fs::metadata(file.path()).ok()?.ino()));
        if inodes.into_iter().any(|inode| sockets.contains(&inode)) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{}, process {pid}", name.trim()));
        }
    }
    None
}
