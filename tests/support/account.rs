//! The account: every acknowledged record against everything that arrived.
#![allow(dead_code)]

use std::collections::{HashMap, HashSet};

use waystation::cli::simulate::VehicleTally;

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) delivered: usize,
    pub(crate) duplicates: usize,
    pub(crate) lost: usize,
    pub(crate) out_of_order: usize,
    /// The first few of the lost and the disordered.
    pub(crate) examples: Vec<String>,
}

/// `arrived`: transaction ids `{VIN}-{number}`, each with the channel in which order holds (a topic, or nothing), in
/// the order of their arrival. The order that is asked for is that of the first arrivals.
pub(crate) fn account(vehicles: &[VehicleTally], arrived: impl IntoIterator<Item = (String, String)>) -> Account {
    let mut account = Account::default();
    let mut seen = HashSet::new();
    let mut highest: HashMap<(String, String), u64> = HashMap::new();
    for (txid, channel) in arrived {
        let Some((vin, number)) = txid.rsplit_once('-') else {
            continue;
        };
        let (true, Ok(number)) = (vin.len() == 17, number.parse::<u64>()) else {
            continue;
        };
        if !seen.insert(txid.clone()) {
            account.duplicates += 1;
            continue;
        }
        account.delivered += 1;
        let last = highest.entry((vin.to_owned(), channel)).or_insert(number);
        if number < *last {
            account.out_of_order += 1;
            account.examples.push(format!("{txid} after {last}"));
        } else {
            *last = number;
        }
    }
    for vehicle in vehicles {
        let ids = vehicle.acked.iter().map(|number| format!("{}-{number}", vehicle.vin));
        let lost: Vec<_> = ids.filter(|id| !seen.contains(id)).collect();
        account.lost += lost.len();
        account.examples.extend(lost);
    }
    account.examples.truncate(6);
    account
}

impl Account {
    /// Everything that was acknowledged is there, in order.
    pub(crate) fn assert_complete(&self, delivered: usize) {
        let found = (self.delivered, self.lost, self.out_of_order);
        assert_eq!(
            found,
            (delivered, 0, 0),
            "delivered, lost, out of order; {:?}",
            self.examples
        );
    }
}
