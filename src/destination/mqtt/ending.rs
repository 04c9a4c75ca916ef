//! How a connection ends: the task that moves its packets until then, and the event loop's last word.
//!
//! Invariant: the word comes once, and after the event loop is gone.

use std::time::Duration;

use tokio::sync::oneshot;

use super::link::{Ended, Events};
use crate::destination::{Confirmation, News, Outcome, SessionError};

/// Moves packets until the connection ends; it is never opened again by the same event loop.
pub(super) async fn drive(mut events: Box<dyn Events>, silence: Option<Duration>, ended: oneshot::Sender<Ended>) {
    let reason = loop {
        // Pings are events too: a poll that gives none for so long hangs in a write.
        let event = match silence {
            None => events.next().await,
            Some(silence) => match tokio::time::timeout(silence, events.next()).await {
                Ok(event) => event,
                Err(_) => break Ended::Lost(format!("the broker has taken nothing for {} s", silence.as_secs())),
            },
        };
        if let Err(ended) = event {
            break ended;
        }
    };
    // Before the word of it, so that nobody queues a DISCONNECT for an event loop that has ended.
    drop(events);
    // The session may have ended first.
    drop(ended.send(reason));
}

/// The event loop's last word, which comes once.
pub(super) struct End(Option<oneshot::Receiver<Ended>>);

impl Ended {
    /// An answer can be to any message in flight. It is held against the oldest record, which is then tried alone: the
    /// one that is meant comes to be the oldest in its turn.
    pub(super) fn means(self, oldest: Option<u64>) -> Result<News, SessionError> {
        match (self, oldest) {
            (Self::Answered(reason), Some(number)) => {
                let outcome = Outcome::Doubted(reason);
                Ok(vec![Confirmation { number, outcome }].into())
            }
            (ended, _) => Err(SessionError(ended.reason())),
        }
    }

    pub(super) fn reason(self) -> String {
        match self {
            Self::Answered(reason) | Self::Lost(reason) => reason,
        }
    }
}

impl End {
    pub(super) fn new(word: oneshot::Receiver<Ended>) -> Self {
        Self(Some(word))
    }

    /// Cancel-safe; answers at once when the word has been heard before.
    pub(super) async fn wait(&mut self) -> Ended {
        let ended = Ended::Lost("the event loop has ended".to_owned());
        let Some(end) = self.0.as_mut() else { return ended };
        let reason = end.await.unwrap_or(ended);
        self.0 = None;
        reason
    }
}
