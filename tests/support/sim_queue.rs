//! A queue on a simulated disk whose writer turns when it is told to, with one destination.
#![allow(dead_code)]

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::task::unconstrained;
use waystation::queue::storage::Disk;
use waystation::queue::{Item, Queue, Settings, Submitter, WhenFull, Writer};
use waystation::record::Record;

use crate::sim_disk::SimDisk;

pub(crate) const DIR: &str = "/queue";
pub(crate) const SMALL: usize = 300;
/// More than the journal takes, and a row of its own.
pub(crate) const LARGE: usize = 100_000;

/// A queue of segments of this size.
pub(crate) const fn settings(max_bytes: u64, segment_size: u64) -> Settings {
    Settings {
        max_bytes,
        segment_size,
        commit_delay: Duration::ZERO,
        dead_letter_bytes: 1 << 20,
        keep_free: 0,
        when_full: WhenFull::Refuse,
        max_age: None,
        duplicate_window: 1 << 20,
    }
}

pub(crate) fn record(n: u64, payload: usize) -> Record {
    Record {
        vin: "5YJ3E1EA7KF000001".into(),
        record_type: "V".into(),
        txid: Bytes::from(n.to_string()),
        received_at: 1_700_000_000_000 + n,
        client_version: "1".into(),
        payload: vec![n as u8; payload].into(),
        origin: None,
        only: None,
    }
}

/// With the destination "a".
pub(crate) fn open_with(disk: &Arc<SimDisk>, settings: Settings) -> (Queue, Writer) {
    let disk: Arc<dyn Disk> = Arc::<SimDisk>::clone(disk);
    let (queue, writer) = Queue::open_on(&disk, Path::new(DIR), settings).unwrap();
    queue.register("a", true);
    (queue, writer)
}

/// Hands a record in, and gives its ticket.
pub(crate) fn submit(submitter: &mut Submitter, n: u64, payload: usize) -> u64 {
    let handed = unconstrained(submitter.submit(Item::Record(record(n, payload)))).now_or_never();
    handed.expect("there is room in the line").unwrap()
}

/// Hands records in and lets the writer have them, a commit each.
pub(crate) fn store(submitter: &mut Submitter, writer: &mut Writer, numbers: Range<u64>, payload: usize) {
    for n in numbers {
        let ticket = submit(submitter, n, payload);
        assert!(writer.turn(Instant::now()).unwrap());
        assert_eq!((submitter.committed(), submitter.refusal()), (ticket + 1, None));
    }
}
