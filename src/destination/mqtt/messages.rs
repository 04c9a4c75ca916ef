//! What a record becomes: topics, payloads and user properties.
//!
//! Invariant: what is made here every broker takes, whatever a vehicle has sent, unless it is too large for it.

use super::link::Message;
use crate::config::{self, MqttLayout};
use crate::destination::mqtt_fields;
use crate::queue::Queued;
// MQTT writes lengths as protobuf does.
use crate::record::payload::wire::length_bytes;

/// Bytes of a transaction id that go into a property: it is there once for each message that a record becomes.
const LONGEST_PROPERTY: usize = 256;

/// Where it is said whether the gateway with this client id is there.
pub(super) fn status_topic(base: &str, client_id: &str) -> String {
    format!("{base}/waystation/{}/status", mqtt_fields::clean(client_id))
}

/// What a record becomes, and how many of its values JSON cannot express.
pub(super) fn of(queued: &Queued, payload: &[u8], config: &config::Mqtt) -> Result<(Vec<Message>, usize), String> {
    let record = &queued.record;
    let base = &config.topic_base;
    let message = |topic: String, payload: Vec<u8>| Message {
        topic,
        payload,
        retain: config.retain,
        properties: vec![
            ("txid", property(&record.txid)),
            ("record", queued.stable_id().to_string()),
            ("received_at", record.received_at.to_string()),
        ],
        record: Some(queued.stable_id()),
    };
    match config.layout {
        MqttLayout::Records => {
            let (vin, record_type) = (mqtt_fields::clean(&record.vin), mqtt_fields::clean(&record.record_type));
            Ok((
                vec![message(format!("{base}/{vin}/{record_type}"), payload.to_vec())],
                0,
            ))
        }
        MqttLayout::Fields => {
            let fields = mqtt_fields::expand(&record.vin, &record.record_type, payload);
            let fields = fields.map_err(|error| error.to_string())?;
            let inexpressible = fields.iter().filter(|field| field.not_finite).count();
            let messages = fields
                .into_iter()
                .map(|field| message(format!("{base}/{}", field.topic), field.payload));
            Ok((messages.collect(), inexpressible))
        }
    }
}

/// Bytes of the largest PUBLISH packet that a message can become, in any version and with any packet id.
pub(super) fn packet_bytes(message: &Message) -> usize {
    let properties: usize = message
        .properties
        .iter()
        .map(|(name, value)| 1 + 2 + name.len() + 2 + value.len())
        .sum();
    let rest = 2 + message.topic.len() + 2 + length_bytes(properties) + properties + message.payload.len();
    1 + length_bytes(rest) + rest
}

/// A transaction id as a string that every broker takes; a real one is left as it is.
fn property(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST_PROPERTY)]);
    text.chars()
        .map(|character| {
            if mqtt_fields::is_unsendable(character) {
                '_'
            } else {
                character
            }
        })
        .collect()
}
