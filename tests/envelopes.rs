//! Envelopes are read as the vectors of Google's own FlatBuffers runtime say and written byte for byte like them; no bytes make
//! reading panic or reach outside of the message.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value as Json;
use waystation::record::envelope::{
    Envelope, MAX_MESSAGE_BYTES, Reply, Stream, ack, error_reply, read, read_reply, stream,
};

const VECTORS: &str = include_str!("data/envelopes.jsonl");

struct Vector {
    name: String,
    kind: String,
    bytes: Bytes,
    row: Json,
}

impl Vector {
    /// A field as bytes; empty where the row does not have it.
    fn text(&self, field: &str) -> Bytes {
        // The rows hold bytes as Latin-1.
        let text = self.row[field].as_str().unwrap_or_default();
        text.chars()
            .map(|c| u8::try_from(u32::from(c)).unwrap())
            .collect::<Vec<_>>()
            .into()
    }

    fn stream(&self) -> Stream {
        Stream {
            txid: self.text("txid"),
            topic: self.text("topic"),
            sender_id: self.text("sender_id"),
            payload: unhex(self.row["payload"].as_str().unwrap_or_default()),
            device_type: self.text("device_type"),
            device_id: self.text("device_id"),
            created_at: self.row["created_at"].as_u64().unwrap_or(0) as u32,
            delivered_at_epoch_ms: self.row["delivered_at_epoch_ms"].as_u64().unwrap_or(0),
        }
    }
}

fn unhex(hex: &str) -> Bytes {
    (0..hex.len() / 2)
        .map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap())
        .collect::<Vec<_>>()
        .into()
}

fn vectors() -> Vec<Vector> {
    let vectors: Vec<Vector> = VECTORS
        .lines()
        .map(|line| {
            let row: Json = serde_json::from_str(line).unwrap();
            Vector {
                name: row["name"].as_str().unwrap().to_owned(),
                kind: row["kind"].as_str().unwrap().to_owned(),
                bytes: unhex(row["hex"].as_str().unwrap()),
                row,
            }
        })
        .collect();
    assert!(vectors.len() >= 27);
    vectors
}

/// All byte strings of an envelope.
fn parts(envelope: &Envelope) -> Vec<&Bytes> {
    match envelope {
        Envelope::Empty => Vec::new(),
        Envelope::Other { txid, topic, .. } => vec![txid, topic],
        Envelope::Stream(s) => {
            vec![
                &s.txid,
                &s.topic,
                &s.sender_id,
                &s.payload,
                &s.device_type,
                &s.device_id,
            ]
        }
    }
}

/// Reads a message at an offset of its own in memory, and checks that nothing comes from outside of it.
fn read_checked(message: &[u8], misalignment: usize) -> Option<Envelope> {
    let mut memory = vec![0xaa; misalignment];
    memory.extend(message);
    memory.extend([0xbb; 64]);
    let message = Bytes::from(memory).slice(misalignment..misalignment + message.len());
    let inside = message.as_ptr_range();
    let envelope = read(&message).ok();
    for part in envelope.iter().flat_map(parts).filter(|part| !part.is_empty()) {
        let part = part.as_ptr_range();
        assert!(inside.start <= part.start && part.end <= inside.end);
    }
    // Reading a reply follows the same offsets; all that is asked of it is that it returns.
    drop(read_reply(&message));
    envelope
}

