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
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/raw.rs"]
mod raw;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use daemon::{Daemon, free_port, wait_for};
use kafka_broker::{Cluster, TYPES};
use proxy::Proxy;
use tokio_util::sync::CancellationToken;
use waystation::cli::simulate::VehicleTally;

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

/// Vehicles that send for as long as the test goes on.
struct Load {
    stop: CancellationToken,
    fleet: JoinHandle<Vec<VehicleTally>>,
}

impl Load {
    fn new(daemon: &Daemon) -> Self {
        let stop = CancellationToken::new();
        let fleet = daemon.drive_until(&stop, VEHICLES, 40.0, &Arc::default());
        Self { stop, fleet }
    }

    /// Ends it, and holds what kcat reads against what was acknowledged.
    fn assert_everything(self, daemon: &Daemon, cluster: &Cluster) -> Vec<kcat::Read> {
        self.stop.cancel();
        let tallies = self.fleet.join().unwrap();
        daemon.wait_drained("cloud", LONG);
        let total = tallies.iter().map(|vehicle| vehicle.acked.len()).sum();
        let messages = kcat::read_all(cluster, "fleet", &tallies, total);
        kcat::assert_everything(daemon, &messages, &tallies, total);
        messages
    }
}

/// So many more than now.
fn wait_confirmed(daemon: &Daemon, records: u64) {
    let before = daemon.figure("cloud", "confirmed");
    wait_for("records are confirmed", LONG, || {
        daemon.figure("cloud", "confirmed") >= before + records
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
    let mut cluster = Cluster::single();
    cluster.create_topics("fleet", &TYPES, &[]);
    let daemon = configured(&cluster);
    let load = Load::new(&daemon);
    for _ in 0..2 {
        wait_confirmed(&daemon, 1_000);
        cluster.node().kill_9();
        wait_for("a backlog grows", LONG, || daemon.figure("cloud", "backlog") > 800);
        wait_disconnected(&daemon, "Connection refused");
        cluster.node().start();
    }
    wait_confirmed(&daemon, 1_000);
    let messages = load.assert_everything(&daemon, &cluster);
    assert!(daemon.connected("cloud"));
    assert_eq!(daemon.last_error("cloud"), None);
    let payload = String::from_utf8_lossy(&messages[0].payload).into_owned();
    assert!(payload.contains(&messages[0].key), "the VIN is in the payload");
}

#[test]
fn what_a_broker_has_and_could_not_confirm_is_not_doubled() {
    let plain = free_port();
    let proxy = Proxy::new(plain);
    let cluster = Cluster::behind(proxy.port, plain);
    proxy.open();
    cluster.create_topics("fleet", &TYPES, &[]);
    let daemon = configured(&cluster);
    let load = Load::new(&daemon);
    for _ in 0..2 {
        wait_confirmed(&daemon, 500);
        // It gets what comes, and nobody hears of that.
        proxy.mute();
        wait_for("much is on its way", LONG, || daemon.figure("cloud", "in_flight") > 300);
        proxy.close();
        proxy.open();
    }
    wait_confirmed(&daemon, 500);
    load.assert_everything(&daemon, &cluster);
    assert_eq!(daemon.figure("cloud", "failures"), 0, "one session: {}", daemon.log());
}

/// Requests have a sixth of their time here, and the line is six times as wide as the narrowest that there may be.
#[test]
fn a_backlog_drains_over_a_line_that_is_narrow() {
    let plain = free_port();
    let proxy = Proxy::new(plain);
    let cluster = Cluster::behind(proxy.port, plain);
    proxy.open();
    proxy.narrow(60_000);
    cluster.create_topics("fleet", &TYPES, &[]);
    let properties = format!("bootstrap.servers = \"{}\"\nsocket.timeout.ms = 10000", cluster.plain());
    let daemon = with_properties(&cluster, &properties);
    raw::send_padded(&daemon, 400, 4_000);
    daemon.wait_drained("cloud", LONG);
    assert!(!daemon.log().contains("timed out"), "{}", daemon.log());
}

#[test]
fn a_broker_that_hangs_is_not_taken_for_one_that_works() {
    let mut cluster = Cluster::single();
    cluster.create_topics("fleet", &TYPES, &[]);
    let daemon = configured(&cluster);
    let load = Load::new(&daemon);
    wait_confirmed(&daemon, 500);
    cluster.node().pause();
    let paused = Instant::now();
    wait_disconnected(&daemon, "the brokers have confirmed nothing for 15 s");
    assert!(paused.elapsed() < Duration::from_secs(40), "{:?}", paused.elapsed());
    cluster.node().resume();
    wait_confirmed(&daemon, 500);
    load.assert_everything(&daemon, &cluster);
    assert!(daemon.connected("cloud"));
}

#[test]
fn a_leader_that_is_killed_under_load_is_followed_by_another_and_nothing_is_lost_or_swapped() {
    let mut cluster = Cluster::pair();
    cluster.create_replicated("fleet", &TYPES);
    let daemon = configured(&cluster);
    let load = Load::new(&daemon);
    wait_confirmed(&daemon, 1_000);
    cluster.nodes[1].kill_9();
    // Broker 2 leads now, with nobody to follow it; then broker 1 comes back and broker 2 goes.
    wait_confirmed(&daemon, 2_000);
    cluster.nodes[1].start();
    cluster.wait_in_sync("fleet", &TYPES);
    cluster.nodes[2].kill_9();
    wait_confirmed(&daemon, 2_000);
    cluster.nodes[2].start();
    load.assert_everything(&daemon, &cluster);
}
