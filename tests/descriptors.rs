//! A process may have only so many files open: vehicles' connections leave enough for the queue.
#![allow(clippy::unwrap_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/raw.rs"]
mod raw;
#[path = "support/records_file.rs"]
mod records_file;

use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use daemon::{Daemon, limited};
use records_file::{FILE, arrived};

const RECORDS: u64 = 100;

fn daemon(limit: &str) -> Daemon {
    let mut daemon = Daemon::new(1, "segment_size = \"1 MiB\"\nmax_bytes = \"64 MiB\"", FILE);
    daemon.limit_open_files(limit);
    daemon.start();
    daemon
}

/// As many segments are begun meanwhile as they hold.
fn sends(daemon: &Daemon) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let sent = runtime.block_on(raw::send(daemon, 0, "raw", &[7; 20_000], RECORDS));
    assert_eq!(sent, (RECORDS, None));
    daemon.wait_drained("file", Duration::from_secs(60));
    // And that it has connected.
    assert_eq!(arrived(daemon).len() as u64, RECORDS + 1);
}

#[test]
fn strangers_that_say_nothing_leave_the_queue_its_descriptors() {
    let mut daemon = daemon("512:512");
    let said = daemon.log();
    assert!(
        said.contains("the limit of 512 open files (RLIMIT_NOFILE)") && said.contains("LimitNOFILE="),
        "{said}"
    );
    let strangers: Vec<_> = (0..600)
        .map(|_| TcpStream::connect(("127.0.0.1", daemon.port)).unwrap())
        .collect();
    sends(&daemon);
    drop(strangers);
    let said = daemon.log();
    assert!(!said.contains("Too many open files"), "{said}");
    let (status, _) = daemon.terminate();
    assert!(status.success(), "{status}");
}

#[test]
fn the_limit_is_raised_as_far_as_it_may_be() {
    let daemon = daemon("256:4096");
    sends(&daemon);
    let said = daemon.log();
    assert!(!said.contains("RLIMIT_NOFILE"), "{said}");
}

#[test]
fn check_says_that_there_are_too_few() {
    let daemon = Daemon::new(0, "", FILE);
    let check = |limit: &str| {
        let output = limited(limit, Path::new(env!("CARGO_BIN_EXE_waystation")))
            .args(["check", "--config"])
            .arg(daemon.path("config.toml"))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = check("512:512");
    assert!(
        said.contains("! listener.max_connections: 1024 connections and ") && said.contains("ulimit -n "),
        "{said}"
    );
    let said = check("256:4096");
    assert!(said.contains("✓ listener.max_connections: "), "{said}");
}