#[test]
fn every_vector_is_read_as_it_says() {
    for vector in vectors() {
        let name = &vector.name;
        let envelope = read(&vector.bytes);
        match vector.kind.as_str() {
            "stream" => assert_eq!(envelope, Ok(Envelope::Stream(vector.stream())), "{name}"),
            "ack" => {
                let (txid, topic) = (vector.text("txid"), vector.text("topic"));
                let other = Envelope::Other {
                    txid: txid.clone(),
                    topic: topic.clone(),
                    message_type: 5,
                };
                assert_eq!(envelope, Ok(other), "{name}");
                assert_eq!(read_reply(&vector.bytes), Ok(Reply::Ack { txid, topic }), "{name}");
            }
            "error" => {
                let txid = vector.text("txid");
                assert_eq!(read_reply(&vector.bytes), Ok(Reply::Error { txid }), "{name}");
            }
            "unknown" => {
                let other = Envelope::Other {
                    txid: vector.text("txid"),
                    topic: vector.text("topic"),
                    message_type: vector.row["message_type"].as_u64().unwrap() as u8,
                };
                assert_eq!(envelope, Ok(other), "{name}");
            }
            "no_message" | "empty" => assert_eq!(envelope, Ok(Envelope::Empty), "{name}"),
            "malformed" => assert!(envelope.is_err(), "{name}: {envelope:?}"),
            "truncated" => {
                if let Ok(envelope) = envelope {
                    let whole = Envelope::Stream(Stream {
                        txid: "t4".into(),
                        topic: "V".into(),
                        payload: vec![b'y'; 64].into(),
                        sender_id: "vehicle_device.5YJ3E1EA7KF000001".into(),
                        ..Stream::default()
                    });
                    assert_eq!(envelope, whole, "{name}");
                }
            }
            "size" => {
                assert_eq!(vector.row["limit"].as_u64().unwrap(), MAX_MESSAGE_BYTES as u64);
            }
            kind => panic!("{name}: nothing is known about vectors of kind {kind}"),
        }
    }
}

#[test]
fn a_truncated_envelope_is_whole_only_where_padding_was_cut() {
    let by_name = |wanted: &str| {
        let vector = vectors().into_iter().find(|vector| vector.name == wanted);
        read(&vector.unwrap().bytes)
    };
    assert!(by_name("truncated_231").is_ok());
    assert!(by_name("truncated_168").is_err());
}

#[test]
fn acknowledgements_and_error_replies_are_the_vectors_byte_for_byte() {
    let mut written = 0;
    for vector in vectors() {
        let reply = match vector.kind.as_str() {
            "ack" => ack(&vector.text("txid"), &vector.text("topic")),
            "error" => error_reply(&vector.text("txid")),
            _ => continue,
        };
        assert_eq!(reply, vector.bytes, "{}", vector.name);
        written += 1;
    }
    assert!(written >= 5);
}

#[test]
fn records_are_written_as_the_vectors_byte_for_byte() {
    let mut written = 0;
    for vector in vectors() {
        // That row has byte vectors instead of strings, as nothing here writes them.
        if vector.kind == "stream" && vector.name != "vectors_without_nul" {
            assert_eq!(stream(&vector.stream()), vector.bytes, "{}", vector.name);
            written += 1;
        }
    }
    assert!(written >= 7);
}

/// The vectors have no delivery time, whose alignment of 8 moves everything. Written by Google's FlatBuffers runtime too.
#[test]
fn a_record_with_a_delivery_time_is_written_byte_for_byte() {
    let aligned_to_8 = stream(&Stream {
        txid: "6e8f1a52-0001".into(),
        topic: "V".into(),
        payload: "abc".into(),
        sender_id: "s".into(),
        device_type: "d".into(),
        device_id: "VIN".into(),
        created_at: 1,
        delivered_at_epoch_ms: 1_700_000_000_123,
    });
    assert_eq!(
        aligned_to_8,
        unhex(concat!(
            "180000000000000000000e001800140010000f00080004000e0000001400000044000000000000041000000014000000",
            "000000000000000001000000560000000d00000036653866316135322d30303031000000100024001c00200018001400",
            "10000400100000007b68e5cf8b0100000000000014000000180000001c000000010000001c0000000300000056494e00",
            "010000006400000003000000616263000100000073000000",
        ))
    );
    let without_a_creation_time = stream(&Stream {
        txid: "6e8f".into(),
        topic: "alerts".into(),
        payload: "abcdefgh".into(),
        sender_id: "ss".into(),
        delivered_at_epoch_ms: 5,
        ..Stream::default()
    });
    assert_eq!(
        without_a_creation_time,
        unhex(concat!(
            "1400000000000e001800140010000f00080004000e000000140000004000000000000004100000001800000000000000",
            "0000000006000000616c65727473000004000000366538660000000010001c0000001800140010000c00040010000000",
            "05000000000000001000000014000000180000002400000000000000000000000000000000000000080000006162636465",
            "666768000000000200000073730000",
        ))
    );
}

