//! One destination's way through the queue: committed records in the order of their numbers, from memory when it keeps
//! up, else from the segments in short reads.
//!
//! Every record that comes out has been checked. Numbers that should hold a record and do not are reported as lost,
//! once for all readers, and passed over.

use std::sync::Arc;

use bytes::Bytes;

use super::Shared;
use super::segments::{Read, ReadHandle, SegmentsError};
use crate::record::Record;
use crate::record::salvage::next_intact;
use crate::record::stored::{RecordId, Texts, next_frame, next_unchecked, read_like};

/// Why a number is passed over.
const NOWHERE: &str = "no intact record has the number";

/// A committed record.
#[derive(Debug, Clone)]
pub struct Queued {
    /// Its place in this queue.
    pub id: RecordId,
    /// The record.
    pub record: Record,
}

impl Queued {
    /// What consumers deduplicate by: the same for every copy, whichever gateway delivers it.
    pub fn stable_id(&self) -> RecordId {
        self.record.origin.unwrap_or(self.id)
    }
}

/// What one read gave.
#[derive(Debug)]
pub struct Batch {
    /// The records, in order.
    pub records: Vec<Queued>,
    /// One more than the last number that was passed.
    pub end: u64,
}

/// Why nothing could be read for now.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The segments could not be read; trying again may help.
    #[error(transparent)]
    Segments(#[from] SegmentsError),
    /// The blocking read did not finish because the process is ending.
    #[error("the read was given up: {0}")]
    Ended(#[from] tokio::task::JoinError),
}

/// One destination's place in the queue.
pub struct Reader {
    shared: Arc<Shared>,
    destination: String,
    position: u64,
    handle: ReadHandle,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, destination: &str, position: u64) -> Self {
        Self {
            shared,
            destination: destination.to_owned(),
            position,
            handle: ReadHandle::default(),
        }
    }

    /// The number that is read next.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Waits until something is committed at or after the position. Cancel-safe.
    pub async fn ready(&self) {
        let mut committed = self.shared.committed.subscribe();
        let position = self.position;
        // The sender lives in `shared`, so this cannot fail.
        let _end = committed.wait_for(|end| *end > position).await;
    }

    /// The next records, about `max_bytes` of them. Empty when nothing is committed beyond the position. A read that
    /// is cancelled is repeated by the next call.
    pub async fn next(&mut self, max_bytes: usize) -> Result<Batch, ReadError> {
        self.position = self.position.max(self.cursor());
        let end = *self.shared.committed.borrow();
        if end <= self.position {
            return Ok(Batch {
                records: Vec::new(),
                end: self.position,
            });
        }
        let in_memory = self.shared.tail().read(self.position, max_bytes);
        let batch = if let Some(chunks) = in_memory {
            self.decode(Read {
                chunks,
                meta: None,
                is_checked: false,
            })?
        } else {
            let (shared, position) = (Arc::clone(&self.shared), self.position);
            let mut handle = std::mem::take(&mut self.handle);
            let (handle, read) = tokio::task::spawn_blocking(move || {
                let read = shared.segments.read(position, max_bytes, &mut handle);
                (handle, read)
            })
            .await?;
            self.handle = handle;
            match read? {
                Some(read) => self.decode(read)?,
                None => {
                    self.report_lost(self.position, end, "no segment holds them");
                    Batch {
                        records: Vec::new(),
                        end,
                    }
                }
            }
        };
        self.position = batch.end;
        Ok(batch)
    }

    /// Ahead of the position only when the writer moved it, to drop what this destination had not read in time.
    fn cursor(&self) -> u64 {
        self.shared.positions.get(&self.destination).unwrap_or_default()
    }

    fn report_lost(&self, from: u64, to: u64, reason: &str) {
        self.shared.report_lost(from.max(self.cursor()), to, reason);
    }

    fn decode(&mut self, read: Read) -> Result<Batch, SegmentsError> {
        let (meta, queue, is_checked) = (read.meta, self.shared.id, read.is_checked);
        let mut records = Vec::new();
        let mut texts = Texts::default();
        let mut position = self.position;
        let mut chunks = read.chunks.into_iter().peekable();
        while let Some(chunk) = chunks.next() {
            if chunk.first > position {
                // Numbers between the end of the segment before and the start of this one were never used.
                if let Some(meta) = meta.filter(|meta| (position..=chunk.first).contains(&meta.first)) {
                    self.report_lost(position, meta.follows, NOWHERE);
                    position = meta.first;
                }
                self.report_lost(position, chunk.first, NOWHERE);
                position = chunk.first;
            }
            let mut bytes: Bytes = chunk.bytes.clone();
            let mut number = chunk.first;
            while !bytes.is_empty() {
                let left = bytes.len();
                let message = match is_checked {
                    true => next_unchecked(&mut bytes, number).map(|(message, _)| message),
                    false => next_frame(&mut bytes, queue, number),
                };
                let record = message.and_then(|message| match number >= position {
                    true => read_like(message, number, &mut texts),
                    false => Ok(None),
                });
                match record {
                    Ok(record) => {
                        let id = RecordId { queue, number };
                        records.extend(record.map(|record| Queued { id, record }));
                        number += 1;
                        position = position.max(number);
                    }
                    Err(error) => {
                        let after = match chunks.peek() {
                            Some(next) => Some(next.first),
                            None => self.shared.segments.chunk_after(chunk.first, &mut self.handle)?,
                        };
                        let lost_end = after.unwrap_or_else(|| *self.shared.committed.borrow());
                        let behind = number + 1..lost_end;
                        let rest = chunk.bytes.slice(chunk.bytes.len() - left..);
                        if let Some(found) = next_intact(&rest, 1..rest.len(), queue, &behind) {
                            self.report_lost(position.max(number), found.number, &error.to_string());
                            bytes = rest.slice(found.bytes.start..);
                            (number, position) = (found.number, position.max(found.number));
                            continue;
                        }
                        self.report_lost(position.max(number), lost_end, &error.to_string());
                        position = position.max(lost_end);
                        break;
                    }
                }
            }
        }
        Ok(Batch { records, end: position })
    }
}
