//! Out of the queue and to the destinations: one pump for each, none of which waits for another.

mod backoff;
mod flight;
mod pump;
mod status;

pub use pump::Pump;
pub use status::{Status, StatusSnapshot};
