//! What reaches the device for each byte of payload, against appends of the same batches with fdatasync at the same pace.
//!
//! The device's own counters: whatever else writes to it meanwhile is counted too.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Bench;
use crate::disk::device_bytes;
use crate::load::{Load, payload};
use crate::process::{Gateway, Setup, TO_NOBODY, Vehicles};
use crate::report::{Row, Target};

/// About so many bytes: what a payload really has is divided by.
const PAYLOAD: usize = 600;
const WARM_UP: f64 = 2.0;

/// How records come.
struct Pace {
    name: &'static str,
    queue: &'static str,
    vehicles: usize,
    /// None: as fast as acks allow.
    rate: Option<f64>,
    seconds: f64,
}

const FULL: Pace = Pace {
    name: "full load of 100 vehicles",
    queue: "",
    vehicles: 100,
    rate: None,
    seconds: 5.0,
};
const HUNDRED: Pace = Pace {
    name: "100 records/s of 100 vehicles",
    queue: "",
    vehicles: 100,
    rate: Some(100.0),
    // Until the journal has gone into the segment a few times.
    seconds: 120.0,
};
/// One a second would take hours until the journal has gone into a segment a few times.
const ONE: Pace = Pace {
    name: "one record a commit, as with 1 record/s",
    queue: "commit_delay = \"0ms\"",
    vehicles: 1,
    rate: Some(40.0),
    // Twice as many as the journal has blocks for.
    seconds: 52.0,
};

pub(crate) fn measure(bench: &Bench) -> Vec<Row> {
    let full = FULL.row(bench, "wear.full.append", Target::None);
    let hundred = HUNDRED.row(bench, "wear.hundred.append", Target::AtMost(2.0));
    let one = ONE.row(bench, "wear.one.append", Target::None);
    // At full load the target is the figure itself.
    let absolute = Row {
        id: "wear.full".to_owned(),
        limit: None,
        ratio: None,
        target: Target::AtMost(1.3),
        met: Some(full.measured.median <= 1.3),
        ..full.clone()
    };
    let beside = Row {
        figure: "the same".to_owned(),
        target: Target::None,
        met: None,
        ..full
    };
    vec![absolute, beside, hundred, one]
}

impl Pace {
    fn row(&self, bench: &Bench, id: &str, target: Target) -> Row {
        let Self { name, rate, .. } = *self;
        let (mut stored, mut appended) = (vec![], vec![]);
        for _ in 0..bench.rounds {
            let (ratio, records, commits) = self.of_gateway(bench);
            let batch = (records / commits).round().max(1.0);
            // At full load nobody waits between two commits.
            let every = rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(batch / rate));
            let times = commits.min(400.0) as usize;
            let bytes = batch as usize * payload(PAYLOAD).len();
            let bare = of_appends(&bench.folder("wear"), times, bytes, every);
            eprintln!("  {name}: {ratio:.2}, {records} records in {commits} commits; appended {bare:.2}");
            stored.push(ratio);
            appended.push(bare);
        }
        let figure = format!("device bytes for a byte of payload, {name}");
        Row::ratio(
            id,
            figure,
            "",
            &stored,
            ("append + fdatasync, same batches and pace", &appended),
            target,
        )
    }

    /// Device bytes for a byte of payload; records and commits.
    fn of_gateway(&self, bench: &Bench) -> (f64, f64, f64) {
        let dir = bench.folder("wear");
        let gateway = Gateway::start(&Setup {
            pki: &bench.pki,
            dir: &dir,
            queue: self.queue,
            rest: TO_NOBODY,
        });
        let vehicles = Vehicles::connect(&Load {
            pki: bench.pki.clone(),
            port: gateway.port,
            vehicles: self.vehicles,
            window: 64,
            rate: self.rate,
            warm_up: WARM_UP,
            seconds: self.seconds,
            payload: PAYLOAD,
            feed: None,
        });
        // The journal is made with the first record, once for as long as the gateway runs.
        std::thread::sleep(Duration::from_secs_f64(WARM_UP));
        settled();
        let figures = || {
            let records = gateway.metric("waystation_committed_records_total");
            (device_bytes(&dir), records, gateway.metric("waystation_commits_total"))
        };
        let before = figures();
        vehicles.arrive();
        let after = figures();
        gateway.process.end();
        let (records, commits) = (after.1 - before.1, after.2 - before.2);
        let payloads = records * payload(PAYLOAD).len() as f64;
        ((after.0 - before.0) / payloads, records, commits)
    }
}

fn of_appends(dir: &Path, times: usize, bytes: usize, every: Duration) -> f64 {
    settled();
    let mut file = File::create(dir.join("appended")).expect("the folder can be written to");
    let batch = vec![b'x'; bytes];
    let before = device_bytes(dir);
    let begun = Instant::now();
    for number in 1..=times {
        file.write_all(&batch).expect("the disk has room");
        file.sync_data().expect("the disk works");
        std::thread::sleep((every * number as u32).saturating_sub(begun.elapsed()));
    }
    (device_bytes(dir) - before) / (times * bytes) as f64
}

/// What others left to be written is not counted.
fn settled() {
    rustix::fs::sync();
}
