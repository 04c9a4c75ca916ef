//! How a connection ends: the task that moves its packets until then, and the event loop's last word.
//!
//! Invariant: the word comes once, and after the event loop is gone.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::link::{Ended, Events};
use crate::destination::prompt::Written;
use crate::destination::{Confirmation, News, Outcome, SessionError};

/// Moves packets until the connection ends; it is never opened again by the same event loop.
pub(super) async fn drive(
    mut events: Box<dyn Events>,
    written: Written,
    silence: Option<Duration>,
    ended: oneshot::Sender<Ended>,
) {
    let reason = loop {
        let event = match silence {
            None => events.next().await,
            Some(silence) => within(silence, events.next(), &written).await,
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

/// The next event. Pings are events too: where none comes for so long a write is under way, and the broker is given up when
/// it has taken none of it.
async fn within(
    silence: Duration,
    mut event: BoxFuture<'_, Result<(), Ended>>,
    written: &Written,
) -> Result<(), Ended> {
    loop {
        let before = written.bytes();
        match tokio::time::timeout(silence, &mut event).await {
            Ok(event) => return event,
            Err(_) if written.bytes() > before => {}
            Err(_) => {
                let seconds = silence.as_secs();
                return Err(Ended::Lost(format!("the broker has taken nothing for {seconds} s")));
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::Instant;

    use super::*;

    const SILENCE: Duration = Duration::from_secs(70);

    struct NoEvents;

    impl Events for NoEvents {
        fn next(&mut self) -> BoxFuture<'_, Result<(), Ended>> {
            Box::pin(pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_may_take_as_long_as_it_goes_on() {
        let (written, (ends, ended)) = (Written::default(), oneshot::channel());
        let began = Instant::now();
        let driving = tokio::spawn(drive(Box::new(NoEvents), written.clone(), Some(SILENCE), ends));
        for _ in 0..10 {
            tokio::time::sleep(SILENCE / 2).await;
            written.add(1);
        }
        let going_on = began.elapsed();
        let reason = ended.await.expect("a word").reason();
        driving.await.expect("it ends");
        assert_eq!(reason, "the broker has taken nothing for 70 s");
        assert!(began.elapsed() >= going_on + SILENCE, "{:?}", began.elapsed());
        assert!(began.elapsed() <= going_on + 2 * SILENCE, "{:?}", began.elapsed());
    }
}
