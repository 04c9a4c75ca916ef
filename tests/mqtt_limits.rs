//! MQTT brokers that take less than everything: what the gateway obeys, what it says, and that nothing is lost by it.
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

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use account::{Account, account};
use daemon::{Daemon, wait_for};
use mosquitto::{Mosquitto, Subscriber, everything_to};
use prost::Message;
use proxy::Proxy;
use waystation::cli::simulate::{Live, VehicleTally};
use waystation::record::proto::vehicle_data::Payload;

const LONG: Duration = Duration::from_secs(60);
const V3: &str = "protocol = \"3.1.1\"";

fn configured(port: u16, more: &str) -> Daemon {
    Daemon::new(4, "", &format!("{}{more}\n", everything_to(port)))
}

fn drive(daemon: &Daemon, records: u64) -> Vec<VehicleTally> {
    daemon
        .drive(4, records, 0.0, &Arc::new(Live::default()))
        .join()
        .unwrap()
}

fn send(daemon: &Daemon, txid: &str, payload: &[u8]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(raw::send_one(daemon, "raw", txid.as_bytes(), payload));
}

fn wait_error(daemon: &Daemon, words: &str) {
    wait_for(words, LONG, || {
        daemon.last_error("broker").is_some_and(|error| error.contains(words))
    });
}

fn arrived(subscriber: &Subscriber, tallies: &[VehicleTally]) -> Account {
    let messages = subscriber.messages().into_iter();
    account(
        tallies,
        messages.map(|message| (message.property("txid").to_owned(), String::new())),
    )
}

/// Payloads of the records that [`send`] sent, in the order of their arrival.
fn raw_payloads(subscriber: &Subscriber) -> Vec<Vec<u8>> {
    let messages = subscriber.messages().into_iter();
    let raw = messages.filter(|message| message.topic.ends_with("/raw"));
    raw.map(|message| message.payload).collect()
}

