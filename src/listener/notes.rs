//! What is counted and logged of messages that are no records to be kept: each kind is logged once for a connection.
//!
//! Invariant: what a stranger chose is one line of the log, of bounded length.

use bytes::Bytes;

use super::answer::Why;
use super::session::Session;
use crate::record::envelope::{self, Envelope};

impl Session {
    pub(super) fn note(&mut self, why: Why, detail: impl FnOnce() -> String) {
        let counters = &self.around.counters;
        let (count, kind, message) = match why {
            Why::TooBig => (
                &counters.too_big,
                "too big",
                "message is larger than 1000000 bytes: error reply, not kept",
            ),
            Why::Empty => (
                &counters.empty,
                "empty",
                "message without content: acknowledged, not kept",
            ),
            Why::UnknownType => (
                &counters.unknown_message_type,
                "unknown type",
                "message of an unknown type: acknowledged, kept as a dead letter",
            ),
            Why::Unreadable => (
                &counters.unreadable,
                "unreadable",
                "message cannot be read: error reply, kept as a dead letter",
            ),
            Why::Unrouted => {
                counters.record("", 0);
                return;
            }
            Why::WrongSender => (
                &counters.unauthorized_sender,
                "wrong sender",
                "record of a type that is not routed, in somebody else's name: error reply, not kept",
            ),
        };
        count.add();
        if self.first_time(kind) {
            let detail = detail();
            tracing::warn!(vin = %self.identity.device_id, connection_id = %self.connection_id, detail, "{message}; more of this kind are only counted");
        }
    }
}

/// What a message says of itself, for the log.
pub(super) fn describe(message: &Bytes) -> String {
    let text = |bytes: &Bytes| String::from_utf8_lossy(&bytes[..bytes.len().min(64)]).into_owned();
    let size = message.len();
    match envelope::read(message) {
        Ok(Envelope::Stream(stream)) => format!(
            "topic {:?}, txid {:?}, sender {:?}, {size} bytes",
            text(&stream.topic),
            text(&stream.txid),
            text(&stream.sender_id)
        ),
        Ok(Envelope::Other { txid, topic, .. }) => {
            format!("topic {:?}, txid {:?}, {size} bytes", text(&topic), text(&txid))
        }
        Ok(Envelope::Empty) | Err(_) => format!("{size} bytes"),
    }
}
