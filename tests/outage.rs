//! A broker that is killed in the middle and comes back without its state: everything acknowledged arrives, in order.
#![allow(clippy::unwrap_used)]

#[path = "support/account.rs"]
mod account;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/mosquitto.rs"]
mod mosquitto;
#[path = "support/proxy.rs"]
mod proxy;

use std::sync::Arc;
use std::time::Duration;

use account::account;
use daemon::{Daemon, wait_for};
use mosquitto::{Mosquitto, Subscriber};
use proxy::Proxy;
use waystation::cli::simulate::Live;

const VEHICLES: usize = 20;
const RECORDS: u64 = 1000;
const LONG: Duration = Duration::from_secs(120);

#[test]
fn a_killed_mosquitto_that_forgets_everything_costs_no_record() {
    const WINDOW: usize = 50;
    let mut broker = Mosquitto::new();
    broker.start();
    let proxy = Proxy::new(broker.port);
    let before = Subscriber::new(broker.port, "fleet/#");
    proxy.open();
    let mut daemon = Daemon::new(
        VEHICLES,
        "",
        &format!("{}\nmax_inflight = {WINDOW}", mosquitto::everything_to(proxy.port)),
    );
    daemon.start();
    let live = Arc::new(Live::default());
    let fleet = daemon.drive(VEHICLES, RECORDS, 100.0, &live);
    let total = VEHICLES as u64 * RECORDS;
    wait_for("half of it is acknowledged", LONG, || live.totals().2 >= total / 2);

    // From here on the gateway hears no confirmation, so whatever the broker gets now is in flight when it dies. The
    // broker must not die with something confirmed that its subscriber has not had: that would be its own loss.
    proxy.mute();
    wait_for("the subscriber has what was confirmed", LONG, || {
        before.count() as u64 >= daemon.figure("broker", "confirmed")
    });
    broker.kill_9();
    // It would connect to the new broker by itself.
    let received = before.messages();
    drop(before);
    proxy.close();
    wait_for("a backlog grows", LONG, || daemon.figure("broker", "backlog") > 500);
    broker.start();
    let after = Subscriber::new(broker.port, "fleet/#");
    proxy.open();

    let tallies = fleet.join().unwrap();
    daemon.wait_drained("broker", LONG);
    let settle = || {
        let messages = [received.clone(), after.messages()].concat();
        account(
            &tallies,
            messages
                .iter()
                .map(|message| (message.property("txid").to_owned(), String::new())),
        )
    };
    wait_for("the rest has arrived", LONG, || settle().delivered as u64 >= total);
    let account = settle();
    assert_eq!(
        tallies.iter().map(|vehicle| vehicle.acked.len() as u64).sum::<u64>(),
        total
    );
    account.assert_complete(total as usize);
    assert!(account.duplicates <= WINDOW, "{} duplicates", account.duplicates);
}

#[test]
fn a_kafka_cluster_that_goes_away_under_load_costs_no_record() {
    let cluster = kafka::cluster("fleet");
    let reading = kafka::Reading::new(&cluster, "fleet");
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
            properties = {{ "bootstrap.servers" = "{}", "reconnect.backoff.max.ms" = 500 }}
            "#,
            cluster.bootstrap_servers()
        ),
    );
    daemon.start();
    let live = Arc::new(Live::default());
    let fleet = daemon.drive(VEHICLES, RECORDS, 100.0, &live);
    let total = VEHICLES as u64 * RECORDS;
    wait_for("a third of it is acknowledged", LONG, || live.totals().2 >= total / 3);
    cluster.broker_down(1).unwrap();
    wait_for("a backlog grows", LONG, || daemon.figure("cloud", "backlog") > 3000);
    wait_for("the status says why", LONG, || daemon.last_error("cloud").is_some());
    cluster.broker_up(1).unwrap();
    let tallies = fleet.join().unwrap();
    daemon.wait_drained("cloud", LONG);
    wait_for("all has been read", LONG, || {
        reading.account(&tallies).delivered as u64 >= total
    });
    assert_eq!(daemon.last_error("cloud"), None);
    let (messages, account) = (reading.messages(), reading.account(&tallies));
    account.assert_complete(total as usize);
    assert!(account.duplicates <= 10_000, "{} duplicates", account.duplicates);

    let record = messages.iter().find(|message| message.topic == "fleet_V").unwrap();
    assert_eq!(record.key, record.header("vin"));
    assert_eq!(record.timestamp.to_string(), record.header("receivedat"));
    let names: Vec<_> = record.headers.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "vin",
        "receivedat",
        "timestamp",
        "txid",
        "txtype",
        "version",
        "device_client_version",
        "record",
    ];
    assert_eq!(names, expected);
    assert_eq!(
        (record.header("timestamp"), record.header("version")),
        ("0".to_owned(), "0".to_owned())
    );
    assert_eq!(
        (record.header("txtype"), record.header("device_client_version")),
        ("V".to_owned(), "1.2.0".to_owned())
    );
    let id = daemon.status()["queue_id"].as_str().unwrap().to_owned();
    assert!(record.header("record").starts_with(&format!("{id}-")));
    assert!(
        String::from_utf8_lossy(&record.payload).contains(&record.key),
        "the VIN is in the payload"
    );
}
