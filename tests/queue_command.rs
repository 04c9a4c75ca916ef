//! `waystation queue`: what it says of a sound queue, a damaged one and one in use, and that it changes none of them.
#![allow(clippy::unwrap_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/fixture.rs"]
mod fixture;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use daemon::{Daemon, wait_for};
use waystation::cli::simulate::Live;

fn queue(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_waystation"))
        .arg("queue")
        .args(arguments)
        .output()
        .unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files = BTreeMap::new();
    for path in entries {
        match path.is_dir() {
            true => files.extend(self::files(&path)),
            false => drop(files.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    files
}

#[test]
fn a_sound_queue_is_shown_and_verified_and_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    fixture::copy(Path::new("tests/data/queue-format-1"), dir.path());
    let (before, path) = (files(dir.path()), dir.path().to_str().unwrap());

    let shown = json(&queue(&["show", "--path", path, "--json"]));
    assert_eq!(
        (shown["end"].as_u64(), shown["in_use"].as_bool()),
        (Some(60), Some(false))
    );
    for (destination, cursor) in fixture::CURSORS {
        let place = &shown["destinations"][destination];
        assert_eq!(place["cursor"].as_u64(), Some(cursor));
        assert_eq!(place["backlog"].as_u64(), Some(60 - cursor));
        assert_eq!(place["oldest"].as_u64(), Some(fixture::record(cursor).received_at));
    }
    let words = queue(&["show", "--path", path]);
    let words = String::from_utf8(words.stdout).unwrap();
    assert!(
        words.contains("no gateway runs on it") && words.contains("cloud"),
        "{words}"
    );

    let verified = queue(&["verify", "--path", path, "--json"]);
    assert!(verified.status.success(), "{verified:?}");
    let verified = json(&verified);
    assert_eq!(verified["missing"].as_array().map(Vec::len), Some(0));
    // The first 18 were consumed, and their segment is gone.
    assert_eq!(verified["records"].as_u64(), Some(42));
    assert_eq!(files(dir.path()), before);
}

#[test]
fn a_damaged_queue_is_verified_by_number_and_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    fixture::copy(Path::new("tests/data/queue-format-1"), dir.path());
    fs::write(
        dir.path().join("segments/00000000000000000036.redb"),
        b"no segment any more",
    )
    .unwrap();
    let (before, path) = (files(dir.path()), dir.path().to_str().unwrap());
    let verified = queue(&["verify", "--path", path]);
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    let words = String::from_utf8(verified.stdout).unwrap();
    assert!(words.contains("missing: records 36 to 53"), "{words}");
    assert!(words.contains("00000000000000000036.redb"), "{words}");
    let error = String::from_utf8(verified.stderr).unwrap();
    assert!(error.contains("18 records cannot be read"), "{error}");
    assert_eq!(files(dir.path()), before);
}

#[test]
fn what_is_intact_in_a_damaged_segment_counts_as_readable() {
    let dir = tempfile::tempdir().unwrap();
    fixture::copy(Path::new("tests/data/queue-format-1"), dir.path());
    let segment = dir.path().join("segments/00000000000000000036.redb");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[..4096].fill(0xaa);
    // Every copy of one record.
    for at in 0..bytes.len() - 7 {
        if &bytes[at..at + 7] == b"txid-40" {
            bytes[at] ^= 1;
        }
    }
    fs::write(&segment, bytes).unwrap();
    let (before, path) = (files(dir.path()), dir.path().to_str().unwrap());
    let verified = queue(&["verify", "--path", path]);
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    let words = String::from_utf8(verified.stdout).unwrap();
    assert!(words.contains("missing: records 40 to 40"), "{words}");
    assert!(
        words.contains("17 of its records are intact and can be delivered"),
        "{words}"
    );
    assert!(words.contains("41 records in"), "{words}");
    assert_eq!(files(dir.path()), before);
}

#[test]
fn a_running_gateway_is_looked_at_and_a_destination_that_left_is_forgotten() {
    // Nobody listens there.
    let port = daemon::free_port();
    let destination = |name: &str| {
        format!(
            r#"
            [records]
            "*" = ["{name}"]
            [destinations.{name}]
            type = "mqtt"
            url = "mqtt://127.0.0.1:{port}"
            topic_base = "fleet"
            "#
        )
    };
    let mut daemon = Daemon::new(2, "", &destination("old"));
    daemon.start();
    let live = Arc::new(Live::default());
    daemon.drive(2, 50, 0.0, &live).join().unwrap();
    let config = daemon.path("config.toml");
    let config = config.to_str().unwrap();
    let shown = || json(&queue(&["show", "--config", config, "--json"]));
    wait_for("the newest records are seen", Duration::from_secs(20), || {
        shown()["destinations"]["old"]["backlog"].as_u64().unwrap_or_default() >= 100
    });
    assert_eq!(shown()["in_use"].as_bool(), Some(true));
    assert!(queue(&["verify", "--config", config]).status.success());

    let error = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let configured = queue(&["forget", "old", "--config", config]);
    assert!(error(&configured).contains("is in the configuration"), "{configured:?}");
    let text = fs::read_to_string(config).unwrap();
    fs::write(
        config,
        text.replace("\"old\"", "\"new\"")
            .replace("destinations.old", "destinations.new"),
    )
    .unwrap();
    let running = queue(&["forget", "old", "--config", config]);
    assert!(error(&running).contains("restart it without that first"), "{running:?}");
    let forgets = |daemon: &mut Daemon, starts: bool| {
        let (status, _) = daemon.terminate();
        assert!(status.success());
        if starts {
            daemon.start();
        }
        assert_eq!(shown()["destinations"]["old"].is_null(), !starts);
        let forgotten = queue(&["forget", "old", "--config", config]);
        assert_eq!(forgotten.status.success(), starts, "{forgotten:?}");
        let words = String::from_utf8_lossy(&forgotten.stdout).into_owned();
        assert_eq!(words.contains("and with it 10"), starts, "{words}");
        assert_eq!(words.contains(" records that it had not passed"), starts, "{words}");
        let again = queue(&["forget", "old", "--config", config]);
        assert!(error(&again).contains("has no place in the queue"), "{again:?}");
    };
    forgets(&mut daemon, true);
    wait_for("its place is gone from the disk", Duration::from_secs(20), || {
        shown()["destinations"]["old"].is_null()
    });
    forgets(&mut daemon, false);
}

#[test]
fn nobody_has_to_read_what_went_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    fs::write(&config, "nonsense = 1\n").unwrap();
    let config = config.to_str().unwrap();
    for (arguments, code) in [
        (&["run", "--config", config][..], 78),
        (&["check", "--config", config], 78),
        (&["queue", "show", "--path", "/no/such/queue"], 1),
        (&["import-config", "/no/such/file"], 1),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_waystation"));
        let status = command.args(arguments).stderr(writer).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

/// Whoever forgot sudo is not to give the queue away.
#[test]
fn who_may_not_look_at_a_queue_is_told_to_be_somebody_else() {
    const NOBODY: u32 = 65_534;
    assert!(
        rustix::process::geteuid().is_root(),
        "this test is another user for a while and needs root: sudo env \"PATH=$PATH\" scripts/test.sh --test queue_command"
    );
    let dir = tempfile::tempdir().unwrap();
    fixture::copy(Path::new("tests/data/queue-format-1"), dir.path());
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_waystation"))
        .args(["queue", "show", "--path"])
        .arg(dir.path())
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.trim_end()
            .ends_with("; run it with sudo, or as the gateway's user")
            && !said.contains("chown"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn where_no_queue_is_none_is_made() {
    let daemon = Daemon::new(
        1,
        "",
        "[records]\n\"*\" = [\"log\"]\n[destinations.log]\ntype = \"log\"",
    );
    let config = daemon.path("config.toml");
    let config = config.to_str().unwrap();
    for arguments in [
        &["purge", "--vin", "5YJ3E1EA7KF000001"][..],
        &["forget", "old"],
        &["dead-letters", "retry"],
        &["dead-letters", "list"],
        &["verify"],
    ] {
        let output = queue(&[arguments, &["--config", config]].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("there is no queue in "), "{error}");
        assert!(output.stdout.is_empty(), "{output:?}");
        assert!(!daemon.path("queue").exists());
    }
}

#[test]
fn dead_letters_are_listed_with_their_reasons_and_written_whole() {
    let dir = tempfile::tempdir().unwrap();
    fixture::copy(Path::new("tests/data/queue-format-1"), dir.path());
    let (before, path) = (files(dir.path()), dir.path().to_str().unwrap());
    let listed = |more: &[&str]| {
        let output = queue(&[&["dead-letters", "list", "--path", path], more].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let words = listed(&[]);
    for part in [
        "2023-11-14T22:13:21Z",
        "cloud",
        "5YJ3E1EA7KF000001",
        "larger than the broker takes",
        "1 dead letters, 3 bytes",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert_eq!(listed(&["--vin", "5YJ3E1EA7KF000002"]), "0 dead letters, 0 bytes\n");
    assert_eq!(listed(&["--origin", "listener"]), "0 dead letters, 0 bytes\n");

    let exported = json(&queue(&["dead-letters", "export", "--path", path, "--output", "-"]));
    assert_eq!(exported["txid"], "txid-7");
    let id = fs::read_to_string("tests/data/queue-format-1.id").unwrap();
    assert_eq!(exported["record"], format!("{}-7", id.trim()));
    assert_eq!(exported["raw_base64"], "cmF3");
    assert_eq!(files(dir.path()), before);
}
