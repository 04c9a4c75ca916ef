//! Dead letters and their way back: what a destination refused is handed to it once more, and to nobody else.
#![allow(clippy::unwrap_used)]

#[path = "support/account.rs"]
mod account;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/fixture.rs"]
mod fixture;
#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/raw.rs"]
mod raw;

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use bytes::Bytes;
use daemon::{Daemon, wait_for};
use waystation::queue::{InspectError, Item, Queue, Retried, Settings, Step, walk_dead_letters};
use waystation::record::stored::RecordId;

const LONG: Duration = Duration::from_secs(60);

fn dead_letters(daemon: &Daemon, arguments: &[&str]) -> Output {
    let config = daemon.path("config.toml");
    Command::new(env!("CARGO_BIN_EXE_waystation"))
        .args(["queue", "dead-letters"])
        .args(arguments)
        .arg("--config")
        .arg(config)
        .output()
        .unwrap()
}

fn words(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn what_was_too_large_arrives_when_the_limit_is_raised_and_only_where_it_was_refused() {
    let cluster = kafka::cluster("fleet");
    let reading = kafka::Reading::new(&cluster, "fleet");
    let mut daemon = Daemon::new(
        1,
        "",
        &format!(
            r#"
            [records]
            V = ["cloud", "file"]
            [destinations.cloud]
            type = "kafka"
            namespace = "fleet"
            properties = {{ "bootstrap.servers" = "{}", "message.max.bytes" = 2000 }}
            [destinations.file]
            type = "log"
            path = "records.jsonl"
            "#,
            cluster.bootstrap_servers()
        ),
    );
    daemon.start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (txid, bytes) in [("first", 5000), ("small", 100), ("second\nforged \u{1b}[31m", 6000)] {
        let payload = raw::padded_vehicle_payload(bytes);
        runtime.block_on(raw::send_one(&daemon, "V", txid.as_bytes(), &payload));
    }
    daemon.wait_drained("cloud", LONG);
    daemon.wait_drained("file", LONG);
    let listed = words(&dead_letters(&daemon, &["list"]));
    assert!(listed.contains("2 dead letters"), "{listed}");
    assert!(listed.contains("more than message.max.bytes allows"), "{listed}");

    let log = daemon.log();
    assert!(log.contains(r"txid=second\nforged \u{1b}[31m"), "{log}");

    // Refused again, it is a dead letter again.
    assert_eq!(
        words(&dead_letters(&daemon, &["retry", "--number", "0"])),
        "1 are tried again, 0 stay\n"
    );
    wait_for("it is refused again", LONG, || daemon.figure("cloud", "refused") == 3);
    assert!(words(&dead_letters(&daemon, &["list"])).contains("2 dead letters"));

    let (status, _) = daemon.terminate();
    assert!(status.success());
    // In a copy of the queue: the original stays as it is.
    let copy = tempfile::tempdir().unwrap();
    fixture::copy(&daemon.path("queue"), copy.path());
    let in_copy = ["--path", copy.path().to_str().unwrap()];
    let retried = dead_letters(&daemon, &[&["retry", "--number", "1"], &in_copy[..]].concat());
    assert_eq!(words(&retried), "1 are tried again, 0 stay\n");
    let left = dead_letters(&daemon, &[&["list"], &in_copy[..]].concat());
    assert!(words(&left).contains("1 dead letters"));
    assert!(words(&dead_letters(&daemon, &["list"])).contains("2 dead letters"));
    // A queue that is not there leaves no file behind.
    let output = daemon.path("letters.jsonl");
    let nowhere = daemon.path("no-such-queue");
    let missed = dead_letters(
        &daemon,
        &[
            "export",
            "--path",
            nowhere.to_str().unwrap(),
            "--output",
            output.to_str().unwrap(),
        ],
    );
    assert!(!missed.status.success() && !output.exists(), "{missed:?}");

    daemon.edit("\"message.max.bytes\" = 2000", "\"message.max.bytes\" = 1000000");
    // While no gateway runs, and while one does.
    assert_eq!(
        words(&dead_letters(&daemon, &["retry", "--number", "1"])),
        "1 are tried again, 0 stay\n"
    );
    daemon.start();
    assert_eq!(
        words(&dead_letters(&daemon, &["retry", "--origin", "cloud"])),
        "1 are tried again, 0 stay\n"
    );
    let unknown = dead_letters(&daemon, &["retry", "--number", "1"]);
    let error = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(
        error.contains("there is no dead letter 1 among those chosen"),
        "{error}"
    );
    assert_eq!(words(&dead_letters(&daemon, &["list"])), "0 dead letters, 0 bytes\n");

    wait_for("all three are there", LONG, || reading.messages().len() == 3);
    daemon.wait_drained("file", LONG);
    let in_file: Vec<_> = fs::read_to_string(daemon.path("records.jsonl"))
        .unwrap()
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            (
                line["txid"].as_str().unwrap().to_owned(),
                line["record"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    assert_eq!(in_file.len(), 3, "nothing came to the file twice: {in_file:?}");
    for message in reading.messages() {
        let id = (message.header("txid"), message.header("record"));
        assert!(
            in_file.contains(&id),
            "{id:?} in {in_file:?}: the id that it always had"
        );
    }
}

#[tokio::test]
async fn what_is_no_record_or_nobodys_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, writer) = Queue::open(dir.path(), fixture::SETTINGS).unwrap();
    queue.register("left", true);
    let letter = |origin, record| fixture::letter(origin, record, Bytes::from_static(b"raw"));
    let id = RecordId {
        queue: queue.id(),
        number: 9,
    };
    let mut submitter = queue.submitter();
    for letter in [
        letter("listener", None),
        letter("gone", Some(id)),
        letter("left", Some(id)),
        letter("cloud", Some(id)),
    ] {
        submitter.store(Item::DeadLetter(letter)).await.unwrap();
    }
    drop((submitter, queue));
    tokio::task::spawn_blocking(|| writer.close()).await.unwrap().unwrap();
    // One that keeps its place and is configured no longer, and one that never had a place.
    let (queue, writer) = Queue::open(dir.path(), fixture::SETTINGS).unwrap();
    queue.register("cloud", true);
    for records in [1, 0] {
        let expected = Retried {
            records,
            stay: 3,
            unconfigured: [("gone".to_owned(), 1), ("left".to_owned(), 1)].into(),
        };
        assert_eq!(queue.retry((0..4).collect()).await.unwrap(), expected);
    }
    let mut reader = queue.reader("cloud");
    let batch = reader.next(1 << 20).await.unwrap();
    let [record] = &batch.records[..] else {
        panic!("{batch:?}")
    };
    assert_eq!((record.stable_id(), record.record.only.as_deref()), (id, Some("cloud")));
    drop(reader);
    tokio::task::spawn_blocking(|| writer.close()).await.unwrap().unwrap();
}

#[tokio::test]
async fn letters_that_became_records_before_the_queue_was_full_are_letters_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        max_bytes: 5 << 20,
        dead_letter_bytes: 64 << 20,
        segment_size: 1 << 20,
        ..fixture::SETTINGS
    };
    let (queue, writer) = Queue::open(dir.path(), settings).unwrap();
    queue.register("cloud", true);
    let mut submitter = queue.submitter();
    const LETTERS: u64 = 300;
    for number in 0..LETTERS {
        let record = Some(RecordId {
            queue: queue.id(),
            number,
        });
        let letter = fixture::letter("cloud", record, vec![1; 50_000]);
        submitter.store(Item::DeadLetter(letter)).await.unwrap();
    }
    let refused = queue.retry((0..LETTERS).collect()).await.unwrap_err();
    assert!(refused.to_string().contains("full"), "{refused}");
    let stored = queue.backlog(queue.cursor("cloud"));
    let left = std::cell::Cell::new(0);
    tokio::task::spawn_blocking(|| writer.close()).await.unwrap().unwrap();
    walk_dead_letters::<InspectError>(dir.path(), u64::MAX, |step| {
        if let Step::Found(_) = step {
            left.set(left.get() + 1);
        }
        Ok(())
    })
    .unwrap();
    assert!(stored > 10 && left.get() > 10, "{stored} {}", left.get());
    assert_eq!(stored + left.get(), LETTERS);
}

#[tokio::test]
async fn a_record_is_read_again_by_its_number_until_it_is_erased() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, writer) = Queue::open(dir.path(), fixture::SETTINGS).unwrap();
    queue.register("cloud", true);
    let mut submitter = queue.submitter();
    for number in 0..20 {
        submitter.store(Item::Record(fixture::record(number))).await.unwrap();
    }
    for number in [0, 7, 19] {
        let found = queue.record("cloud", number).await.unwrap().unwrap();
        assert_eq!((found.id.number, found.record), (number, fixture::record(number)));
    }
    let vin = fixture::record(7).vin;
    assert!(queue.purge(&vin).await.unwrap().records > 0);
    assert!(queue.record("cloud", 7).await.unwrap().is_none());
    assert!(queue.record("cloud", 20).await.unwrap().is_none(), "not there yet");
    drop(submitter);
    tokio::task::spawn_blocking(|| writer.close()).await.unwrap().unwrap();
}
