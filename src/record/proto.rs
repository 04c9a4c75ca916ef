//! The protobuf messages of `protos/`: their Rust types and their descriptors. Owns no rule about them.
//!
//! Invariant: both come from the same files in the same build, so a name that one has, the other has too.

macro_rules! generated {
    ($(#[$doc:meta])* $module:ident, $package:literal) => {
        $(#[$doc])*
        #[allow(missing_docs, unreachable_pub, clippy::all)]
        pub mod $module {
            include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
        }
    };
}

generated!(
    /// `V` records.
    vehicle_data, "telemetry.vehicle_data"
);
generated!(
    /// `alerts` records.
    vehicle_alerts, "telemetry.vehicle_alerts"
);
generated!(
    /// `errors` records.
    vehicle_error, "telemetry.vehicle_error"
);
generated!(
    /// `connectivity` records, which the gateway makes itself.
    vehicle_connectivity, "telemetry.vehicle_connectivity"
);
generated!(
    /// `metrics` records: known to consumers, handed on as they came.
    vehicle_metrics, "telemetry.vehicle_metrics"
);
generated!(
    /// What the gateway keeps in its own files.
    store, "waystation.store"
);
generated!(
    /// Records as `waystation queue export` writes them.
    export, "waystation.export"
);

/// The descriptors of every message in `protos/`, `google.protobuf.Timestamp` included, as a `FileDescriptorSet`: for who
/// wants to read records without compiling them in.
pub static DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
