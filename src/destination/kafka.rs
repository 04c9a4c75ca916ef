//! Kafka: topic, key, headers and timestamp as the reference server's consumers expect them.
//!
//! A record is confirmed by its delivery report. The producer is idempotent with `acks=all`, never gives up by itself,
//! and sends nothing more once a record is refused; the report of that record ends the session, and dropping the
//! producer purges what it still holds, so no record overtakes another.

use std::fmt::{Display, Write};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ThreadedProducer};
use tokio::time::Instant;

use super::kafka_client::{Context, Said, Settings, without_value};
use super::kafka_reports::{Report, Reports};
use super::{Confirmation, Destination, News, Outcome, Rejected, Sent, Session, SessionError};
use crate::config;
use crate::queue::Queued;
use crate::record::epoch_ms;

/// A Kafka cluster.
pub struct Kafka {
    name: String,
    namespace: String,
    client: Settings,
    said: Arc<Said>,
}

/// Bytes in flight, as librdkafka keeps them. What is more than this only grows cold before it is sent.
const WINDOW_BYTES: usize = 2 << 20;
/// What it keeps of a record beside payload and transaction id: the message itself, and each header by itself.
const OVERHEAD: usize = 1 << 10;
/// No more records than this are in flight, however small they are.
pub(super) const WINDOW_RECORDS: usize = WINDOW_BYTES / OVERHEAD;
/// So long nothing of what is in flight is confirmed before that is told. librdkafka's own word comes with its timeout,
/// after a minute, and a broker that hangs keeps its connections.
const SILENCE: Duration = Duration::from_secs(15);
/// After a fatal error librdkafka still reports the records that caused it, at once, and leaves others without a report.
const LAST_REPORTS: Duration = Duration::from_secs(1);

impl Kafka {
    /// A cluster as configured; what librdkafka itself refuses is an error here and not in the first session.
    pub fn new(name: &str, config: &config::Kafka) -> Result<Self, String> {
        let client = Settings::new(config)?;
        Ok(Self {
            name: name.to_owned(),
            namespace: config.namespace.clone(),
            client,
            said: Arc::default(),
        })
    }
}

impl Destination for Kafka {
    fn has_broker(&self) -> bool {
        true
    }

    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, SessionError>> {
        Box::pin(async move {
            let reports = Arc::new(Reports::default());
            let alone = self.client.batch_bytes();
            let context = Context::new(&self.name, Arc::clone(&reports), Arc::clone(&self.said), alone);
            let client = self.client.with_secrets().map_err(SessionError)?;
            // Reads certificates, and makes threads.
            let made = tokio::task::spawn_blocking(move || client.create_with_context(context)).await;
            let made = made.map_err(|error| SessionError(format!("no thread to make a producer: {error}")))?;
            let producer: ThreadedProducer<Context> =
                made.map_err(|error| SessionError(format!("cannot make a producer: {}", without_value(&error))))?;
            let session: Box<dyn Session> = Box::new(Producing {
                namespace: self.namespace.clone(),
                topic: String::new(),
                received_at: String::new(),
                record_id: String::new(),
                producer,
                reports,
                fatal: None,
                flying: Flying::default(),
                bytes: 0,
                heard_at: Instant::now(),
                trouble: false,
            });
            Ok(session)
        })
    }
}

struct Producing {
    namespace: String,
    /// The topic of the record before: hardly ever another one.
    topic: String,
    received_at: String,
    record_id: String,
    producer: ThreadedProducer<Context>,
    reports: Arc<Reports>,
    /// The fatal error, and until when the last reports are waited for.
    fatal: Option<(String, Instant)>,
    flying: Flying,
    bytes: usize,
    /// When something was confirmed, or the first of what is in flight was handed over.
    heard_at: Instant,
    /// Whether it was told since then that nothing arrives.
    trouble: bool,
}

/// What is in flight, each in a place whose number goes with it through librdkafka: nothing is allocated for it.
#[derive(Default)]
struct Flying {
    /// Records' numbers, and the bytes that they count for.
    places: Vec<(u64, usize)>,
    free: Vec<usize>,
}

impl Flying {
    fn records(&self) -> usize {
        self.places.len() - self.free.len()
    }

    fn put(&mut self, number: u64, bytes: usize) -> usize {
        match self.free.pop() {
            Some(place) => {
                self.places[place] = (number, bytes);
                place
            }
            None => {
                self.places.push((number, bytes));
                self.places.len() - 1
            }
        }
    }

    fn take(&mut self, place: usize) -> (u64, usize) {
        self.free.push(place);
        self.places[place]
    }
}

impl Session for Producing {
    fn is_up(&self) -> bool {
        // A producer connects when it likes; a delivery is the first word.
        false
    }

    fn has_room(&self) -> bool {
        self.fatal.is_none() && self.bytes < WINDOW_BYTES
    }