#[test]
fn the_largest_message_is_read() {
    let of = |payload: usize| {
        stream(&Stream {
            txid: "t".into(),
            topic: "V".into(),
            payload: vec![b'x'; payload].into(),
            ..Stream::default()
        })
    };
    let overhead = of(0).len();
    let payload = MAX_MESSAGE_BYTES - overhead;
    let largest = of(payload);
    assert_eq!(largest.len(), MAX_MESSAGE_BYTES);
    match read(&largest) {
        Ok(Envelope::Stream(record)) => assert_eq!(record.payload.len(), payload),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_acknowledgement_of_nothing_is_read_as_one() {
    let (txid, topic) = (Bytes::new(), Bytes::new());
    assert_eq!(read_reply(&ack(b"", b"")), Ok(Reply::Ack { txid, topic }));
    assert_eq!(read_reply(&error_reply(b"")), Ok(Reply::Error { txid: Bytes::new() }));
    assert_eq!(read_reply(&Bytes::new()), Ok(Reply::Other));
}

#[test]
fn all_alignments_read_the_same() {
    for vector in vectors() {
        let aligned = read_checked(&vector.bytes, 0);
        for misalignment in 1..8 {
            assert_eq!(read_checked(&vector.bytes, misalignment), aligned, "{}", vector.name);
        }
    }
}

#[test]
fn every_truncation_and_every_extreme_offset_of_every_vector_is_safe() {
    // Offsets that lead far away, to themselves, backwards and in circles, lengths of 2 and 4 GB, and sizes of vtables.
    const EXTREMES: [u32; 10] = [
        0,
        1,
        3,
        4,
        8,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_fffc,
        0xffff_ffff,
        0xffff,
    ];
    for vector in vectors() {
        for cut in 0..vector.bytes.len() {
            read_checked(&vector.bytes[..cut], cut % 8);
        }
        for at in 0..vector.bytes.len().saturating_sub(3) {
            for extreme in EXTREMES {
                let mut bytes = vector.bytes.to_vec();
                bytes[at..at + 4].copy_from_slice(&extreme.to_le_bytes());
                read_checked(&bytes, 0);
            }
        }
    }
}

#[test]
fn an_error_says_what_was_wrong() {
    let error = read(&Bytes::from_static(b"\xff\xff\xff\x7f1234")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the root of the envelope is at byte 2147483647, beyond the end of a message of 8 bytes"
    );
    let error = read(&Bytes::from_static(b"\x04\0\0\0\0\0\0\0\0")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the vtable of the root has 0 bytes, fewer than the 4 of its own sizes"
    );
}

prop_compose! {
    fn streams()(
        texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..70), 6),
        created_at in any::<u32>(),
        delivered_at_epoch_ms in prop_oneof![Just(0), any::<u64>()],
    ) -> Stream {
        let mut texts = texts.into_iter().map(Bytes::from);
        let mut next = || texts.next().unwrap();
        Stream {
            txid: next(),
            topic: next(),
            sender_id: next(),
            payload: next(),
            device_type: next(),
            device_id: next(),
            created_at,
            delivered_at_epoch_ms,
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(fields in streams()) {
        prop_assert_eq!(read(&stream(&fields)), Ok(Envelope::Stream(fields)));
    }

    #[test]
    fn what_is_acknowledged_is_read(txid in prop::collection::vec(any::<u8>(), 0..70), topic in prop::collection::vec(any::<u8>(), 0..70)) {
        let reply = read_reply(&ack(&txid, &topic));
        let expected = Reply::Ack { txid: Bytes::from(txid.clone()), topic: Bytes::from(topic) };
        prop_assert_eq!(reply, Ok(expected));
        prop_assert_eq!(read_reply(&error_reply(&txid)), Ok(Reply::Error { txid: txid.into() }));
    }

    #[test]
    fn arbitrary_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..300), misalignment in 0_usize..8) {
        read_checked(&bytes, misalignment);
    }

    #[test]
    fn small_arbitrary_offsets_are_safe(words in prop::collection::vec(0_u8..40, 0..200)) {
        read_checked(&words, 0);
    }

    #[test]
    fn mutated_vectors_are_safe(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
        misalignment in 0_usize..8,
    ) {
        let vectors = vectors();
        let mut bytes = vectors[which.index(vectors.len())].bytes.to_vec();
        if !bytes.is_empty() {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            read_checked(&bytes[..cut.index(bytes.len())], misalignment);
        }
        read_checked(&bytes, misalignment);
    }
}
