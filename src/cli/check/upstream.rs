//! Whether the destinations can be reached: their names, and then they themselves.

use std::net::ToSocketAddrs;

use super::findings::Findings;
use crate::config::{Config, Destination, DestinationKind};
use crate::destination;

/// A Kafka broker's port where none is said.
const KAFKA: u16 = 9092;

/// Tries each destination that is on another machine. `runtime`: for those that need one.
pub(super) fn check(config: &Config, runtime: &tokio::runtime::Runtime, findings: &mut Findings) {
    for configured in &config.destinations {
        let hosts = hosts(configured);
        let key = match &configured.kind {
            DestinationKind::Kafka(_) => format!("destinations.{}.properties.\"bootstrap.servers\"", configured.name),
            _ => format!("destinations.{}.url", configured.name),
        };
        if hosts.is_empty() {
            continue;
        }
        let unknown: Vec<String> = hosts
            .iter()
            .filter_map(|(host, port)| {
                let error = (host.as_str(), *port).to_socket_addrs().err()?;
                Some(format!("{key}: the name {host} is not known: {error}; check its spelling, and this machine's name servers (`resolvectl query {host}`)"))
            })
            .collect();
        let none_is_known = unknown.len() == hosts.len();
        unknown.into_iter().for_each(|said| findings.bad(said));
        if none_is_known {
            continue;
        }
        let name = &configured.name;
        let routed = config.routes.by_type.iter().filter(|(_, names)| names.contains(name));
        let types: Vec<_> = routed.map(|(record_type, _)| record_type.as_str()).collect();
        match destination::probe(configured, &types, runtime) {
            Ok((good, lacks)) => {
                findings.good(format!("destination {name:?}: {good}"));
                lacks
                    .into_iter()
                    .for_each(|said| findings.warn(format!("destination {name:?}: {said}")));
            }
            Err(why) => findings.bad(format!("destination {name:?}: cannot be reached: {why}")),
        }
    }
}

/// The machines that a destination is on, with their ports.
fn hosts(destination: &Destination) -> Vec<(String, u16)> {
    match &destination.kind {
        DestinationKind::Mqtt(mqtt) => vec![(mqtt.host.clone(), mqtt.port)],
        DestinationKind::Kafka(kafka) => {
            let servers = kafka.properties.get("bootstrap.servers").map_or("", String::as_str);
            servers.split(',').map(broker).collect()
        }
        DestinationKind::Zmq(_) | DestinationKind::Log(_) => Vec::new(),
    }
}

/// `[PROTOCOL://]HOST[:PORT]`.
fn broker(text: &str) -> (String, u16) {
    let text = text.trim();
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') => (host, port.parse().unwrap_or(KAFKA)),
        _ => (text, KAFKA),
    };
    (host.trim_matches(['[', ']']).to_owned(), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_read_as_librdkafka_reads_them() {
        for (text, host, port) in [
            ("kafka.example.com", "kafka.example.com", 9092),
            (" kafka.example.com:9093", "kafka.example.com", 9093),
            ("SASL_SSL://kafka:1", "kafka", 1),
            ("[::1]:9094", "::1", 9094),
        ] {
            assert_eq!(broker(text), (host.to_owned(), port), "{text}");
        }
    }
}
