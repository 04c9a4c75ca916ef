//! What the listener counts. By record type only for those that are routed, and all others together: vehicles choose
//! the names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use super::signals::{SignalCounts, Signals};
use crate::config::Routes;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Running totals of the listener.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub(crate) $name: Count,)*
            pub(super) signals: Signals,
            types: BTreeMap<String, TypeCounters>,
            others: TypeCounters,
        }

        /// The same, at one moment.
        #[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
        pub struct CountersSnapshot {
            $($(#[$doc])* pub $name: u64,)*
            /// By record type; `other` for all that are not routed.
            pub types: BTreeMap<String, TypeCounts>,
            /// Signals in the records that came in.
            pub signals: SignalCounts,
        }

        impl Counters {
            /// The totals now.
            pub fn snapshot(&self) -> CountersSnapshot {
                let others = ("other".to_owned(), self.others.snapshot());
                let types = self.types.iter().map(|(name, counts)| (name.clone(), counts.snapshot()));
                CountersSnapshot {
                    $($name: self.$name.get(),)*
                    types: types.chain([others]).collect(),
                    signals: self.signals.snapshot(),
                }
            }
        }
    };
}

counters! {
    /// Vehicles connected now.
    connections,
    /// Connections refused because there were too many.
    connections_refused,
    /// Handshakes that failed or took too long.
    handshake_errors,
    /// Upgrades refused with 403.
    upgrades_refused,
    /// Vehicles told to come again later because the queue is full.
    turned_away,
    /// Connections replaced by a newer one of the same vehicle.
    replaced,
    /// Acks sent for stored records.
    acked,
    /// Records that were not stored and not acknowledged.
    not_acked,
    /// Messages above the size limit.
    too_big,
    /// Records of an unrouted type that claim another sender.
    unauthorized_sender,
    /// Envelopes of another message type.
    unknown_message_type,
    /// Messages that could not be read, or whose payload could not.
    unreadable,
    /// Empty messages and envelopes without a message.
    empty,
    /// Times that a vehicle's socket was not read because it was over its rate.
    rate_limited,
    /// Times that a vehicle's socket was not read because too many bytes waited for their commit.
    backpressured,
    /// Connections that ended with a socket error.
    socket_errors,
    /// Connections closed because the vehicle was silent.
    idle_closed,
    /// Connectivity records that could not be stored.
    connectivity_dropped,
}

/// One total.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_many(&self, many: u64) {
        self.0.fetch_add(many, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct TypeCounters {
    records: Count,
    bytes: Count,
}

/// Totals of one record type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct TypeCounts {
    /// Records that came in.
    pub records: u64,
    /// Their payload bytes.
    pub bytes: u64,
}

impl TypeCounters {
    fn snapshot(&self) -> TypeCounts {
        TypeCounts {
            records: self.records.get(),
            bytes: self.bytes.get(),
        }
    }
}

impl Counters {
    /// Totals for the record types that are routed, and of signals for these vehicles.
    pub fn new(routes: &Routes, signal_vins: &BTreeSet<String>) -> Self {
        let types = routes
            .by_type
            .keys()
            .map(|name| (name.clone(), TypeCounters::default()))
            .collect();
        Self {
            types,
            signals: Signals::new(signal_vins),
            ..Self::default()
        }
    }

    pub(crate) fn record(&self, record_type: &str, bytes: usize) {
        let counts = self.types.get(record_type).unwrap_or(&self.others);
        counts.records.add();
        counts.bytes.add_many(bytes as u64);
    }
}
