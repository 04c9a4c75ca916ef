//! What knowing duplicates costs a record: its hash, and its place in the window; beside what else was tried.
//!
//! `cargo bench --bench window`. First how many records each holds in 4 MiB and what that really allocates, then the time
//! of one new record in a full window: looked for, not found, added, the oldest forgotten.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion};
use waystation::queue::{Fingerprints, Window};
use waystation::record::Record;

const BYTES: usize = 4 << 20;

/// A fingerprint is a hash already.
#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only u128 is hashed");
    }

    fn write_u128(&mut self, n: u128) {
        self.0 = n as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Set = HashSet<u128, BuildHasherDefault<Same>>;

/// Bytes of a set's table: one more than a key for each bucket, and seven of eight are used.
fn table(set: &Set) -> usize {
    (set.capacity() * 8 / 7).next_power_of_two() * 17
}

/// Two sets: when the newer is full, the older goes and a new one begins.
struct Generations {
    limit: usize,
    newer: Set,
    older: Set,
}

/// A set, and the order in a ring.
struct Ring {
    limit: usize,
    set: Set,
    order: VecDeque<u128>,
}

trait Known {
    fn add(&mut self, n: u128) -> bool;
    fn held(&self) -> (usize, usize);
}

impl Known for Window {
    fn add(&mut self, n: u128) -> bool {
        self.insert(n)
    }

    fn held(&self) -> (usize, usize) {
        (self.len(), self.bytes())
    }
}

impl Known for Generations {
    fn add(&mut self, n: u128) -> bool {
        if self.newer.contains(&n) || self.older.contains(&n) {
            return false;
        }
        if self.newer.len() == self.limit {
            std::mem::swap(&mut self.newer, &mut self.older);
            self.newer.clear();
        }
        self.newer.insert(n)
    }

    fn held(&self) -> (usize, usize) {
        (
            self.newer.len() + self.older.len(),
            table(&self.newer) + table(&self.older),
        )
    }
}

impl Known for Ring {
    fn add(&mut self, n: u128) -> bool {
        if self.set.contains(&n) {
            return false;
        }
        if self.order.len() == self.limit {
            let oldest = self.order.pop_front().unwrap();
            self.set.remove(&oldest);
        }
        self.order.push_back(n);
        self.set.insert(n)
    }

    fn held(&self) -> (usize, usize) {
        (self.set.len(), table(&self.set) + self.order.capacity() * 16)
    }
}

fn fingerprint(n: u64) -> u128 {
    u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}

fn known() -> Vec<(&'static str, Box<dyn Known>)> {
    // The largest tables that leave it within 4 MiB.
    let generations = Generations {
        limit: (1 << 16) * 7 / 8,
        newer: Set::default(),
        older: Set::default(),
    };
    let limit = (1 << 17) * 7 / 8;
    let ring = Ring {
        limit,
        set: Set::default(),
        order: VecDeque::with_capacity(limit),
    };
    vec![
        ("window", Box::new(Window::new(BYTES as u64))),
        ("two generations of a set", Box::new(generations)),
        ("a set and a ring", Box::new(ring)),
    ]
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("one new record");
    for (name, mut known) in known() {
        let mut n = 0;
        let mut next = || {
            n += 1;
            fingerprint(n)
        };
        let mut most = 0;
        for turn in 0..1_000_000 {
            known.add(next());
            if turn % 1_000 != 0 {
                continue;
            }
            let (records, bytes) = known.held();
            assert!(bytes <= BYTES, "{name}: {bytes}");
            most = most.max(records);
        }
        let (records, bytes) = known.held();
        println!("{name}: {records} records now, {most} at most, {bytes} bytes");
        group.bench_function(name, |bencher| bencher.iter(|| known.add(black_box(next()))));
    }
    group.finish();
    let mut group = criterion.benchmark_group("hash");
    let by = Fingerprints::new();
    for bytes in [60, 600, 6000] {
        let record = Record {
            vin: "5YJ3E1EA7KF000001".into(),
            record_type: "V".into(),
            txid: Bytes::from_static(b"6e8f1a52-9b1d-4c7e-8a54-0123456789ab"),
            received_at: 1_700_000_000_000,
            client_version: "1.2.0".into(),
            payload: (0..bytes).map(|at| (at * 31) as u8).collect(),
            origin: None,
            only: None,
        };
        group.bench_with_input(BenchmarkId::from_parameter(bytes), &record, |bencher, record| {
            bencher.iter(|| by.of(black_box(record)));
        });
    }
    group.finish();
    criterion.final_summary();
}
