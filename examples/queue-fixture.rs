//! Writes the queue that `tests/format.rs` opens: `cargo run --example queue-fixture -- tests/data/queue-format-1`.
//! Once for each format that is released, by the build that released it.
#![allow(clippy::unwrap_used)]

#[path = "../tests/support/fixture.rs"]
mod fixture;

use std::path::PathBuf;

fn main() {
    let target = PathBuf::from(std::env::args().nth(1).unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(fixture::write(&target));
}
