//! Asking a cluster without sending anything: who is in it, and what keeps records out of their topics.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

use super::kafka_client::{Settings, with_advice, without_value};

impl Settings {
    /// Asks the cluster who is in it: how many brokers there are and what keeps records out of these topics, or why nobody
    /// answers. Waits for seconds.
    pub(super) fn probe(&self, topics: &[String]) -> Result<(usize, Vec<String>), String> {
        let mut client = self.with_secrets()?;
        client.set_log_level(RDKafkaLogLevel::Emerg);
        let producer: BaseProducer<Words> = client
            .create_with_context(Words::default())
            .map_err(|error| without_value(&error))?;
        producer
            .client()
            .fetch_metadata(None, PROBE)
            .map(|metadata| {
                let lacks = topics.iter().filter_map(|topic| lacks(&metadata, topic));
                (metadata.brokers().len(), lacks.collect())
            })
            .map_err(|error| {
                // What it has heard meanwhile says more than that the time is over.
                producer.poll(Duration::from_millis(100));
                let words = producer.client().context().0.lock();
                let words = words.unwrap_or_else(PoisonError::into_inner).take();
                words.unwrap_or_else(|| error.to_string())
            })
    }
}

/// What keeps records out of a topic, as far as the cluster says.
fn lacks(metadata: &Metadata, topic: &str) -> Option<String> {
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return Some(format!(
            "there is no topic {topic}, or it is not this client's to see: create it, or let the brokers create topics; until \
             then a record for it holds up the destination"
        ));
    };
    let leaderless = found.partitions().iter().filter(|partition| partition.leader() < 0);
    let leaderless: Vec<_> = leaderless.map(|partition| partition.id().to_string()).collect();
    (!leaderless.is_empty()).then(|| {
        let partitions = leaderless.join(", ");
        format!("no broker leads partition {partitions} of {topic}: what belongs there waits")
    })
}

/// How long a cluster that is asked for the first time may take.
const PROBE: Duration = Duration::from_secs(8);

/// For a producer that is only made to see whether it can be, or to ask: keeps the last reason that a broker was not
/// reached.
#[derive(Default)]
pub(super) struct Words(Mutex<Option<String>>);

impl ClientContext for Words {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            return;
        }
        let reason = reason.split(" (after ").next().unwrap_or(reason).to_owned();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(with_advice(reason));
    }
}

impl ProducerContext for Words {
    type DeliveryOpaque = ();
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
