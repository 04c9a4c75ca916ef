//! The account at the end: what vehicles had acknowledged against what a consumer read back from the upstream.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::cli::simulate::VehicleTally;

/// What was delivered of one vehicle: the numbers of its records, in the order in which they were read from its
/// partition, by topic.
pub(super) type Delivered = HashMap<(String, String), Vec<u64>>;

/// A consumer that reads everything from the beginning, in a thread of its own.
pub(super) struct Consumer {
    thread: JoinHandle<Delivered>,
    stop: Arc<AtomicBool>,
    delivered: Arc<AtomicU64>,
}

/// Nothing new for this long at the end means that there is nothing more.
const QUIET: Duration = Duration::from_secs(2);

impl Consumer {
    pub(super) fn start(servers: &str, topics: &[String], partitions: i32) -> Result<Self, KafkaError> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("group.id", "waystation-demo")
            .set("enable.auto.commit", "false")
            .set("reconnect.backoff.max.ms", "1000")
            .set("log_level", "2")
            .create()?;
        let mut everything = TopicPartitionList::new();
        for topic in topics {
            for partition in 0..partitions {
                everything.add_partition_offset(topic, partition, Offset::Beginning)?;
            }
        }
        consumer.assign(&everything)?;
        let stop = Arc::new(AtomicBool::new(false));
        let delivered = Arc::new(AtomicU64::new(0));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&delivered));
        let thread = std::thread::spawn(move || read(&consumer, &stopped, &count));
        Ok(Self {
            thread,
            stop,
            delivered,
        })
    }

    /// Records of vehicles read so far, repeats included.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Reads what is left, then gives it all.
    pub(super) fn finish(self) -> Delivered {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn read(consumer: &BaseConsumer, stop: &AtomicBool, count: &AtomicU64) -> Delivered {
    let mut delivered = Delivered::new();
    loop {
        let last = stop.load(Ordering::Relaxed);
        match consumer.poll(if last { QUIET } else { Duration::from_millis(100) }) {
            Some(Ok(message)) => {
                let txid = message
                    .headers()
                    .and_then(|headers| headers.iter().find(|header| header.key == "txid"));
                let txid = txid.and_then(|header| std::str::from_utf8(header.value?).ok());
                // Connectivity records have the connection's id instead.
                let Some((vin, number)) = txid.and_then(|txid| txid.rsplit_once('-')) else {
                    continue;
                };
                if message.key() == Some(vin.as_bytes())
                    && let Ok(number) = number.parse()
                {
                    delivered
                        .entry((vin.to_owned(), message.topic().to_owned()))
                        .or_default()
                        .push(number);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            // The outage is part of the play.
            Some(Err(error)) => tracing::debug!(%error, "consumer"),
            None if last => return delivered,
            None => {}
        }
    }
}

/// Every record's fate, summed up.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(super) struct Account {
    sent: u64,
    acknowledged: u64,
    delivered: u64,
    duplicates: u64,
    lost: u64,
    out_of_order: u64,
}

impl Account {
    pub(super) fn settle(vehicles: &[VehicleTally], delivered: Delivered) -> Self {
        let mut seen: HashSet<(String, u64)> = HashSet::new();
        let (mut duplicates, mut out_of_order) = (0, 0);
        for ((vin, _), numbers) in delivered {
            let mut highest = None;
            for number in numbers {
                if !seen.insert((vin.clone(), number)) {
                    duplicates += 1;
                    continue;
                }
                // Order holds within a partition, so within one topic of a vehicle.
                if highest.is_some_and(|highest| number < highest) {
                    out_of_order += 1;
                }
                highest = highest.max(Some(number));
            }
        }
        let missing = |vehicle: &VehicleTally| {
            vehicle
                .acked
                .iter()
                .filter(|number| !seen.contains(&(vehicle.vin.clone(), **number)))
                .count() as u64
        };
        Self {
            sent: vehicles.iter().map(|vehicle| vehicle.sent).sum(),
            acknowledged: vehicles.iter().map(|vehicle| vehicle.acked.len() as u64).sum(),
            delivered: seen.len() as u64,
            duplicates,
            lost: vehicles.iter().map(missing).sum(),
            out_of_order,
        }
    }

    pub(super) fn is_good(&self) -> bool {
        self.lost == 0 && self.out_of_order == 0 && self.acknowledged == self.sent && self.sent > 0
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sent           {:>8}", self.sent)?;
        writeln!(f, "acknowledged   {:>8}", self.acknowledged)?;
        writeln!(f, "delivered      {:>8}", self.delivered)?;
        writeln!(f, "duplicates     {:>8}", self.duplicates)?;
        writeln!(f, "lost           {:>8}", self.lost)?;
        write!(f, "out of order   {:>8}", self.out_of_order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vehicle(sent: u64, acked: &[u64]) -> VehicleTally {
        VehicleTally {
            vin: "A".to_owned(),
            sent,
            acked: acked.to_vec(),
            ..VehicleTally::default()
        }
    }

    fn settle(numbers: &[u64]) -> Account {
        let delivered = [(("A".to_owned(), "demo_V".to_owned()), numbers.to_vec())].into();
        Account::settle(&[vehicle(4, &[0, 1, 2, 3])], delivered)
    }

    #[test]
    fn losses_repeats_and_disorder_are_counted() {
        assert!(settle(&[0, 1, 2, 3]).is_good());
        let repeated = settle(&[0, 1, 2, 1, 2, 3]);
        assert!(repeated.is_good() && repeated.duplicates == 2);
        let lost = settle(&[0, 1, 3]);
        assert!(!lost.is_good() && lost.lost == 1);
        let disordered = settle(&[0, 2, 1, 3]);
        assert!(!disordered.is_good() && disordered.out_of_order == 1);
        assert!(
            !Account::settle(&[vehicle(0, &[])], Delivered::new()).is_good(),
            "nothing happened"
        );
    }
}
