//! What the queue keeps: the limits change while the gateway runs, what is dropped is counted and named, and no clock
//! makes a record older.
#![allow(clippy::unwrap_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/faketime.rs"]
mod faketime;
#[path = "support/mosquitto.rs"]
mod mosquitto;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/raw.rs"]
mod raw;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use daemon::{Daemon, wait_for};
use faketime::Clock;
use mosquitto::{Mosquitto, Subscriber};
use proxy::Proxy;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use waystation::cli::simulate::Live;
use waystation::queue::{Item, Queue, RealDisk, Settings, WhenFull};
use waystation::record::Record;

const SOME: Duration = Duration::from_secs(30);

/// A gateway whose broker is away behind a closed proxy.
struct Cut {
    subscriber: Subscriber,
    proxy: Proxy,
    daemon: Daemon,
    runtime: tokio::runtime::Runtime,
    _broker: Mosquitto,
}

impl Cut {
    fn new(queue: &str) -> Self {
        let mut broker = Mosquitto::new();
        broker.start();
        let proxy = Proxy::new(broker.port);
        Self {
            subscriber: Subscriber::new(broker.port, "fleet/#"),
            daemon: Daemon::new(
                2,
                &format!("commit_delay = \"1ms\"\n{queue}"),
                &mosquitto::everything_to(proxy.port),
            ),
            proxy,
            runtime: tokio::runtime::Runtime::new().unwrap(),
            _broker: broker,
        }
    }

    /// Records of 20 kB: how many are acknowledged, and how the gateway ended it, if it did.
    fn send(&self, most: u64) -> (u64, Option<CloseCode>) {
        let sent = raw::send(&self.daemon, 1, "raw", &[7; 20_000], most);
        self.runtime.block_on(sent)
    }

    fn is_full(&self) -> bool {
        self.daemon.status()["queue"]["full"].as_bool().unwrap()
    }

    fn dropped(&self) -> u64 {
        self.daemon.figure("broker", "dropped")
    }

    /// Numbers of the records that have arrived, in the order of arrival.
    fn arrived(&self) -> Vec<u64> {
        let number = |message: &mosquitto::Received| {
            let id = message.property("record").rsplit_once('-').unwrap().1.to_owned();
            id.parse().unwrap()
        };
        self.subscriber.messages().iter().map(number).collect()
    }

    /// The upstream is back: what it gets.
    fn drain(&mut self, records: u64) -> Vec<u64> {
        self.proxy.open();
        wait_for("what is left has arrived", SOME, || {
            self.arrived().len() as u64 >= records
        });
        self.daemon.wait_drained("broker", SOME);
        let (status, _) = self.daemon.terminate();
        assert!(status.success(), "{status}");
        self.arrived()
    }
}

#[test]
fn drop_oldest_refuses_nobody_and_says_what_went() {
    let mut cut = Cut::new("max_bytes = \"5 MiB\"\nsegment_size = \"1 MiB\"\nwhen_full = \"drop-oldest\"");
    cut.daemon.start();
    let (stored, code) = cut.send(500);
    assert_eq!((stored, code), (500, None));
    assert!(!cut.is_full());
    assert!(cut.daemon.status()["queue"]["disk_bytes"].as_u64().unwrap() <= 5 << 20);
    let dropped = cut.dropped();
    // 10 MB came, at most 5 MiB are there, and not much less.
    assert!((250..420).contains(&dropped), "{dropped}");
    let metric = format!("waystation_dropped_records_total{{destination=\"broker\"}} {dropped}");
    assert!(cut.daemon.metrics().contains(&metric), "{}", cut.daemon.metrics());
    let log = cut.daemon.log();
    let last = format!("to={} ", dropped - 1);
    let named = |line: &str| line.contains("ERROR") && line.contains("records dropped") && line.contains(&last);
    assert!(log.lines().any(named), "{last} in\n{log}");
    let arrived = cut.drain(500 - dropped);
    assert_eq!(arrived, (dropped..arrived.last().unwrap() + 1).collect::<Vec<_>>());
    // What it says of the connection itself included.
    assert!(arrived.len() as u64 >= 500 - dropped);
}

#[test]
fn limits_change_while_it_runs() {
    let mut cut =
        Cut::new("max_bytes = \"5 MiB\"\nsegment_size = \"1 MiB\"\nkeep_free = \"1 MiB\"\nwhen_full = \"refuse\"");
    cut.daemon.start();
    let (first, code) = cut.send(500);
    assert_eq!(code, Some(CloseCode::Again), "after {first}");
    assert!(cut.is_full());

    cut.daemon.edit("max_bytes = \"5 MiB\"", "max_bytes = \"100 MiB\"");
    let said = cut.daemon.reload();
    assert!(said.contains("INFO configuration reloaded"), "{said}");
    assert!(!cut.is_full(), "the change is in force when the reload is done");
    let (second, code) = cut.send(50);
    assert_eq!((second, code), (50, None));

    cut.daemon.edit("keep_free = \"1 MiB\"", "keep_free = \"100000 GiB\"");
    cut.daemon.reload();
    assert!(cut.is_full());
    let status = cut.daemon.status();
    let reason = status["queue"]["full_reason"].as_str().unwrap();
    assert!(reason.contains("queue.keep_free is 107374182400000"), "{reason}");

    cut.daemon.edit("keep_free = \"100000 GiB\"", "keep_free = \"1 MiB\"");
    cut.daemon.edit("max_bytes = \"100 MiB\"", "max_bytes = \"5 MiB\"");
    cut.daemon.edit("\"refuse\"", "\"drop-oldest\"");
    cut.daemon.reload();
    let (third, code) = cut.send(50);
    assert_eq!((third, code), (50, None), "the oldest make room");
    let dropped = cut.dropped();
    assert!(dropped > 0);
    assert!(cut.daemon.status()["queue"]["disk_bytes"].as_u64().unwrap() <= 5 << 20);

    let all = first + second + third;
    let arrived = cut.drain(all - dropped);
    assert_eq!(arrived, (dropped..arrived.last().unwrap() + 1).collect::<Vec<_>>());
}

