//! What becomes of a vehicle's message: the table of the protocol, as a function.
//!
//! Pure: the session does what this says.

use std::sync::Arc;

use bytes::Bytes;

use crate::config::Routes;
use crate::record::envelope::{self, Envelope, MAX_MESSAGE_BYTES, Stream};
use crate::record::identity::Identity;
use crate::record::payload::{self, Kind};
use crate::record::{LONGEST_TYPE, is_plausible};

/// What to do with a message.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Store the record, then acknowledge it.
    Store {
        stream: Stream,
        record_type: Arc<str>,
        signals: u64,
    },
    /// Keep the message as a dead letter, then answer.
    DeadLetter {
        reason: String,
        reply: Bytes,
        txid: Bytes,
        record_type: String,
        raw: Bytes,
        why: Why,
    },
    /// Answer at once; nothing is kept.
    Answer { reply: Bytes, why: Why },
}

/// Why a message is not stored: what is counted and logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    TooBig,
    Empty,
    UnknownType,
    Unreadable,
    Unrouted,
    WrongSender,
}

pub(crate) fn judge(message: Bytes, identity: &Identity, routes: &Routes) -> Verdict {
    if message.len() > MAX_MESSAGE_BYTES {
        return Verdict::Answer {
            reply: envelope::error_reply(b""),
            why: Why::TooBig,
        };
    }
    let stream = match envelope::read(&message) {
        Ok(Envelope::Stream(stream)) => stream,
        Ok(Envelope::Empty) => {
            return Verdict::Answer {
                reply: envelope::ack(b"", b""),
                why: Why::Empty,
            };
        }
        Ok(Envelope::Other {
            txid,
            topic,
            message_type,
        }) => {
            return Verdict::DeadLetter {
                reason: format!("message type {message_type} is unknown"),
                reply: envelope::ack(&txid, b""),
                txid,
                record_type: shown(&topic),
                raw: message,
                why: Why::UnknownType,
            };
        }
        Err(error) => {
            return Verdict::DeadLetter {
                reason: error.to_string(),
                reply: envelope::error_reply(b""),
                txid: Bytes::new(),
                record_type: String::new(),
                raw: message,
                why: Why::Unreadable,
            };
        }
    };
    let topic = std::str::from_utf8(&stream.topic)
        .ok()
        .filter(|topic| routes.is_routed(topic))
        .map(Arc::<str>::from);
    let Some(record_type) = topic else {
        let own = [identity.sender_id.as_bytes(), identity.device_id.as_bytes()].contains(&&*stream.sender_id);
        return match own {
            true => Verdict::Answer {
                reply: envelope::ack(&stream.txid, &stream.topic),
                why: Why::Unrouted,
            },
            false => Verdict::Answer {
                reply: envelope::error_reply(&stream.txid),
                why: Why::WrongSender,
            },
        };
    };
    if !is_plausible(&record_type, 1..=LONGEST_TYPE) {
        return Verdict::DeadLetter {
            reason: format!("its record type is not 1 to {LONGEST_TYPE} bytes without control characters"),
            reply: envelope::error_reply(&stream.txid),
            txid: stream.txid,
            record_type: shown(&stream.topic),
            raw: message,
            why: Why::Unreadable,
        };
    }
    let stream = apart(stream, message.len());
    let valid = Kind::of(&record_type).map_or(Ok(0), |kind| payload::validate(kind, &stream.payload));
    match valid {
        Ok(signals) => Verdict::Store {
            stream,
            record_type,
            signals,
        },
        Err(error) => Verdict::DeadLetter {
            reason: error.to_string(),
            reply: envelope::error_reply(&stream.txid),
            txid: stream.txid,
            record_type: record_type.to_string(),
            raw: stream.payload,
            why: Why::Unreadable,
        },
    }
}

/// What waits for its commit counts as much as it is: a record that is a small part of its message does not keep all of that.
fn apart(stream: Stream, message: usize) -> Stream {
    match 4 * (stream.payload.len() + stream.txid.len()) < message {
        true => Stream {
            txid: Bytes::copy_from_slice(&stream.txid),
            payload: Bytes::copy_from_slice(&stream.payload),
            ..stream
        },
        false => stream,
    }
}

/// As much of what should be a record type as a dead letter shows.
fn shown(topic: &Bytes) -> String {
    String::from_utf8_lossy(&topic[..topic.len().min(LONGEST_TYPE)]).into_owned()
}
