//! The stored form of records: what stands in a segment's rows, and the check that it is what was put there.
//!
//! A row's value is a chunk: frames of consecutive records, `length (u32 LE) · checksum (u64 LE) · StoredRecord`
//! each (`protos/store.proto`). The checksum covers the message and is seeded with the queue's id and the record's
//! number, so a frame that is read back is intact, of this queue, and at its own place.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Record;
use super::payload::wire::{Fields, Wire};

/// A queue's random identity. Together with a number it identifies a record for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueId(pub [u8; 16]);

impl QueueId {
    /// A new one.
    pub fn random() -> Self {
        Self(*uuid::Uuid::new_v4().as_bytes())
    }

    /// Reads the bytes that a file holds.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    fn seed(self, number: u64) -> u64 {
        let (high, low) = self.0.split_at(8);
        let half = |bytes: &[u8]| bytes.iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
        half(high) ^ half(low).rotate_left(32) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl std::fmt::Display for QueueId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Once a record for each destination: a call a byte would be seen in a profile.
        let digit = |half: u8| b"0123456789abcdef"[usize::from(half)];
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 0xf)]);
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| std::fmt::Error)?)
    }
}

/// The identity of a record: consumers deduplicate by it. Written `{queue id}-{number}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordId {
    /// The queue that numbered it.
    pub queue: QueueId,
    /// Its number there; numbers grow in the order of commits and are never used twice.
    pub number: u64,
}

impl std::fmt::Display for RecordId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.queue, self.number)
    }
}

/// Bytes before each stored message: its length and its checksum.
pub(super) const FRAME_HEADER: usize = 4 + 8;

/// A frame that is not what was stored.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// The chunk ends inside a frame.
    #[error("record {number}: cut short")]
    Truncated {
        /// The number it should have.
        number: u64,
    },
    /// The checksum differs.
    #[error("record {number}: checksum mismatch")]
    Checksum {
        /// The number it should have.
        number: u64,
    },
    /// The checksum is right and the content is not: written by something else.
    #[error("record {number}: {reason}")]
    Content {
        /// The number it should have.
        number: u64,
        /// What is wrong.
        reason: String,
    },
}

/// Appends one record's frame to a chunk. Returns the bytes that it took.
pub fn append_frame(chunk: &mut Vec<u8>, queue: QueueId, number: u64, record: &Record) -> usize {
    let start = chunk.len();
    chunk.put_bytes(0, FRAME_HEADER);
    put_uint(chunk, 1, number);
    put_bytes(chunk, 2, record.vin.as_bytes());
    put_bytes(chunk, 3, record.record_type.as_bytes());
    put_bytes(chunk, 4, &record.txid);
    encode_key(5, WireType::SixtyFourBit, chunk);
    chunk.put_u64_le(record.received_at);
    put_bytes(chunk, 6, record.client_version.as_bytes());
    put_bytes(chunk, 7, &record.payload);
    if let Some(origin) = record.origin {
        put_bytes(chunk, 8, &origin.queue.0);
        put_uint(chunk, 9, origin.number);
    }
    if let Some(only) = &record.only {
        put_bytes(chunk, 11, only.as_bytes());
    }
    seal_frame(chunk, start, queue, number);
    chunk.len() - start
}

/// Appends what is left of a message that was erased: its number, which a search of damaged files finds it by, and the
/// field that says so.
pub fn append_erased(chunk: &mut Vec<u8>, queue: QueueId, number: u64, field: u32) {
    let start = chunk.len();
    chunk.put_bytes(0, FRAME_HEADER);
    put_uint(chunk, 1, number);
    put_uint(chunk, field, 1);
    seal_frame(chunk, start, queue, number);
}

/// Appends any message as a frame: dead letters are stored the same way.
pub fn append_message(chunk: &mut Vec<u8>, queue: QueueId, number: u64, message: &impl Message) -> usize {
    let start = chunk.len();
    chunk.put_bytes(0, FRAME_HEADER);
    chunk.put_slice(&message.encode_to_vec());
    seal_frame(chunk, start, queue, number);
    chunk.len() - start
}

fn seal_frame(chunk: &mut [u8], start: usize, queue: QueueId, number: u64) {
    let (header, message) = chunk[start..].split_at_mut(FRAME_HEADER);
    let length = u32::try_from(message.len()).expect("a message is at most 1,000,000 bytes and its metadata");
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..].copy_from_slice(&checksum(message, queue, number).to_le_bytes());
}

pub(crate) fn checksum(message: &[u8], queue: QueueId, number: u64) -> u64 {
    xxh3_64_with_seed(message, queue.seed(number))
}

fn put_uint(out: &mut Vec<u8>, tag: u32, value: u64) {
    encode_key(tag, WireType::Varint, out);
    encode_varint(value, out);
}

fn put_bytes(out: &mut Vec<u8>, tag: u32, value: &[u8]) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.put_slice(value);
}

/// The next checked frame of a chunk: advances `chunk` past it and returns its message.
/// After an error the rest of the chunk cannot be trusted to be framed: `salvage` finds what is intact in it.
pub fn next_frame(chunk: &mut Bytes, queue: QueueId, number: u64) -> Result<Bytes, FrameError> {
    let (message, expected) = next_unchecked(chunk, number)?;
    match checksum(&message, queue, number) == expected {
        true => Ok(message),
        false => Err(FrameError::Checksum { number }),
    }
}