#[test]
fn a_reload_is_taken_whole_or_not_at_all_and_nobody_is_disconnected() {
    let mut cut = Cut::new("max_bytes = \"200 MiB\"");
    cut.daemon.start();
    let live = Arc::new(Live::default());
    let fleet = cut.daemon.drive(2, 300, 100.0, &live);
    wait_for("the fleet has acks", SOME, || live.totals().2 >= 20);

    cut.daemon.edit("\"200 MiB\"", "\"lots\"");
    let said = cut.daemon.reload();
    assert!(
        said.contains("ERROR not reloaded, everything stays as it was"),
        "{said}"
    );
    assert!(said.contains("queue.max_bytes: \"lots\""), "{said}");

    cut.daemon.edit("\"lots\"", "\"300 MiB\"");
    fs::rename(cut.daemon.path("server.key"), cut.daemon.path("kept.key")).unwrap();
    let said = cut.daemon.reload();
    assert!(said.contains("not reloaded") && said.contains("server.key"), "{said}");

    fs::rename(cut.daemon.path("kept.key"), cut.daemon.path("server.key")).unwrap();
    cut.daemon.edit("topic_base = \"fleet\"", "topic_base = \"other\"");
    for _ in 0..2 {
        let said = cut.daemon.reload();
        assert!(
            said.contains("WARN configuration reloaded") && said.contains("destinations"),
            "{said}"
        );
    }
    let tallies = fleet.join().unwrap();
    for vehicle in &tallies {
        assert_eq!((vehicle.connections, vehicle.acked.len()), (1, 300));
    }
    assert!(
        cut.drain(600).len() >= 600,
        "under the topics that were configured at the start"
    );
}

#[test]
fn clocks_that_step_by_years_drop_nothing() {
    let mut cut = Cut::new("max_age = \"1h\"\nsegment_size = \"1 MiB\"");
    let clock = Clock::new(&mut cut.daemon);
    cut.daemon.start();
    let (stored, _) = cut.send(150);
    let backlog = stored + 2;
    wait_for("its two connectivity records are there", SOME, || {
        cut.daemon.figure("broker", "backlog") == backlog
    });
    assert!(cut.daemon.status()["queue"]["segments"].as_u64().unwrap() >= 2);
    for offset in ["+10y", "-20y", "+3y"] {
        clock.step(offset);
        // A reload ends with a turn of the housekeeping.
        cut.daemon.reload();
        assert_eq!(
            (cut.dropped(), cut.daemon.figure("broker", "backlog")),
            (0, backlog),
            "{offset}"
        );
        cut.daemon.kill_9();
        cut.daemon.start();
        assert_eq!(
            (cut.dropped(), cut.daemon.figure("broker", "backlog")),
            (0, backlog),
            "{offset}"
        );
    }
    clock.step("+0");
    let arrived = cut.drain(backlog);
    assert_eq!(arrived.len() as u64, backlog);
}

#[test]
fn the_newest_record_grows_too_old_though_none_follows_it() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let max_age = Duration::from_secs(3);
    let open = || {
        let settings = Settings {
            max_bytes: 64 << 20,
            segment_size: 1 << 20,
            commit_delay: Duration::ZERO,
            dead_letter_bytes: 1 << 20,
            keep_free: 0,
            when_full: WhenFull::Refuse,
            max_age: Some(max_age),
            duplicate_window: 0,
        };
        let (queue, writer) = Queue::open_on(&(Arc::new(RealDisk) as _), dir.path(), settings).unwrap();
        queue.register("cloud", true);
        (queue, writer)
    };
    let record = |n: u64| {
        Item::Record(Record {
            vin: "5YJ3E1EA7KF000001".into(),
            record_type: "V".into(),
            txid: Bytes::from(n.to_string()),
            received_at: n,
            client_version: "1".into(),
            payload: vec![7; 300].into(),
            origin: None,
            only: None,
        })
    };
    let (queue, mut writer) = open();
    runtime.block_on(queue.submitter().submit(record(0))).unwrap();
    writer.turn(Instant::now()).unwrap();
    writer.finish().unwrap();
    drop((queue, writer));
    // What a start finds counts as no older than the start.
    let (queue, mut writer) = open();
    writer.housekeep().unwrap();
    assert_eq!((queue.snapshot().segments, queue.dropped("cloud")), (1, 0));

    let begun = Instant::now();
    runtime.block_on(queue.submitter().submit(record(1))).unwrap();
    writer.turn(Instant::now()).unwrap();
    while queue.dropped("cloud") < 2 && begun.elapsed() < SOME {
        std::thread::sleep(Duration::from_millis(50));
        writer.housekeep().unwrap();
    }
    assert!(begun.elapsed() >= max_age);
    assert_eq!((queue.snapshot().segments, queue.dropped("cloud")), (0, 2));
    assert_eq!(queue.backlog(queue.cursor("cloud")), 0);
}