/// Behind all of it at once a ping would come too late.
#[test]
fn a_backlog_drains_over_a_line_that_is_narrow() {
    let mut broker = Mosquitto::new();
    broker.start();
    let subscriber = Subscriber::new(broker.port, "fleet/#");
    let proxy = Proxy::new(broker.port);
    proxy.open();
    proxy.narrow(20_000);
    let mut daemon = configured(proxy.port, "keep_alive = \"8s\"");
    daemon.start();
    raw::send_padded(&daemon, 150, 4_000);
    daemon.wait_drained("broker", LONG);
    assert_eq!(daemon.figure("broker", "failures"), 0, "one session: {}", daemon.log());
    let numbers = || {
        let came = subscriber.messages().into_iter();
        let sent = came.filter(|message| message.topic.ends_with("/V"));
        sent.map(|message| message.property("txid").to_owned())
            .collect::<Vec<_>>()
    };
    wait_for("all have arrived", LONG, || numbers().len() >= 150);
    assert_eq!(numbers(), (0..150).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn every_version_and_quality_of_service_delivers_everything_in_order() {
    for more in [
        "qos = 0",
        "qos = 2",
        V3,
        "protocol = \"3.1.1\"\nqos = 0",
        "protocol = \"3.1.1\"\nqos = 2",
    ] {
        let mut broker = Mosquitto::new();
        broker.start();
        let subscriber = Subscriber::new(broker.port, "fleet/#");
        let mut daemon = configured(broker.port, more);
        daemon.start();
        let tallies = drive(&daemon, 200);
        daemon.wait_drained("broker", LONG);
        // 3.1.1 has no user properties: there the order is that of the payloads' own times.
        wait_for("all has arrived", LONG, || subscriber.count() >= 4 * 202);
        for vehicle in &tallies {
            let topic = format!("fleet/{}/V", vehicle.vin);
            let messages = subscriber.messages().into_iter();
            let times: Vec<_> = messages
                .filter(|message| message.topic == topic)
                .map(|message| {
                    assert_eq!(message.properties.is_empty(), more.contains("3.1.1"));
                    let created = Payload::decode(&*message.payload).unwrap().created_at.unwrap();
                    (created.seconds, created.nanos)
                })
                .collect();
            assert_eq!(times.len(), 160, "{more}");
            assert!(times.is_sorted(), "{more}");
        }
        assert_eq!(daemon.figure("broker", "failures"), 0, "{more}: {}", daemon.log());
    }
}

#[test]
fn a_broker_that_takes_one_message_at_a_time_is_obeyed() {
    for more in ["", "qos = 2", V3] {
        let mut broker = Mosquitto::with("max_inflight_messages 1");
        broker.start();
        let subscriber = Subscriber::new(broker.port, "fleet/#");
        let mut daemon = configured(broker.port, more);
        daemon.start();
        drive(&daemon, 50);
        daemon.wait_drained("broker", LONG);
        wait_for("all has arrived", LONG, || subscriber.count() >= 4 * 52);
        assert_eq!(daemon.figure("broker", "failures"), 0, "{more}: {}", daemon.log());
    }
}

#[test]
fn a_packet_above_what_the_broker_announces_is_a_dead_letter_and_the_rest_goes_on() {
    let mut broker = Mosquitto::with("max_packet_size 2000");
    broker.start();
    let subscriber = Subscriber::new(broker.port, "fleet/#");
    let mut daemon = configured(broker.port, "");
    daemon.start();
    // The second fits by a few bytes.
    let sent = [10, 1_800, 1_950, 5_000, 20];
    for bytes in sent {
        send(&daemon, "x", &vec![7; bytes]);
    }
    daemon.wait_drained("broker", LONG);
    assert_eq!(daemon.figure("broker", "refused"), 2, "{}", daemon.log());
    wait_for("the others have arrived", LONG, || {
        let lengths: Vec<_> = raw_payloads(&subscriber).iter().map(Vec::len).collect();
        lengths == [10, 1_800, 20]
    });
    assert_eq!(daemon.figure("broker", "failures"), 0, "{}", daemon.log());
}

#[test]
fn in_3_1_1_the_packet_limit_has_to_be_said_and_until_then_nothing_passes_the_record() {
    let mut broker = Mosquitto::with("max_packet_size 2000");
    broker.start();
    let subscriber = Subscriber::new(broker.port, "fleet/#");
    let mut daemon = configured(broker.port, V3);
    daemon.start();
    send(&daemon, "x", &[1; 10]);
    send(&daemon, "x", &[2; 5_000]);
    send(&daemon, "x", &[3; 10]);
    wait_error(&daemon, "set max_packet_size to what it takes");
    assert!(daemon.figure("broker", "backlog") >= 2);
    daemon.terminate();
    daemon.edit(V3, &format!("{V3}\nmax_packet_size = \"2000 B\""));
    daemon.start();
    daemon.wait_drained("broker", LONG);
    assert_eq!(daemon.figure("broker", "refused"), 1, "{}", daemon.log());
    wait_for("the others have arrived", LONG, || {
        let mut payloads = raw_payloads(&subscriber);
        payloads.dedup();
        payloads == [vec![1; 10], vec![3; 10]]
    });
}

#[test]
fn a_wrong_password_is_explained_and_costs_nothing() {
    for protocol in ["5", "3.1.1"] {
        let mut broker = Mosquitto::with("user root\nallow_anonymous false\npassword_file DIR/passwords");
        broker.write_password("passwords", "gateway", "right");
        broker.start();
        let credentials = format!("protocol = \"{protocol}\"\nusername = \"gateway\"\npassword = \"wrong\"");
        let mut daemon = configured(broker.port, &credentials);
        daemon.start();
        let subscriber = Subscriber::with(broker.port, "fleet/#", &["-u", "gateway", "-P", "right"]);
        let tallies = drive(&daemon, 10);
        wait_error(&daemon, "check username and password_file");
        assert_eq!(daemon.figure("broker", "confirmed"), 0);
        daemon.terminate();
        daemon.edit("\"wrong\"", "\"right\"");
        daemon.start();
        daemon.wait_drained("broker", LONG);
        assert_eq!(daemon.figure("broker", "refused"), 0);
        let sent: usize = tallies.iter().map(|vehicle| vehicle.acked.len()).sum();
        // With what the gateway says of each connection.
        wait_for("all has arrived", LONG, || {
            subscriber.count() >= sent + 2 * tallies.len()
        });
    }
}

#[test]
fn a_password_that_is_put_right_in_its_file_counts_at_the_next_session() {
    for protocol in ["5", "3.1.1"] {
        let mut broker = Mosquitto::with("user root\nallow_anonymous false\npassword_file DIR/passwords");
        broker.write_password("passwords", "gateway", "right");
        broker.start();
        let credentials = format!("protocol = \"{protocol}\"\nusername = \"gateway\"\npassword_file = \"secret\"");
        let mut daemon = configured(broker.port, &credentials);
        std::fs::write(daemon.path("secret"), "wrong\n").unwrap();
        daemon.start();
        send(&daemon, "x", b"x");
        wait_error(&daemon, "check username and password_file");
        std::fs::remove_file(daemon.path("secret")).unwrap();
        wait_error(&daemon, "write the password into it");
        std::fs::write(daemon.path("secret"), "right\n").unwrap();
        daemon.wait_drained("broker", LONG);
    }
}

// With the 0 that the tests have else, this mosquitto ends the connection after each message that it forbids.
const ACL: &str = "user root\nacl_file DIR/acl\nmax_queued_messages 1000";
const NOTHING: &str = "topic read #\n";
const EVERYTHING: &str = "topic readwrite #\n";

#[test]
fn records_wait_until_the_broker_lets_the_gateway_publish_them() {
    for more in ["", "qos = 2"] {
        let mut broker = Mosquitto::with(ACL);
        broker.write("acl", NOTHING);
        broker.start();
        let mut daemon = configured(broker.port, more);
        daemon.start();
        let tallies = drive(&daemon, 20);
        wait_error(&daemon, "not authorised to publish to fleet/");
        let said = daemon.last_error("broker").unwrap();
        let topics = tallies.iter().map(|vehicle| format!("fleet/{}/", vehicle.vin));
        assert!(topics.into_iter().any(|topic| said.contains(&topic)), "{said}");
        assert!(said.contains(" (record "), "{said}");
        assert!(said.ends_with("; give this client the right to"), "{said}");
        assert_eq!(
            (daemon.figure("broker", "confirmed"), daemon.figure("broker", "refused")),
            (0, 0)
        );
        broker.kill_9();
        broker.write("acl", EVERYTHING);
        broker.start();
        let subscriber = Subscriber::new(broker.port, "fleet/#");
        daemon.wait_drained("broker", LONG);
        wait_for("all has arrived", LONG, || {
            arrived(&subscriber, &tallies).delivered >= 80
        });
        arrived(&subscriber, &tallies).assert_complete(80);
    }
}

#[test]
fn what_is_behind_a_forbidden_first_record_does_not_overtake_it() {
    for more in ["", "qos = 2"] {
        let mut broker = Mosquitto::with(ACL);
        broker.write(
            "acl",
            "topic read #\ntopic write fleet/+/V\ntopic write fleet/waystation/#\n",
        );
        broker.start();
        let subscriber = Subscriber::new(broker.port, "fleet/#");
        let mut daemon = configured(broker.port, &format!("pause = true\n{more}"));
        daemon.start();
        send(&daemon, "first", b"x");
        drive(&daemon, 20);
        daemon.edit("pause = true", "pause = false");
        daemon.reload();
        wait_error(&daemon, "not authorised to publish to fleet/");
        assert_eq!((daemon.figure("broker", "sent"), subscriber.count()), (1, 0));
    }
}

#[test]
fn a_status_that_the_broker_forbids_keeps_no_record_back() {
    for more in [ACL, "user root\nacl_file DIR/acl"] {
        let mut broker = Mosquitto::with(more);
        broker.write("acl", "topic read #\ntopic write fleet/+/+\n");
        broker.start();
        let mut daemon = configured(broker.port, "");
        daemon.start();
        drive(&daemon, 20);
        daemon.wait_drained("broker", LONG);
        let log = daemon.log();
        assert_eq!(
            log.matches("does not take the gateway's status, records go on").count(),
            1,
            "{log}"
        );
    }
}

#[test]
fn a_broker_that_takes_less_than_is_asked_for_is_told_with_what_to_set() {
    for (limit, more, words, mended) in [
        ("max_qos 0", "", "takes QoS 0 at most; set qos = 0", "qos = 0"),
        (
            "max_qos 0",
            "status = false",
            "takes QoS 0 at most; set qos = 0",
            "status = false\nqos = 0",
        ),
        ("max_qos 1", "qos = 2", "takes QoS 1 at most; set qos = 1", "qos = 1"),
        (
            "retain_available false",
            "status = false\nretain = true",
            "keeps no retained messages; set retain = false",
            "status = false",
        ),
        (
            "retain_available false",
            "retain = true",
            "keeps no retained messages; set retain = false and status = false",
            "status = false",
        ),
    ] {
        let mut broker = Mosquitto::with(limit);
        broker.start();
        let mut daemon = configured(broker.port, &format!("\n{more} # here"));
        daemon.start();
        send(&daemon, "x", b"x");
        wait_error(&daemon, words);
        daemon.terminate();
        daemon.edit(&format!("\n{more} # here"), &format!("\n{mended}"));
        daemon.start();
        daemon.wait_drained("broker", LONG);
        assert_eq!(daemon.figure("broker", "failures"), 0, "{}", daemon.log());
    }
}

/// The protocol's gap, written down: a broker that does not take a message has no word for it.
#[test]
fn in_3_1_1_mosquitto_confirms_what_it_does_not_take_and_drops_it() {
    for (more, acl) in [(ACL, NOTHING), ("message_size_limit 3000", "")] {
        let mut broker = Mosquitto::with(&format!("{more}\nmax_queued_messages 1000"));
        broker.write("acl", acl);
        broker.start();
        let subscriber = Subscriber::new(broker.port, "fleet/+/raw");
        let mut daemon = configured(broker.port, V3);
        daemon.start();
        send(&daemon, "x", &[7; 5_000]);
        daemon.wait_drained("broker", LONG);
        let figures = ["failures", "refused"].map(|name| daemon.figure("broker", name));
        assert_eq!((figures, subscriber.count()), ([0, 0], 0));
    }
}

#[test]
fn a_broker_with_persistence_that_is_restarted_under_load_costs_no_record() {
    for more in ["", "qos = 2"] {
        let mut broker = Mosquitto::with("user root\npersistence true\npersistence_location DIR/");
        broker.start();
        // It comes back by itself, and the broker has kept for it what it has not had.
        let subscriber = Subscriber::lasting(broker.port, "fleet/#");
        let mut daemon = configured(broker.port, more);
        daemon.start();
        let fleet = daemon.drive(4, 500, 500.0, &Arc::new(Live::default()));
        for arrived in [400, 800] {
            wait_for("some of it has arrived", LONG, || subscriber.count() >= arrived);
            broker.stop();
            broker.start();
        }
        let tallies = fleet.join().unwrap();
        daemon.wait_drained("broker", LONG);
        wait_for("all has arrived", LONG, || {
            arrived(&subscriber, &tallies).delivered >= 2_000
        });
        arrived(&subscriber, &tallies).assert_complete(2_000);
    }
}

/// 3.1.1 carries no transaction ids: what arrives is held against what another destination has written.
#[test]
fn in_3_1_1_too_a_restart_costs_no_record() {
    let mut broker = Mosquitto::with("user root\npersistence true\npersistence_location DIR/");
    broker.start();
    let subscriber = Subscriber::lasting(broker.port, "fleet/#");
    let trace = "[destinations.trace]\ntype = \"log\"\nrequired = true\npath = \"records.jsonl\"";
    let mut daemon = configured(broker.port, &format!("{V3}\nformat = \"json\"\n{trace}"));
    daemon.edit("[\"broker\"]", "[\"broker\", \"trace\"]");
    daemon.start();
    let fleet = daemon.drive(4, 500, 500.0, &Arc::new(Live::default()));
    for arrived in [400, 800] {
        wait_for("some of it has arrived", LONG, || subscriber.count() >= arrived);
        broker.stop();
        broker.start();
    }
    fleet.join().unwrap();
    daemon.wait_drained("broker", LONG);
    daemon.wait_drained("trace", LONG);
    let written = std::fs::read_to_string(daemon.path("records.jsonl")).unwrap();
    let written: BTreeSet<_> = written
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["payload"].to_string())
        .collect();
    assert!(written.len() > 1_500, "{}", written.len());
    let arrived = || {
        let messages = subscriber.messages().into_iter();
        let payloads = messages.map(|message| serde_json::from_slice::<serde_json::Value>(&message.payload).unwrap());
        payloads.map(|payload| payload.to_string()).collect::<BTreeSet<_>>()
    };
    wait_for("all has arrived", LONG, || arrived() == written);
}

#[test]
fn decoded_records_are_json_and_what_nobody_knows_is_as_it_came() {
    let mut broker = Mosquitto::new();
    broker.start();
    let subscriber = Subscriber::new(broker.port, "fleet/#");
    let mut daemon = configured(broker.port, "format = \"json\"");
    daemon.start();
    let tallies = drive(&daemon, 20);
    const UNKNOWN: &[u8] = b"nobody knows what this is";
    send(&daemon, "x", UNKNOWN);
    daemon.wait_drained("broker", LONG);
    assert_eq!(daemon.figure("broker", "refused"), 0);
    wait_for("the others have arrived", LONG, || {
        let of_fleet = |message: &mosquitto::Received| tallies.iter().any(|one| message.topic.contains(&one.vin));
        subscriber.messages().iter().filter(|one| of_fleet(one)).count() >= 4 * 22
    });
    let is_unknown = |message: &&mosquitto::Received| message.topic.ends_with("/raw");
    wait_for("the unknown one has arrived", LONG, || {
        subscriber.messages().iter().any(|message| is_unknown(&message))
    });
    for message in subscriber.messages() {
        if is_unknown(&&message) {
            assert_eq!(message.payload, UNKNOWN);
            continue;
        }
        let json: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        if message.topic.ends_with("/V") {
            assert!(message.topic.contains(json["vin"].as_str().unwrap()), "{json}");
            assert!(json["data"][0]["key"].is_string(), "{json}");
        }
    }
}