    fn send(&mut self, queued: &Queued, payload: &[u8]) -> Result<Sent, Rejected> {
        let record = &queued.record;
        if self.topic.get(self.namespace.len() + 1..) != Some(&*record.record_type) {
            let topic = format!("{}_{}", self.namespace, record.record_type);
            if let Some(reason) = unusable(&topic) {
                return Err(Rejected::ForGood(reason));
            }
            self.topic = topic;
        }
        let bytes = payload.len() + record.txid.len() + OVERHEAD;
        let headers = self.headers(queued);
        let place = self.flying.put(queued.id.number, bytes);
        let message = BaseRecord::with_opaque_to(&self.topic, place)
            .key(&*record.vin)
            .payload(payload)
            // Of what came while the clock was ahead: brokers take nothing from the future.
            .timestamp(i64::try_from(record.received_at.min(epoch_ms())).unwrap_or_default())
            .headers(headers);
        let Err((error, _)) = self.producer.send(message) else {
            if self.flying.records() == 1 {
                self.heard_at = Instant::now();
            }
            self.bytes += bytes;
            return Ok(Sent {
                bytes: payload.len(),
                inexpressible: 0,
            });
        };
        self.flying.take(place);
        match error {
            KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge) => Err(Rejected::ForGood(format!(
                "{} bytes are more than message.max.bytes allows; raise it in properties",
                payload.len()
            ))),
            // As good as in flight: the session ends when the report that says why has come.
            KafkaError::MessageProduction(RDKafkaErrorCode::Fatal) => {
                self.failed("the producer has failed".to_owned());
                Ok(Sent::default())
            }
            error => Err(Rejected::SessionLost(error.to_string())),
        }
    }

    fn news(&mut self) -> BoxFuture<'_, Result<News, SessionError>> {
        Box::pin(async move {
            loop {
                let some = self.reports.next();
                let reports = match &self.fatal {
                    None if self.flying.records() == 0 || self.trouble => some.await,
                    None => match tokio::time::timeout_at(self.heard_at + SILENCE, some).await {
                        Ok(reports) => reports,
                        Err(_) => {
                            self.trouble = true;
                            return Ok(silence());
                        }
                    },
                    Some((reason, until)) => tokio::time::timeout_at(*until, some)
                        .await
                        .map_err(|_| SessionError(reason.clone()))?,
                };
                let (mut news, mut is_heard) = (News::default(), false);
                for report in reports {
                    match report {
                        Report::Delivery { place, outcome } => {
                            let (number, bytes) = self.flying.take(place);
                            self.bytes -= bytes;
                            match outcome {
                                Outcome::Delivered => {
                                    (is_heard, self.trouble) = (true, false);
                                    news.trouble = None;
                                }
                                Outcome::Refused(_) => news.over = true,
                                Outcome::Doubted(_) | Outcome::Failed(_) => {}
                            }
                            news.confirmations.push(Confirmation { number, outcome });
                        }
                        Report::Trouble(reason) => {
                            self.trouble = true;
                            news.trouble = Some(reason);
                        }
                        Report::Fatal(reason) => self.failed(reason),
                    }
                }
                if news.over {
                    // The producer has failed with it, and says so of others.
                    let failed = |one: &Confirmation| matches!(one.outcome, Outcome::Failed(_));
                    news.confirmations.retain(|one| !failed(one));
                }
                if is_heard {
                    self.heard_at = Instant::now();
                }
                if !news.confirmations.is_empty() || news.trouble.is_some() {
                    return Ok(news);
                }
            }
        })
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // Purges and waits for librdkafka's threads.
            if let Err(error) = tokio::task::spawn_blocking(move || drop(self)).await {
                tracing::warn!(%error, "kafka producer did not end in order");
            }
        })
    }
}

impl Producing {
    fn failed(&mut self, reason: String) {
        self.fatal.get_or_insert((reason, Instant::now() + LAST_REPORTS));
    }

    fn headers(&mut self, queued: &Queued) -> OwnedHeaders {
        let record = &queued.record;
        let written = |text: &mut String, value: &dyn Display| {
            text.clear();
            write!(text, "{value}").unwrap_or_default();
        };
        written(&mut self.received_at, &record.received_at);
        written(&mut self.record_id, &queued.stable_id());
        let headers = OwnedHeaders::new_with_capacity(8);
        let headers = text(headers, "vin", &record.vin);
        let headers = text(headers, "receivedat", &self.received_at);
        let headers = text(headers, "timestamp", "0");
        let headers = headers.insert(Header {
            key: "txid",
            value: Some(&*record.txid),
        });
        let headers = text(headers, "txtype", &record.record_type);
        let headers = text(headers, "version", "0");
        let headers = text(headers, "device_client_version", &record.client_version);
        text(headers, "record", &self.record_id)
    }
}

fn text(headers: OwnedHeaders, key: &str, value: &str) -> OwnedHeaders {
    headers.insert(Header {
        key,
        value: Some(value),
    })
}

fn silence() -> News {
    let trouble = format!(
        "the brokers have confirmed nothing for {} s; if this lasts, see whether they hang, and whether the connection \
         to them is fast enough",
        SILENCE.as_secs()
    );
    News {
        trouble: Some(trouble),
        ..News::default()
    }
}

/// Why no broker will ever have such a topic: Kafka's own rule for names.
fn unusable(topic: &str) -> Option<String> {
    let legal = topic.len() <= 249
        && topic
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    (!legal).then(|| format!("{topic:?} cannot be the name of a Kafka topic"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_follow_kafkas_rule() {
        assert_eq!(unusable("tesla_telemetry_V"), None);
        assert!(unusable("tesla_telemetry_a/b").is_some());
        assert!(unusable(&"x".repeat(250)).is_some());
    }

    #[test]
    fn a_property_that_librdkafka_does_not_know_is_an_error_that_names_it() {
        let properties = [("bootstrap.servers", "127.0.0.1:1"), ("no.such.thing", "1")];
        let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let error = Kafka::new(
            "cloud",
            &config::Kafka {
                namespace: "t".to_owned(),
                properties,
                secret_files: Default::default(),
            },
        )
        .err();
        assert!(error.is_some_and(|error| error.contains("no.such.thing")));
    }
}
