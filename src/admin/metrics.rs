//! The Prometheus text form. Where the reference server has a name for something, it has the same name here, so that
//! dashboards go on working; what only this gateway has begins with `waystation_`.

use std::fmt::{Display, Write};

use super::{DestinationReport, Report};
use crate::listener::SignalCounts;

struct Text(String);

impl Text {
    fn head(&mut self, kind: &str, name: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: impl Display) {
        writeln!(self.0, "{line}").expect("writing to a string does not fail");
    }

    fn one(&mut self, kind: &str, name: &str, help: &str, value: u64) {
        self.head(kind, name, help);
        self.line(format_args!("{name} {value}"));
    }

    fn many<'a>(
        &mut self,
        kind: &str,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return;
        }
        self.head(kind, name, help);
        for (of, value) in values {
            let of = escaped(of);
            self.line(format_args!("{name}{{{label}=\"{of}\"}} {value}"));
        }
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

pub(crate) fn render(report: &Report) -> String {
    let mut text = Text(String::with_capacity(8 << 10));
    listener(&mut text, report);
    destinations(&mut text, report);
    queue(&mut text, report);
    text.0
}

fn listener(text: &mut Text, report: &Report) {
    let listener = &report.listener;
    let types = |value: fn(&crate::listener::TypeCounts) -> u64| {
        listener
            .types
            .iter()
            .map(move |(name, counts)| (name.as_str(), value(counts)))
            .collect::<Vec<_>>()
    };
    text.one(
        "gauge",
        "num_connections",
        "Vehicles connected now.",
        listener.connections,
    );
    text.many(
        "counter",
        "record_total",
        "Records received.",
        "record_type",
        types(|counts| counts.records),
    );
    text.many(
        "counter",
        "record_size_bytes_total",
        "Payload bytes received.",
        "record_type",
        types(|counts| counts.bytes),
    );
    signals(text, &listener.signals);
    for (name, help, value) in [
        (
            "reliable_ack",
            "Acks sent to vehicles, after the commit.",
            listener.acked,
        ),
        (
            "reliable_ack_miss",
            "Records that could not be stored and were not acknowledged.",
            listener.not_acked,
        ),
        (
            "rate_limit_exceeded_total",
            "Times that a vehicle's socket was not read because it was over its rate.",
            listener.rate_limited,
        ),
        (
            "record_too_big_total",
            "Messages above 1000000 bytes.",
            listener.too_big,
        ),
        (
            "unauthorized_sender_id_total",
            "Unrouted records in somebody else's name.",
            listener.unauthorized_sender,
        ),
        (
            "unknown_message_type_error_total",
            "Envelopes of an unknown message type.",
            listener.unknown_message_type,
        ),
        (
            "unexpected_record_err_total",
            "Messages that could not be read.",
            listener.unreadable,
        ),
        (
            "socket_err_total",
            "Connections that ended with an error.",
            listener.socket_errors,
        ),
        (
            "waystation_empty_messages_total",
            "Messages without content.",
            listener.empty,
        ),
        (
            "waystation_connections_refused_total",
            "Connections above listener.max_connections.",
            listener.connections_refused,
        ),
        (
            "waystation_handshake_errors_total",
            "Handshakes that failed or took too long.",
            listener.handshake_errors,
        ),
        (
            "waystation_upgrades_refused_total",
            "Upgrades refused: no certificate of a vehicle, or of one that is not allowed.",
            listener.upgrades_refused,
        ),
        (
            "waystation_turned_away_total",
            "Vehicles told to come again because the queue is full.",
            listener.turned_away,
        ),
        (
            "waystation_connections_replaced_total",
            "Connections replaced by a newer one.",
            listener.replaced,
        ),
        (
            "waystation_backpressure_total",
            "Times that a vehicle's socket was not read because too much waited for its commit.",
            listener.backpressured,
        ),
        (
            "waystation_idle_closed_total",
            "Connections closed for silence.",
            listener.idle_closed,
        ),
        (
            "waystation_connectivity_dropped_total",
            "Connectivity records that could not be stored.",
            listener.connectivity_dropped,
        ),
    ] {
        text.one("counter", name, help, value);
    }
}

fn signals(text: &mut Text, signals: &SignalCounts) {
    text.many(
        "counter",
        "signal_count",
        "Signals in the records received: data of V, alerts, errors.",
        "record_type",
        signals.all.iter().map(|(record_type, count)| (*record_type, *count)),
    );
    if signals.vins.is_empty() {
        return;
    }
    let name = "vin_signal_count";
    text.head(
        "counter",
        name,
        "The same for each of the vehicles in admin.signal_vins.",
    );
    for (vin, counts) in &signals.vins {
        let vin = escaped(vin);
        for (record_type, count) in counts {
            text.line(format_args!(
                "{name}{{record_type=\"{record_type}\",vin=\"{vin}\"}} {count}"
            ));
        }
    }
}

