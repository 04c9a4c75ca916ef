//! Holds a queue, opened as after any start, against what its users had been told by the time of a cut.

use std::collections::BTreeMap;
use std::path::Path;

use waystation::queue::{Item, Queue, Queued, Reader};

use crate::journal::{Known, Txid, record, txid};
use crate::{DESTINATIONS, SETTINGS};

/// The vehicle that sends after the cut.
const AFTERWARDS: Txid = (usize::MAX, 0);

/// What was there.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Records that had to be there, for each destination: acknowledged, whether or not it had confirmed them.
    pub(crate) acknowledged: usize,
    /// Records that were there beyond those: on the disk, and their ack not yet seen.
    pub(crate) more: usize,
}

/// Opens the queue, reads everything for each destination, sends one more record, stops it. An error says what is not
/// as it must be after a cut behind so many log entries.
pub(crate) fn check(dir: &Path, known: &Known, entries: u64) -> Result<Found, String> {
    let (queue, writer) = Queue::open(dir, SETTINGS).map_err(|error| format!("the queue does not open: {error}"))?;
    for destination in DESTINATIONS {
        queue.register(destination, true);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| error.to_string())?;
    let checked = runtime.block_on(account(&queue, known, entries));
    drop(runtime);
    let lost = queue.snapshot().lost;
    drop(queue);
    let closed = writer.close();
    let found = checked?;
    closed.map_err(|error| format!("the queue does not close: {error}"))?;
    if lost > 0 {
        return Err(format!("the queue says that {lost} records are lost"));
    }
    let set_aside = std::fs::read_dir(dir.join("quarantine")).map_or(0, Iterator::count);
    if set_aside > 0 {
        return Err(format!("{set_aside} files are in quarantine"));
    }
    Ok(found)
}

async fn account(queue: &Queue, known: &Known, entries: u64) -> Result<Found, String> {
    let acknowledged: Vec<Txid> = known
        .acknowledged
        .iter()
        .take_while(|(at, _)| *at <= entries)
        .map(|(_, txid)| *txid)
        .collect();
    // Before the first ack the queue itself may not be there yet.
    let same_queue = queue.id().to_string() == known.queue;
    if !acknowledged.is_empty() && !same_queue {
        return Err(format!("the queue is {}, and was {}", queue.id(), known.queue));
    }
    let mut found = Found {
        acknowledged: acknowledged.len(),
        more: 0,
    };
    let (mut highest, mut end) = (None, None);
    for destination in DESTINATIONS {
        let cursor = queue.cursor(destination);
        let advanced = known
            .advancing
            .iter()
            .filter(|(at, name, _)| *at <= entries && *name == destination);
        let advanced = advanced.map(|(_, _, next)| *next).max().unwrap_or_default();
        if cursor > advanced {
            return Err(format!(
                "{destination} is at {cursor}, and had confirmed what is before {advanced}"
            ));
        }
        let mut reader = queue.reader(destination);
        let records = drain(&mut reader)
            .await
            .map_err(|why| format!("{destination}: {why}"))?;
        let there = places(&records, known, entries, same_queue).map_err(|why| format!("{destination}: {why}"))?;
        for txid in &acknowledged {
            let confirmed = known.number_of.get(txid).is_some_and(|number| *number < cursor);
            if confirmed == there.contains_key(txid) {
                return Err(format!(
                    "{txid:?} was acknowledged, and {destination}, whose cursor is {cursor}, has {} (number {:?})",
                    if confirmed { "it after confirming it" } else { "lost it" },
                    known.number_of.get(txid),
                ));
            }
        }
        let confirmed = acknowledged.iter().filter(|txid| !there.contains_key(txid)).count();
        found.more = found
            .more
            .max((there.len() + confirmed).saturating_sub(acknowledged.len()));
        end = Some(reader);
        highest = highest.max(there.into_values().max()).max(cursor.checked_sub(1));
    }
    let given_out = known.numbers.iter().filter(|(_, (at, _))| same_queue && *at <= entries);
    let highest = highest.max(given_out.map(|(number, _)| *number).max());
    let mut end = end.ok_or("no destinations")?;
    one_more(queue, &mut end, highest).await?;
    Ok(found)
}

/// The number of each record that is there; an error if one is not as it was sent, or out of its vehicle's order.
fn places(records: &[Queued], known: &Known, entries: u64, same_queue: bool) -> Result<BTreeMap<Txid, u64>, String> {
    let mut there = BTreeMap::new();
    let mut newest = BTreeMap::new();
    for queued in records {
        let number = queued.id.number;
        let txid = txid(&queued.record).ok_or_else(|| format!("number {number} is a record of nobody"))?;
        let (vehicle, count) = txid;
        let sent = known.sent.get(&txid).filter(|(at, _)| *at <= entries);
        let (_, bytes) = sent.ok_or_else(|| format!("{txid:?} was never sent, and is number {number}"))?;
        if queued.record != record(txid, *bytes) {
            return Err(format!("{txid:?}, number {number}, is not as it was sent"));
        }
        if newest.insert(vehicle, count) >= Some(count) {
            return Err(format!(
                "{txid:?}, number {number}, is there twice or behind a later one"
            ));
        }
        if let Some((_, stood_for)) = known.numbers.get(&number).filter(|_| same_queue)
            && *stood_for != txid
        {
            return Err(format!(
                "number {number} stood for {stood_for:?}, and stands for {txid:?}"
            ));
        }
        there.insert(txid, number);
    }
    Ok(there)
}

/// It goes on: a new record is stored, comes next, and its number is above all that somebody has seen.
async fn one_more(queue: &Queue, end: &mut Reader, highest: Option<u64>) -> Result<(), String> {
    let item = Item::Record(record(AFTERWARDS, 100));
    let stored = queue.submitter().store(item).await;
    stored.map_err(|error| format!("the next record is not stored: {error}"))?;
    match drain(end).await?.as_slice() {
        [next] if next.record != record(AFTERWARDS, 100) => Err("the next record is not as it was sent".to_owned()),
        [next] if Some(next.id.number) <= highest => {
            Err(format!("number {} is used again, {highest:?} was", next.id.number))
        }
        [_] => Ok(()),
        other => Err(format!("one record was acknowledged, and {} came", other.len())),
    }
}

async fn drain(reader: &mut Reader) -> Result<Vec<Queued>, String> {
    let mut records = Vec::new();
    loop {
        let before = reader.position();
        let batch = reader.next(64 << 10).await;
        records.extend(batch.map_err(|error| format!("it cannot be read: {error}"))?.records);
        if reader.position() == before {
            return Ok(records);
        }
    }
}
