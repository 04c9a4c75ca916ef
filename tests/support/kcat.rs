//! A consumer that is not ours, kcat, and the account of what it has read.
#![allow(dead_code)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::process::Command;
use std::time::Duration;

use waystation::cli::simulate::VehicleTally;

use crate::account::{Account, account};
use crate::daemon::{Daemon, alone, require, wait_for};
use crate::kafka_broker::{Cluster, TYPES};

const INSTALL: &str = "apt-get install -y --no-install-recommends kcat";

/// A message as kcat prints it.
#[derive(Debug, Clone)]
pub(crate) struct Read {
    pub(crate) topic: String,
    pub(crate) partition: String,
    pub(crate) timestamp: String,
    pub(crate) key: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) payload: Vec<u8>,
}

impl Read {
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(key, _)| key == name);
        &found.unwrap_or_else(|| panic!("no header {name} in {self:?}")).1
    }

    /// The queue's id and the record's number.
    pub(crate) fn record(&self) -> (&str, u64) {
        let (queue, number) = self.header("record").rsplit_once('-').unwrap();
        (queue, number.parse().unwrap())
    }
}

/// Everything in a topic; of each partition in its order.
pub(crate) fn read_topic(servers: &str, topic: &str) -> Vec<Read> {
    let output = kcat()
        .args(["-b", servers, "-C", "-q", "-e", "-o", "beginning", "-t", topic])
        .args(["-f", r"%t\t%p\t%T\t%k\t%h\t%S\n%s\n"])
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kcat: {} {words}", output.status);
    let mut rest = &output.stdout[..];
    let mut messages = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = std::str::from_utf8(&rest[..end]).unwrap();
        let parts: Vec<_> = line.split('\t').collect();
        let [topic, partition, timestamp, key, headers, bytes] = parts[..] else {
            panic!("kcat printed {line:?}");
        };
        let bytes: usize = bytes.parse().unwrap();
        let payload = rest[end + 1..][..bytes].to_vec();
        rest = &rest[end + 1 + bytes + 1..];
        let headers = headers.split(',').map(|header| header.split_once('=').unwrap());
        messages.push(Read {
            topic: topic.to_owned(),
            partition: partition.to_owned(),
            timestamp: timestamp.to_owned(),
            key: key.to_owned(),
            headers: headers.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            payload,
        });
    }
    messages
}

/// Everything in the topics of a namespace.
pub(crate) fn read(cluster: &Cluster, namespace: &str) -> Vec<Read> {
    let topics = TYPES.map(|name| format!("{namespace}_{name}"));
    let servers = cluster.plain();
    topics.iter().flat_map(|topic| read_topic(&servers, topic)).collect()
}

fn kcat() -> Command {
    alone(&require("kcat", INSTALL))
}

/// What was acknowledged against what kcat has read, which was checked by [`assert_sound`] too.
pub(crate) fn account_of(messages: &[Read], tallies: &[VehicleTally]) -> Account {
    let arrived = messages
        .iter()
        .map(|read| (read.header("txid").to_owned(), read.topic.clone()));
    account(tallies, arrived)
}

/// Every acknowledged record is there, in order, once per record number but for copies that a failed session explains.
pub(crate) fn assert_everything(daemon: &Daemon, messages: &[Read], tallies: &[VehicleTally], records: usize) {
    account_of(messages, tallies).assert_complete(records);
    let copies = assert_sound(daemon, messages);
    let failures = daemon.figure("cloud", "failures");
    assert!(
        copies == 0 || failures > 0,
        "{copies} copies in one session\n{}",
        daemon.log()
    );
    assert_eq!(daemon.figure("cloud", "refused"), 0, "{}", daemon.log());
}

/// Each message says what consumers are promised, copies of a record say the same, and records come first in the order
/// of their numbers. Returns how many are copies.
pub(crate) fn assert_sound(daemon: &Daemon, messages: &[Read]) -> usize {
    let names = [
        "vin",
        "receivedat",
        "timestamp",
        "txid",
        "txtype",
        "version",
        "device_client_version",
        "record",
    ];
    let id = daemon.status()["queue_id"].as_str().unwrap().to_owned();
    let mut first: BTreeMap<u64, &Read> = BTreeMap::new();
    let mut highest: HashMap<(&str, &str), u64> = HashMap::new();
    let mut homes: HashSet<(&str, &str, &str)> = HashSet::new();
    let mut copies = 0;
    for message in messages {
        let found: Vec<_> = message.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(found, names, "{message:?}");
        assert_eq!(message.key, message.header("vin"), "{message:?}");
        assert_eq!(message.timestamp, message.header("receivedat"), "{message:?}");
        assert!(
            message.topic.ends_with(&format!("_{}", message.header("txtype"))),
            "{message:?}"
        );
        assert_eq!((message.header("timestamp"), message.header("version")), ("0", "0"));
        let (queue, number) = message.record();
        assert_eq!(queue, id, "{message:?}");
        homes.insert((&message.topic, &message.key, &message.partition));
        if let Some(earlier) = first.get(&number) {
            assert_eq!(
                (&earlier.headers, &earlier.payload),
                (&message.headers, &message.payload)
            );
            copies += 1;
            continue;
        }
        first.insert(number, message);
        let last = highest.entry((&message.topic, &message.partition)).or_insert(number);
        assert!(*last <= number, "record {number} came behind {last}");
        *last = number;
    }
    let vehicles: HashSet<_> = homes.iter().map(|(topic, key, _)| (topic, key)).collect();
    assert_eq!(
        vehicles.len(),
        homes.len(),
        "a vehicle's records are in one partition of each topic"
    );
    copies
}

/// Reads until all acknowledged records are there.
pub(crate) fn read_all(cluster: &Cluster, namespace: &str, tallies: &[VehicleTally], records: usize) -> Vec<Read> {
    let mut messages = Vec::new();
    wait_for("everything has been read", Duration::from_secs(60), || {
        messages = read(cluster, namespace);
        account_of(&messages, tallies).delivered >= records
    });
    messages
}
