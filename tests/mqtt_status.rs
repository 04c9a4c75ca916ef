//! What a gateway says of itself at an MQTT broker: retained, and true however it ends.
#![allow(clippy::unwrap_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/mosquitto.rs"]
mod mosquitto;

use std::sync::Arc;
use std::time::Duration;

use daemon::{Daemon, wait_for};
use mosquitto::{Mosquitto, Subscriber, everything_to};
use waystation::cli::simulate::Live;

const LONG: Duration = Duration::from_secs(60);

fn configured(port: u16, more: &str) -> Daemon {
    Daemon::new(1, "", &format!("{}{more}\n", everything_to(port)))
}

fn is(subscriber: &Subscriber, word: &str) -> bool {
    subscriber.statuses().last() == Some(&("fleet/waystation/gate_1/status".to_owned(), word.to_owned()))
}

#[test]
fn the_status_is_online_while_it_runs_and_offline_after_any_end() {
    for more in ["", "protocol = \"3.1.1\"", "qos = 0", "qos = 2\nmax_inflight = 1"] {
        let mut broker = Mosquitto::new();
        broker.start();
        let subscriber = Subscriber::new(broker.port, "fleet/#");
        let mut daemon = configured(broker.port, &format!("client_id = \"gate/1\"\n{more}"));
        daemon.start();
        wait_for("it is online", LONG, || is(&subscriber, "online"));
        let later = Subscriber::new(broker.port, "fleet/#");
        wait_for("who comes later sees it too", LONG, || is(&later, "online"));

        daemon.terminate();
        wait_for("an orderly stop is told", LONG, || is(&subscriber, "offline"));
        daemon.start();
        wait_for("it is online again", LONG, || is(&subscriber, "online"));
        daemon.kill_9();
        wait_for("the broker tells of a kill", LONG, || is(&subscriber, "offline"));
        let later = Subscriber::new(broker.port, "fleet/#");
        wait_for("who comes later sees it too", LONG, || is(&later, "offline"));
    }
}

#[test]
fn without_status_nothing_is_said() {
    let mut broker = Mosquitto::with("retain_available false");
    broker.start();
    let subscriber = Subscriber::new(broker.port, "fleet/#");
    let mut daemon = configured(broker.port, "status = false");
    daemon.start();
    let live = Arc::new(Live::default());
    daemon.drive(1, 5, 0.0, &live).join().unwrap();
    wait_for("its records arrive", LONG, || subscriber.count() >= 5);
    daemon.terminate();
    assert_eq!(subscriber.statuses(), []);
}

#[test]
fn a_broker_without_retained_messages_is_explained() {
    let mut broker = Mosquitto::with("retain_available false");
    broker.start();
    let mut daemon = configured(broker.port, "");
    daemon.start();
    wait_for("the status says what to do", LONG, || {
        let error = daemon.last_error("broker").unwrap_or_default();
        error.contains("the broker keeps no retained messages; set status = false")
    });
}

#[test]
fn an_outage_without_a_record_to_send_is_over_when_the_broker_lets_the_gateway_in_again() {
    let mut broker = Mosquitto::new();
    broker.start();
    let mut daemon = configured(broker.port, "client_id = \"gate\"");
    daemon.start();
    let is_up = |daemon: &Daemon| daemon.connected("broker") && daemon.last_error("broker").is_none();
    wait_for("it is connected", LONG, || is_up(&daemon));
    let intruder = Subscriber::with(broker.port, "fleet/#", &["-i", "gate"]);
    wait_for("another client's coming is told", LONG, || {
        daemon.log().contains("delivery interrupted")
    });
    drop(intruder);
    wait_for("it is connected again", LONG, || is_up(&daemon));
    broker.kill_9();
    wait_for("the broker's end is told", LONG, || {
        daemon.last_error("broker").is_some()
    });
    broker.start();
    wait_for("it is connected again", LONG, || is_up(&daemon));
    let log = daemon.log();
    let told = [" delivering ", "delivery interrupted"].map(|words| log.matches(words).count());
    assert!(told[0] >= 3 && told[1] >= 2, "{log}");
}
