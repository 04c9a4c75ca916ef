//! Cuts the power of a simulated disk under the queue, for as many seeds as are asked for:
//! `cargo run --release --example power-cuts -- --seeds 1000`, or `--seed N` for one of them.
#![allow(clippy::unwrap_used)]

#[path = "../tests/support/power_cuts.rs"]
mod power_cuts;
#[path = "../tests/support/seeds.rs"]
mod seeds;
#[path = "../tests/support/sim_disk.rs"]
mod sim_disk;

use std::time::Instant;

fn main() {
    let seeds = seeds::from_arguments();
    let started = Instant::now();
    let mut total = power_cuts::Report::default();
    for seed in seeds.clone() {
        let report = power_cuts::run(seed);
        total.cuts += report.cuts;
        total.starts += report.starts;
        total.records += report.records;
        total.duplicates += report.duplicates;
        if (seed + 1) % 100 == 0 {
            eprintln!("seed {seed}: {} cuts so far", total.cuts);
        }
    }
    println!(
        "seeds {seeds:?}: {} power cuts and {} starts with {} records, {} of them known already, in {:.0?}; nothing acknowledged was lost",
        total.cuts,
        total.starts,
        total.records,
        total.duplicates,
        started.elapsed()
    );
}
