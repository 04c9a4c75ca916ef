//! Which seeds a long run takes: `--seeds N`, or `--seed N` for one of them.

use std::ops::Range;

use clap::Parser;

/// Runs the simulation for many seeds.
#[derive(Parser)]
struct Arguments {
    /// Seeds from 0 on, so many
    #[arg(long, default_value_t = 100, conflicts_with = "seed")]
    seeds: u64,
    /// This seed alone
    #[arg(long)]
    seed: Option<u64>,
}

pub(crate) fn from_arguments() -> Range<u64> {
    let arguments = Arguments::parse();
    arguments.seed.map_or(0..arguments.seeds, |seed| seed..seed + 1)
}
