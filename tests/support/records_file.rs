//! A destination that writes JSON lines to a file, and what has arrived there.
#![allow(dead_code)]

use std::fs;

use crate::daemon::Daemon;

/// Routes everything to the destination `file`.
pub(crate) const FILE: &str = r#"
    [records]
    "*" = ["file"]
    [destinations.file]
    type = "log"
    path = "records.jsonl"
"#;

/// The id of each record in the file of a daemon, in the order of their arrival.
pub(crate) fn arrived(daemon: &Daemon) -> Vec<String> {
    let lines = fs::read_to_string(daemon.path("records.jsonl")).unwrap_or_default();
    let id = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["record"].as_str().unwrap().to_owned()
    };
    lines.lines().map(id).collect()
}
