//! Dead letters on their way back: each becomes a record again, for the destination that gave it up and nobody else.
//!
//! A letter is erased only when its record is committed. What a crash leaves between the two is tried twice, under one id.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::dead_letters::DeadLetter;
use super::inlet::{Item, Refusal};
use super::inspect::InspectError;
use super::purge::PurgeError;
use super::{OrderError, Queue, Step, walk_dead_letters_on};
use crate::record::Record;

/// What became of the letters that were asked for.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Retried {
    /// They are records again.
    pub records: u64,
    /// They stay: no record could be read from them, or their destination is not configured.
    pub stay: u64,
    /// Those of destinations that are not configured, by their names: as records they would be handed to nobody, and go with
    /// the place of the destination when that is forgotten.
    #[serde(default)]
    pub unconfigured: BTreeMap<String, u64>,
}

/// Why not all were tried again. What is not stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    /// The open segment could not be ended.
    #[error("the open segment: {0}")]
    Order(#[from] OrderError),
    /// They could not be read.
    #[error(transparent)]
    Read(#[from] InspectError),
    /// The queue takes no more.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// They are records again, and could not be erased.
    #[error("they are tried again, and are still among the dead letters: {0}")]
    Erase(#[source] PurgeError),
    /// The process is ending.
    #[error("given up: {0}")]
    Ended(#[from] tokio::task::JoinError),
}

impl Queue {
    /// Makes records of dead letters again.
    pub async fn retry(&self, numbers: BTreeSet<u64>) -> Result<Retried, RetryError> {
        let end = self.seal().await?.dead_letters;
        let queue = self.clone();
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || queue.retry_now(&numbers, end, &runtime)).await?
    }

    fn retry_now(
        &self,
        numbers: &BTreeSet<u64>,
        end: u64,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Retried, RetryError> {
        let letters = &self.0.dead_letters;
        let dir = letters.dir.parent().unwrap_or(&letters.dir);
        // In the order in which they are handed in, as they are counted.
        let (mut retried, mut handed) = (Retried::default(), Vec::new());
        let mut submitter = self.submitter();
        let mut last = None;
        let walked = walk_dead_letters_on(&*letters.disk, dir, end, |step| -> Result<(), RetryError> {
            let Step::Found((number, letter)) = step else {
                return Ok(());
            };
            if !numbers.contains(&number) {
                return Ok(());
            }
            match record_of(letter) {
                Some((origin, _)) if !self.0.positions.is_registered(&origin) => {
                    retried.stay += 1;
                    *retried.unconfigured.entry(origin).or_default() += 1;
                }
                Some((_, record)) => {
                    last = Some(runtime.block_on(submitter.submit(Item::Record(record)))?);
                    handed.push(number);
                }
                None => retried.stay += 1,
            }
            Ok(())
        });
        let settled = last.map_or(Ok(0), |last| runtime.block_on(submitter.advanced(last)));
        // Those that are records again are letters no longer, whatever became of the others.
        let done = handed.into_iter().take(submitter.committed() as usize).collect();
        retried.records = self.0.erase_letters(&done).map_err(RetryError::Erase)?;
        walked?;
        settled?;
        Ok(retried)
    }
}

/// A letter's record, and who gave it up.
fn record_of(letter: DeadLetter) -> Option<(String, Record)> {
    let record = Record {
        vin: letter.vin.into(),
        record_type: letter.record_type.into(),
        txid: letter.txid,
        received_at: letter.received_at,
        client_version: letter.client_version.into(),
        payload: letter.raw,
        origin: Some(letter.record?),
        only: Some(Arc::from(letter.origin.as_str())),
    };
    Some((letter.origin, record))
}
