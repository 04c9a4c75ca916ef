//! How many signals came in: data of a V record, alerts, errors. Of all vehicles together, and of the few that the
//! configuration names: vehicles choose no labels, so there are never more than these.

use std::collections::{BTreeMap, BTreeSet};

use super::counters::Count;

/// Record types that have signals.
const TYPES: [&str; 3] = ["V", "alerts", "errors"];

/// Running totals.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    all: ByType,
    /// Of the vehicles that are named.
    vins: BTreeMap<String, ByType>,
}

/// In the order of [`TYPES`].
#[derive(Debug, Default)]
struct ByType([Count; TYPES.len()]);

/// The same, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct SignalCounts {
    /// By record type.
    pub all: BTreeMap<&'static str, u64>,
    /// By VIN and record type.
    pub vins: BTreeMap<String, BTreeMap<&'static str, u64>>,
}

impl Signals {
    pub(crate) fn new(vins: &BTreeSet<String>) -> Self {
        Self {
            all: ByType::default(),
            vins: vins.iter().map(|vin| (vin.clone(), ByType::default())).collect(),
        }
    }

    pub(crate) fn add(&self, record_type: &str, vin: &str, signals: u64) {
        let Some(at) = TYPES.iter().position(|name| *name == record_type) else {
            return;
        };
        self.all.0[at].add_many(signals);
        if let Some(own) = self.vins.get(vin) {
            own.0[at].add_many(signals);
        }
    }

    pub(crate) fn snapshot(&self) -> SignalCounts {
        let vins = self.vins.iter().map(|(vin, counts)| (vin.clone(), counts.snapshot()));
        SignalCounts {
            all: self.all.snapshot(),
            vins: vins.collect(),
        }
    }
}

impl ByType {
    fn snapshot(&self) -> BTreeMap<&'static str, u64> {
        let counts = self.0.iter().map(Count::get);
        TYPES.into_iter().zip(counts).collect()
    }
}
