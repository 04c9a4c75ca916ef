//! A backlog that leaves, records a second, against a bare client of the same library with the same settings and payloads.
//!
//! Counted between a tenth and nine tenths of the way: neither the start nor the last acknowledgements are.

use std::time::{Duration, Instant};

use crate::Bench;
use crate::backlog::fill;
use crate::process::{Gateway, Process, Setup, Side, role};

/// Records of a backlog.
pub(crate) const RECORDS: u64 = 1_000_000;

/// When a tenth was done, and when nine tenths were.
#[derive(Default)]
pub(crate) struct Meter {
    from: Option<(Instant, f64)>,
    until: Option<(Instant, f64)>,
}

impl Meter {
    pub(crate) fn note(&mut self, done: f64) {
        let total = RECORDS as f64;
        if done >= total * 0.1 && self.from.is_none() {
            self.from = Some((Instant::now(), done));
        }
        if done >= total * 0.9 && self.until.is_none() {
            self.until = Some((Instant::now(), done));
        }
    }

    /// Records a second, when nine tenths are done.
    pub(crate) fn rate(&self) -> Option<f64> {
        let ((begun, from), (ended, until)) = (self.from?, self.until?);
        (until > from).then(|| (until - from) / (ended - begun).as_secs_f64())
    }
}

/// Records a second that a gateway with this destination `cloud` drains.
pub(crate) fn gateway(bench: &Bench, destination: &str) -> f64 {
    let dir = bench.folder("drain");
    fill(&dir, RECORDS);
    let rest = format!("[records]\nV = [\"cloud\"]\n[destinations.cloud]\n{destination}");
    let gateway = Gateway::start(&Setup {
        pki: &bench.pki,
        dir: &dir,
        queue: "",
        rest: &rest,
    });
    let mut meter = Meter::default();
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        meter.note(RECORDS as f64 - gateway.backlog("cloud"));
        if let Some(rate) = meter.rate() {
            gateway.process.end();
            return rate;
        }
        assert!(
            Instant::now() < deadline,
            "it drains nothing: see {}",
            dir.join("log.txt").display()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What a bare client in a process of its own, on the gateway's processor, says on its one line.
pub(crate) fn bare(name: &str, words: &[&str]) -> f64 {
    let output = role(Side::Gateway, name, words).output().expect("this executable");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let rate = said.trim().parse();
    rate.unwrap_or_else(|_| panic!("{name} says {said:?} {}", String::from_utf8_lossy(&output.stderr)))
}

/// A process of this executable that serves at the address it says, on the other processor.
pub(crate) fn serving(name: &str) -> (Process, String) {
    Process::saying(role(Side::Load, name, &[]))
}
