//! A queue that grows while everything upstream is down: memory, the vehicles' latency, and the time to start again.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use waystation::queue::{Item, Queue};

use crate::Bench;
use crate::commits::{Records, SETTINGS};
use crate::daemon::wait_for;
use crate::disk::{come_to_rest, slowest_sync};
use crate::load::Load;
use crate::process::{Gateway, Process, Setup, Side, Vehicles, role};
use crate::report::{Row, Target};

const QUEUE: &str = "max_bytes = \"100 GiB\"\nkeep_free = \"1 MiB\"";
/// Kafka where nobody listens.
const DOWN: &str = r#"
[records]
V = ["cloud"]
[destinations.cloud]
type = "kafka"
namespace = "bench"
properties = { "bootstrap.servers" = "127.0.0.1:1" }
"#;
const MANY: u64 = 10_000_000;
/// Records that take so much on the disk.
const ONE_GIGABYTE: u64 = 1_400_000;
const TEN_GIGABYTES: u64 = 14_500_000;

/// The queue of this length, in its folder; it is made longer step by step.
pub(crate) fn fill(dir: &Path, until: u64) {
    let queue = dir.join("queue");
    let words = [queue.to_str().expect("a path that is text"), &until.to_string()];
    let mut child = role(Side::Load, "fill", &words).spawn().expect("this executable");
    assert!(
        child.wait().expect("it was started here").success(),
        "the queue could not be filled"
    );
}

/// A process of its own: it adds records until the queue has so many.
pub(crate) fn run_fill(dir: &Path, until: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let (queue, writer) = Queue::open(dir, SETTINGS).expect("a queue");
    queue.register("cloud", true);
    let mut submitter = queue.submitter();
    let mut records = Records::new();
    let held = queue.backlog(queue.cursor("cloud"));
    runtime.block_on(async {
        for number in held..until {
            let ticket = submitter
                .submit(Item::Record(records.record(number)))
                .await
                .expect("there is room");
            if ticket % 2_000 == 1_999 {
                submitter.advanced(ticket - 1_999).await.expect("the disk works");
            }
        }
    });
    writer.close().expect("the disk works");
}

pub(crate) fn measure(bench: &Bench) -> Vec<Row> {
    let dir = bench.folder("backlog");
    let mut rows = Vec::new();
    let (mut idle, mut connected) = (vec![], vec![]);
    let (mut empty_p99, mut full_p99, mut full) = (vec![], vec![], vec![]);
    for _ in 0..bench.rounds {
        let (bare, with_vehicles) = memory(bench, &bench.folder("empty"));
        idle.push(bare);
        connected.push(with_vehicles);
    }
    let quick = slowest_sync(&bench.folder("rest"));
    fill(&dir, MANY);
    come_to_rest(&bench.folder("rest"), quick);
    for _ in 0..bench.rounds {
        full.push(memory(bench, &dir).1);
    }
    // What the slowest of a hundred acks meet is the disk's chance: more rounds, so that it is the same for both.
    for _ in 0..3 * bench.rounds {
        empty_p99.push(p99(bench, &bench.folder("empty")));
        full_p99.push(p99(bench, &dir));
        eprintln!(
            "  p99 {:?} ms with an empty queue, {:?} ms with {MANY} records",
            empty_p99.last(),
            full_p99.last()
        );
    }
    let small = bench.folder("small");
    fill(&dir, TEN_GIGABYTES);
    fill(&small, ONE_GIGABYTE);
    come_to_rest(&bench.folder("rest"), quick);
    let (mut one, mut ten) = (Starts::default(), Starts::default());
    for _ in 0..3 * bench.rounds {
        one.add(bench, &small);
        ten.add(bench, &dir);
    }
    for dir in [small, dir] {
        fs::remove_dir_all(&dir).expect("it is ours");
    }

    rows.push(Row::plain(
        "backlog.idle",
        "resident memory, idle",
        "MB",
        &idle,
        Target::AtMost(12.0),
    ));
    rows.push(Row::plain(
        "backlog.thousand",
        "resident memory, 1,000 idle vehicles",
        "MB",
        &connected,
        Target::AtMost(36.0),
    ));
    let more: Vec<_> = full
        .iter()
        .zip(&connected)
        .map(|(full, connected)| full - connected)
        .collect();
    rows.push(Row::plain(
        "backlog.full",
        "more than that with 10 million records queued",
        "MB",
        &more,
        Target::AtMost(8.0),
    ));
    let figure = "ack latency p99 at 1,000 records/s, everything upstream down and 10 million records queued";
    rows.push(Row::ratio(
        "backlog.p99",
        figure,
        "ms",
        &full_p99,
        ("an empty queue", &empty_p99),
        Target::AtMost(1.2),
    ));
    for (name, id, starts) in [("1 GB", "backlog.start_1", &one), ("10 GB", "backlog.start_10", &ten)] {
        let figure = format!("from exec to READY after SIGKILL in mid-write, cold cache, {name} queued");
        rows.push(Row::plain(id, figure, "s", &starts.ready, Target::AtMost(2.0)));
        let segment = ("reading one segment, cold cache", starts.segment.as_slice());
        let beside = format!("{id}.segment");
        rows.push(Row::ratio(
            &beside,
            "the same",
            "s",
            &starts.ready,
            segment,
            Target::None,
        ));
    }
    // Flat, as far as a tenth of a second can be told from another.
    rows.push(Row::ratio(
        "backlog.start_flat",
        "10 GB of that",
        "s",
        &ten.ready,
        ("1 GB", &one.ready),
        Target::AtMost(1.5),
    ));
    rows
}

