//! How fast a destination is sent records, and when it is sent any at all.
//!
//! Invariant: over any ten seconds no more goes out than the limits allow, but for one record and a hundredth.

use std::time::Duration;

use chrono::Timelike;
use tokio::time::Instant;

use crate::config;

/// What may go out at once after a pause, so that a timer's coarseness costs no throughput.
const BURST: Duration = Duration::from_millis(100);
/// A clock that is set differently is noticed after so long.
const LOOK_AGAIN: Duration = Duration::from_secs(20);

/// What has gone out lately: a bucket of tokens each for records and bytes, as the moment at which it is full again.
/// Reconnecting does not fill them.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// What the moments below were reckoned by.
    limits: config::Flow,
    records_paid: Option<Instant>,
    bytes_paid: Option<Instant>,
}

/// Why nothing is sent for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) why: String,
    /// When to look again.
    pub(super) again: Duration,
}

impl Flow {
    /// From now on by these limits; what was reckoned by others counts no longer.
    pub(super) fn obey(&mut self, limits: &config::Flow) {
        if self.limits != *limits {
            *self = Self {
                limits: limits.clone(),
                ..Self::default()
            };
        }
    }

    /// Whether there is anything to reckon with.
    pub(super) fn has_limits(&self) -> bool {
        self.limits.max_records_per_second.is_some() || self.limits.max_bytes_per_second.is_some()
    }

    /// Until when the next record waits; `None`: it can go now.
    pub(super) fn waits_until(&self, now: Instant) -> Option<Instant> {
        let one = self.limits.max_records_per_second;
        let one = one.map_or(Duration::ZERO, |rate| cost(1, rate.into()));
        let ahead = |paid: Instant, by: Duration| paid.checked_sub(by).unwrap_or(paid);
        let records = self.records_paid.map(|paid| ahead(paid, BURST.saturating_sub(one)));
        let bytes = self.bytes_paid.map(|paid| ahead(paid, BURST));
        records.max(bytes).filter(|until| *until > now)
    }

    /// Notes that a record of so many bytes goes out.
    pub(super) fn spend(&mut self, bytes: usize, now: Instant) {
        let from = |paid: Option<Instant>| paid.map_or(now, |paid| paid.max(now));
        if let Some(rate) = self.limits.max_records_per_second {
            self.records_paid = Some(from(self.records_paid) + cost(1, rate.into()));
        }
        if let Some(rate) = self.limits.max_bytes_per_second {
            self.bytes_paid = Some(from(self.bytes_paid) + cost(bytes, rate));
        }
    }

    /// Whether so much without an answer is all that may be: what is on its way goes out at once when a connection comes
    /// back.
    pub(super) fn is_enough(&self, records: usize, bytes: usize) -> bool {
        let half = |rate: u64| usize::try_from(rate / 2).unwrap_or(usize::MAX).max(1);
        let many = self.limits.max_records_per_second;
        let large = self.limits.max_bytes_per_second;
        let many = many.is_some_and(|rate| records >= half(rate.into()));
        let large = large.is_some_and(|rate| bytes >= half(rate));
        records > 0 && (many || large)
    }
}

/// The time that so much takes at so much a second.
fn cost(amount: usize, rate: u64) -> Duration {
    Duration::from_secs_f64(amount as f64 / rate as f64)
}

/// Why nothing is sent now, if that is so.
pub(super) fn held(limits: &config::Flow) -> Option<Held> {
    if !limits.pause && limits.schedule.is_empty() {
        return None;
    }
    let now = chrono::Local::now().time();
    let now = Duration::new(now.num_seconds_from_midnight().into(), 0);
    held_at(limits, now)
}

/// When it may be otherwise than [`held`] says now; `None`: not before the configuration changes.
pub(super) fn look_again(limits: &config::Flow) -> Option<Duration> {
    (!limits.schedule.is_empty()).then(|| held(limits).map_or(Duration::from_secs(1), |held| held.again))
}

