//! MQTT with a real broker: both layouts as their consumers see them, and what the broker's limits lead to.
#![allow(clippy::unwrap_used)]

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

use daemon::{Daemon, wait_for};
use mosquitto::{Mosquitto, Subscriber};
use prost::Message;
use proxy::Proxy;
use waystation::cli::simulate::Live;
use waystation::record::proto::vehicle_data::Payload;

const LONG: Duration = Duration::from_secs(60);

fn configured(port: u16, more: &str) -> Daemon {
    let rest = format!(
        r#"
        [records]
        "*" = ["home"]
        [destinations.home]
        type = "mqtt"
        url = "mqtt://127.0.0.1:{port}"
        topic_base = "telemetry"
        {more}
        "#
    );
    Daemon::new(2, "", &rest)
}

#[test]
fn the_fields_layout_is_one_json_value_for_each_field() {
    let mut broker = Mosquitto::new();
    broker.start();
    let subscriber = Subscriber::new(broker.port, "telemetry/#");
    let mut daemon = configured(broker.port, "");
    daemon.start();
    let live = Arc::new(Live::default());
    let tallies = daemon.drive(1, 30, 0.0, &live).join().unwrap();
    daemon.wait_drained("home", LONG);
    let vin = &tallies[0].vin;
    let under = |part: &str| {
        let prefix = format!("telemetry/{vin}/{part}/");
        let messages = subscriber.messages().into_iter();
        messages
            .filter(|message| message.topic.starts_with(&prefix))
            .collect::<Vec<_>>()
    };
    // What the broker has confirmed the subscriber still has to print.
    wait_for("its subscriber has all", LONG, || {
        let messages = subscriber.messages();
        let records: BTreeSet<_> = messages
            .iter()
            .map(|message| message.property("txid").to_owned())
            .collect();
        tallies[0]
            .acked
            .iter()
            .all(|number| records.contains(&format!("{vin}-{number}")))
    });
    let fields: BTreeSet<_> = under("v").iter().map(|message| message.topic.clone()).collect();
    assert!(fields.len() >= 20, "{fields:?}");
    for field in ["Location", "VehicleSpeed", "Soc", "Gear"] {
        assert!(
            fields.contains(&format!("telemetry/{vin}/v/{field}")),
            "{field} in {fields:?}"
        );
    }
    let value = |topic: &str| -> serde_json::Value {
        let topic = format!("telemetry/{vin}/{topic}");
        let message = subscriber
            .messages()
            .into_iter()
            .rfind(|message| message.topic == topic)
            .unwrap();
        serde_json::from_slice(&message.payload).unwrap()
    };
    assert!(value("v/Location")["latitude"].is_f64(), "{}", value("v/Location"));
    assert!(value("connectivity")["Status"] == "CONNECTED" || value("connectivity")["Status"] == "DISCONNECTED");
    assert!(
        under("alerts")
            .iter()
            .any(|message| message.topic.ends_with("/current"))
    );
    assert!(
        under("alerts")
            .iter()
            .any(|message| message.topic.ends_with("/history"))
    );
    assert!(!under("errors").is_empty());
    for message in subscriber.messages() {
        let value: Result<serde_json::Value, _> = serde_json::from_slice(&message.payload);
        assert!(value.is_ok(), "{} {:?}", message.topic, message.payload);
        assert!(!message.property("txid").is_empty() && !message.property("record").is_empty());
    }
}

#[test]
fn a_record_that_the_fields_layout_has_no_topics_for_is_a_dead_letter_and_the_rest_goes_on() {
    let mut broker = Mosquitto::new();
    broker.start();
    let subscriber = Subscriber::new(broker.port, "telemetry/#");
    let mut daemon = configured(broker.port, "");
    daemon.start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(raw::send_one(&daemon, "canlogs", b"unknown", b"payload"));
    runtime.block_on(raw::send_one(&daemon, "V", b"empty", b""));
    runtime.block_on(raw::send_one(&daemon, "V", b"known", &raw::padded_vehicle_payload(10)));
    daemon.wait_drained("home", LONG);
    wait_for("the last one has arrived", LONG, || {
        subscriber
            .messages()
            .iter()
            .any(|message| message.property("txid") == "known")
    });
    assert_eq!(daemon.figure("home", "refused"), 1, "{}", daemon.log());
    assert!(
        daemon.log().contains("has no topics for records of this type"),
        "{}",
        daemon.log()
    );
    assert_eq!(daemon.figure("home", "failures"), 0, "{}", daemon.log());
}

