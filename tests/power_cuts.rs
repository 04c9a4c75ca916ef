//! The power is cut at any write, sync or rename: everything acknowledged is there at the next start, in order.
#![allow(clippy::unwrap_used)]

#[path = "support/power_cuts.rs"]
mod power_cuts;
#[path = "support/sim_disk.rs"]
mod sim_disk;

use std::collections::BTreeMap;

use rustix::io::Errno;
use sim_disk::Fault;

/// Power cuts in an ordinary run; `examples/power-cuts` makes as many as it is asked for.
const CUTS: u64 = 20_000;

#[test]
fn no_power_cut_costs_an_acknowledged_record() {
    let (mut cuts, mut dropped, mut duplicates) = (0, 0, 0);
    let mut seed = 0;
    while cuts < CUTS {
        let report = power_cuts::run(seed);
        (cuts, dropped) = (cuts + report.cuts, dropped + report.dropped);
        duplicates += report.duplicates;
        seed += 1;
    }
    assert!(dropped > 0, "the limits had something go");
    assert!(duplicates > 0, "vehicles sent again what was stored");
    println!("{cuts} power cuts in {seed} runs, {duplicates} duplicates");
}

/// Every call that the queue makes fails once, and then all of its kind; each in every way that a disk has.
#[test]
fn no_failing_call_costs_an_acknowledged_record() {
    let (calls, _) = power_cuts::run_with_fault(1, None);
    assert!(calls > 300, "{calls} calls");
    let mut failed = BTreeMap::<_, u32>::new();
    for errno in [Errno::NOSPC, Errno::IO, Errno::ROFS, Errno::DQUOT, Errno::MFILE] {
        for (call, stays) in (0..calls).flat_map(|call| [(call, false), (call, true)]) {
            let fault = Fault {
                call,
                errno: errno.raw_os_error(),
                stays,
            };
            let (_, kind) = power_cuts::run_with_fault(1, Some(fault));
            *failed.entry(kind.expect("every call is reached")).or_default() += 1;
        }
    }
    println!("{failed:?}");
}
