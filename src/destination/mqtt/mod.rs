//! MQTT 5 and 3.1.1: a record is confirmed when every message it became has been confirmed by the broker, in the way of
//! the configured quality of service.
//!
//! `broker` begins sessions. `session` has all that is the same in both versions; it sees a client crate through `link`, which `v3` and `v5` fill
//! in. `ending` says how a connection ends, `messages` what a record becomes, `status` that the gateway is there, `tls` whom
//! a connection trusts.

mod broker;
mod ending;
mod link;
mod messages;
mod session;
mod status;
mod tls;
mod v3;
mod v5;

pub use broker::Mqtt;
