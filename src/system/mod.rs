//! What the operating system offers a service: the journal, readiness and the watchdog, signals.

pub mod logging;
pub mod notify;
