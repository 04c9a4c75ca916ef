//! librdkafka's producer: how it is set, and what its words mean for records and for the person who reads the log.
//!
//! Invariant: only what no later try can mend is a refusal; everything else is tried again for ever, and says what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, ProducerContext};

use super::Outcome;
use super::kafka::WINDOW_RECORDS;
use super::kafka_probe::Words;
use super::kafka_reports::{Report, Reports};
use crate::config::{self, kafka_properties, secret};
use crate::record::epoch_ms;

/// Different troubles that are told in one outage.
const TROUBLES: usize = 16;

/// Bytes of a batch; a larger record goes alone. Five are on their way to a broker and one waits, and each has to be
/// answered within `socket.timeout.ms`, 60 s, or goes out again as it was: on a line that is too narrow for that nothing ever
/// arrives. With these 52 kbit/s will do; librdkafka's own 1,000,000 would have the whole window in them.
const BATCH_BYTES: usize = 64 << 10;

/// A producer's properties, and where its secrets are.
pub(super) struct Settings {
    client: ClientConfig,
    secret_files: BTreeMap<String, PathBuf>,
}

impl Settings {
    /// As configured, and tried: librdkafka looks at mechanisms, certificates and keys only when it makes a producer.
    pub(super) fn new(config: &config::Kafka) -> Result<Self, String> {
        let mut client = ClientConfig::new();
        // Room for the largest record with its headers, as JSON too; what the broker takes is its own business.
        client.set("message.max.bytes", "8000000");
        // So long a topic may be unknown before that is an error. A topic that is only on its way is met by the next try.
        client.set("topic.metadata.propagation.max.ms", "5000");
        // Thousands of gateways come back to a cluster at once. librdkafka spreads their tries over this time, and cuts
        // the spread off at it: its own 10 s make them a crowd.
        client.set("reconnect.backoff.max.ms", "60000");
        if !config.properties.contains_key("batch.size") {
            client.set("batch.size", BATCH_BYTES.to_string());
        }
        for (key, value) in &config.properties {
            client.set(key, value);
        }
        client.set("enable.idempotence", "true");
        client.set("acks", "all");
        // Behind a batch that the broker refuses, the next one of the partition would overtake what is innocent in it.
        client.set("enable.gapless.guarantee", "true");
        // For ever: what is not delivered is kept in the queue, and only the broker's word ends a try.
        client.set("message.timeout.ms", "0");
        // The window is the bound, and beside it there is to be room for a record of any size.
        client.set("queue.buffering.max.messages", (2 * WINDOW_RECORDS).to_string());
        client.set("queue.buffering.max.kbytes", "32768");
        if !config.properties.contains_key("log_level") {
            client.set_log_level(RDKafkaLogLevel::Warning);
        }
        for key in kafka_properties::PATHS {
            let path = config.properties.get(key).filter(|path| *path != "probe");
            path.map_or(Ok(()), |path| readable(key, Path::new(path)))?;
        }
        let settings = Self {
            client,
            secret_files: config.secret_files.clone(),
        };
        settings
            .client
            .create_native_config()
            .map_err(|error| without_value(&error))?;
        // Without an address it connects to nobody.
        let mut trial = settings.with_secrets()?;
        trial.remove("bootstrap.servers").set_log_level(RDKafkaLogLevel::Emerg);
        let made: Result<BaseProducer<Words>, _> = trial.create_with_context(Words::default());
        made.map(drop)
            .map_err(|error| format!("librdkafka cannot use its properties: {}", without_value(&error)))?;
        Ok(settings)
    }

    /// From so many bytes on a record is alone in its batch.
    pub(super) fn batch_bytes(&self) -> usize {
        let set = self.client.get("batch.size");
        // librdkafka has taken it by now, which reads numbers as C does.
        set.and_then(|bytes| bytes.parse().ok()).unwrap_or(usize::MAX)
    }

    /// With the secrets as they are in their files now.
    pub(super) fn with_secrets(&self) -> Result<ClientConfig, String> {
        let mut client = self.client.clone();
        for (property, path) in &self.secret_files {
            let secret = secret::read(path).map_err(|error| secret::unreadable(path, &error))?;
            client.set(property, secret);
        }
        Ok(client)
    }
}

/// Not with the property's value, which may be a password under a wrong name.
pub(super) fn without_value(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, reason, property, _) => format!("properties.\"{property}\": {reason}"),
        error => error.to_string(),
    }
}

fn readable(key: &str, path: &Path) -> Result<(), String> {
    let read = match path.is_dir() {
        true => std::fs::read_dir(path).map(drop),
        false => std::fs::read(path).map(drop),
    };
    read.map_err(|error| {
        format!(
            "properties.\"{key}\": cannot read {}: {error}; name a file that is there, and let the gateway read it",
            path.display()
        )
    })
}

/// librdkafka repeats itself on every try, and every session begins with the same: what has been said is not said again
/// until the outage is over, or much else has been said.
#[derive(Default)]
pub(super) struct Said(Mutex<Spoken>);

#[derive(Default)]
struct Spoken {
    words: BTreeSet<String>,
    /// Of one broker among several that serve, it would be said again and again.
    all_down: bool,
}

