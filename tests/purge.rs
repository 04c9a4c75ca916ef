//! `waystation queue purge`: nothing of a vehicle is left in any file, and nothing of the others is lost.
#![allow(clippy::unwrap_used)]

#[path = "support/account.rs"]
mod account;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/fixture.rs"]
mod fixture;
#[path = "support/mosquitto.rs"]
mod mosquitto;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/records_file.rs"]
mod records_file;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use account::account;
use daemon::{Daemon, wait_for};
use mosquitto::{Mosquitto, Subscriber};
use proxy::Proxy;
use records_file::{FILE, arrived};
use waystation::cli::simulate::Live;
use waystation::queue::{Item, Queue};

const SOME: Duration = Duration::from_secs(60);
const VIN: &str = "5YJ3E1EA7KF000001";

fn queue(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waystation"));
    command.arg("queue").args(arguments).output().unwrap()
}

fn purge(daemon: &Daemon, vin: &str) -> serde_json::Value {
    let config = daemon.path("config.toml");
    let output = queue(&["purge", "--config", config.to_str().unwrap(), "--vin", vin, "--json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Files below a directory in which these bytes are, wherever they lie.
fn holding(dir: &Path, bytes: &[u8]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, bytes));
        } else if path.is_file()
            && fs::read(&path)
                .unwrap()
                .windows(bytes.len())
                .any(|window| window == bytes)
        {
            found.insert(path);
        }
    }
    found
}

#[test]
fn a_search_of_the_files_finds_nothing_afterwards_and_the_rest_is_as_it_was() {
    let mut daemon = Daemon::new(1, "", FILE);
    let dir = daemon.path("queue");
    fixture::copy(Path::new("tests/data/queue-format-1"), &dir);
    // A segment that redb cannot read, one that was set aside like that, and a directory that was.
    let damaged = dir.join("segments/00000000000000000036.redb");
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[..4096].fill(0xff);
    fs::write(&damaged, &bytes).unwrap();
    fs::create_dir_all(dir.join("quarantine/folder.1")).unwrap();
    fs::write(dir.join("quarantine/00000000000000000036.redb.1"), &bytes).unwrap();
    fs::write(dir.join("quarantine/folder.1/notes"), format!("about {VIN}")).unwrap();
    // What stayed beside the others, for want of space for the quarantine.
    fs::write(dir.join("dead-letters/notes.aside.1"), format!("about {VIN}")).unwrap();
    // To open a pipe would be to wait for whoever writes to it.
    let pipe = dir.join("pipe.aside.1");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::create_dir_all(dir.join("quarantine.aside.2")).unwrap();
    fs::write(dir.join("quarantine.aside.2/notes"), format!("about {VIN}")).unwrap();
    assert!(
        holding(&dir, VIN.as_bytes()).len() >= 5,
        "{:?}",
        holding(&dir, VIN.as_bytes())
    );

    let purged = purge(&daemon, VIN);
    assert_eq!(holding(&dir, VIN.as_bytes()), BTreeSet::new());
    // Of 18 to 59 every third.
    assert_eq!(purged["records"], 14, "{purged}");
    assert_eq!(purged["dead_letters"], 1, "{purged}");
    assert_eq!(purged["quarantined"], 6, "{purged}");
    let again = purge(&daemon, VIN);
    assert_eq!((&again["records"], &again["dead_letters"]), (&0.into(), &0.into()));

    let others = format!("{}2", &VIN[..VIN.len() - 1]);
    let aside = dir.join("quarantine/00000000000000000036.redb.1");
    assert!(
        holding(&dir, others.as_bytes()).contains(&aside),
        "what was set aside of others is there still"
    );
    let verified = queue(&["verify", "--path", dir.to_str().unwrap()]);
    assert!(verified.status.success(), "{verified:?}");

    daemon.start();
    daemon.wait_drained("file", SOME);
    let rest: Vec<_> = (18..60).filter(|number| number % 3 != 1).collect();
    let number = |id: &String| id.rsplit_once('-').unwrap().1.parse::<u64>().unwrap();
    assert_eq!(arrived(&daemon).iter().map(number).collect::<Vec<_>>(), rest);
    assert_eq!(daemon.status()["queue"]["lost"], 0, "{}", daemon.log());
    assert!(!daemon.log().contains("ERROR"));
}

#[test]
fn segments_under_each_others_names_lose_only_the_vehicles_records() {
    let daemon = Daemon::new(1, "", FILE);
    let dir = daemon.path("queue");
    fixture::copy(Path::new("tests/data/queue-format-1"), &dir);
    let segments = dir.join("segments");
    let [first, second, spare] = ["00000000000000000018.redb", "00000000000000000036.redb", "spare"];
    for (from, to) in [(first, spare), (second, first), (spare, second)] {
        fs::rename(segments.join(from), segments.join(to)).unwrap();
    }
    // Nothing that can be read, and no file at all.
    fs::create_dir_all(dir.join("quarantine")).unwrap();
    fs::write(dir.join("quarantine/notes"), format!("about {VIN}")).unwrap();
    let made = Command::new("mkfifo")
        .arg(dir.join("quarantine/pipe"))
        .status()
        .unwrap();
    assert!(made.success());
    let purged = purge(&daemon, VIN);
    assert_eq!(purged["records"], 14, "{purged}");
    assert_eq!(purged["removed"].as_array().unwrap().len(), 1, "the notes: {purged}");
    assert_eq!(holding(&dir, VIN.as_bytes()), BTreeSet::new());
    let verified = queue(&["verify", "--path", dir.to_str().unwrap(), "--json"]);
    assert!(verified.status.success(), "{verified:?}");
    let verified: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(verified["records"], 42, "erased ones keep their numbers: {verified}");
}

