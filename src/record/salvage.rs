//! Finds intact frames in bytes of which nothing is known: a damaged chunk, or a whole file.
//!
//! A frame counts only when its checksum fits the queue and the number that its own message begins with, so what is
//! found is what was stored. Where frames overlap the first one counts, and nothing inside an intact frame is looked at.

use std::ops::Range;

use super::stored::{FRAME_HEADER, QueueId, checksum};

/// No frame is longer: a message of at most 1,000,000 bytes, its metadata, and room.
pub(crate) const LARGEST_FRAME: usize = 2 << 20;

/// An intact frame: the number it was stored under, and where its bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub number: u64,
    pub bytes: Range<usize>,
}

/// The next intact frame of a queue that begins within `starts` and has one of `numbers`. It may end behind `starts`,
/// and must end within `bytes`.
pub(crate) fn next_intact(bytes: &[u8], starts: Range<usize>, queue: QueueId, numbers: &Range<u64>) -> Option<Found> {
    // The message's first byte is the rarest to fit: look for it, and only then at the rest.
    let last = bytes.len().checked_sub(FRAME_HEADER)?;
    let firsts = bytes.get(starts.start + FRAME_HEADER..starts.end.min(last) + FRAME_HEADER)?;
    let with_zero = numbers.contains(&0);
    let mut begins = firsts
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == NUMBER_TAG || with_zero && **byte == SECOND_TAG)
        .map(|(at, _)| starts.start + at);
    begins.find_map(|at| {
        intact_at(&bytes[at..], queue, numbers).map(|(number, length)| Found {
            number,
            bytes: at..at + length,
        })
    })
}

/// Field 1, a varint: the number, with which every stored message begins.
const NUMBER_TAG: u8 = 0x08;
/// Field 2, a string: how a message begins whose number is 0 and was left out, as protobuf may.
const SECOND_TAG: u8 = 0x12;

fn intact_at(bytes: &[u8], queue: QueueId, numbers: &Range<u64>) -> Option<(u64, usize)> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (expected, rest) = rest.split_first_chunk()?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > LARGEST_FRAME - FRAME_HEADER {
        return None;
    }
    let message = rest.get(..length)?;
    let number = match message.split_first()? {
        (&NUMBER_TAG, rest) => varint(rest)?,
        _ => 0,
    };
    let intact = numbers.contains(&number) && checksum(message, queue, number) == u64::from_le_bytes(*expected);
    intact.then_some((number, FRAME_HEADER + length))
}

fn varint(bytes: &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * at as u32)?;
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::record::Record;
    use crate::record::proto::store::StoredDeadLetter;
    use crate::record::stored::{append_frame, append_message};

    const QUEUE: QueueId = QueueId(*b"one queue of two");

    fn append(bytes: &mut Vec<u8>, number: u64) -> usize {
        let record = Record {
            vin: "5YJ3E1EA7KF000001".into(),
            record_type: "V".into(),
            txid: Bytes::from_static(b"txid"),
            received_at: number,
            client_version: "1".into(),
            payload: vec![8; number as usize % 300].into(),
            origin: None,
            only: None,
        };
        append_frame(bytes, QUEUE, number, &record)
    }

    fn all(bytes: &[u8], numbers: Range<u64>) -> Vec<u64> {
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(frame) = next_intact(bytes, at..bytes.len(), QUEUE, &numbers) {
            found.push(frame.number);
            at = frame.bytes.end;
        }
        found
    }

    #[test]
    fn frames_are_found_wherever_they_lie() {
        let mut bytes = vec![8; 5];
        append(&mut bytes, 3);
        bytes.extend([0; 4096]);
        append(&mut bytes, 300);
        append(&mut bytes, 70_000);
        bytes.extend([8, 1, 0, 0]);
        append(&mut bytes, 3);
        assert_eq!(all(&bytes, 0..u64::MAX), [3, 300, 70_000, 3]);
        assert_eq!(all(&bytes, 4..70_000), [300], "only what is asked for");
        assert!(next_intact(&bytes, 0..bytes.len(), QueueId(*b"the other of two"), &(0..u64::MAX)).is_none());
    }

    #[test]
    fn every_flipped_bit_costs_its_own_frame_alone() {
        let mut bytes = Vec::new();
        append(&mut bytes, 10);
        let middle = bytes.len()..bytes.len() + append(&mut bytes.clone(), 11);
        append(&mut bytes, 11);
        append(&mut bytes, 12);
        for bit in middle.start * 8..middle.end * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(all(&damaged, 0..100), [10, 12], "bit {bit}");
        }
    }

    #[test]
    fn a_frame_that_ends_outside_is_not_there() {
        let mut bytes = Vec::new();
        append(&mut bytes, 10);
        for cut in 0..bytes.len() {
            assert_eq!(all(&bytes[..cut], 0..100), [0_u64; 0], "cut at {cut}");
        }
    }

    #[test]
    fn the_first_message_is_found_though_protobuf_leaves_its_number_out() {
        let letter = StoredDeadLetter {
            origin: "cloud".to_owned(),
            ..StoredDeadLetter::default()
        };
        let mut bytes = vec![0; 40];
        append_message(&mut bytes, QUEUE, 0, &letter);
        assert_eq!(all(&bytes, 0..10), [0]);
    }

    proptest! {
        #[test]
        fn nothing_is_found_in_garbage(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(8)], 0..3000)) {
            prop_assert_eq!(all(&bytes, 0..u64::MAX), Vec::<u64>::new());
        }
    }
}
