//! `waystation queue export` and `import`: records carried from one box to another on a stick keep their identity.
#![allow(clippy::unwrap_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/fixture.rs"]
mod fixture;
#[path = "support/records_file.rs"]
mod records_file;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use daemon::{Daemon, wait_for};
use records_file::{FILE, arrived};
use waystation::cli::simulate::Live;
use waystation::record::{Record, envelope, portable};

const SOME: Duration = Duration::from_secs(30);

fn queue(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waystation"));
    command.arg("queue").args(arguments).output().unwrap()
}

fn done(arguments: &[&str]) -> Output {
    let output = queue(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The format 1 fixture, in which the first 18 records are gone.
fn sample() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    fixture::copy(Path::new("tests/data/queue-format-1"), &dir.path().join("queue"));
    let path = text(&dir.path().join("queue")).to_owned();
    (dir, path)
}

fn records(exported: &[u8]) -> Vec<Record> {
    let mut input = BytesMut::from(exported);
    let records = std::iter::from_fn(|| portable::next(&mut input).unwrap()).collect();
    assert!(input.is_empty());
    records
}

#[test]
fn every_record_comes_out_once_and_as_it_was_in_each_form() {
    let (dir, path) = sample();
    let id = fs::read_to_string("tests/data/queue-format-1.id").unwrap();
    let found = records(&done(&["export", "--path", &path, "--output", "-"]).stdout);
    for (number, record) in (18..).zip(&found) {
        let origin = record.origin.unwrap();
        assert_eq!(origin.to_string(), format!("{}-{number}", id.trim()));
        let as_it_was = Record {
            origin: None,
            only: None,
            ..record.clone()
        };
        assert_eq!(as_it_was, fixture::record(number));
    }
    assert_eq!(found.len(), 42);

    let lines = done(&["export", "--path", &path, "--output", "-", "--format", "json"]).stdout;
    let lines = String::from_utf8(lines).unwrap();
    assert_eq!(lines.lines().count(), 42);
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first["record"], format!("{}-18", id.trim()));
    assert_eq!(first["txid"], "txid-18");

    let mut envelopes =
        Bytes::from(done(&["export", "--path", &path, "--output", "-", "--format", "envelopes"]).stdout);
    for number in 18..60 {
        let length = prost::encoding::decode_varint(&mut envelopes).unwrap();
        let message = envelope::read(&envelopes.split_to(length as usize)).unwrap();
        let envelope::Envelope::Stream(stream) = message else {
            panic!("not a stream: {message:?}");
        };
        let record = fixture::record(number);
        assert_eq!(
            (stream.payload, stream.device_id),
            (record.payload, record.vin.as_bytes().to_vec().into())
        );
    }
    assert!(envelopes.is_empty());

    let output = dir.path().join("all.bin");
    done(&["export", "--path", &path, "--output", text(&output)]);
    assert_eq!(records(&fs::read(&output).unwrap()), found);
    let again = queue(&["export", "--path", &path, "--output", text(&output)]);
    assert!(
        error(&again).contains("all.bin is there already; name another file"),
        "{again:?}"
    );
}

