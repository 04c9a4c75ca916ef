//! The configured destinations as pumps, and what of them can change while they run: their rules, and how much of the
//! queue they may hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::config::{self, Config, DestinationKind, Routes};
use crate::destination::{self, BuildError};
use crate::forwarder::{Pump, Rules, RulesError};
use crate::queue::Queue;
use crate::system::descriptors;

/// A destination that its configuration does not make.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// Its client.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// What it is to be sent.
    #[error(transparent)]
    Rules(#[from] RulesError),
}

/// Destinations that cannot be made, one line each. Never empty.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct DestinationErrors(pub Vec<DestinationError>);

/// The way to change each destination's rules, by its name.
pub(super) type Rulers = BTreeMap<String, watch::Sender<Arc<Rules>>>;

/// Whether a destination can be made of its configuration.
pub fn check(routes: &Routes, destination: &config::Destination) -> Result<(), DestinationError> {
    Rules::new(routes, destination)?;
    destination::build(destination, "check")?;
    Ok(())
}

/// How many of listener.max_connections fit into a limit of open files, and what to tell an operator if not all do.
pub fn connections(config: &Config, limit: usize) -> (usize, Option<String>) {
    let others = config.destinations.iter().map(destination::descriptors).sum();
    descriptors::fitting(limit, others, config.listener.max_connections)
}

/// A pump for each destination of a configuration.
pub(super) fn pumps(config: &Config, queue: &Queue) -> Result<(Vec<Pump>, Rulers), DestinationErrors> {
    let id = queue.id().to_string();
    let made = all(config.destinations.iter().map(|configured| {
        let rules = Rules::new(&config.routes, configured)?;
        Ok((configured, Arc::new(rules), destination::build(configured, &id)?))
    }))?;
    let mut rulers = Rulers::new();
    let pump = |(configured, rules, built): (&config::Destination, _, _)| {
        let name = &configured.name;
        let cursor = queue.cursor(name);
        tracing::info!(destination = %name, cursor, backlog = queue.backlog(cursor), "destination resumes");
        let (ruler, rules) = watch::channel(rules);
        rulers.insert(name.clone(), ruler);
        Pump::new(queue.clone(), name, kind(&configured.kind), rules, built)
    };
    let pumps = made.into_iter().map(pump).collect();
    Ok((pumps, rulers))
}

/// New rules for every destination that stays what it is.
pub(super) fn rules(routes: &Routes, destinations: &[config::Destination]) -> Result<Vec<Rules>, DestinationErrors> {
    all(destinations
        .iter()
        .map(|destination| Ok(Rules::new(routes, destination)?)))
}

/// Makes a destination's terms in the queue those of its configuration.
pub(super) fn settle(queue: &Queue, destination: &config::Destination) {
    match destination.delivery.start {
        config::Start::Oldest => queue.register(&destination.name, destination.required),
        config::Start::Now => queue.register_from_now(&destination.name, destination.required),
    }
    queue.set_max_backlog(&destination.name, destination.delivery.max_backlog);
}

/// Says of each destination that the configuration no longer names what the queue keeps for it.
pub(super) fn warn_of_the_left(config: &Config, queue: &Queue) {
    let is_configured = |name: &String| config.destinations.iter().any(|destination| destination.name == *name);
    for name in queue.known_destinations().iter().filter(|name| !is_configured(name)) {
        let cursor = queue.cursor(name);
        tracing::warn!(destination = %name, cursor, records = queue.backlog(cursor), bytes = queue.held_bytes(cursor),
            "this destination is no longer configured; what it has not had is kept for it and keeps its disk space, until `waystation queue forget {name}` takes it away");
    }
}

fn kind(kind: &DestinationKind) -> &'static str {
    match kind {
        DestinationKind::Kafka(_) => "kafka",
        DestinationKind::Mqtt(_) => "mqtt",
        DestinationKind::Zmq(_) => "zmq",
        DestinationKind::Log(_) => "log",
    }
}

fn all<T>(made: impl Iterator<Item = Result<T, DestinationError>>) -> Result<Vec<T>, DestinationErrors> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for one in made {
        match one {
            Ok(one) => good.push(one),
            Err(error) => bad.push(error),
        }
    }
    match bad.is_empty() {
        true => Ok(good),
        false => Err(DestinationErrors(bad)),
    }
}
