//! A queue without room: vehicles are told to come again, keep their records, and nothing is lost.
#![allow(clippy::unwrap_used)]

#[path = "support/account.rs"]
mod account;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/mosquitto.rs"]
mod mosquitto;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/raw.rs"]
mod raw;

use std::sync::Arc;
use std::time::Duration;

use account::account;
use daemon::{Daemon, wait_for};
use mosquitto::{Mosquitto, Subscriber};
use proxy::Proxy;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use waystation::cli::simulate::Live;

const LONG: Duration = Duration::from_secs(120);

#[test]
fn a_full_queue_refuses_with_1013_and_loses_nothing() {
    let mut broker = Mosquitto::new();
    broker.start();
    let subscriber = Subscriber::new(broker.port, "fleet/#");
    // Closed: the upstream cannot be reached.
    let proxy = Proxy::new(broker.port);
    let mut daemon = Daemon::new(
        5,
        "max_bytes = \"5 MiB\"\nsegment_size = \"1 MiB\"",
        &mosquitto::everything_to(proxy.port),
    );
    daemon.start();
    // These are connected before it is full, and have to send again what it then refuses.
    let live = Arc::new(Live::default());
    let fleet = daemon.drive(4, 200, 10.0, &live);
    wait_for("the fleet has acks", LONG, || live.totals().2 >= 8);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (stored, code) = runtime.block_on(raw::send(&daemon, 4, "raw", &[7; 20_000], 1000));
    assert!(stored > 20, "{stored}");
    assert_eq!(code, Some(CloseCode::Again), "after {stored} records");
    assert!(daemon.status()["queue"]["full"].as_bool().unwrap());
    assert!(daemon.status()["queue"]["disk_bytes"].as_u64().unwrap() <= 5 << 20);
    assert!(daemon.metrics().contains("waystation_queue_full 1"));

    // The fleet meets the same: no ack any more, and none of its connections stays.
    wait_for("each has been turned away", LONG, || {
        daemon.status()["listener"]["turned_away"].as_u64().unwrap() >= 8
    });
    let acked = live.totals().2;
    assert!(acked < 4 * 200, "{acked}");

    proxy.open();
    let tallies = fleet.join().unwrap();
    daemon.wait_drained("broker", LONG);
    let total = 4 * 200;
    let settle = || {
        let ids = |message: &mosquitto::Received| (message.property("txid").to_owned(), String::new());
        account(&tallies, subscriber.messages().iter().map(ids))
    };
    let all = total + stored as usize;
    wait_for("everything has arrived", LONG, || settle().delivered >= all);
    let account = settle();
    assert_eq!((account.lost, account.out_of_order), (0, 0), "{:?}", account.examples);
    assert_eq!(tallies.iter().map(|vehicle| vehicle.acked.len()).sum::<usize>(), total);
    for vehicle in &tallies {
        assert!(vehicle.connections >= 2 && vehicle.resent > 0, "{vehicle:?}");
    }
    wait_for("it is not full any more", LONG, || {
        !daemon.status()["queue"]["full"].as_bool().unwrap()
    });
    let (status, _) = daemon.terminate();
    assert!(status.success(), "{status}");
}
