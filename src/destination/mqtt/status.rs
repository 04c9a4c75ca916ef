//! The retained word on the status topic: whether the gateway is there.
//!
//! Invariant: a broker that does not take it keeps no record back.

use std::sync::atomic::Ordering;

use super::link::{Message, Unanswered};
use super::session::Publishing;
use crate::destination::{Outcome, SessionError};

impl Publishing {
    /// Says on the status topic whether the gateway is there. A broker that does not take it from this client is no
    /// reason to keep records from it.
    pub(super) async fn announce(&mut self, word: &str) -> Result<(), SessionError> {
        let Some(topic) = self.status_topic.clone() else {
            return Ok(());
        };
        if self.status_refused.load(Ordering::Relaxed) {
            return Ok(());
        }
        let failed = |reason| {
            SessionError(format!(
                "while publishing to {topic}, which status = false ends: {reason}"
            ))
        };
        let message = Message {
            topic: topic.clone(),
            payload: word.as_bytes().to_vec(),
            retain: true,
            properties: Vec::new(),
            record: None,
        };
        let answer = match self.client.publish(message).map_err(failed)? {
            Some(acknowledged) => tokio::select! {
                biased;
                answer = acknowledged => answer,
                ended = self.end.wait() => return Err(failed(ended.reason())),
            },
            None => Err(Unanswered::Ended),
        };
        match answer {
            Ok(Outcome::Delivered) => Ok(()),
            Ok(Outcome::Refused(reason) | Outcome::Doubted(reason) | Outcome::Failed(reason)) => {
                self.status_refused.store(true, Ordering::Relaxed);
                tracing::warn!(destination = %self.name, topic,
                    "the broker does not take the gateway's status, records go on: {reason}, or set status = false");
                Ok(())
            }
            Err(Unanswered::Ended) => Err(failed(self.end.wait().await.reason())),
            Err(Unanswered::Failed(reason)) => Err(failed(reason)),
        }
    }
}
