//! What simulated vehicles counted: per vehicle, live, and summed up.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Totals that can be watched while the fleet drives.
#[derive(Debug, Default)]
pub struct Live {
    connected: AtomicU64,
    sent: AtomicU64,
    acked: AtomicU64,
    told: Mutex<HashSet<String>>,
}

impl Live {
    /// Whether no vehicle has told of this failure before: a whole fleet meets the same one.
    pub(crate) fn is_news(&self, failure: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(failure.to_owned())
    }

    pub(crate) fn connected(&self, up: bool) {
        match up {
            true => self.connected.fetch_add(1, Ordering::Relaxed),
            false => self.connected.fetch_sub(1, Ordering::Relaxed),
        };
    }

    pub(crate) fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn acked(&self) {
        self.acked.fetch_add(1, Ordering::Relaxed);
    }

    /// Vehicles connected, records sent (each once), records acknowledged.
    pub fn totals(&self) -> (u64, u64, u64) {
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        (read(&self.connected), read(&self.sent), read(&self.acked))
    }
}

/// What one vehicle counted. Its records have the transaction ids `{VIN}-{number}`, numbered from 0, or on from what it
/// remembers.
#[derive(Debug, Clone, Default)]
pub struct VehicleTally {
    /// Its VIN.
    pub vin: String,
    /// Records made.
    pub sent: u64,
    /// Numbers of the acknowledged ones, in the order of their acks.
    pub acked: Vec<u64>,
    /// Records answered with an error.
    pub refused: u64,
    /// Records sent once more because no ack had come before the connection ended.
    pub resent: u64,
    /// Connections that came up.
    pub connections: u64,
    /// Acks of records that had been acknowledged before.
    pub repeated_acks: u64,
    /// Times from the first sending to the ack.
    pub latencies: Latencies,
}

/// A histogram of times with steps of about 3 %.
#[derive(Debug, Clone, Default)]
pub struct Latencies {
    counts: Vec<u64>,
    total: u64,
}

const STEPS_PER_OCTAVE: f64 = 24.0;

impl Latencies {
    pub(crate) fn add(&mut self, time: Duration) {
        let micros = time.as_micros().max(1) as f64;
        let step = (micros.log2() * STEPS_PER_OCTAVE) as usize;
        if self.counts.len() <= step {
            self.counts.resize(step + 1, 0);
        }
        self.counts[step] += 1;
        self.total += 1;
    }

    fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        self.counts
            .iter_mut()
            .zip(&other.counts)
            .for_each(|(mine, theirs)| *mine += theirs);
        self.total += other.total;
    }

    /// The time in milliseconds that this part of all is not above. `None`: there are none.
    pub fn percentile(&self, part: f64) -> Option<f64> {
        let wanted = ((self.total as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        let step = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(((step as f64 + 1.0) / STEPS_PER_OCTAVE).exp2() / 1000.0)
    }
}

/// What a fleet counted, as it is printed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Tally {
    /// How many vehicles.
    pub vehicles: usize,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Records made.
    pub sent: u64,
    /// Records acknowledged.
    pub acked: u64,
    /// Records answered with an error.
    pub refused: u64,
    /// Records with no answer at the end.
    pub unacknowledged: u64,
    /// Records sent once more after a reconnect.
    pub resent: u64,
    /// Connections that came up.
    pub connections: u64,
    /// Acknowledged records a second.
    pub records_per_second: f64,
    /// Time to the ack that half of all are not above, in milliseconds.
    pub ack_ms_p50: Option<f64>,
    /// The same for 99 of 100.
    pub ack_ms_p99: Option<f64>,
    /// The same for 999 of 1000.
    pub ack_ms_p999: Option<f64>,
}

impl Tally {
    /// Sums vehicles up.
    pub fn new(vehicles: &[VehicleTally], took: Duration) -> Self {
        let sum = |value: fn(&VehicleTally) -> u64| vehicles.iter().map(value).sum::<u64>();
        let mut latencies = Latencies::default();
        vehicles.iter().for_each(|vehicle| latencies.merge(&vehicle.latencies));
        let (sent, acked, refused) = (
            sum(|one| one.sent),
            sum(|one| one.acked.len() as u64),
            sum(|one| one.refused),
        );
        Self {
            vehicles: vehicles.len(),
            seconds: took.as_secs_f64(),
            sent,
            acked,
            refused,
            unacknowledged: sent - acked - refused,
            resent: sum(|one| one.resent),
            connections: sum(|one| one.connections),
            records_per_second: acked as f64 / took.as_secs_f64().max(0.001),
            ack_ms_p50: latencies.percentile(0.5),
            ack_ms_p99: latencies.percentile(0.99),
            ack_ms_p999: latencies.percentile(0.999),
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1} ms"));
        writeln!(
            f,
            "vehicles         {:>10}   connections {}",
            self.vehicles, self.connections
        )?;
        writeln!(f, "sent             {:>10}   resent {}", self.sent, self.resent)?;
        writeln!(
            f,
            "acknowledged     {:>10}   {:.0} a second",
            self.acked, self.records_per_second
        )?;
        writeln!(f, "refused          {:>10}", self.refused)?;
        writeln!(f, "unacknowledged   {:>10}", self.unacknowledged)?;
        write!(
            f,
            "time to the ack  p50 {}   p99 {}   p99.9 {}",
            ms(self.ack_ms_p50),
            ms(self.ack_ms_p99),
            ms(self.ack_ms_p999)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_step() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(0.5), None);
        (1..=1000).for_each(|ms| latencies.add(Duration::from_millis(ms)));
        for (part, ms) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (0.001, 1.0)] {
            let found = latencies.percentile(part).unwrap_or_default();
            assert!((found / ms - 1.0).abs() < 0.04, "{part}: {found} for {ms}");
        }
    }
}
