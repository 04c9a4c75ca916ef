//! Kafka: topic, key, headers and timestamp as the reference server's consumers expect them.
//!
//! A record is confirmed by its delivery report. The producer is idempotent with `acks=all`, never gives up by itself,
//! and sends nothing more once a record is refused; the report of that record ends the session, and dropping the
//! producer purges what it still holds, so no record overtakes another.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Confirmation, Destination, News, Outcome, Rejected, Sent, Session, SessionError};
use crate::config;
use crate::queue::Queued;

/// A Kafka cluster.
pub struct Kafka {
    name: String,
    namespace: String,
    client: ClientConfig,
}

/// Records and bytes in flight.
const WINDOW_RECORDS: usize = 10_000;
const WINDOW_BYTES: usize = 8 << 20;
/// After a fatal error librdkafka still reports the records that caused it, at once, and leaves others without a report.
const LAST_REPORTS: Duration = Duration::from_secs(1);
/// Different troubles that are told in one outage.
const TROUBLES: usize = 16;

impl Kafka {
    /// A cluster as configured; the properties are checked by librdkafka itself.
    pub fn new(name: &str, config: &config::Kafka) -> Result<Self, String> {
        let mut client = ClientConfig::new();
        // Room for the largest record with its headers; what the broker takes is its own business.
        client.set("message.max.bytes", "1100000");
        client.set("linger.ms", "5");
        for (key, value) in &config.properties {
            client.set(key, value);
        }
        client.set("enable.idempotence", "true");
        client.set("acks", "all");
        // Behind a batch that the broker refuses, the next one of the partition would overtake what is innocent in it.
        client.set("enable.gapless.guarantee", "true");
        // For ever: what is not delivered is kept in the queue, and only the broker's word ends a try.
        client.set("message.timeout.ms", "0");
        // The window above is the bound.
        client.set("queue.buffering.max.messages", (2 * WINDOW_RECORDS).to_string());
        client.set("queue.buffering.max.kbytes", (4 * WINDOW_BYTES / 1024).to_string());
        if !config.properties.contains_key("log_level") {
            client.set_log_level(RDKafkaLogLevel::Warning);
        }
        client.create_native_config().map_err(|error| error.to_string())?;
        Ok(Self {
            name: name.to_owned(),
            namespace: config.namespace.clone(),
            client,
        })
    }
}

impl Destination for Kafka {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, SessionError>> {
        Box::pin(async move {
            // A report for every record in flight, and the troubles beside them.
            let (reports, heard) = mpsc::channel(2 * WINDOW_RECORDS);
            let context = Context {
                destination: self.name.clone(),
                reports,
                outage: Mutex::default(),
            };
            let producer = self
                .client
                .create_with_context(context)
                .map_err(|error| SessionError(format!("cannot make a producer: {error}")))?;
            let session: Box<dyn Session> = Box::new(Producing {
                namespace: self.namespace.clone(),
                producer,
                heard,
                fatal: None,
                records: 0,
                bytes: 0,
            });
            Ok(session)
        })
    }
}

struct Context {
    destination: String,
    reports: mpsc::Sender<Report>,
    outage: Mutex<Outage>,
}

enum Report {
    Delivery {
        number: u64,
        bytes: usize,
        result: Result<(), KafkaError>,
    },
    /// The producer is of no more use.
    Fatal(String),
    /// No broker can be reached; the producer tries on.
    Trouble(String),
}

/// librdkafka repeats itself on every try: what has been said is not said again until the outage is over.
#[derive(Default)]
struct Outage {
    said: BTreeSet<String>,
    last: String,
    all_down: bool,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            // `error` below is told the same, and that a property is experimental is this file's business.
            _ if matches!(facility, "FAIL" | "ERROR" | "FATAL") || message.contains("enable.gapless.guarantee") => {
                tracing::debug!(target: "librdkafka", destination = %self.destination, facility, "{message}");
            }
            RDKafkaLogLevel::Debug => {
                tracing::debug!(target: "librdkafka", destination = %self.destination, facility, "{message}");
            }
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                tracing::info!(target: "librdkafka", destination = %self.destination, facility, "{message}");
            }
            _ => tracing::warn!(target: "librdkafka", destination = %self.destination, facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Behind it are times and counts that change from try to try.
        let reason = reason.split(" (after ").next().unwrap_or(reason).to_owned();
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let report = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Fatal) => Report::Fatal(reason),
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                outage.all_down = true;
                let why = std::mem::take(&mut outage.last);
                if why.is_empty() {
                    return;
                }
                Report::Trouble(why)
            }
            _ => {
                if outage.said.len() < TROUBLES && outage.said.insert(reason.clone()) {
                    tracing::info!(destination = %self.destination, "a kafka broker: {reason}");
                    outage.last = reason;
                }
                return;
            }
        };
        // Full or closed only when the session has ended; then nobody asks any more.
        drop(self.reports.try_send(report));
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<(u64, usize)>;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: Self::DeliveryOpaque) {
        let (number, bytes) = *opaque;
        let result = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.clone()),
        };
        if result.is_ok() {
            let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
            if outage.all_down {
                *outage = Outage::default();
            }
        }
        drop(self.reports.try_send(Report::Delivery { number, bytes, result }));
    }
}

