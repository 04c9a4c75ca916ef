//! librdkafka's mock cluster and a consumer that reads all of it while the test runs.
#![allow(dead_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use waystation::cli::simulate::VehicleTally;

use crate::account::{Account, account};

pub(crate) const TYPES: [&str; 4] = ["V", "alerts", "errors", "connectivity"];
const PARTITIONS: i32 = 4;

pub(crate) type Cluster = MockCluster<'static, DefaultProducerContext>;

/// A cluster of one broker with a topic `{namespace}_{type}` for each type.
pub(crate) fn cluster(namespace: &str) -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    for name in TYPES {
        cluster
            .create_topic(&format!("{namespace}_{name}"), PARTITIONS, 1)
            .unwrap();
    }
    cluster
}

#[derive(Debug, Clone)]
pub(crate) struct Consumed {
    pub(crate) topic: String,
    pub(crate) key: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) timestamp: i64,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) at: Instant,
}

impl Consumed {
    pub(crate) fn header(&self, name: &str) -> String {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name).unwrap();
        String::from_utf8(value.clone()).unwrap()
    }
}

pub(crate) struct Reading {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    messages: Arc<Mutex<Vec<Consumed>>>,
}

impl Reading {
    pub(crate) fn new(cluster: &Cluster, namespace: &str) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("group.id", "test")
            .set("enable.auto.commit", "false")
            .set("reconnect.backoff.max.ms", "500")
            .set("log_level", "0")
            .create()
            .unwrap();
        let mut everything = TopicPartitionList::new();
        for name in TYPES {
            for partition in 0..PARTITIONS {
                everything
                    .add_partition_offset(&format!("{namespace}_{name}"), partition, Offset::Beginning)
                    .unwrap();
            }
        }
        consumer.assign(&everything).unwrap();
        let (stop, messages) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, consumed) = (Arc::clone(&stop), Arc::clone(&messages));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else {
                    continue;
                };
                let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
                let headers = headers.map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()));
                consumed.lock().unwrap().push(Consumed {
                    topic: message.topic().to_owned(),
                    key: String::from_utf8(message.key().unwrap_or_default().to_vec()).unwrap(),
                    payload: message.payload().unwrap_or_default().to_vec(),
                    timestamp: message.timestamp().to_millis().unwrap_or_default(),
                    headers: headers.collect(),
                    at: Instant::now(),
                });
            }
        });
        Self {
            thread: Some(thread),
            stop,
            messages,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.messages.lock().unwrap().len()
    }

    /// What has arrived so far against what was acknowledged; order holds within a vehicle and topic.
    pub(crate) fn account(&self, vehicles: &[VehicleTally]) -> Account {
        let messages = self.messages.lock().unwrap();
        account(
            vehicles,
            messages
                .iter()
                .map(|message| (message.header("txid"), message.topic.clone())),
        )
    }

    pub(crate) fn messages(&self) -> Vec<Consumed> {
        self.messages.lock().unwrap().clone()
    }

    /// The messages since the last call.
    pub(crate) fn take(&self) -> Vec<Consumed> {
        std::mem::take(&mut self.messages.lock().unwrap())
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
