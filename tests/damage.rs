//! Whatever is on the disk, the queue opens, delivers what is intact in order, and counts what is not.
#![allow(clippy::unwrap_used)]

#[path = "support/damage.rs"]
mod damage;
#[path = "support/power_cuts.rs"]
mod power_cuts;
#[path = "support/sim_disk.rs"]
mod sim_disk;

#[test]
fn no_damage_keeps_the_queue_from_opening_or_hides_what_is_intact() {
    let mut total = damage::Report::default();
    for seed in 0..50 {
        let report = damage::run(seed, 25);
        total.cases += report.cases;
        total.missing += report.missing;
        total.delivered += report.delivered;
    }
    assert!(
        total.cases >= 1000 && total.missing > 0 && total.delivered > 0,
        "{total:?}"
    );
}