fn held_at(limits: &config::Flow, since_midnight: Duration) -> Option<Held> {
    if limits.pause {
        return Some(Held {
            why: "paused by the configuration".to_owned(),
            again: LOOK_AGAIN,
        });
    }
    let (wait, window) = limits
        .schedule
        .iter()
        .map(|window| (window.opens_in(since_midnight), window))
        .min_by_key(|(wait, _)| *wait)?;
    (!wait.is_zero()).then(|| Held {
        why: format!(
            "outside of its schedule, which goes on at {:02}:{:02}",
            window.from / 60,
            window.from % 60
        ),
        again: wait.min(LOOK_AGAIN),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Window;

    fn obeying(limits: &config::Flow) -> Flow {
        let mut flow = Flow::default();
        flow.obey(limits);
        flow
    }

    /// Records of so many bytes that go out in so many seconds, when there are always some and each is tried a
    /// millisecond after it may go.
    fn sent(limits: &config::Flow, bytes: usize, seconds: u64) -> u64 {
        let (mut flow, start) = (obeying(limits), Instant::now());
        let mut now = start;
        let mut sent = 0;
        while now < start + Duration::from_secs(seconds) {
            match flow.waits_until(now) {
                Some(until) => now = until + Duration::from_millis(1),
                None => {
                    flow.spend(bytes, now);
                    sent += 1;
                }
            }
        }
        sent
    }

    fn within_five_percent(amount: u64, of: u64) -> bool {
        amount * 100 >= of * 95 && amount * 100 <= of * 105
    }

    #[test]
    fn ten_seconds_hold_what_the_limits_allow_within_five_percent() {
        for rate in [1, 3, 10, 47, 500, 20_000, 400_000] {
            let limits = config::Flow {
                max_records_per_second: Some(rate),
                ..config::Flow::default()
            };
            let sent = sent(&limits, 600, 10);
            assert!(
                within_five_percent(sent, 10 * u64::from(rate)),
                "{sent} at {rate} a second"
            );
        }
        for (rate, bytes) in [(10_000, 600), (1_000_000, 600), (50_000_000, 600), (2_000_000, 900_000)] {
            let limits = config::Flow {
                max_bytes_per_second: Some(rate),
                ..config::Flow::default()
            };
            let sent = sent(&limits, bytes, 10) * bytes as u64;
            let slack = bytes as u64;
            assert!(
                sent <= 10 * rate + rate / 2 + slack && sent + slack >= 10 * rate - rate / 2,
                "{sent} at {rate} a second"
            );
        }
    }

    #[test]
    fn the_narrower_of_two_limits_counts_and_none_is_no_limit() {
        let both = config::Flow {
            max_records_per_second: Some(100),
            max_bytes_per_second: Some(6_000),
            ..config::Flow::default()
        };
        assert!(within_five_percent(sent(&both, 600, 10), 100));
        assert!(within_five_percent(sent(&both, 10, 10), 1_000));
        let mut flow = Flow::default();
        flow.spend(1 << 30, Instant::now());
        assert_eq!(flow.waits_until(Instant::now()), None);
    }

    #[test]
    fn no_more_than_half_a_seconds_worth_waits_for_its_answer() {
        let limits = config::Flow {
            max_records_per_second: Some(100),
            max_bytes_per_second: Some(10_000),
            ..config::Flow::default()
        };
        assert!(!obeying(&limits).is_enough(49, 100) && obeying(&limits).is_enough(50, 100));
        assert!(!obeying(&limits).is_enough(1, 4_999) && obeying(&limits).is_enough(1, 5_000));
        assert!(!obeying(&limits).is_enough(0, 0));
        assert!(!Flow::default().is_enough(10_000, 1 << 30));
    }

    #[test]
    fn other_limits_begin_anew() {
        let slow = config::Flow {
            max_bytes_per_second: Some(1_000),
            ..config::Flow::default()
        };
        let quick = config::Flow {
            max_bytes_per_second: Some(1_000_000),
            ..config::Flow::default()
        };
        let (mut flow, now) = (obeying(&slow), Instant::now());
        flow.spend(400_000, now);
        assert!(flow.waits_until(now).is_some());
        flow.obey(&slow);
        assert!(flow.waits_until(now).is_some(), "the same ones change nothing");
        flow.obey(&quick);
        assert_eq!(flow.waits_until(now), None);
    }

    #[test]
    fn a_pause_saves_nothing_up() {
        let limits = config::Flow {
            max_records_per_second: Some(100),
            ..config::Flow::default()
        };
        let (mut flow, start) = (obeying(&limits), Instant::now());
        flow.spend(1, start);
        let later = start + Duration::from_secs(3_600);
        let at_once = (0..1_000).take_while(|_| {
            let can = flow.waits_until(later).is_none();
            flow.spend(1, later);
            can
        });
        assert!(at_once.count() <= 11);
    }

    #[test]
    fn a_schedule_holds_outside_of_its_windows_and_says_until_when() {
        let limits = config::Flow {
            schedule: vec![Window { from: 1_320, to: 360 }, Window { from: 720, to: 750 }],
            ..config::Flow::default()
        };
        let at = |minute: u64| held_at(&limits, Duration::from_secs(60 * minute));
        assert_eq!(at(0), None);
        assert_eq!(at(730), None);
        let held = at(719).expect("it is closed");
        assert_eq!(held.why, "outside of its schedule, which goes on at 12:00");
        assert!(held.again <= LOOK_AGAIN);
        assert_eq!(
            at(1_000).expect("it is closed").why,
            "outside of its schedule, which goes on at 22:00"
        );
        assert_eq!(held_at(&config::Flow::default(), Duration::ZERO), None);
    }
}
