//! The orderly stop: exit 0 within the grace period, nothing lost, nothing twice, whatever the upstream does.
#![allow(clippy::unwrap_used)]

#[path = "support/account.rs"]
mod account;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/mosquitto.rs"]
mod mosquitto;

use std::sync::Arc;
use std::time::Duration;

use account::account;
use daemon::{Daemon, wait_for};
use mosquitto::{Mosquitto, Subscriber};
use waystation::cli::simulate::Live;

const VEHICLES: usize = 10;
const LONG: Duration = Duration::from_secs(120);
const GRACE: Duration = Duration::from_secs(20);

fn configured(servers: &str, port: u16) -> Daemon {
    let rest = format!(
        r#"
        [records]
        "*" = ["cloud", "home"]
        [destinations.cloud]
        type = "kafka"
        namespace = "fleet"
        properties = {{ "bootstrap.servers" = "{servers}" }}
        [destinations.home]
        type = "mqtt"
        url = "mqtt://127.0.0.1:{port}"
        topic_base = "fleet"
        layout = "records"
        "#
    );
    Daemon::new(VEHICLES, "", &rest)
}

#[test]
fn stops_under_load_lose_nothing_and_deliver_nothing_twice() {
    let cluster = kafka::cluster("fleet");
    let reading = kafka::Reading::new(&cluster, "fleet");
    let mut broker = Mosquitto::new();
    broker.start();
    let subscriber = Subscriber::new(broker.port, "fleet/#");
    let mut daemon = configured(&cluster.bootstrap_servers(), broker.port);
    daemon.start();
    let live = Arc::new(Live::default());
    let records = 800;
    let fleet = daemon.drive(VEHICLES, records, 100.0, &live);
    for _ in 0..3 {
        let acked = live.totals().2;
        wait_for("the load is there again", LONG, || live.totals().2 > acked + 500);
        let (status, took) = daemon.terminate();
        assert!(status.success(), "{status}");
        assert!(took < GRACE, "{took:?}");
        daemon.start();
    }
    let tallies = fleet.join().unwrap();
    let total = VEHICLES * records as usize;
    daemon.wait_drained("cloud", LONG);
    daemon.wait_drained("home", LONG);
    wait_for("all has been read", LONG, || {
        reading.account(&tallies).delivered >= total
    });
    let published = || {
        let messages = subscriber.messages();
        let ids = messages
            .iter()
            .map(|message| (message.property("txid").to_owned(), String::new()));
        account(&tallies, ids)
    };
    wait_for("all has been published", LONG, || published().delivered >= total);
    for account in [reading.account(&tallies), published()] {
        account.assert_complete(total);
        assert_eq!(account.duplicates, 0, "delivered twice");
    }
    // What the vehicles' goodbyes became may come after their last record.
    wait_for("every number is there once, and none is left out", LONG, || {
        let messages = reading.messages();
        let numbers = messages
            .iter()
            .map(|message| message.header("record").rsplit_once('-').unwrap().1.parse().unwrap());
        let mut numbers: Vec<u64> = numbers.collect();
        numbers.sort_unstable();
        numbers.into_iter().eq(0..messages.len() as u64)
    });
}

#[test]
fn a_stop_with_a_dead_upstream_is_as_orderly() {
    let mut daemon = configured("127.0.0.1:1", 1);
    daemon.start();
    let live = Arc::new(Live::default());
    let fleet = daemon.drive(VEHICLES, 200, 100.0, &live);
    wait_for("something is queued", LONG, || live.totals().2 > 500);
    let (status, took) = daemon.terminate();
    assert!(status.success(), "{status}");
    assert!(took < GRACE, "{took:?}");
    daemon.start();
    let tallies = fleet.join().unwrap();
    assert_eq!(
        tallies.iter().map(|vehicle| vehicle.acked.len()).sum::<usize>(),
        VEHICLES * 200
    );
    for destination in ["cloud", "home"] {
        assert!(daemon.figure(destination, "backlog") >= 2000);
        assert_eq!(daemon.figure(destination, "confirmed"), 0);
    }
}
