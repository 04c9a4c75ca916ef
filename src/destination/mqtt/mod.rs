//! MQTT 5 and 3.1.1: a record is confirmed when every message it became has been confirmed by the broker, in the way of
//! the configured quality of service.
//!
//! `session` has all that is the same in both versions; it sees a client crate through `link`, which `v3` and `v5` fill
//! in. `messages` says what a record becomes, `tls` whom a connection trusts.

mod link;
mod messages;
mod session;
mod tls;
mod v3;
mod v5;

pub use session::Mqtt;