/// The same of a chunk whose checksums have been found right: with the one that its message has.
pub(crate) fn next_unchecked(chunk: &mut Bytes, number: u64) -> Result<(Bytes, u64), FrameError> {
    if chunk.len() < FRAME_HEADER {
        return Err(FrameError::Truncated { number });
    }
    let length = chunk.get_u32_le() as usize;
    let expected = chunk.get_u64_le();
    if chunk.len() < length {
        return Err(FrameError::Truncated { number });
    }
    Ok((chunk.split_to(length), expected))
}

/// The record in a checked frame; `None` for one that was erased. Its bytes are slices of the message.
pub fn read_record(message: Bytes, number: u64) -> Result<Option<Record>, FrameError> {
    read_like(message, number, &mut Texts::default())
}

/// The texts of the record before: the next one mostly has the same, and then shares them.
#[derive(Default)]
pub(crate) struct Texts {
    vin: Arc<str>,
    record_type: Arc<str>,
    client_version: Arc<str>,
}

/// [`read_record`] of a record among others.
///
/// Read field by field: decoded into a message of its own first, each text would be copied twice.
pub(crate) fn read_like(message: Bytes, number: u64, before: &mut Texts) -> Result<Option<Record>, FrameError> {
    let content = |reason: String| FrameError::Content { number, reason };
    let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Arc::<str>::from(text)),
        Err(error) => Err(content(error.to_string())),
    };
    let shared = |before: &mut Arc<str>, bytes: &[u8]| {
        if before.as_bytes() != bytes {
            *before = text(bytes)?;
        }
        Ok(Arc::clone(before))
    };
    let (mut calls_itself, mut erased) = (0, false);
    let (mut origin_queue, mut origin_number) = (None, 0);
    let mut record = Record {
        vin: Arc::default(),
        record_type: Arc::default(),
        txid: Bytes::new(),
        received_at: 0,
        client_version: Arc::default(),
        payload: Bytes::new(),
        origin: None,
        only: None,
    };
    let mut fields = Fields::of(&message);
    while let Some(field) = fields.next().map_err(|error| content(error.to_string()))? {
        match (field.number, field.wire) {
            (1, Wire::Varint(number)) => calls_itself = number,
            (2, Wire::Bytes(bytes)) => record.vin = shared(&mut before.vin, bytes)?,
            (3, Wire::Bytes(bytes)) => record.record_type = shared(&mut before.record_type, bytes)?,
            (4, Wire::Bytes(bytes)) => record.txid = message.slice_ref(bytes),
            (5, Wire::Fixed64(time)) => record.received_at = time,
            (6, Wire::Bytes(bytes)) => record.client_version = shared(&mut before.client_version, bytes)?,
            (7, Wire::Bytes(bytes)) => record.payload = message.slice_ref(bytes),
            (8, Wire::Bytes(bytes)) => origin_queue = Some(bytes),
            (9, Wire::Varint(number)) => origin_number = number,
            (10, Wire::Varint(1..)) => erased = true,
            (11, Wire::Bytes(bytes)) => record.only = Some(text(bytes)?),
            // A later build's.
            _ => {}
        }
    }
    if calls_itself != number {
        return Err(content(format!("calls itself {calls_itself}")));
    }
    if erased {
        return Ok(None);
    }
    if let Some(queue) = origin_queue {
        let queue = QueueId::from_slice(queue);
        record.origin = Some(RecordId {
            queue: queue.ok_or_else(|| content("the id of its first queue is cut".to_owned()))?,
            number: origin_number,
        });
    }
    Ok(Some(record))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record(n: u8) -> Record {
        Record {
            vin: "5YJ3E1EA7KF000001".into(),
            record_type: "V".into(),
            txid: Bytes::from(vec![n; 8]),
            received_at: 1_700_000_000_000 + u64::from(n),
            client_version: "1.2.0".into(),
            payload: Bytes::from(vec![n; 300]),
            origin: (n == 1).then_some(RecordId {
                queue: QueueId([n; 16]),
                number: 5,
            }),
            only: (n == 2).then(|| "cloud".into()),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let queue = QueueId::random();
        let mut chunk = Vec::new();
        for n in 0..3 {
            append_frame(&mut chunk, queue, 100 + u64::from(n), &record(n));
        }
        let mut chunk = Bytes::from(chunk);
        for n in 0..3 {
            let number = 100 + u64::from(n);
            let message = next_frame(&mut chunk, queue, number).unwrap();
            assert_eq!(read_record(message, number).unwrap(), Some(record(n)));
        }
        assert!(chunk.is_empty());
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let queue = QueueId::random();
        let mut chunk = Vec::new();
        append_frame(&mut chunk, queue, 7, &record(1));
        for bit in 0..chunk.len() * 8 {
            let mut damaged = chunk.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut bytes = Bytes::from(damaged);
            assert!(next_frame(&mut bytes, queue, 7).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_of_another_queue_or_place_is_refused() {
        let queue = QueueId::random();
        let mut chunk = Vec::new();
        append_frame(&mut chunk, queue, 7, &record(1));
        let chunk = Bytes::from(chunk);
        assert!(next_frame(&mut chunk.clone(), queue, 8).is_err());
        assert!(next_frame(&mut chunk.clone(), QueueId::random(), 7).is_err());
        for cut in 0..chunk.len() {
            assert!(next_frame(&mut chunk.slice(..cut), queue, 7).is_err(), "cut at {cut}");
        }
    }
}
