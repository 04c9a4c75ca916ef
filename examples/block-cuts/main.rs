//! Cuts the power of a real file system under the queue; `scripts/block-cuts.sh` does the set-up around it.
//!
//! `load` works with a queue on a file system whose every block write and flush is logged, and keeps a journal of what
//! it was told. `replay` makes from the log what a power cut would have left, mounts that, and has `check` hold the
//! queue in it against the journal.
#![allow(clippy::unwrap_used)]

mod block_log;
mod check;
mod cuts;
mod disk;
mod journal;
mod load;
mod replay;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use waystation::queue::{Settings, WhenFull};

/// Both sides must agree on them.
const DESTINATIONS: [&str; 2] = ["cloud", "home"];

/// Small segments, so that many are begun, sealed and unlinked.
const SETTINGS: Settings = Settings {
    max_bytes: 24 << 20,
    segment_size: 256 << 10,
    commit_delay: Duration::ZERO,
    dead_letter_bytes: 1 << 20,
    keep_free: 0,
    when_full: WhenFull::Refuse,
    max_age: None,
    duplicate_window: 4 << 20,
};

/// Cuts the power of a real file system under the queue.
#[derive(Parser)]
enum Arguments {
    /// One life of a queue on the logged file system, from a start to a stop or a kill.
    Load(load::Life),
    /// Makes power cuts from the log, mounts each and checks the queue in it.
    Replay(replay::Replay),
    /// Holds the queue in a directory against the journal, as after a cut behind so many log entries.
    Check {
        dir: PathBuf,
        #[arg(long)]
        journal: PathBuf,
        #[arg(long)]
        entries: u64,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse() {
        Arguments::Load(life) => life.run().map(|()| "loaded".to_owned()),
        Arguments::Replay(replay) => replay.run(),
        Arguments::Check { dir, journal, entries } => journal::Known::read(&journal)
            .and_then(|known| check::check(&dir, &known, entries))
            .map(|found| format!("{found:?}")),
    };
    match done {
        Ok(words) => {
            println!("{words}");
            ExitCode::SUCCESS
        }
        Err(words) => {
            eprintln!("{words}");
            ExitCode::FAILURE
        }
    }
}
