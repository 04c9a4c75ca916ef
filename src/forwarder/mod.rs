//! Out of the queue and to the destinations: one pump for each, none of which waits for another.

mod backoff;
mod course;
mod flight;
mod flow;
mod lane;
mod pump;
mod rules;
mod status;
mod transfer;

pub use pump::Pump;
pub use rules::{Rules, RulesError};
pub use status::{Status, StatusSnapshot};
