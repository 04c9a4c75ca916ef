//! Where vehicles come in: TLS, the HTTP request, then one session for each vehicle until it leaves.
//!
//! Nothing here stores or forwards: a session hands records to the queue and releases their acks when the queue says
//! that they are on the disk.

mod answer;
mod counters;
mod ending;
mod http;
mod notes;
mod presence;
mod rate;
mod registry;
mod revocation;
mod room;
mod server;
mod session;
mod signals;
pub mod tls;
mod verifier;

pub use counters::{Counters, CountersSnapshot, TypeCounts};
pub use server::{Listener, Settings};
pub use signals::SignalCounts;
