//! What arrived at one destination, and what is to be said of it.
//!
//! Order is asked of first arrivals, per vehicle and, in Kafka, topic: by transaction id (in `account`) and by record
//! number. A record that came twice has to be the same both times, and to have been on its way when a session ended.

use std::collections::{BTreeMap, HashMap};

use waystation::cli::simulate::VehicleTally;
use xxhash_rust::xxh3::xxh3_64;

use crate::account::account;
use crate::noted::Interval;

/// One record's arrival.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) number: u64,
    vin: String,
    txid: String,
    /// Where order holds.
    channel: String,
    /// Of everything that arrived.
    digest: u64,
}

impl Arrival {
    /// `record`: `{queue id}-{number}`. `all`: everything that copies have to agree in.
    pub(crate) fn new(record: &str, vin: &str, txid: &str, channel: &str, all: &[u8]) -> Self {
        let (_, number) = record.rsplit_once('-').unwrap();
        Self {
            number: number.parse().unwrap(),
            vin: vin.to_owned(),
            txid: txid.to_owned(),
            channel: channel.to_owned(),
            digest: xxh3_64(&[format!("{record} {vin} {txid} ").as_bytes(), all].concat()),
        }
    }
}

#[derive(Default)]
pub(crate) struct Ledger {
    arrivals: Vec<Arrival>,
    /// How often each number arrived.
    copies: BTreeMap<u64, usize>,
}

/// What is to be said of a destination.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) records: usize,
    /// Acknowledged and not there, or there at another destination and not here.
    pub(crate) lost: usize,
    pub(crate) out_of_order: usize,
    /// Copies beyond the first ones.
    pub(crate) duplicates: usize,
    /// Those of them that nothing explains.
    pub(crate) unexplained: usize,
    /// Copies that differ, or that stand for another vehicle or transaction id than elsewhere.
    pub(crate) different: usize,
    /// The first few of what is wrong.
    pub(crate) examples: Vec<String>,
}

/// What each number stands for, at all destinations: vehicle and transaction id.
pub(crate) type Meanings = BTreeMap<u64, (String, String)>;

/// Cuts intervals down for a destination that holds so many records unconfirmed at most.
pub(crate) fn within_window(intervals: &mut [Interval], meanings: &Meanings, window: usize) {
    for interval in intervals {
        // By records, not by numbers: a start after a crash skips some.
        let beyond = meanings.range(interval.cursor..).nth(window);
        interval.to = beyond.map_or(interval.to, |(number, _)| interval.to.min(*number));
    }
}

impl Ledger {
    pub(crate) fn add(&mut self, arrival: Arrival) {
        *self.copies.entry(arrival.number).or_default() += 1;
        self.arrivals.push(arrival);
    }

    pub(crate) fn arrived(&self) -> usize {
        self.arrivals.len()
    }

    /// Different records.
    pub(crate) fn records(&self) -> usize {
        self.copies.len()
    }

    /// One more than the highest number.
    pub(crate) fn end(&self) -> u64 {
        self.copies.last_key_value().map_or(0, |(number, _)| number + 1)
    }

    /// Adds what its numbers stand for, as far as nobody has said so yet.
    pub(crate) fn tell(&self, meanings: &mut Meanings) {
        for arrival in &self.arrivals {
            let meaning = || (arrival.vin.clone(), arrival.txid.clone());
            meanings.entry(arrival.number).or_insert_with(meaning);
        }
    }

