//! What could not be delivered or decoded, kept for a person to look at: durable before anything passes it, bounded in
//! bytes, the oldest out first.
//!
//! The same segments as the queue's, in a directory of their own.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::segment::Chunk;
use super::segments::{Segments, SegmentsError};
use crate::record::proto::store::StoredDeadLetter;
use crate::record::stored::{FrameError, QueueId, RecordId, append_message};

/// Something that cannot be delivered.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Who gave it up: a destination's name, or `listener`.
    pub origin: String,
    /// Why, in one sentence.
    pub reason: String,
    /// When, milliseconds since the epoch.
    pub at: u64,
    /// Whose it is.
    pub vin: String,
    /// Its record type, if it is known.
    pub record_type: String,
    /// Its transaction id, if it is known.
    pub txid: Bytes,
    /// The payload as it came, or the whole message where there is no payload in it.
    pub raw: Bytes,
    /// What consumers know it by, if it was a record.
    pub record: Option<RecordId>,
    /// When the gateway received it, milliseconds since the epoch.
    pub received_at: u64,
    /// The vehicle's client version.
    pub client_version: String,
}

/// The dead letter in a checked frame; `None` for one that was erased.
pub(crate) fn read(message: Bytes, id: RecordId) -> Result<Option<DeadLetter>, FrameError> {
    let number = id.number;
    let stored = StoredDeadLetter::decode(message).map_err(|error| FrameError::Content {
        number,
        reason: error.to_string(),
    })?;
    if stored.erased {
        return Ok(None);
    }
    Ok(Some(DeadLetter {
        origin: stored.origin,
        reason: stored.reason,
        at: stored.at_ms,
        vin: stored.vin,
        record_type: stored.record_type,
        txid: stored.txid,
        raw: stored.raw,
        record: stored.record.map(|number| RecordId {
            queue: QueueId::from_slice(&stored.record_queue).unwrap_or(id.queue),
            number,
        }),
        received_at: stored.received_at_ms,
        client_version: stored.client_version,
    }))
}

pub(crate) struct DeadLetters {
    segments: Arc<Segments>,
    queue: QueueId,
    next: u64,
    max_bytes: u64,
}

/// A fresh segment's blocks, more or less.
const MIN_SEGMENT: u64 = 1 << 20;

impl DeadLetters {
    pub(crate) fn new(segments: Arc<Segments>, queue: QueueId, next: u64, max_bytes: u64) -> Self {
        Self {
            segments,
            queue,
            next,
            max_bytes,
        }
    }

    pub(crate) fn set_max_bytes(&mut self, max_bytes: u64) {
        self.max_bytes = max_bytes;
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Puts them on the disk. What has to go for it is logged as lost.
    pub(crate) fn append(&mut self, letters: &[&DeadLetter]) -> Result<(), SegmentsError> {
        let mut bytes = Vec::new();
        let first = self.next;
        for (number, letter) in (first..).zip(letters) {
            let message = StoredDeadLetter {
                number,
                origin: letter.origin.clone(),
                reason: letter.reason.clone(),
                at_ms: letter.at,
                vin: letter.vin.clone(),
                record_type: letter.record_type.clone(),
                txid: letter.txid.clone(),
                raw: letter.raw.clone(),
                record: letter.record.map(|record| record.number),
                record_queue: letter
                    .record
                    .filter(|record| record.queue != self.queue)
                    .map_or_else(Bytes::new, |record| Bytes::copy_from_slice(&record.queue.0)),
                received_at_ms: letter.received_at,
                client_version: letter.client_version.clone(),
                erased: false,
            };
            append_message(&mut bytes, self.queue, number, &message);
        }
        bytes.shrink_to_fit();
        self.drop_oldest(bytes.len() as u64)?;
        let end = first + letters.len() as u64;
        let chunk = Chunk {
            first,
            end,
            bytes: bytes.into(),
        };
        // They go by space, never by age.
        let appended = self.segments.append(&[chunk], self.queue, self.segment_bytes(), 0);
        self.next = self.next.max(self.segments.used());
        appended
    }

    fn drop_oldest(&mut self, coming: u64) -> Result<(), SegmentsError> {
        while self.segments.disk_bytes() + coming > self.max_bytes {
            let Some((first, end)) = self.segments.oldest_sealed() else {
                break;
            };
            self.segments.remove_below(end, 1)?;
            tracing::error!(
                first,
                end,
                dropped = end - first,
                "dead letters dropped: their space is used up"
            );
        }
        Ok(())
    }

    pub(crate) fn close(&mut self) -> Result<(), SegmentsError> {
        self.segments.put_away()
    }

    /// Puts small segments together: whoever looks at the letters has the newest sealed each time, and each takes space
    /// that letters are dropped for.
    pub(super) fn tidy(&self) {
        loop {
            match self.segments.join_newest(self.segment_bytes()) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, "segments of dead letters stay small");
                    return;
                }
            }
        }
    }

    fn segment_bytes(&self) -> u64 {
        (self.max_bytes / 8).max(MIN_SEGMENT)
    }
}
