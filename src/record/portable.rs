//! Records on their way from one gateway to another: `protos/export.proto`, each message behind its length.
//!
//! A record that is read back is what was written: each carries its checksum.

use std::ops::RangeInclusive;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, decode_varint, encode_key, encode_varint};
use xxhash_rust::xxh3::xxh3_64;

use super::proto::export::ExportedRecord;
use super::stored::{QueueId, RecordId};
use super::{LONGEST_TYPE, Record, is_plausible};

/// A message is at most 1,000,000 bytes; payload and transaction id can both be nearly all of one, the rest is far less.
const LONGEST: u64 = 2 << 20;
/// A VIN has 17 characters, a device's id may have more.
const LONGEST_VIN: usize = 256;
/// Of what a vehicle's connection says of its version.
const LONGEST_VERSION: usize = 1024;
/// Key and value of the checksum at the end.
const CHECKSUM: usize = 1 + 8;
/// Most bytes that a length takes.
const VARINT: usize = 10;

/// What is not a record that was exported.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PortableError {
    /// No sane length.
    #[error("no record has {0} bytes")]
    Length(u64),
    /// The checksum differs.
    #[error("its checksum does not match")]
    Checksum,
    /// The checksum is right and the content is not.
    #[error("{0}")]
    Content(String),
}

/// Appends a record.
pub fn append(out: &mut Vec<u8>, id: RecordId, record: &Record) {
    let message = ExportedRecord {
        queue_id: Bytes::copy_from_slice(&id.queue.0),
        number: id.number,
        vin: record.vin.to_string(),
        record_type: record.record_type.to_string(),
        txid: record.txid.clone(),
        received_at_ms: record.received_at,
        client_version: record.client_version.to_string(),
        payload: record.payload.clone(),
        checksum: 0,
    };
    let message = message.encode_to_vec();
    encode_varint((message.len() + CHECKSUM) as u64, out);
    out.put_slice(&message);
    encode_key(15, WireType::SixtyFourBit, out);
    out.put_u64_le(xxh3_64(&message));
}

/// Takes the next record, which has its first identity as its origin, from the front. `None`: it is not all there yet.
pub fn next(input: &mut BytesMut) -> Result<Option<Record>, PortableError> {
    let mut rest: &[u8] = input;
    let Ok(length) = decode_varint(&mut rest) else {
        return match input.len() >= VARINT {
            true => Err(PortableError::Length(u64::MAX)),
            false => Ok(None),
        };
    };
    if !(CHECKSUM as u64..=LONGEST).contains(&length) {
        return Err(PortableError::Length(length));
    }
    if (rest.len() as u64) < length {
        return Ok(None);
    }
    input.advance(input.len() - rest.len());
    let message = input.split_to(length as usize).freeze();
    let mut checksum = message.slice(message.len() - CHECKSUM + 1..);
    if xxh3_64(&message[..message.len() - CHECKSUM]) != checksum.get_u64_le() {
        return Err(PortableError::Checksum);
    }
    let read = ExportedRecord::decode(message).map_err(|error| PortableError::Content(error.to_string()))?;
    let queue = QueueId::from_slice(&read.queue_id)
        .ok_or_else(|| PortableError::Content(format!("a queue's id has 16 bytes, not {}", read.queue_id.len())))?;
    plausible("vin", &read.vin, 1..=LONGEST_VIN)?;
    plausible("record_type", &read.record_type, 1..=LONGEST_TYPE)?;
    plausible("client_version", &read.client_version, 0..=LONGEST_VERSION)?;
    Ok(Some(Record {
        vin: read.vin.into(),
        record_type: read.record_type.into(),
        txid: read.txid,
        received_at: read.received_at_ms,
        client_version: read.client_version.into(),
        payload: read.payload,
        origin: Some(RecordId {
            queue,
            number: read.number,
        }),
        only: None,
    }))
}

/// They become topics and headers.
fn plausible(name: &str, text: &str, length: RangeInclusive<usize>) -> Result<(), PortableError> {
    match is_plausible(text, length) {
        true => Ok(()),
        false => Err(PortableError::Content(format!(
            "its {name} is {:?}, which no vehicle's is",
            text.chars().take(40).collect::<String>()
        ))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn id(number: u64) -> RecordId {
        RecordId {
            queue: QueueId([7; 16]),
            number,
        }
    }

    fn record(n: u8) -> Record {
        Record {
            vin: "5YJ3E1EA7KF000001".into(),
            record_type: "V".into(),
            txid: vec![n; 8].into(),
            received_at: 1_700_000_000_000,
            client_version: "1.2.0".into(),
            payload: vec![n; 300].into(),
            origin: Some(id(u64::from(n))),
            only: None,
        }
    }

    #[test]
    fn records_come_back_from_pieces_of_any_size() {
        let mut written = Vec::new();
        for n in 0..5 {
            append(&mut written, id(u64::from(n)), &record(n));
        }
        for size in [1, 7, 300, written.len()] {
            let mut input = BytesMut::new();
            let mut read = Vec::new();
            for piece in written.chunks(size) {
                input.extend_from_slice(piece);
                read.extend(std::iter::from_fn(|| next(&mut input).unwrap()));
            }
            assert_eq!(read, (0..5).map(record).collect::<Vec<_>>());
            assert!(input.is_empty());
        }
    }

    #[test]
    fn no_flipped_bit_makes_another_record() {
        let mut written = Vec::new();
        append(&mut written, id(1), &record(1));
        for bit in 0..written.len() * 8 {
            let mut damaged = BytesMut::from(&written[..]);
            damaged[bit / 8] ^= 1 << (bit % 8);
            // A longer length waits for more.
            let read = next(&mut damaged);
            assert!(
                matches!(read, Ok(None) | Err(_)) || read == Ok(Some(record(1))),
                "bit {bit}: {read:?}"
            );
        }
    }

    #[test]
    fn text_is_no_export() {
        for text in ["{\"record\":\"x\"}\n".repeat(200_000), "\u{fffd}".repeat(50)] {
            assert!(next(&mut BytesMut::from(text.as_bytes())).is_err());
        }
    }
}
