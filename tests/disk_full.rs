//! A real disk without room: vehicles keep their records, a start succeeds, and it goes on by itself when there is room.
//! And one that takes nothing any more: nothing starts on it, and what is there can be had.
#![allow(clippy::unwrap_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/files.rs"]
mod files;
#[path = "support/loop_disk.rs"]
mod loop_disk;
#[path = "support/mosquitto.rs"]
mod mosquitto;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/raw.rs"]
mod raw;

use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::time::Duration;

use daemon::{Daemon, wait_for};
use files::{numbered, send, txids};
use loop_disk::LoopDisk;
use mosquitto::{Mosquitto, Subscriber};
use proxy::Proxy;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

const LONG: Duration = Duration::from_secs(60);

fn is_full(daemon: &Daemon) -> bool {
    daemon.status()["queue"]["full"].as_bool().unwrap()
}

#[test]
fn a_full_disk_refuses_vehicles_survives_a_restart_and_recovers_by_itself() {
    let mut broker = Mosquitto::new();
    broker.start();
    let subscriber = Subscriber::new(broker.port, "fleet/#");
    // Closed: the upstream cannot be reached.
    let proxy = Proxy::new(broker.port);
    let mut daemon = Daemon::new(
        4,
        "max_bytes = \"1 GiB\"\nsegment_size = \"1 MiB\"\nkeep_free = \"0 B\"",
        &mosquitto::everything_to(proxy.port),
    );
    let disk = LoopDisk::new(&daemon.path("queue"), 32);
    disk.leave(8 << 20);
    daemon.start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (before, code) = runtime.block_on(raw::send(&daemon, 0, "raw", &[7; 20_000], 2000));
    assert!(before > 20, "{before}");
    assert_eq!(code, Some(CloseCode::Again), "after {before} records");
    assert!(is_full(&daemon));
    let reason = daemon.status()["queue"]["full_reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("bytes free"), "{reason}");

    // Not one byte is left, and the power goes.
    disk.leave(0);
    assert_eq!(disk.free(), 0);
    daemon.kill_9();
    daemon.start();
    let (none, code) = runtime.block_on(raw::send(&daemon, 1, "raw", &[7; 20_000], 1));
    assert_eq!((none, code), (0, Some(CloseCode::Again)));
    assert!(is_full(&daemon));
    assert!(daemon.log().contains("queue full"), "{}", daemon.log());

    // Nobody restarts anything from here on.
    disk.make_room();
    wait_for("vehicles are accepted again", LONG, || !is_full(&daemon));
    let (after, code) = runtime.block_on(raw::send(&daemon, 2, "raw", &[7; 20_000], 20));
    assert_eq!((after, code), (20, None));

    // A full disk is drained like any other.
    disk.leave(0);
    let (more, code) = runtime.block_on(raw::send(&daemon, 3, "raw", &[7; 20_000], 2000));
    assert_eq!(code, Some(CloseCode::Again));
    proxy.open();
    daemon.wait_drained("broker", LONG);
    wait_for("the drain made room", LONG, || !is_full(&daemon));
    let received = || {
        let messages = subscriber.messages();
        let ids = messages.iter().map(|message| message.property("txid").to_owned());
        ids.collect::<BTreeSet<_>>().len() as u64
    };
    wait_for("everything acknowledged has arrived", LONG, || {
        received() >= before + after + more
    });
    let (status, _) = daemon.terminate();
    assert!(status.success(), "{status}");
    drop(disk);
}

/// With every attempt it would take more of the room that is left, and confirm nothing.
#[test]
fn a_log_on_a_disk_without_room_keeps_the_whole_lines_that_fit_and_goes_on_behind_them() {
    const RECORDS: usize = 6000;
    let file = files::file("out", "").replace("out.jsonl", "log/out.jsonl");
    let mut daemon = Daemon::new(1, "", &format!("[records]\nV = [\"out\"]\n{file}"));
    let disk = LoopDisk::new(&daemon.path("log"), 16);
    disk.leave(256 << 10);
    daemon.start();
    send(&daemon, 0, &numbered(0, RECORDS));
    wait_for("there is no room for a line", LONG, || {
        daemon
            .last_error("out")
            .is_some_and(|error| error.contains("No space left"))
    });
    let all: Vec<String> = (0..RECORDS).map(|number| number.to_string()).collect();
    let whole = || txids(&daemon, "log/out");
    // Some attempts later.
    wait_for("what fits is confirmed", LONG, || {
        let (fits, backlog) = (whole(), daemon.figure("out", "backlog"));
        !fits.is_empty() && fits.len() + backlog as usize == RECORDS
    });
    let fits = whole();
    std::thread::sleep(Duration::from_secs(4));
    assert!(whole() == fits && all.starts_with(&fits), "{} lines", whole().len());
    disk.make_room();
    daemon.wait_drained("out", LONG);
    assert!(whole() == all, "each of them once: {} lines", whole().len());
    let (status, _) = daemon.terminate();
    assert!(status.success(), "{status}");
    drop(disk);
}

#[test]
fn a_queue_on_a_disk_that_has_turned_read_only_is_exported_and_not_run() {
    let mut daemon = Daemon::new(1, "keep_free = \"0 B\"", &mosquitto::everything_to(1));
    let disk = LoopDisk::new(&daemon.path("queue"), 32);
    daemon.start();
    send(&daemon, 0, &numbered(0, 20));
    // What is in the journal alone counts too.
    daemon.kill_9();
    disk.turn_read_only();
    let waystation = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_waystation"))
            .args(arguments)
            .output()
            .unwrap()
    };
    let config = daemon.path("config.toml");
    let said = |output: Output| String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    for command in ["run", "check"] {
        let output = waystation(&[command, "--config", config.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1));
        let said = said(output);
        assert!(
            said.contains("queue.path: cannot write in ") && said.contains("Read-only file system"),
            "{said}"
        );
    }
    let queue = daemon.path("queue");
    let arguments = ["--format", "json", "--type", "V", "--output", "-"];
    let output = waystation(&[&["queue", "export", "--path", queue.to_str().unwrap()], &arguments[..]].concat());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout.split(|byte| *byte == b'\n').count(), 20 + 1);
    drop(disk);
}
