//! Real Kafka brokers that are killed, hang, and lead no longer, under load: what is read back by kcat is everything
//! that was acknowledged, in order, once per record number.
#![allow(clippy::unwrap_used)]

#[path = "support/account.rs"]
mod account;
#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/kafka_broker.rs"]
mod kafka_broker;
#[path = "support/kcat.rs"]
mod kcat;

use std::sync::Arc;
use std::time::Duration;

use daemon::{Daemon, wait_for};
use kafka_broker::{Cluster, TYPES};
use waystation::cli::simulate::Live;

const VEHICLES: usize = 10;
const LONG: Duration = Duration::from_secs(120);

fn configured(cluster: &Cluster) -> Daemon {
    with_properties(cluster, &format!("bootstrap.servers = \"{}\"", cluster.plain()))
}

/// Over TLS, and with a name and a password.
fn secured(cluster: &Cluster) -> Daemon {
    let properties = format!(
        r#"
            bootstrap.servers = "localhost:{}"
            security.protocol = "sasl_ssl"
            ssl.ca.location = "brokers.pem"
            sasl.mechanism = "SCRAM-SHA-512"
            sasl.username = "gateway"
            sasl.password = "right"
            "#,
        cluster.nodes[0].secured
    );
    with_properties(cluster, &properties)
}

fn with_properties(cluster: &Cluster, properties: &str) -> Daemon {
    let mut daemon = Daemon::new(
        VEHICLES,
        "",
        &format!(
            r#"
            [records]
            "*" = ["cloud"]
            [destinations.cloud]
            type = "kafka"
            namespace = "fleet"
            [destinations.cloud.properties]
            reconnect.backoff.max.ms = 1000
            {properties}
            "#
        ),
    );
    std::fs::write(daemon.path("brokers.pem"), cluster.brokers.certificate.pem()).unwrap();
    daemon.start();
    daemon
}

fn wait_confirmed(daemon: &Daemon, records: u64) {
    wait_for("records are confirmed", LONG, || {
        daemon.figure("cloud", "confirmed") >= records
    });
}

/// That the status stops claiming that all is well, and why.
fn wait_disconnected(daemon: &Daemon, words: &str) {
    wait_for(words, LONG, || {
        let error = daemon.last_error("cloud");
        error.is_some_and(|error| error.contains(words)) && !daemon.connected("cloud")
    });
}

#[test]
fn a_broker_that_is_killed_twice_under_load_gets_everything_in_order() {
    killed_twice(configured);
}

#[test]
fn over_tls_and_with_a_password_too() {
    killed_twice(secured);
}

fn killed_twice(configured: impl FnOnce(&Cluster) -> Daemon) {
    const RECORDS: u64 = 1_000;
    let mut cluster = Cluster::single();
    cluster.create_topics("fleet", &TYPES, &[]);
    let daemon = configured(&cluster);
    let fleet = daemon.drive(VEHICLES, RECORDS, 40.0, &Arc::new(Live::default()));
    for confirmed in [2_000, 5_000] {
        wait_confirmed(&daemon, confirmed);
        cluster.node().kill_9();
        assert!(!fleet.is_finished(), "there is load");
        wait_for("a backlog grows", LONG, || daemon.figure("cloud", "backlog") > 800);
        wait_disconnected(&daemon, "Connection refused");
        cluster.node().start();
    }
    let tallies = fleet.join().unwrap();
    daemon.wait_drained("cloud", LONG);
    let total = VEHICLES * RECORDS as usize;
    let messages = kcat::read_all(&cluster, "fleet", &tallies, total);
    kcat::assert_everything(&daemon, &messages, &tallies, total);
    assert!(daemon.connected("cloud"));
    assert_eq!(daemon.last_error("cloud"), None);
    let payload = String::from_utf8_lossy(&messages[0].payload).into_owned();
    assert!(payload.contains(&messages[0].key), "the VIN is in the payload");
}

#[test]
fn a_broker_that_hangs_is_not_taken_for_one_that_works() {
    const RECORDS: u64 = 300;
    let mut cluster = Cluster::single();
    cluster.create_topics("fleet", &TYPES, &[]);
    let daemon = configured(&cluster);
    let fleet = daemon.drive(VEHICLES, RECORDS, 50.0, &Arc::new(Live::default()));
    wait_confirmed(&daemon, 500);
    cluster.node().pause();
    let paused = std::time::Instant::now();
    wait_disconnected(&daemon, "the brokers have confirmed nothing for 15 s");
    assert!(paused.elapsed() < Duration::from_secs(30), "{:?}", paused.elapsed());
    cluster.node().resume();
    let tallies = fleet.join().unwrap();
    daemon.wait_drained("cloud", LONG);
    let total = VEHICLES * RECORDS as usize;
    let messages = kcat::read_all(&cluster, "fleet", &tallies, total);
    kcat::assert_everything(&daemon, &messages, &tallies, total);
    assert!(daemon.connected("cloud"));
}

#[test]
fn a_leader_that_is_killed_under_load_is_followed_by_another_and_nothing_is_lost_or_swapped() {
    const RECORDS: u64 = 1_400;
    let mut cluster = Cluster::pair();
    cluster.create_replicated("fleet", &TYPES);
    let daemon = configured(&cluster);
    let fleet = daemon.drive(VEHICLES, RECORDS, 40.0, &Arc::new(Live::default()));
    wait_confirmed(&daemon, 2_000);
    cluster.nodes[1].kill_9();
    // Broker 2 leads now, with nobody to follow it; then broker 1 comes back and broker 2 goes.
    wait_confirmed(&daemon, 4_000);
    cluster.nodes[1].start();
    cluster.wait_in_sync("fleet", &TYPES);
    cluster.nodes[2].kill_9();
    assert!(!fleet.is_finished(), "there is load");
    let tallies = fleet.join().unwrap();
    daemon.wait_drained("cloud", LONG);
    cluster.nodes[2].start();
    let total = VEHICLES * RECORDS as usize;
    let messages = kcat::read_all(&cluster, "fleet", &tallies, total);
    kcat::assert_everything(&daemon, &messages, &tallies, total);
}