fn destinations(text: &mut Text, report: &Report) {
    let sum = |kind: &str, value: fn(&DestinationReport) -> u64| -> u64 {
        report
            .destinations
            .iter()
            .filter(|destination| destination.status.kind == kind)
            .map(value)
            .sum()
    };
    for (kind, sent) in [
        ("kafka", "kafka_produce_total"),
        ("mqtt", "mqtt_publish_total"),
        ("zmq", "zmq_publish_total"),
    ] {
        if !report
            .destinations
            .iter()
            .any(|destination| destination.status.kind == kind)
        {
            continue;
        }
        let bytes = sent.replace("_total", "_total_bytes");
        text.one(
            "counter",
            sent,
            "Records handed over, repeats included.",
            sum(kind, |one| one.status.sent),
        );
        text.one(
            "counter",
            &bytes,
            "Their payload bytes.",
            sum(kind, |one| one.status.sent_bytes),
        );
        let acked = format!("{kind}_reliable_ack_total");
        text.one(
            "counter",
            &acked,
            "Records confirmed.",
            sum(kind, |one| one.status.confirmed),
        );
        text.one(
            "counter",
            &format!("{kind}_err"),
            "Sessions that failed.",
            sum(kind, |one| one.status.failures),
        );
        if kind == "kafka" {
            text.one(
                "counter",
                "kafka_produce_ack_total",
                "Records confirmed.",
                sum(kind, |one| one.status.confirmed),
            );
            text.one(
                "counter",
                "kafka_produce_ack_total_bytes",
                "Their payload bytes.",
                sum(kind, |one| one.status.confirmed_bytes),
            );
            text.one(
                "gauge",
                "kafka_produce_queue_size",
                "Records handed over and not confirmed.",
                sum(kind, |one| one.status.in_flight),
            );
        }
    }
    let each = |value: fn(&DestinationReport) -> u64| {
        report
            .destinations
            .iter()
            .map(move |one| (one.status.name.as_str(), value(one)))
            .collect::<Vec<_>>()
    };
    text.many(
        "counter",
        "dispatch_total",
        "Records confirmed by a destination.",
        "destination",
        each(|one| one.status.confirmed),
    );
    text.many(
        "gauge",
        "waystation_backlog_records",
        "Records from the cursor to the newest.",
        "destination",
        each(|one| one.backlog),
    );
    text.many(
        "gauge",
        "waystation_in_flight_records",
        "Records handed over and not confirmed.",
        "destination",
        each(|one| one.status.in_flight),
    );
    text.many(
        "gauge",
        "waystation_destination_up",
        "1 while a destination confirms.",
        "destination",
        each(|one| one.status.connected.into()),
    );
    text.many(
        "counter",
        "waystation_dead_letters_total",
        "Records refused for good.",
        "destination",
        each(|one| one.status.refused),
    );
    text.many(
        "counter",
        "waystation_dropped_records_total",
        "Records lost to lack of space.",
        "destination",
        each(|one| one.dropped),
    );
    text.many(
        "counter",
        "waystation_inexpressible_values_total",
        "NaN and infinite values that JSON cannot express, sent as null.",
        "destination",
        each(|one| one.status.inexpressible),
    );
}

fn queue(text: &mut Text, report: &Report) {
    let queue = &report.queue;
    text.one("gauge", "uptime_sec", "Seconds since the start.", report.uptime);
    text.one(
        "gauge",
        "waystation_queue_bytes",
        "Disk space of the segments.",
        queue.disk_bytes,
    );
    text.one(
        "gauge",
        "waystation_queue_segments",
        "Segment files.",
        queue.segments as u64,
    );
    text.one(
        "gauge",
        "waystation_queue_full",
        "1 while vehicles are refused for lack of space.",
        queue.full.into(),
    );
    text.one("counter", "waystation_commits_total", "Commits.", queue.commits);
    text.one(
        "counter",
        "waystation_committed_records_total",
        "Records committed.",
        queue.records,
    );
    text.one(
        "counter",
        "waystation_refused_records_total",
        "Records refused for lack of space.",
        queue.refused,
    );
    text.one(
        "counter",
        "waystation_duplicates_total",
        "Records that a vehicle sent again and that were stored already: acknowledged, not stored again.",
        queue.duplicates,
    );
    text.one(
        "counter",
        "waystation_lost_records_total",
        "Records that could not be read back.",
        queue.lost,
    );
}
