//! Kafka: topic, key, headers and timestamp as the reference server's consumers expect them.
//!
//! A record is confirmed by its delivery report. The producer is idempotent with `acks=all` and never gives up by
//! itself; the first report of a failure ends the session, and dropping the producer purges what it still holds, so no
//! record overtakes another.

use std::sync::Mutex;

use futures_util::future::BoxFuture;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use tokio::sync::mpsc;

use super::{Confirmation, Destination, Outcome, Rejected, Sent, Session, SessionError};
use crate::config;
use crate::queue::Queued;
use crate::record::payload;

/// A Kafka cluster.
pub struct Kafka {
    name: String,
    namespace: String,
    client: ClientConfig,
}

/// Records and bytes in flight.
const WINDOW_RECORDS: usize = 10_000;
const WINDOW_BYTES: usize = 8 << 20;

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
            // Twice: a purge reports every record in flight once more at most.
            let (reports, confirmations) = mpsc::channel(2 * WINDOW_RECORDS);
            let context = Context {
                destination: self.name.clone(),
                reports,
                last_error: Mutex::default(),
            };
            let producer = self
                .client
                .create_with_context(context)
                .map_err(|error| SessionError(format!("cannot make a producer: {error}")))?;
            let session: Box<dyn Session> = Box::new(Producing {
                namespace: self.namespace.clone(),
                producer,
                confirmations,
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
    last_error: Mutex<String>,
}

struct Report {
    number: u64,
    bytes: usize,
    result: Result<(), KafkaError>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Debug => {
                tracing::debug!(target: "librdkafka", destination = %self.destination, facility, "{message}")
            }
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                tracing::info!(target: "librdkafka", destination = %self.destination, facility, "{message}");
            }
            _ => tracing::warn!(target: "librdkafka", destination = %self.destination, facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let message = format!("{error}: {reason}");
        let mut last = self
            .last_error
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        // librdkafka repeats itself on every try.
        if *last != message {
            tracing::warn!(destination = %self.destination, %error, reason, "kafka cannot be reached or has a problem; records stay queued");
            *last = message;
        }
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
        // Full or closed only when the session has ended; then nobody asks any more.
        drop(self.reports.try_send(Report { number, bytes, result }));
    }
}

struct Producing {
    namespace: String,
    producer: ThreadedProducer<Context>,
    confirmations: mpsc::Receiver<Report>,
    records: usize,
    bytes: usize,
}

impl Session for Producing {
    fn has_room(&self) -> bool {
        self.records < WINDOW_RECORDS && self.bytes < WINDOW_BYTES
    }

    fn send(&mut self, queued: &Queued) -> Result<Sent, Rejected> {
        let record = &queued.record;
        let value = payload::transform(&record.record_type, &record.vin, &record.payload)
            .map_err(|error| Rejected::ForGood(error.to_string()))?;
        let topic = format!("{}_{}", self.namespace, record.record_type);
        if let Some(reason) = unusable(&topic) {
            return Err(Rejected::ForGood(reason));
        }
        let bytes = value.len() + record.txid.len() + 512;
        let message = BaseRecord::with_opaque_to(&topic, Box::new((queued.id.number, bytes)))
            .key(&*record.vin)
            .payload(&*value)
            .timestamp(i64::try_from(record.received_at).unwrap_or_default())
            .headers(headers(queued));
        match self.producer.send(message) {
            Ok(()) => {
                self.records += 1;
                self.bytes += bytes;
                Ok(Sent::default())
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => Err(Rejected::ForGood(
                format!("{} bytes are more than message.max.bytes allows", value.len()),
            )),
            Err((error, _)) => Err(Rejected::SessionLost(error.to_string())),
        }
    }

    fn confirmed(&mut self) -> BoxFuture<'_, Result<Vec<Confirmation>, SessionError>> {
        Box::pin(async move {
            let mut reports = Vec::new();
            if self.confirmations.recv_many(&mut reports, WINDOW_RECORDS).await == 0 {
                return Err(SessionError("the producer has ended".to_owned()));
            }
            let mut confirmations = Vec::with_capacity(reports.len());
            for report in reports {
                self.records -= 1;
                self.bytes -= report.bytes;
                let outcome = match report.result {
                    Ok(()) => Outcome::Delivered,
                    Err(error) => match refused(&error) {
                        Some(reason) => Outcome::Refused(reason),
                        None => Outcome::Failed(explain(&error)),
                    },
                };
                confirmations.push(Confirmation {
                    number: report.number,
                    outcome,
                });
            }
            Ok(confirmations)
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
    text(headers, "record", &queued.id.to_string())
}

/// Why no broker will ever have such a topic: Kafka's own rule for names.
fn unusable(topic: &str) -> Option<String> {
    let legal = topic.len() <= 249
        && topic
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    (!legal).then(|| format!("{topic:?} cannot be the name of a Kafka topic"))
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
