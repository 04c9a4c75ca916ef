//! What vehicles send, as values: bytes in, values out. No I/O, no tokio; everything parsed from the network lives here.

pub mod envelope;
pub mod identity;
pub mod json;
pub(crate) mod legible;
pub mod payload;
pub mod portable;
pub mod proto;
pub(crate) mod salvage;
pub mod stored;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

/// Bytes of the longest record type.
pub(crate) const LONGEST_TYPE: usize = 64;

/// Whether a text that becomes part of topics and headers is one: of no more bytes than that, without control characters.
pub(crate) fn is_plausible(text: &str, length: RangeInclusive<usize>) -> bool {
    length.contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Now, as `received_at` counts.
pub(crate) fn epoch_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}

/// One record as it is committed to the queue: what the vehicle sent and what the gateway knows about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The certificate's device id; for a car, its VIN. Never what the message claims.
    pub vin: Arc<str>,
    /// The record type, as the vehicle named it (`V`, `alerts`, …).
    pub record_type: Arc<str>,
    /// The vehicle's transaction id, as it came.
    pub txid: Bytes,
    /// When the gateway received it, milliseconds since the epoch.
    pub received_at: u64,
    /// The `Version` header of the vehicle's connection.
    pub client_version: Arc<str>,
    /// The payload, as it came.
    pub payload: Bytes,
    /// What consumers know it by, when it was imported from another gateway's queue.
    pub origin: Option<stored::RecordId>,
    /// The one destination that it is for, when it was that one's dead letter.
    pub only: Option<Arc<str>>,
}
