//! What is inside a record: which kinds the gateway knows, whether a payload is one of them, and what consumers receive of it.
//!
//! Everything here works on the wire format, because a newer vehicle sends fields that this build does not know and its
//! consumers may: a field that no rule is about leaves exactly as it came.

#[cfg(test)]
pub(crate) mod arbitrary;
mod datum;
mod number;
pub(crate) mod schema;
mod select;
pub(crate) mod time;
mod transform;
pub(crate) mod tree;
mod validate;
pub(crate) mod wire;

use bytes::Bytes;
use prost::Message;

pub use select::{FieldFilter, v_field, v_fields};
pub use transform::transform;
pub use validate::validate;

use crate::record::proto::vehicle_connectivity::{ConnectivityEvent, VehicleConnectivity};

/// The kinds of records whose payload the gateway knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `V`: telemetry data.
    Vehicle,
    /// `alerts`.
    Alerts,
    /// `errors`.
    Errors,
    /// `connectivity`.
    Connectivity,
}

impl Kind {
    /// All of them, in their own order.
    pub const ALL: [Self; 4] = [Self::Vehicle, Self::Alerts, Self::Errors, Self::Connectivity];

    /// The kind that a record type is; `None` where the gateway hands the payload on as it came.
    pub fn of(record_type: &str) -> Option<Self> {
        match record_type {
            "V" => Some(Self::Vehicle),
            "alerts" => Some(Self::Alerts),
            "errors" => Some(Self::Errors),
            "connectivity" => Some(Self::Connectivity),
            _ => None,
        }
    }

    /// The full name of its protobuf message.
    #[cfg(test)]
    pub(crate) fn message_name(self) -> &'static str {
        match self {
            Self::Vehicle => "telemetry.vehicle_data.Payload",
            Self::Alerts => "telemetry.vehicle_alerts.VehicleAlerts",
            Self::Errors => "telemetry.vehicle_error.VehicleErrors",
            Self::Connectivity => "telemetry.vehicle_connectivity.VehicleConnectivity",
        }
    }
}

/// Why a payload does not decode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// It ends early, or a length leads beyond its end.
    #[error("the payload ends inside a field")]
    Truncated,
    /// A varint of more than 64 bits.
    #[error("the payload holds a varint of more than 64 bits")]
    Varint,
    /// A field number that cannot be.
    #[error("the payload holds the field number {0}, which is out of range")]
    FieldNumber(u64),
    /// A wire type that does not exist.
    #[error("the payload holds the wire type {0}, which does not exist")]
    WireType(u8),
    /// The end of a group that is not open.
    #[error("the payload ends a group {0} that is not open there")]
    Group(u32),
    /// Groups nested too deeply.
    #[error("the payload nests groups more than {max} deep", max = wire::MAX_GROUP_DEPTH)]
    GroupDepth,
    /// More elements than any vehicle's has.
    #[error("the payload's lists have more than {0} elements")]
    TooMany(usize),
    /// A string that is none.
    #[error("the string `{field}` of {message} is not UTF-8")]
    Utf8 {
        /// The message type.
        message: &'static str,
        /// The field.
        field: &'static str,
    },
}

/// Whether a vehicle's socket opened or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectivityStatus {
    /// It opened.
    Connected,
    /// It ended.
    Disconnected,
}

/// The payload of a connectivity record, which the gateway makes itself.
pub fn connectivity(
    vin: &str,
    connection_id: &str,
    network_interface: &str,
    status: ConnectivityStatus,
    at_ms: u64,
) -> Bytes {
    let status = match status {
        ConnectivityStatus::Connected => ConnectivityEvent::Connected,
        ConnectivityStatus::Disconnected => ConnectivityEvent::Disconnected,
    };
    let message = VehicleConnectivity {
        vin: vin.to_owned(),
        connection_id: connection_id.to_owned(),
        network_interface: network_interface.to_owned(),
        status: status.into(),
        created_at: Some(prost_types::Timestamp {
            seconds: (at_ms / 1_000) as i64,
            nanos: (at_ms % 1_000) as i32 * 1_000_000,
        }),
    };
    message.encode_to_vec().into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_connectivity_record_says_who_how_what_and_when() {
        let payload = connectivity("VIN", "id", "wifi", ConnectivityStatus::Disconnected, 1_700_000_000_123);
        validate(Kind::Connectivity, &payload).unwrap();
        let message = VehicleConnectivity::decode(payload).unwrap();
        assert_eq!(message.vin, "VIN");
        assert_eq!(message.connection_id, "id");
        assert_eq!(message.network_interface, "wifi");
        assert_eq!(message.status(), ConnectivityEvent::Disconnected);
        let created_at = message.created_at.unwrap();
        assert_eq!(created_at.seconds, 1_700_000_000);
        assert_eq!(created_at.nanos, 123_000_000);
    }

    #[test]
    fn record_types_are_told_apart_by_case() {
        assert_eq!(Kind::of("V"), Some(Kind::Vehicle));
        assert_eq!(Kind::of("v"), None);
        assert_eq!(Kind::of("canlogs"), None);
    }
}
