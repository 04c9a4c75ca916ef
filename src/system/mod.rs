//! What the operating system offers a service: the journal, readiness and the watchdog, signals, and what it refuses.

pub mod access;
mod burst;
mod journal;
pub mod logging;
pub mod notify;
pub mod socket;
pub mod watch;
