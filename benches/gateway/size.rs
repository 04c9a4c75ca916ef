//! How large the program is.

use crate::Bench;
use crate::process::WAYSTATION;
use crate::report::{Row, Target};

pub(crate) fn measure(_: &Bench) -> Vec<Row> {
    let bytes = std::fs::metadata(WAYSTATION).expect("it was built").len();
    vec![Row::plain(
        "stripped program",
        "MB",
        &[bytes as f64 / 1e6],
        Target::AtMost(8.0),
    )]
}