impl Said {
    fn lock(&self) -> MutexGuard<'_, Spoken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a producer's words go.
pub(super) struct Context {
    destination: String,
    reports: Arc<Reports>,
    said: Arc<Said>,
    /// From so many bytes on a record is alone in its batch.
    alone: usize,
    outage: Mutex<Outage>,
}

#[derive(Default)]
struct Outage {
    all_down: bool,
    /// Reasons for that which were reported.
    told: BTreeSet<String>,
    /// The last one before it.
    last: Option<Failure>,
}

struct Failure {
    reason: String,
    /// It has to do with what this producer was made with, and another one may read something better from the files.
    credentials: bool,
}

impl Context {
    pub(super) fn new(destination: &str, reports: Arc<Reports>, said: Arc<Said>, alone: usize) -> Self {
        Self {
            destination: destination.to_owned(),
            reports,
            said,
            alone,
            outage: Mutex::default(),
        }
    }

    fn first_time(&self, reason: &str) -> bool {
        let mut said = self.said.lock();
        if said.words.len() >= TROUBLES {
            said.words.clear();
        }
        said.words.insert(reason.to_owned())
    }
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
        let code = error.rdkafka_error_code();
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = match code {
            Some(RDKafkaErrorCode::Fatal) => {
                self.reports.say(Report::Fatal(with_advice(reason)));
                return;
            }
            // Said once, before it is clear what is wrong: from here on, what each broker's failures say counts.
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                outage.all_down = true;
                self.said.lock().all_down = true;
                outage.last.take()
            }
            _ => Some(Failure {
                reason: with_advice(reason),
                credentials: matches!(code, Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL)),
            }),
        };
        let Some(failure) = failure else { return };
        if !outage.all_down {
            if self.first_time(&failure.reason) {
                tracing::info!(destination = %self.destination, "a kafka broker: {}", failure.reason);
            }
            outage.last = Some(failure);
            return;
        }
        let report = if failure.credentials {
            Report::Fatal(failure.reason)
        } else if outage.told.len() < TROUBLES && outage.told.insert(failure.reason.clone()) {
            Report::Trouble(failure.reason)
        } else {
            return;
        };
        self.reports.say(report);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, place: usize) {
        let outcome = match result {
            Ok(_) => Outcome::Delivered,
            Err((error, message)) => {
                let is_alone = message.payload_len() >= self.alone;
                not_delivered(error, message.topic(), message.timestamp().to_millis(), is_alone)
            }
        };
        if outcome == Outcome::Delivered {
            let mut said = self.said.lock();
            if said.all_down {
                *said = Spoken::default();
                drop(said);
                *self.outage.lock().unwrap_or_else(PoisonError::into_inner) = Outage::default();
            }
        }
        self.reports.say(Report::Delivery { place, outcome });
    }
}

/// In milliseconds: no broker takes what is younger for too old.
const RECENT: i64 = 600_000;

/// Errors that no later try can mend are refusals, of the batch as a whole. Everything else is retried for ever: a topic
/// that is missing can be made, a right that is missing can be given.
fn not_delivered(error: &KafkaError, topic: &str, at: Option<i64>, is_alone: bool) -> Outcome {
    let said = match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
            let reason = format!("larger than the broker takes (max.message.bytes of the topic {topic})");
            return match is_alone {
                true => Outcome::Refused(reason),
                false => Outcome::Doubted(reason),
            };
        }
        // By this machine's clock just now: it is that one that is ahead, and nothing is wrong with the record.
        Some(RDKafkaErrorCode::InvalidTimestamp) if at.is_some_and(|at| at > epoch_ms() as i64 - RECENT) => {
            return Outcome::Failed(format!(
                "the brokers of {topic} take this machine's time for the future; set its clock"
            ));
        }
        Some(
            code @ (RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::InvalidTimestamp
            // Only its company was refused: it is tried alone, and then taken.
            | RDKafkaErrorCode::InvalidDifferentRecord),
        ) => return Outcome::Doubted(code.to_string()),
        Some(code) => code.to_string(),
        None => error.to_string(),
    };
    Outcome::Failed(with_advice(format!("delivery to {topic} failed: {said}")))
}

/// What a person can do about it, where librdkafka does not say so itself. It has codes for deliveries, and only words
/// for what happens to a connection.
pub(super) fn with_advice(reason: String) -> String {
    const ADVICE: [(&str, &str); 6] = [
        (
            "Unknown topic",
            "create the topic, or let the broker create topics by itself",
        ),
        (
            "Unknown partition",
            "create the topic, or let the broker create topics by itself",
        ),
        (
            "Topic authorization failed",
            "give this client the right to write to the topic",
        ),
        (
            "Cluster authorization failed",
            "give this client the right to write to the topic",
        ),
        (
            "SASL authentication error",
            "check sasl.username, the password and sasl.mechanism, and the broker's users",
        ),
        (
            "certificate verify failed",
            "or the certificate is not for the name in bootstrap.servers, or in the broker's advertised.listeners",
        ),
    ];
    match ADVICE.iter().find(|(words, _)| reason.contains(words)) {
        Some((_, advice)) => format!("{reason}; {advice}"),
        None => reason,
    }
}

#[cfg(test)]
#[path = "kafka_client_tests.rs"]
mod tests;
