//! Draining to Kafka: librdkafka's own mock cluster and a real broker, against librdkafka's own producer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use crate::Bench;
use crate::commits::Records;
use crate::drain::{self, Meter, RECORDS};
use crate::kafka_broker::Cluster;
use crate::process::beside;
use crate::report::{Row, Target};

pub(crate) fn measure(bench: &Bench) -> Vec<Row> {
    let (_mock, address) = drain::serving("mock");
    let to_mock = rounds(bench, &address);
    let cluster = beside(Cluster::single);
    cluster.create_topics("bench", &["V"], &[]);
    let to_broker = rounds(bench, &cluster.plain());
    let row = |id: &str, name: &str, (drained, bare): &(Vec<f64>, Vec<f64>)| {
        let figure = format!("drain to Kafka, {name}");
        Row::ratio(
            id,
            figure,
            "records/s",
            drained,
            ("librdkafka's own producer", bare),
            Target::AtLeast(0.80),
        )
    };
    vec![
        row("kafka.mock", "librdkafka's mock cluster", &to_mock),
        row("kafka.broker", "a real broker", &to_broker),
    ]
}

fn rounds(bench: &Bench, address: &str) -> (Vec<f64>, Vec<f64>) {
    let destination =
        format!("type = \"kafka\"\nnamespace = \"bench\"\nproperties = {{ \"bootstrap.servers\" = \"{address}\" }}");
    let (mut drained, mut bare) = (vec![], vec![]);
    for _ in 0..bench.rounds {
        drained.push(drain::gateway(bench, &destination));
        bare.push(drain::bare("kafka", &[address]));
        eprintln!(
            "  {:.0} records/s, bare {:.0}",
            drained[drained.len() - 1],
            bare[bare.len() - 1]
        );
    }
    (drained, bare)
}

/// A cluster that lives as long as the process.
pub(crate) fn run_mock() {
    let cluster = MockCluster::new(1).expect("librdkafka has one");
    println!("{}", cluster.bootstrap_servers());
    loop {
        std::thread::park();
    }
}

struct Delivered(&'static AtomicU64);

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        assert!(result.is_ok(), "{result:?}");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends as many records as a backlog has, with the gateway's properties, keys and headers.
pub(crate) fn run_bare(address: &str) {
    static DELIVERED: AtomicU64 = AtomicU64::new(0);
    let mut config = ClientConfig::new();
    for (key, value) in [
        ("bootstrap.servers", address),
        ("message.max.bytes", "8000000"),
        ("enable.idempotence", "true"),
        ("acks", "all"),
        ("enable.gapless.guarantee", "true"),
        ("message.timeout.ms", "0"),
        ("batch.size", "65536"),
        ("queue.buffering.max.messages", "4096"),
        ("queue.buffering.max.kbytes", "32768"),
    ] {
        config.set(key, value);
    }
    let producer: ThreadedProducer<Delivered> = config
        .create_with_context(Delivered(&DELIVERED))
        .expect("good properties");
    let mut records = Records::new();
    let mut meter = Meter::default();
    for number in 0..RECORDS {
        let record = records.record(number);
        let (received, id) = (
            record.received_at.to_string(),
            format!("0123456789abcdef0123456789abcdef-{number}"),
        );
        let texts = [
            ("vin", &*record.vin),
            ("receivedat", &received),
            ("timestamp", "0"),
            ("txtype", "V"),
            ("version", "0"),
            ("device_client_version", "1.2.0"),
            ("record", &id),
        ];
        let mut headers = OwnedHeaders::new_with_capacity(8);
        for (key, value) in texts {
            headers = headers.insert(Header {
                key,
                value: Some(value),
            });
        }
        headers = headers.insert(Header {
            key: "txid",
            value: Some(&*record.txid),
        });
        let mut message = BaseRecord::to("bench_V")
            .key(&*record.vin)
            .payload(&*record.payload)
            .timestamp(record.received_at as i64)
            .headers(headers);
        loop {
            match producer.send(message) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    message = back;
                    std::thread::sleep(Duration::from_micros(500));
                }
                Err((error, _)) => panic!("{error}"),
            }
        }
        meter.note(DELIVERED.load(Ordering::Relaxed) as f64);
    }
    producer.flush(Duration::from_secs(120)).expect("they arrive");
    meter.note(DELIVERED.load(Ordering::Relaxed) as f64);
    println!("{}", meter.rate().expect("all have arrived"));
}
