//! What this gateway does not have, and what serves instead; and what it does anyway.
//!
//! Invariant: a key that says something is named with a reason; one that says nothing (`false`, `0`, empty) is not.

use super::draft::Draft;
use super::json::Object;
use super::routes::{ELSEWHERE, Routes};

const ACKS: &str =
    "every record is acknowledged when it is on the disk here, whatever it goes to and whether that is up";

pub(super) fn name(root: &Object<'_>, routes: &Routes<'_>, draft: &mut Draft) {
    for dispatcher in ELSEWHERE {
        let types = routes.to(dispatcher);
        let routed = match types.as_slice() {
            [] => String::new(),
            types => format!(" (routed to it: {})", types.join(", ")),
        };
        if root.value(dispatcher).is_some() || !types.is_empty() {
            draft.lost(
                dispatcher,
                format!("there is no such destination{routed}; send to Kafka or MQTT, and on from there"),
            );
        }
    }
    if root.value("airbrake").is_some_and(|value| !value.is_nothing()) {
        draft.lost(
            "airbrake",
            "errors go to the journal; `journalctl -u waystation -p warning` shows them, and /metrics counts them",
        );
    }
    for key in ["reliable_ack_sources", "reliable_ack", "reliable_ack_workers"] {
        if root.value(key).is_some() {
            draft.same(key, ACKS);
        }
    }
    let topics = ["kafka", "zmq"].into_iter();
    let topics: Vec<&str> = topics.filter(|name| !routes.to(name).is_empty()).collect();
    if root.flag("transmit_decoded_records", draft) && topics.is_empty() {
        draft.same("transmit_decoded_records", "MQTT and the log get JSON in either case");
    }
    if root.value("namespace").is_some() && topics.is_empty() {
        draft.same(
            "namespace",
            "it begins the topics of Kafka and ZMQ alone, and nothing goes there",
        );
    }
}

/// What watches the server, and is not Prometheus.
pub(super) fn monitoring(monitoring: &Object<'_>, draft: &mut Draft) {
    for (key, instead) in [
        (
            "statsd",
            "there is no StatsD client; have Telegraf or another agent read /metrics and send it on",
        ),
        ("profiler_port", "there is no profiler port; use `perf` on the process"),
        ("profiler_host", "there is no profiler port; use `perf` on the process"),
        ("profiling_path", "there is no profiler; use `perf` on the process"),
    ] {
        if monitoring.value(key).is_some_and(|value| !value.is_nothing()) {
            draft.lost(monitoring.path(key), instead);
        }
    }
}
