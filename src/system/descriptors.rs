//! Open files and connections: how many this process may have, and how many vehicles' connections fit beside all else.
//!
//! Without a descriptor the queue's writer opens no segment and the gateway ends, so strangers must not take the last one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For the queue's files, the local ports, the runtime and logs, and connections that are just being closed.
const OWN: usize = 128;

/// Raises the limit to what the system lets this process raise it to. Shells give 1,024 by default, for the sake of old
/// programs.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, from = limit.current, to = limit.maximum, "the limit of open files could not be raised");
    }
}

/// How many this process may have now.
pub fn limit() -> usize {
    in_numbers(getrlimit(Resource::Nofile).current)
}

/// How many it may have once it has raised its limit.
pub fn highest_limit() -> usize {
    in_numbers(getrlimit(Resource::Nofile).maximum)
}

fn in_numbers(limit: Option<u64>) -> usize {
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// How many of the wanted connections of vehicles fit, beside so many descriptors for destinations; and what to tell an
/// operator if that is not all of them.
pub fn fitting(limit: usize, destinations: usize, wanted: usize) -> (usize, Option<String>) {
    let others = OWN + destinations;
    let fit = limit.saturating_sub(others).clamp(1, wanted.max(1));
    let told = (fit < wanted).then(|| {
        let needed = others + wanted;
        format!(
            "listener.max_connections: {wanted} connections and {others} other descriptors are more than the limit of {limit} open files (RLIMIT_NOFILE): only {fit} are let in at once; raise it to {needed} (LimitNOFILE={needed} in the unit, `ulimit -n {needed}` in a shell), or write a smaller listener.max_connections"
        )
    });
    (fit, told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_not_let_in_and_the_fix_is_named() {
        assert_eq!(fitting(65_536, 100, 1024), (1024, None));
        assert_eq!(fitting(1024 + OWN + 100, 100, 1024), (1024, None));
        assert_eq!(fitting(usize::MAX, 100, 1024), (1024, None));
        let (fit, told) = fitting(1024, 100, 1024);
        let told = told.unwrap_or_default();
        assert_eq!(fit, 796);
        assert!(
            told.contains("the limit of 1024 open files") && told.contains("LimitNOFILE=1252"),
            "{told}"
        );
        assert_eq!(fitting(20, 100, 1024).0, 1, "somebody gets in");
    }
}
