//! A row per record or a row per commit? What either costs in time, in the processor and on the disk.
//!
//! `cargo bench --bench rows`. The bytes come first: what the kernel was given to write for each payload byte. Then
//! criterion: `memory` is the processor's part alone, `disk` a whole commit with its fsync.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use redb::backends::InMemoryBackend;
use redb::{Database, TableDefinition};
use waystation::record::Record;
use waystation::record::stored::{QueueId, append_frame};

const ROWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("chunks");
const PAYLOAD: usize = 600;
const CHUNK: usize = 64_000;

#[derive(Clone, Copy)]
enum Layout {
    RowPerRecord,
    RowPerBatch,
}

const LAYOUTS: [(&str, Layout); 2] = [
    ("row per record", Layout::RowPerRecord),
    ("row per batch", Layout::RowPerBatch),
];

fn batch(records: usize) -> Vec<Record> {
    let record = |n: usize| Record {
        vin: "5YJ3E1EA7KF000001".into(),
        record_type: "V".into(),
        txid: Bytes::from(format!("6e8f1a52-9b1d-4c7e-8a54-{n:012}")),
        received_at: 1_700_000_000_000,
        client_version: "1.2.0".into(),
        payload: (0..PAYLOAD).map(|at| (at * 31 + n * 17) as u8).collect(),
        origin: None,
        only: None,
    };
    (0..records).map(record).collect()
}

fn commit(database: &Database, layout: Layout, queue: QueueId, next: &mut u64, records: &[Record]) {
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(ROWS).unwrap();
        let mut bytes = Vec::with_capacity(CHUNK + 1024);
        let mut first = *next;
        for record in records {
            append_frame(&mut bytes, queue, *next, record);
            *next += 1;
            if matches!(layout, Layout::RowPerRecord) || bytes.len() >= CHUNK {
                table.insert(first, bytes.as_slice()).unwrap();
                bytes.clear();
                first = *next;
            }
        }
        if !bytes.is_empty() {
            table.insert(first, bytes.as_slice()).unwrap();
        }
    }
    transaction.commit().unwrap();
}

fn on_disk(dir: &tempfile::TempDir, name: &str) -> Database {
    Database::builder()
        .set_cache_size(2 << 20)
        .create(dir.path().join(name))
        .unwrap()
}

/// Bytes that this process has had the kernel write to a disk.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    io.lines()
        .find_map(|line| line.strip_prefix("write_bytes: "))
        .unwrap()
        .parse()
        .unwrap()
}

fn bytes() {
    println!("bytes written to files per payload byte, 16 MB of {PAYLOAD}-byte records");
    for records in [1, 10, 100, 1000] {
        let records = batch(records);
        let figures = LAYOUTS.map(|(name, layout)| {
            let dir = tempfile::tempdir_in(std::env::var("BENCH_DIR").unwrap_or("target".to_owned())).unwrap();
            let database = on_disk(&dir, "bytes.redb");
            let (mut next, mut payload) = (0, 0);
            let commits = (16_000_000 / PAYLOAD / records.len()).min(2000);
            let before = written();
            for _ in 0..commits {
                commit(&database, layout, QueueId([7; 16]), &mut next, &records);
                payload += records.len() * PAYLOAD;
            }
            format!("{name} {:>6.2}", (written() - before) as f64 / payload as f64)
        });
        println!("  {:>4} records a commit   {}", records.len(), figures.join("   "));
    }
}

fn time(criterion: &mut Criterion) {
    for (place, disk) in [("memory", false), ("disk", true)] {
        let mut group = criterion.benchmark_group(place);
        group.sample_size(20);
        for records in [1, 10, 100, 1000] {
            let records = batch(records);
            group.throughput(Throughput::Elements(records.len() as u64));
            for (name, layout) in LAYOUTS {
                let dir = tempfile::tempdir_in("target").unwrap();
                let mut files = 0;
                group.bench_function(BenchmarkId::new(name, records.len()), |bencher| {
                    // A new file before the old one holds more than a segment does.
                    let mut open = || {
                        files += 1;
                        match disk {
                            true => on_disk(&dir, &format!("{files}.redb")),
                            false => Database::builder().create_with_backend(InMemoryBackend::new()).unwrap(),
                        }
                    };
                    let mut database = open();
                    let mut next = 0;
                    bencher.iter_batched(
                        || (),
                        |()| {
                            if next as usize * PAYLOAD > 32 << 20 {
                                database = open();
                                next = 0;
                            }
                            commit(&database, layout, QueueId([7; 16]), &mut next, black_box(&records));
                        },
                        BatchSize::PerIteration,
                    );
                });
            }
        }
        group.finish();
    }
}

fn main() {
    bytes();
    let mut criterion = Criterion::default().configure_from_args();
    time(&mut criterion);
    criterion.final_summary();
}