#[test]
fn the_records_layout_is_one_protobuf_message_for_each_record() {
    let mut broker = Mosquitto::new();
    broker.start();
    let subscriber = Subscriber::new(broker.port, "telemetry/#");
    let mut daemon = configured(broker.port, r#"layout = "records""#);
    daemon.start();
    let live = Arc::new(Live::default());
    let tallies = daemon.drive(2, 50, 0.0, &live).join().unwrap();
    daemon.wait_drained("home", LONG);
    wait_for("all has arrived", LONG, || subscriber.count() >= 100);
    for vehicle in &tallies {
        let topic = format!("telemetry/{}/V", vehicle.vin);
        let of_vehicle = subscriber
            .messages()
            .into_iter()
            .filter(|message| message.topic == topic);
        let payloads: Vec<_> = of_vehicle
            .map(|message| Payload::decode(&*message.payload).unwrap())
            .collect();
        assert_eq!(payloads.len(), 40);
        assert!(
            payloads
                .iter()
                .all(|payload| payload.vin == vehicle.vin && !payload.data.is_empty())
        );
    }
}

#[test]
fn retained_values_are_there_for_who_comes_later() {
    let mut broker = Mosquitto::new();
    broker.start();
    let mut daemon = configured(broker.port, "retain = true\nmax_inflight = 1");
    daemon.start();
    let live = Arc::new(Live::default());
    let tallies = daemon.drive(1, 5, 0.0, &live).join().unwrap();
    daemon.wait_drained("home", LONG);
    let later = Subscriber::new(broker.port, &format!("telemetry/{}/v/#", tallies[0].vin));
    wait_for("the retained values arrive", LONG, || later.count() >= 20);
}

#[test]
fn a_broker_that_cannot_be_reached_at_the_start_gets_everything_later() {
    for more in ["", "protocol = \"3.1.1\"", "qos = 0"] {
        let mut broker = Mosquitto::new();
        broker.start();
        let subscriber = Subscriber::new(broker.port, "telemetry/#");
        // Closed: it cannot be reached.
        let proxy = Proxy::new(broker.port);
        let mut daemon = configured(proxy.port, &format!("layout = \"records\"\n{more}"));
        daemon.start();
        let live = Arc::new(Live::default());
        daemon.drive(1, 50, 0.0, &live).join().unwrap();
        assert_eq!(live.totals().2, 50, "acknowledged without any upstream");
        wait_for("it has been tried", LONG, || {
            daemon.log().contains("delivery interrupted")
        });
        assert_eq!(subscriber.count(), 0);
        proxy.open();
        // With the two connectivity records, the second of which comes when the vehicle has gone.
        wait_for("all are confirmed", LONG, || daemon.figure("home", "confirmed") == 52);
        wait_for("all have arrived", LONG, || subscriber.count() >= 52);
    }
}

#[test]
fn a_transaction_id_that_no_broker_takes_stops_nothing() {
    let mut broker = Mosquitto::new();
    broker.start();
    let subscriber = Subscriber::new(broker.port, "telemetry/#");
    let mut daemon = configured(broker.port, r#"layout = "records""#);
    daemon.start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for txid in [
        &b"raw\x01\x00\n\xff bytes"[..],
        "\u{85}\u{ffff}\u{fdd0}".as_bytes(),
        &[b'x'; 70_000],
        b"good",
    ] {
        runtime.block_on(raw::send_one(&daemon, "raw", txid, b"payload"));
    }
    daemon.wait_drained("home", LONG);
    let of_type = || {
        subscriber
            .messages()
            .into_iter()
            .filter(|message| message.topic.ends_with("/raw"))
            .count()
    };
    wait_for("all four have arrived", LONG, || of_type() == 4);
    assert_eq!(daemon.figure("home", "failures"), 0, "{}", daemon.log());
}

#[test]
fn a_message_above_the_brokers_own_limit_is_a_dead_letter_and_the_rest_goes_on() {
    for qos in [1, 2] {
        let mut broker = Mosquitto::with("message_size_limit 3000");
        broker.start();
        let subscriber = Subscriber::new(broker.port, "telemetry/#");
        let mut daemon = configured(broker.port, &format!("layout = \"records\"\nqos = {qos}"));
        daemon.start();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(raw::send_one(&daemon, "raw", b"small", b"payload"));
        runtime.block_on(raw::send_one(&daemon, "raw", b"large", &[7; 5000]));
        runtime.block_on(raw::send_one(&daemon, "raw", b"last", b"payload"));
        daemon.wait_drained("home", LONG);
        assert_eq!(daemon.figure("home", "refused"), 1, "{}", daemon.log());
        let txids = || {
            let raw = subscriber
                .messages()
                .into_iter()
                .filter(|message| message.topic.ends_with("/raw"));
            raw.map(|message| message.property("txid").to_owned())
                .collect::<BTreeSet<_>>()
        };
        wait_for("the others have arrived", LONG, || {
            txids() == ["last".to_owned(), "small".to_owned()].into()
        });
    }
}

#[test]
fn two_destinations_on_one_broker_leave_each_other_alone() {
    let mut broker = Mosquitto::new();
    broker.start();
    let rest = ["a", "b"].map(|name| {
        format!(
            r#"
            [destinations.{name}]
            type = "mqtt"
            url = "mqtt://127.0.0.1:{}"
            topic_base = "{name}"
            layout = "records"
            "#,
            broker.port
        )
    });
    let routes = "[records]\n\"*\" = [\"a\", \"b\"]\n";
    let mut daemon = Daemon::new(1, "", &format!("{routes}{}", rest.concat()));
    daemon.start();
    let live = Arc::new(Live::default());
    daemon.drive(1, 100, 0.0, &live).join().unwrap();
    for name in ["a", "b"] {
        daemon.wait_drained(name, LONG);
        assert_eq!(daemon.figure(name, "failures"), 0, "{:?}", daemon.last_error(name));
    }
}
