//! Damages a simulated queue in every way that a disk can, for as many seeds as are asked for:
//! `cargo run --release --example damage -- --seeds 4000`, or `--seed N` for one of them. 25 cases a seed.
#![allow(clippy::unwrap_used)]

#[path = "../tests/support/damage.rs"]
mod damage;
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
    let mut total = damage::Report::default();
    // redb panics on some damaged pages, and every one of them would be told.
    std::panic::set_hook(Box::new(|panic| {
        if !panic
            .location()
            .is_some_and(|location| location.file().contains("redb"))
        {
            eprintln!("{panic}");
        }
    }));
    for seed in seeds.clone() {
        let report = damage::run(seed, 25);
        total.cases += report.cases;
        total.missing += report.missing;
        total.delivered += report.delivered;
    }
    println!(
        "seeds {seeds:?}: {} damaged queues in {:.0?}, each opened; {} records delivered, {} missing and counted",
        total.cases,
        started.elapsed(),
        total.delivered,
        total.missing
    );
}
