//! What the operating system offers a service: the journal, readiness and the watchdog, signals, descriptors, and what it
//! refuses.

pub mod access;
mod burst;
pub mod descriptors;
mod journal;
pub mod logging;
pub mod notify;
pub mod socket;
pub mod watch;