    pub(crate) fn judge(&self, vehicles: &[VehicleTally], meanings: &Meanings, intervals: &[Interval]) -> Verdict {
        let txids = self.arrivals.iter();
        let by_txid = account(vehicles, txids.map(|one| (one.txid.clone(), one.channel.clone())));
        let mut verdict = Verdict {
            records: self.records(),
            lost: by_txid.lost,
            out_of_order: by_txid.out_of_order,
            examples: by_txid.examples,
            ..Verdict::default()
        };
        let mut first: HashMap<u64, &Arrival> = HashMap::new();
        let mut highest: HashMap<(&str, &str), u64> = HashMap::new();
        for arrival in &self.arrivals {
            let number = arrival.number;
            if let Some(first) = first.get(&number) {
                verdict.duplicates += 1;
                if first.digest != arrival.digest {
                    verdict.different += 1;
                    verdict.examples.push(format!("{first:?} is not {arrival:?}"));
                }
                continue;
            }
            first.insert(number, arrival);
            let (vin, txid) = &meanings[&number];
            if (vin, txid) != (&arrival.vin, &arrival.txid) {
                verdict.different += 1;
                verdict
                    .examples
                    .push(format!("{arrival:?} is {txid} of {vin} elsewhere"));
            }
            let last = highest.entry((&arrival.vin, &arrival.channel)).or_insert(number);
            if number < *last {
                verdict.out_of_order += 1;
                verdict.examples.push(format!("{arrival:?} after {last}"));
            }
            *last = number.max(*last);
        }
        for number in meanings.keys().filter(|number| !first.contains_key(number)) {
            verdict.lost += 1;
            verdict.examples.push(format!("{number} is elsewhere"));
        }
        for (number, copies) in self.copies.iter().filter(|(_, copies)| **copies > 1) {
            let of_it = |interval: &&Interval| (interval.from..interval.to).contains(number);
            let explained: usize = intervals.iter().filter(of_it).map(|interval| interval.ends).sum();
            if copies - 1 > explained {
                verdict.unexplained += copies - 1 - explained;
                let example = format!("{number} came {copies} times, {explained} sessions ended with it on its way");
                verdict.examples.push(example);
            }
        }
        verdict.examples.truncate(12);
        verdict
    }
}

impl Verdict {
    pub(crate) fn assert_good(&self, destination: &str) {
        let found = [self.lost, self.out_of_order, self.unexplained, self.different];
        assert_eq!(
            found, [0; 4],
            "{destination}: lost, out of order, unexplained duplicates, different copies; {:#?}",
            self.examples
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIN: &str = "5YJ3E1EA7KF000001";

    fn judged(arrivals: &[(u64, u64, &str)], acked: u64, intervals: &[Interval]) -> Verdict {
        let mut ledger = Ledger::default();
        for (number, txid, all) in arrivals {
            let (record, txid) = (format!("queue-{number}"), format!("{VIN}-{txid}"));
            ledger.add(Arrival::new(&record, VIN, &txid, "", all.as_bytes()));
        }
        let mut meanings = Meanings::new();
        ledger.tell(&mut meanings);
        let tally = VehicleTally {
            vin: VIN.to_owned(),
            acked: (0..acked).collect(),
            ..VehicleTally::default()
        };
        ledger.judge(&[tally], &meanings, intervals)
    }

    #[test]
    fn what_is_wrong_is_found() {
        let good = judged(&[(5, 0, ""), (6, 1, ""), (9, 2, "")], 3, &[]);
        assert_eq!((good.records, &good.examples), (3, &Vec::new()));
        good.assert_good("it");
        assert_eq!(judged(&[(5, 0, ""), (9, 2, "")], 3, &[]).lost, 1);
        let overtaken = judged(&[(6, 1, ""), (5, 0, "")], 2, &[]);
        assert_eq!(overtaken.out_of_order, 2, "by transaction id and by number");
        assert_eq!(judged(&[(5, 0, "a"), (5, 0, "b")], 1, &[]).different, 1);
        assert_eq!(judged(&[(5, 0, ""), (5, 1, "")], 1, &[]).different, 1);
    }

    #[test]
    fn a_duplicate_needs_a_session_that_ended_with_it_on_its_way() {
        let arrivals = [(5, 0, ""), (6, 1, ""), (6, 1, ""), (6, 1, "")];
        let interval = |from, to, ends| Interval {
            from,
            to,
            cursor: to,
            ends,
        };
        let unexplained = |intervals: &[Interval]| judged(&arrivals, 2, intervals).unexplained;
        assert_eq!(unexplained(&[]), 2);
        assert_eq!(unexplained(&[interval(5, 6, 2), interval(7, 9, 2)]), 2);
        assert_eq!(unexplained(&[interval(5, 7, 1)]), 1);
        assert_eq!(unexplained(&[interval(5, 7, 1), interval(6, 7, 1)]), 0);
    }

    #[test]
    fn a_window_bounds_what_was_on_its_way() {
        let meanings = [1, 2, 3, 70, 71, 72].map(|number| (number, Default::default())).into();
        let mut intervals = [Interval {
            from: 1,
            to: 72,
            cursor: 2,
            ends: 1,
        }];
        within_window(&mut intervals, &meanings, 10);
        assert_eq!(intervals[0].to, 72);
        within_window(&mut intervals, &meanings, 3);
        assert_eq!(intervals[0].to, 71, "2, 3 and 70");
    }
}