#[tokio::test]
async fn the_first_record_of_all_can_be_erased_and_a_later_purge_keeps_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, writer) = Queue::open(dir.path(), fixture::SETTINGS).unwrap();
    queue.register("home", true);
    let mut submitter = queue.submitter();
    for number in 0..6 {
        submitter.store(Item::Record(fixture::record(number))).await.unwrap();
    }
    for vin in ["5YJ3E1EA7KF000000", VIN] {
        assert_eq!(queue.purge(vin).await.unwrap().records, 2);
    }
    let mut reader = queue.reader("home");
    let mut numbers = Vec::new();
    while reader.position() < 6 {
        numbers.extend(
            reader
                .next(1 << 20)
                .await
                .unwrap()
                .records
                .iter()
                .map(|queued| queued.id.number),
        );
    }
    assert_eq!(numbers, [2, 5]);
    assert_eq!(queue.snapshot().lost, 0);
    drop(reader);
    tokio::task::spawn_blocking(|| writer.close()).await.unwrap().unwrap();
}

#[test]
fn a_running_gateway_goes_on_meanwhile() {
    let mut broker = Mosquitto::new();
    broker.start();
    let subscriber = Subscriber::new(broker.port, "fleet/#");
    let proxy = Proxy::new(broker.port);
    let mut daemon = Daemon::new(
        6,
        "segment_size = \"1 MiB\"\nmax_bytes = \"1 GiB\"",
        &mosquitto::everything_to(proxy.port),
    );
    daemon.start();
    let live = Arc::new(Live::default());
    let early = daemon.drive(3, 2000, 0.0, &live).join().unwrap();
    let vin = early[1].vin.clone();
    let dir = daemon.path("queue");
    assert!(holding(&dir.join("segments"), vin.as_bytes()).len() > 1);

    // Others send while their records are being rewritten; the purged one has disconnected.
    let others: Vec<_> = early
        .iter()
        .map(|vehicle| vehicle.vin.clone())
        .filter(|other| *other != vin)
        .collect();
    fs::rename(daemon.path(&format!("vehicles/{vin}.pem")), daemon.path("gone.pem")).unwrap();
    fs::rename(daemon.path(&format!("vehicles/{vin}.key")), daemon.path("gone.key")).unwrap();
    let late = daemon.drive(5, 300, 200.0, &live);
    wait_for("they send", SOME, || live.totals().2 > 6000);
    let purged = purge(&daemon, &vin);
    assert!(purged["records"].as_u64().unwrap() >= 2000, "{purged}");
    assert_eq!(holding(&dir, vin.as_bytes()), BTreeSet::new());
    let late = late.join().unwrap();

    proxy.open();
    daemon.wait_drained("broker", SOME);
    let tallies: Vec<_> = early
        .iter()
        .filter(|vehicle| others.contains(&vehicle.vin))
        .cloned()
        .collect();
    let settle = |tallies: &[_]| {
        let ids = |message: &mosquitto::Received| (message.property("txid").to_owned(), String::new());
        account(tallies, subscriber.messages().iter().map(ids))
    };
    wait_for("the others' records have arrived", SOME, || {
        settle(&tallies).lost == 0 && settle(&late).lost == 0
    });
    assert_eq!(
        subscriber
            .messages()
            .iter()
            .filter(|message| message.topic.contains(&vin))
            .count(),
        0
    );
    assert_eq!(daemon.status()["queue"]["lost"], 0, "{}", daemon.log());
    let (status, _) = daemon.terminate();
    assert!(status.success(), "{status}");
    assert_eq!(holding(&dir, vin.as_bytes()), BTreeSet::new());
}

#[test]
fn a_reader_that_has_the_old_file_open_does_not_go_on_in_it() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    fixture::copy(Path::new("tests/data/queue-format-1"), dir.path());
    runtime.block_on(async {
        let (queue, writer) = Queue::open(dir.path(), fixture::SETTINGS).unwrap();
        queue.register("new", true);
        let mut reader = queue.reader("new");
        let first = reader.next(1).await.unwrap();
        assert!(first.end < 36, "there is more in this segment");
        queue.purge(VIN).await.unwrap();
        while reader.position() < 60 {
            let batch = reader.next(1).await.unwrap();
            assert!(batch.records.iter().all(|queued| &*queued.record.vin != VIN));
        }
        drop(reader);
        tokio::task::spawn_blocking(|| writer.close()).await.unwrap().unwrap();
    });
}