#[test]
fn records_are_chosen_by_vehicle_type_time_and_number() {
    let (_dir, path) = sample();
    let chosen = |arguments: &[&str]| {
        let output = done(&[&["export", "--path", &path, "--output", "-"], arguments].concat());
        let numbers = records(&output.stdout)
            .into_iter()
            .map(|record| record.origin.unwrap().number);
        numbers.collect::<Vec<_>>()
    };
    let all = 18..60_u64;
    let of = |third: u64| {
        all.clone()
            .filter(move |number| number % 3 == third)
            .collect::<Vec<_>>()
    };
    assert_eq!(chosen(&["--vin", "5YJ3E1EA7KF000001"]), of(1));
    assert_eq!(chosen(&["--vin", "5YJ3E1EA7KF00000"]), [0_u64; 0], "whole VINs");
    assert_eq!(chosen(&["--type", "alerts"]), [20, 30, 40, 50]);
    assert_eq!(
        chosen(&["--type", "alerts", "--type", "V"]),
        all.clone().collect::<Vec<_>>()
    );
    assert_eq!(chosen(&["--from", "37", "--to", "39"]), [37, 38, 39]);
    assert_eq!(chosen(&["--from", "60"]), [0_u64; 0]);
    let range = [
        "--since",
        "2023-11-14T22:13:20.025Z",
        "--until",
        "2023-11-14 22:13:20.028",
    ];
    assert_eq!(chosen(&range), [25, 26, 27]);
    let wrong = queue(&["export", "--path", &path, "--output", "-", "--since", "yesterday"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(error(&wrong).contains("write it as 2026-11-21T08:00:00Z"), "{wrong:?}");
}

#[test]
fn an_export_that_was_killed_goes_on_where_it_was() {
    let (dir, path) = sample();
    let output = dir.path().join("stick.bin");
    let arguments = ["export", "--path", &path, "--output", text(&output)];
    // A file that grows beyond 12 KiB ends the process at once.
    let killed = Command::new("bash")
        .args([
            "-c",
            "ulimit -c 0 -f 12; exec \"$@\"",
            "bash",
            env!("CARGO_BIN_EXE_waystation"),
            "queue",
        ])
        .args(arguments)
        .output()
        .unwrap();
    assert_eq!(killed.status.signal(), Some(25), "SIGXFSZ: {killed:?}");
    let progress = dir.path().join("stick.bin.progress");
    let before: serde_json::Value = serde_json::from_slice(&fs::read(&progress).unwrap()).unwrap();
    assert_eq!(before["records"], 18, "the first segment's are known to be there");

    let other = queue(&[&arguments[..], &["--type", "V"]].concat());
    assert!(
        error(&other).contains("from another queue or with other arguments"),
        "{other:?}"
    );
    let resumed = done(&arguments);
    assert!(error(&resumed).contains("going on at record"), "{resumed:?}");
    let found = records(&fs::read(&output).unwrap());
    let numbers = found.iter().map(|record| record.origin.unwrap().number);
    assert_eq!(numbers.collect::<Vec<_>>(), (18..60).collect::<Vec<_>>());
    assert!(!progress.exists());
}

#[test]
fn an_export_that_cannot_even_begin_leaves_nothing_behind() {
    let (dir, path) = sample();
    let output = dir.path().join("stick.bin");
    let arguments = ["export", "--path", &path, "--output", text(&output)];
    // In place of a full stick: what is remembered of it cannot be written.
    fs::create_dir(dir.path().join("stick.bin.progress.tmp")).unwrap();
    let failed = queue(&arguments);
    assert_eq!(failed.status.code(), Some(1));
    assert!(!output.exists(), "{failed:?}");
    fs::remove_dir(dir.path().join("stick.bin.progress.tmp")).unwrap();
    done(&arguments);
}

#[test]
fn an_export_that_was_killed_before_it_wrote_anything_begins_again() {
    let (dir, path) = sample();
    let output = dir.path().join("stick.bin");
    fs::write(&output, "").unwrap();
    done(&["export", "--path", &path, "--output", text(&output)]);
    let whole = done(&["export", "--path", &path, "--output", "-"]).stdout;
    assert_eq!(fs::read(output).unwrap(), whole);
}

#[test]
fn an_export_goes_to_devices_and_pipes_too() {
    let (_dir, path) = sample();
    let whole = done(&["export", "--path", &path, "--output", "-"]).stdout;
    let piped = done(&["export", "--path", &path, "--output", "/dev/stdout"]).stdout;
    assert_eq!(piped, whole);
    for _ in 0..2 {
        done(&["export", "--path", &path, "--output", "/dev/null"]);
        done(&["dead-letters", "export", "--path", &path, "--output", "/dev/null"]);
    }
    assert!(!Path::new("/dev/null.progress").exists());
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_comes_out() {
    let (dir, path) = sample();
    let damaged = dir.path().join("queue/segments/00000000000000000036.redb");
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[..4096].fill(0xff);
    fs::write(&damaged, &bytes).unwrap();
    let intact = done(&["export", "--path", &path, "--output", "-"]);
    assert_eq!(
        records(&intact.stdout).len(),
        42,
        "redb cannot open it, and each record is intact"
    );

    fs::write(damaged, b"no segment any more").unwrap();
    let output = queue(&["export", "--path", &path, "--output", "-"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(error(&output).contains("records 36 to 53 cannot be read"), "{output:?}");
    assert!(error(&output).contains("18 records cannot be read"), "{output:?}");
    assert_eq!(records(&output.stdout).len(), 24);
}

fn dead_upstream() -> String {
    format!(
        r#"
        [records]
        "*" = ["cloud"]
        [destinations.cloud]
        type = "mqtt"
        url = "mqtt://127.0.0.1:{}"
        topic_base = "fleet"
        "#,
        daemon::free_port()
    )
}

/// Record ids in the file of a daemon, with how often each is there.
fn counted(daemon: &Daemon) -> BTreeMap<String, usize> {
    let mut ids = BTreeMap::new();
    for id in arrived(daemon) {
        *ids.entry(id).or_default() += 1;
    }
    ids
}

#[test]
fn a_stick_carries_records_from_a_running_gateway_to_another() {
    let mut depot = Daemon::new(3, "", &dead_upstream());
    depot.start();
    let live = Arc::new(Live::default());
    let fleet = depot.drive(3, 300, 100.0, &live);
    let config = depot.path("config.toml");
    // While vehicles send.
    let early = depot.path("early.bin");
    wait_for("some records are committed", SOME, || {
        depot.status()["queue"]["committed"] != 0
    });
    let committed = depot.status()["queue"]["committed"].as_u64().unwrap();
    done(&["export", "--config", text(&config), "--output", text(&early)]);
    let early = records(&fs::read(early).unwrap());
    assert!(early.len() as u64 >= committed, "{} of {committed}", early.len());
    let early: Vec<_> = early.iter().map(|record| record.origin.unwrap().number).collect();
    assert_eq!(
        early,
        (0..early.len() as u64).collect::<Vec<_>>(),
        "each once, none left out"
    );
    let tallies = fleet.join().unwrap();
    let stick = depot.path("stick.bin");
    done(&["export", "--config", text(&config), "--output", text(&stick)]);
    let carried = records(&fs::read(&stick).unwrap());
    let mut txids: Vec<_> = carried
        .iter()
        .map(|record| String::from_utf8(record.txid.to_vec()).unwrap())
        .collect();
    txids.retain(|txid| tallies.iter().any(|vehicle| txid.starts_with(&vehicle.vin)));
    txids.sort();
    let acked = tallies.iter().flat_map(|vehicle| {
        let vin = vehicle.vin.clone();
        vehicle.acked.iter().map(move |number| format!("{vin}-{number}"))
    });
    let mut acked: Vec<_> = acked.collect();
    acked.sort();
    assert_eq!(txids, acked, "every acknowledged record, once");
    let ids: Vec<_> = carried
        .iter()
        .map(|record| record.origin.unwrap().to_string())
        .collect();

    let mut home = Daemon::new(1, "", FILE);
    home.start();
    let config = home.path("config.toml");
    let imported = done(&["import", "--config", text(&config), text(&stick)]);
    let words = String::from_utf8_lossy(&imported.stdout).into_owned();
    assert!(words.contains(&format!("{} records imported", ids.len())), "{words}");
    home.wait_drained("file", SOME);
    let once: BTreeMap<_, _> = ids.iter().map(|id| (id.clone(), 1)).collect();
    assert_eq!(counted(&home), once);
    let (status, _) = home.terminate();
    assert!(status.success());

    // And while no gateway runs: the same records again, by the same ids.
    done(&["import", "--config", text(&config), "--skip", "10", text(&stick)]);
    home.start();
    home.wait_drained("file", SOME);
    let twice = ids
        .iter()
        .enumerate()
        .map(|(at, id)| (id.clone(), if at < 10 { 1 } else { 2 }));
    assert_eq!(counted(&home), twice.collect());
}

#[test]
fn a_file_that_is_no_export_is_refused_and_what_was_whole_is_kept() {
    let (dir, path) = sample();
    let output = dir.path().join("stick.bin");
    done(&["export", "--path", &path, "--output", text(&output)]);
    let mut bytes = fs::read(&output).unwrap();
    bytes.truncate(bytes.len() - 5);
    fs::write(&output, bytes).unwrap();
    let mut daemon = Daemon::new(1, "", FILE);
    for runs in [false, true] {
        if runs {
            daemon.start();
        }
        let config = daemon.path("config.toml");
        let cut = queue(&["import", "--config", text(&config), text(&output)]);
        assert_eq!(cut.status.code(), Some(1));
        let words = error(&cut);
        assert!(
            words.contains("the last record is not whole") && words.contains("--skip 41"),
            "{words}"
        );
        let foreign = queue(&["import", "--config", text(&config), "Cargo.toml"]);
        assert!(error(&foreign).contains("Cargo.toml: at byte 0"), "{foreign:?}");
        let absent = queue(&["import", "--config", text(&config), "no-such-file"]);
        assert!(error(&absent).contains("no-such-file: No such file"), "{absent:?}");
        let folder = queue(&["import", "--config", text(&config), "tests"]);
        assert!(error(&folder).contains("tests: Is a directory"), "{folder:?}");
    }
    daemon.wait_drained("file", SOME);
    assert_eq!(arrived(&daemon).len(), 2 * 41);
}

#[test]
fn an_import_whose_gateway_is_gone_says_that_some_of_it_may_be_there() {
    let (_dir, path) = sample();
    let exported = done(&["export", "--path", &path, "--output", "-"]).stdout;
    let mut daemon = Daemon::new(1, "", FILE);
    daemon.start();
    let (config, pipe) = (daemon.path("config.toml"), daemon.path("stick.pipe"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let import = Command::new(env!("CARGO_BIN_EXE_waystation"))
        .args(["queue", "import", "--config", text(&config), text(&pipe)])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stick = fs::File::options().write(true).open(&pipe).unwrap();
    stick.write_all(&exported).unwrap();
    wait_for("they are delivered", SOME, || daemon.figure("file", "confirmed") == 42);
    daemon.kill_9();
    drop(stick);
    let broken = import.wait_with_output().unwrap();
    assert_eq!(broken.status.code(), Some(1));
    assert!(
        error(&broken).contains("the gateway gave no answer") && error(&broken).contains("some of its records may be"),
        "{broken:?}"
    );
}

#[test]
fn a_queue_that_has_been_delivered_gives_an_empty_export() {
    let mut daemon = Daemon::new(1, "", FILE);
    daemon.start();
    let live = Arc::new(Live::default());
    daemon.drive(1, 20, 0.0, &live).join().unwrap();
    // With the two connectivity records, the second of which comes when the vehicle has gone.
    wait_for("all are delivered", SOME, || daemon.figure("file", "confirmed") == 22);
    let (status, _) = daemon.terminate();
    assert!(status.success());
    let config = daemon.path("config.toml");
    let output = done(&["export", "--config", text(&config), "--output", "-"]);
    assert!(
        output.stdout.is_empty() && !error(&output).contains("cannot be read"),
        "{}",
        error(&output)
    );
    let late = done(&["export", "--config", text(&config), "--output", "-", "--from", "5"]);
    assert!(error(&late).contains("have left the queue"), "{late:?}");
}

#[test]
fn segments_under_each_others_names_are_exported_in_order() {
    let (dir, path) = sample();
    let segments = dir.path().join("queue/segments");
    let [first, second, spare] = ["00000000000000000018.redb", "00000000000000000036.redb", "spare"];
    for (from, to) in [(first, spare), (second, first), (spare, second)] {
        fs::rename(segments.join(from), segments.join(to)).unwrap();
    }
    let output = done(&["export", "--path", &path, "--output", "-"]);
    let numbers = records(&output.stdout)
        .into_iter()
        .map(|record| record.origin.unwrap().number);
    assert_eq!(numbers.collect::<Vec<_>>(), (18..60).collect::<Vec<_>>());
}

#[test]
fn an_interrupted_export_goes_on_only_in_its_own_queue_and_its_own_file() {
    let (dir, path) = sample();
    let output = dir.path().join("stick.bin");
    let arguments = ["export", "--path", &path, "--output", text(&output)];
    done(&arguments);
    let whole = fs::read(&output).unwrap();
    let progress = dir.path().join("stick.bin.progress");
    let id = fs::read_to_string("tests/data/queue-format-1.id").unwrap();
    let mut remembered = serde_json::json!({
        "queue": id.trim(), "format": "Protobuf", "next": 60, "bytes": whole.len(), "records": 42,
        "filter": {"vin": [], "types": [], "since": null, "until": null, "from": 0, "to": u64::MAX},
    });
    fs::write(&progress, remembered.to_string()).unwrap();
    fs::write(&output, &whole[..100]).unwrap();
    let shortened = queue(&arguments);
    assert!(error(&shortened).contains("is not what"), "{shortened:?}");
    fs::write(&output, &whole).unwrap();
    done(&arguments);
    assert_eq!(fs::read(&output).unwrap(), whole);

    remembered["queue"] = "0123456789abcdef0123456789abcdef".into();
    fs::write(&progress, remembered.to_string()).unwrap();
    let other = queue(&arguments);
    assert!(error(&other).contains("from another queue"), "{other:?}");
}

#[test]
fn an_import_without_a_gateway_drops_nothing_that_is_there() {
    let small = "max_bytes = \"5 MiB\"\nsegment_size = \"1 MiB\"\nwhen_full = \"drop-oldest\"";
    let mut daemon = Daemon::new(1, small, &dead_upstream());
    daemon.start();
    let live = Arc::new(Live::default());
    daemon.drive(1, 50, 0.0, &live).join().unwrap();
    let (status, _) = daemon.terminate();
    assert!(status.success());
    let mut bytes = Vec::new();
    for number in 0..1000 {
        let record = Record {
            payload: vec![7; 20_000].into(),
            ..fixture::record(number)
        };
        let queue = waystation::record::stored::QueueId([3; 16]);
        portable::append(
            &mut bytes,
            waystation::record::stored::RecordId { queue, number },
            &record,
        );
    }
    let stick = daemon.path("stick.bin");
    fs::write(&stick, bytes).unwrap();
    let config = daemon.path("config.toml");
    let full = queue(&["import", "--config", text(&config), text(&stick)]);
    assert_eq!(full.status.code(), Some(1), "{full:?}");
    assert!(
        error(&full).contains("the queue is full") && error(&full).contains("--skip"),
        "{full:?}"
    );
    let there = done(&["export", "--config", text(&config), "--output", "-"]);
    let own = records(&there.stdout)
        .into_iter()
        .filter(|record| record.origin.unwrap().queue.0 != [3; 16]);
    assert!(own.count() >= 50, "what was there is there");
}