struct Producing {
    namespace: String,
    producer: ThreadedProducer<Context>,
    heard: mpsc::Receiver<Report>,
    /// The fatal error, and until when the last reports are waited for.
    fatal: Option<(String, Instant)>,
    records: usize,
    bytes: usize,
}

impl Session for Producing {
    fn is_up(&self) -> bool {
        // A producer connects when it likes; a delivery is the first word.
        false
    }

    fn has_room(&self) -> bool {
        self.fatal.is_none() && self.records < WINDOW_RECORDS && self.bytes < WINDOW_BYTES
    }

    fn send(&mut self, queued: &Queued, payload: Bytes) -> Result<Sent, Rejected> {
        let record = &queued.record;
        let topic = format!("{}_{}", self.namespace, record.record_type);
        if let Some(reason) = unusable(&topic) {
            return Err(Rejected::ForGood(reason));
        }
        let bytes = payload.len() + record.txid.len() + 512;
        let message = BaseRecord::with_opaque_to(&topic, Box::new((queued.id.number, bytes)))
            .key(&*record.vin)
            .payload(&*payload)
            .timestamp(i64::try_from(record.received_at).unwrap_or_default())
            .headers(headers(queued));
        match self.producer.send(message) {
            Ok(()) => {
                self.records += 1;
                self.bytes += bytes;
                Ok(Sent {
                    bytes: payload.len(),
                    inexpressible: 0,
                })
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => Err(Rejected::ForGood(
                format!("{} bytes are more than message.max.bytes allows", payload.len()),
            )),
            // As good as in flight: the session ends when the report that says why has come.
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::Fatal), _)) => {
                self.failed("the producer has failed".to_owned());
                Ok(Sent::default())
            }
            Err((error, _)) => Err(Rejected::SessionLost(error.to_string())),
        }
    }

    fn news(&mut self) -> BoxFuture<'_, Result<News, SessionError>> {
        Box::pin(async move {
            loop {
                let mut reports = Vec::new();
                let some = self.heard.recv_many(&mut reports, WINDOW_RECORDS);
                let heard = match &self.fatal {
                    None => some.await,
                    Some((reason, until)) => tokio::time::timeout_at(*until, some)
                        .await
                        .map_err(|_| SessionError(reason.clone()))?,
                };
                if heard == 0 {
                    return Err(SessionError("the producer has ended".to_owned()));
                }
                let mut news = News::default();
                for report in reports {
                    match report {
                        Report::Delivery { number, bytes, result } => {
                            self.records -= 1;
                            self.bytes -= bytes;
                            let outcome = outcome(result);
                            if outcome == Outcome::Delivered {
                                news.trouble = None;
                            }
                            news.confirmations.push(Confirmation { number, outcome });
                        }
                        Report::Trouble(reason) => news.trouble = Some(reason),
                        Report::Fatal(reason) => self.failed(reason),
                    }
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
}

fn headers(queued: &Queued) -> OwnedHeaders {
    let record = &queued.record;
    let text = |headers: OwnedHeaders, key, value: &str| {
        headers.insert(Header {
            key,
            value: Some(value),
        })
    };
    let headers = OwnedHeaders::new_with_capacity(8);
    let headers = text(headers, "vin", &record.vin);
    let headers = text(headers, "receivedat", &record.received_at.to_string());
    let headers = text(headers, "timestamp", "0");
    let headers = headers.insert(Header {
        key: "txid",
        value: Some(&*record.txid),
    });
    let headers = text(headers, "txtype", &record.record_type);
    let headers = text(headers, "version", "0");
    let headers = text(headers, "device_client_version", &record.client_version);
    text(headers, "record", &queued.stable_id().to_string())
}

/// Why no broker will ever have such a topic: Kafka's own rule for names.
fn unusable(topic: &str) -> Option<String> {
    let legal = topic.len() <= 249
        && topic
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    (!legal).then(|| format!("{topic:?} cannot be the name of a Kafka topic"))
}

fn outcome(result: Result<(), KafkaError>) -> Outcome {
    match result {
        Ok(()) => Outcome::Delivered,
        Err(error) => match refused(&error) {
            Some(reason) => Outcome::Refused(reason),
            None => Outcome::Failed(explain(&error)),
        },
    }
}

/// Errors that no later try can mend. Everything else is retried for ever: a topic that is missing can be made, a
/// right that is missing can be given.
fn refused(error: &KafkaError) -> Option<String> {
    match error.rdkafka_error_code()? {
        RDKafkaErrorCode::MessageSizeTooLarge => {
            Some("larger than the broker takes (max.message.bytes of the topic)".to_owned())
        }
        code
        @ (RDKafkaErrorCode::InvalidMessage | RDKafkaErrorCode::InvalidRecord | RDKafkaErrorCode::InvalidTopic
        | RDKafkaErrorCode::InvalidTimestamp
        // Only its company was refused: it is tried alone, and then taken.
        | RDKafkaErrorCode::InvalidDifferentRecord) => {
            Some(code.to_string())
        }
        _ => None,
    }
}

fn explain(error: &KafkaError) -> String {
    let advice = match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition,
        ) => "; create the topic, or let the broker create topics by itself",
        Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed) => {
            "; give this client the right to write to the topic"
        }
        _ => "",
    };
    format!("delivery failed: {error}{advice}")
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
            },
        )
        .err();
        assert!(error.is_some_and(|error| error.contains("no.such.thing")));
    }
}
