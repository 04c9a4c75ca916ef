//! Draining to MQTT with QoS 1: mosquitto, against a bare client of the same crate with the same window.

use std::collections::VecDeque;

use rumqttc::{AsyncClient, Broker, MqttOptions, PublishOptions, PublishProperties, QoS};

use crate::Bench;
use crate::commits::Records;
use crate::drain::{self, Meter, RECORDS};
use crate::mosquitto::Mosquitto;
use crate::process::beside;
use crate::report::{Row, Target};

/// The gateway's default.
const WINDOW: usize = 100;

pub(crate) fn measure(bench: &Bench) -> Vec<Row> {
    let broker = beside(|| {
        let mut broker = Mosquitto::bound();
        broker.start();
        broker
    });
    let destination = format!(
        "type = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{}\"\ntopic_base = \"bench\"\nlayout = \"records\"\nstatus = false\n\
         max_inflight = {WINDOW}",
        broker.port
    );
    let (mut drained, mut bare) = (vec![], vec![]);
    for _ in 0..bench.rounds {
        drained.push(drain::gateway(bench, &destination));
        bare.push(drain::bare("mqtt", &[&broker.port.to_string()]));
        eprintln!(
            "  {:.0} records/s, bare {:.0}",
            drained[drained.len() - 1],
            bare[bare.len() - 1]
        );
    }
    let limit = ("a bare client of the same crate, same window", bare.as_slice());
    vec![Row::ratio(
        "mqtt.bare",
        "drain to MQTT, QoS 1, mosquitto",
        "records/s",
        &drained,
        limit,
        Target::AtLeast(0.80),
    )]
}

/// Sends as many records as a backlog has.
pub(crate) fn run_bare(port: &str) {
    // As a pump has it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let rate = runtime.block_on(publish(port.parse().expect("a port")));
    println!("{rate}");
}

async fn publish(port: u16) -> f64 {
    let mut options = MqttOptions::new("bare", Broker::tcp("127.0.0.1", port));
    options.set_outgoing_inflight_upper_limit(WINDOW as u16);
    options.set_max_request_batch(WINDOW);
    let (client, mut events) = AsyncClient::builder(options).capacity(WINDOW).build();
    let polling = tokio::spawn(async move { while events.poll().await.is_ok() {} });
    let mut records = Records::new();
    let mut meter = Meter::default();
    let mut in_flight = VecDeque::new();
    let mut done = 0.0;
    for number in 0..RECORDS {
        let record = records.record(number);
        let topic = format!("bench/{}/V", record.vin);
        let properties = [
            ("txid", String::from_utf8_lossy(&record.txid).into_owned()),
            ("record", format!("0123456789abcdef0123456789abcdef-{number}")),
            ("received_at", record.received_at.to_string()),
        ];
        let properties = PublishProperties {
            user_properties: properties.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            ..PublishProperties::default()
        };
        let options = PublishOptions::new(QoS::AtLeastOnce).properties(properties);
        let notice = client.publish_tracked(topic, record.payload, options).await;
        in_flight.push_back(notice.expect("it is connected"));
        if in_flight.len() >= WINDOW {
            let notice = in_flight.pop_front().expect("it is full");
            notice.wait_completion_async().await.expect("it arrives");
            done += 1.0;
            meter.note(done);
        }
    }
    polling.abort();
    meter.rate().expect("nine tenths have arrived")
}
