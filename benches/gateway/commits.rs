//! The queue's writer by itself: payload bytes a second to the disk, against appends of the same batches with fdatasync.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use waystation::queue::{Item, Queue, RealDisk, Settings, WhenFull};
use waystation::record::Record;

use crate::Bench;
use crate::load::{MARK, payload, txid};
use crate::report::{Row, Target};

pub(crate) const SETTINGS: Settings = Settings {
    max_bytes: 100 << 30,
    segment_size: 32 << 20,
    commit_delay: Duration::ZERO,
    dead_letter_bytes: 64 << 20,
    keep_free: 0,
    when_full: WhenFull::Refuse,
    max_age: None,
    duplicate_window: 4 << 20,
};
/// As many as wait during a commit at full load: see what `wear` prints.
const BATCH: usize = 1_000;
const BATCHES: usize = 150;
const PAYLOAD: usize = 600;

/// Makes records of vehicles, no two of them with the same payload.
pub(crate) struct Records {
    payload: Vec<u8>,
    at: usize,
}

impl Records {
    pub(crate) fn new() -> Self {
        let payload = payload(PAYLOAD);
        let at = payload.windows(MARK.len()).position(|window| window == MARK);
        Self {
            payload,
            at: at.expect("the mark is in it"),
        }
    }

    pub(crate) fn record(&mut self, number: u64) -> Record {
        self.payload[self.at..self.at + MARK.len()].copy_from_slice(format!("{number:016x}").as_bytes());
        Record {
            vin: format!("5YJ3E1EA7KF{:06}", number % 100).into(),
            record_type: "V".into(),
            txid: Bytes::from(txid(number)),
            received_at: 1_700_000_000_000 + number,
            client_version: "1.2.0".into(),
            payload: Bytes::copy_from_slice(&self.payload),
            origin: None,
            only: None,
        }
    }
}

pub(crate) fn measure(bench: &Bench) -> Vec<Row> {
    let mut records = Records::new();
    let bytes = (BATCHES * BATCH * records.payload.len()) as f64;
    let (mut stored, mut appended) = (vec![], vec![]);
    for _ in 0..bench.rounds {
        let dir = bench.folder("commits");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let disk = Arc::new(RealDisk) as _;
        let (queue, mut writer) = Queue::open_on(&disk, &dir.join("queue"), SETTINGS).expect("an empty folder");
        queue.register("nobody", true);
        let mut submitter = queue.submitter();
        let mut file = File::create(dir.join("appended")).expect("the folder can be written to");
        let (mut in_queue, mut in_file) = (Duration::ZERO, Duration::ZERO);
        for batch in 0..BATCHES {
            let mut payloads = Vec::new();
            for at in 0..BATCH {
                let record = records.record((batch * BATCH + at) as u64);
                payloads.extend_from_slice(&record.payload);
                runtime
                    .block_on(submitter.submit(Item::Sent(record)))
                    .expect("there is room");
            }
            let begun = Instant::now();
            writer.turn(Instant::now()).expect("the disk works");
            in_queue += begun.elapsed();
            let begun = Instant::now();
            file.write_all(&payloads).expect("the disk has room");
            file.sync_data().expect("the disk works");
            in_file += begun.elapsed();
        }
        assert_eq!(submitter.committed(), (BATCHES * BATCH) as u64);
        let rate = |took: Duration| bytes / took.as_secs_f64() / 1e6;
        eprintln!("  {:.1} MB/s, appended {:.1} MB/s", rate(in_queue), rate(in_file));
        stored.push(rate(in_queue));
        appended.push(rate(in_file));
    }
    let figure = format!("commits of {BATCH} records: payload to the disk");
    let limit = ("append + fdatasync of the same payloads", appended.as_slice());
    vec![Row::ratio(
        "commits.append",
        figure,
        "MB/s",
        &stored,
        limit,
        Target::AtLeast(0.75),
    )]
}