fn setup<'a>(bench: &'a Bench, dir: &'a Path) -> Setup<'a> {
    Setup {
        pki: &bench.pki,
        dir,
        queue: QUEUE,
        rest: DOWN,
    }
}

/// Megabytes of a gateway, and of it with a thousand vehicles that say nothing.
fn memory(bench: &Bench, dir: &Path) -> (f64, f64) {
    let gateway = Gateway::start(&setup(bench, dir));
    let settle = || std::thread::sleep(Duration::from_secs(2));
    settle();
    let bare = gateway.process.memory() / 1e6;
    let vehicles = Vehicles::connect(&load(bench, gateway.port, 1_000, 0.0, 3_600.0));
    settle();
    let connected = gateway.process.memory() / 1e6;
    drop(vehicles);
    gateway.process.end();
    eprintln!("  {bare:.1} MB, with 1,000 vehicles {connected:.1} MB");
    (bare, connected)
}

fn load(bench: &Bench, port: u16, vehicles: usize, rate: f64, seconds: f64) -> Load {
    Load {
        pki: bench.pki.clone(),
        port,
        vehicles,
        window: 64,
        rate: Some(rate),
        warm_up: 1.0,
        seconds,
        payload: 600,
        feed: None,
    }
}

fn p99(bench: &Bench, dir: &Path) -> f64 {
    let gateway = Gateway::start(&setup(bench, dir));
    let loaded = Vehicles::connect(&load(bench, gateway.port, 100, 1_000.0, 8.0)).arrive();
    gateway.process.end();
    loaded.p99
}

#[derive(Default)]
struct Starts {
    ready: Vec<f64>,
    segment: Vec<f64>,
}

impl Starts {
    /// One after a SIGKILL in mid-write.
    fn add(&mut self, bench: &Bench, dir: &Path) {
        let gateway = Gateway::start(&setup(bench, dir));
        let vehicles = Vehicles::connect_silent(&load(bench, gateway.port, 100, 5_000.0, 3_600.0));
        let before = gateway.metric("waystation_commits_total");
        wait_for("it is in the middle of writing", Duration::from_secs(20), || {
            gateway.metric("waystation_commits_total") > before + 50.0
        });
        gateway.process.signal(Signal::KILL);
        drop(gateway);
        drop(vehicles);
        let segment = read_cold(&oldest_segment(dir));
        forget(dir);
        let ready = start_cold(bench, dir);
        eprintln!("  ready after {ready:.3} s, one segment read in {segment:.3} s");
        self.ready.push(ready);
        self.segment.push(segment);
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("it is there");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    paths.sort();
    paths
}

fn oldest_segment(dir: &Path) -> PathBuf {
    let segments = files(&dir.join("queue/segments"));
    segments.into_iter().next().expect("there are records")
}

/// Nothing of these files is in memory any more, nor of the program.
fn forget(dir: &Path) {
    rustix::fs::sync();
    let queue = dir.join("queue");
    let mut all = files(&queue.join("segments"));
    all.extend(files(&queue));
    all.push(crate::process::WAYSTATION.into());
    for path in all.iter().filter(|path| path.is_file()) {
        let file = fs::File::open(path).expect("it is there");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("Linux knows it");
    }
}

fn read_cold(path: &Path) -> f64 {
    let file = fs::File::open(path).expect("it is there");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("Linux knows it");
    let begun = Instant::now();
    fs::read(path).expect("it can be read");
    begun.elapsed().as_secs_f64()
}

/// Seconds until it says READY as systemd hears it.
fn start_cold(bench: &Bench, dir: &Path) -> f64 {
    let path = dir.join("notify");
    fs::remove_file(&path).unwrap_or_default();
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket
        .set_read_timeout(Some(Duration::from_secs(120)))
        .expect("a socket");
    let mut command = Gateway::command(&setup(bench, dir)).0;
    command.env("NOTIFY_SOCKET", &path);
    let begun = Instant::now();
    let process = Process::start(command);
    let mut said = [0; 4_096];
    loop {
        let length = socket.recv(&mut said).expect("it says READY");
        if said[..length].windows(7).any(|words| words == b"READY=1") {
            break;
        }
    }
    let took = begun.elapsed().as_secs_f64();
    process.end();
    took
}
