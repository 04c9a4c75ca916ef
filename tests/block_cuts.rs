//! The power goes under a real kernel and a real ext4: `scripts/block-cuts.sh` with as many cuts as a test run has time
//! for. It needs root, /dev/fuse and loop devices; where they are not, it says so and nothing is tested.
#![allow(clippy::unwrap_used)]

use std::process::Command;

/// What the script ends with when it cannot run here.
const NOT_RUN: i32 = 3;

#[test]
fn no_power_cut_of_a_real_file_system_costs_an_acknowledged_record() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/block-cuts.sh");
    // Both of its outputs are this process's own, so that what it says is seen also when the test passes.
    let ended = Command::new(script).args(["ext4", "50"]).status().unwrap();
    if ended.code() != Some(NOT_RUN) {
        assert!(ended.success(), "{script}: {ended}");
    }
}
