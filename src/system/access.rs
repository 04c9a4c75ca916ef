//! What the system does not let this process do, and what an operator can do about it: directories and ports. `run` and
//! `check` say it in the same words.

use std::error::Error as StdError;
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::path::Path;

/// Whether files can be made in a directory, or in the nearest one above it that exists. `Err` is for an operator.
pub fn writable(path: &Path) -> Result<(), String> {
    let existing = path
        .ancestors()
        // The last one above a relative path is empty, and means the working directory.
        .map(|above| {
            Some(above)
                .filter(|above| *above != Path::new(""))
                .unwrap_or(Path::new("."))
        })
        // A link that leads nowhere is in the way of a directory too.
        .find(|above| above.symlink_metadata().is_ok())
        .unwrap_or(Path::new("/"));
    let shown = existing.display();
    if let Ok(target) = existing.read_link()
        && !existing.exists()
    {
        let target = target.display();
        return Err(format!(
            "{shown} is a link to {target}, which is not there; make that directory, or remove the link"
        ));
    }
    if !existing.is_dir() {
        return Err(format!(
            "{shown} is not a directory; name another, or move that file away"
        ));
    }
    tempfile::tempfile_in(existing).map(drop).map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::PermissionDenied => "make it the service user's, or name another directory",
            ErrorKind::ReadOnlyFilesystem => {
                "name a directory that is not read-only; for systemd's ProtectSystem=, add it to ReadWritePaths="
            }
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space",
            _ => "name another directory",
        };
        format!("cannot write in {shown}: {error}; {advice}")
    })
}

/// Whether something failed because it is another user's.
pub fn is_denied(error: &(dyn StdError + 'static)) -> bool {
    let own = error.downcast_ref::<Error>();
    own.is_some_and(|own| own.kind() == ErrorKind::PermissionDenied) || error.source().is_some_and(is_denied)
}

/// What to tell an operator when a port cannot be listened on.
pub fn cannot_listen(address: SocketAddr, error: &Error) -> String {
    let advice = match error.kind() {
        ErrorKind::AddrInUse => {
            let port = address.port();
            format!(
                "another process has it: `ss -ltnp 'sport = :{port}'` shows which; stop that, or write another port"
            )
        }
        ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; grant it, or write another port".to_owned()
        }
        ErrorKind::AddrNotAvailable => {
            "no interface of this machine has this address; write one that `ip address` shows".to_owned()
        }
        _ => "write another address".to_owned(),
    };
    format!("cannot listen on {address}: {error}; {advice}")
}
