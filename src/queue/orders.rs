//! What others ask of the writer besides commits: it does each between two commits, so that none has a lock to wait for.

use tokio::sync::oneshot;

use super::release::AT_ONCE;
use super::writer::{Writer, WriterError};
use super::{Queue, Settings};

/// Something for the writer to do.
#[derive(Debug)]
pub(crate) enum Order {
    /// End the open segments: what is committed then lies in files that nobody writes to.
    Seal,
    /// Take away a destination's place.
    Forget(String),
    /// Behave like this from now on.
    Change(Settings),
}

/// An order with the way back to whoever gave it.
#[derive(Debug)]
pub(crate) struct Given {
    order: Order,
    done: oneshot::Sender<Result<Done, String>>,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
enum Done {
    Sealed(Sealed),
    /// Whether the destination had a place.
    Forgotten(bool),
    Changed,
}

/// Up to where everything lies in segments that nobody writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Sealed {
    /// One more than the number of the last record.
    pub records: u64,
    /// One more than the number of the last dead letter.
    pub dead_letters: u64,
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The writer tried.
    #[error("{0}")]
    Failed(String),
    /// There is no writer any more.
    #[error("the queue has stopped")]
    Stopped,
}

impl Queue {
    /// Ends the open segments: everything committed before lies in files that nobody writes to.
    pub async fn seal(&self) -> Result<Sealed, OrderError> {
        match self.order(Order::Seal).await? {
            Done::Sealed(sealed) => Ok(sealed),
            Done::Forgotten(_) | Done::Changed => Err(OrderError::Stopped),
        }
    }

    /// Takes away the place of a destination that the configuration no longer names. `false`: it had none.
    pub async fn forget(&self, destination: &str) -> Result<bool, OrderError> {
        let done = self.order(Order::Forget(destination.to_owned())).await?;
        Ok(matches!(done, Done::Forgotten(true)))
    }

    /// Changes how the queue behaves, from the next commit on. Its directory stays.
    pub async fn change(&self, settings: Settings) -> Result<(), OrderError> {
        self.order(Order::Change(settings)).await.map(drop)
    }

    async fn order(&self, order: Order) -> Result<Done, OrderError> {
        let (done, result) = oneshot::channel();
        self.0.inlet.order(Given { order, done });
        match result.await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(OrderError::Failed(error)),
            // Dropped unanswered: the writer has ended.
            Err(_) => Err(OrderError::Stopped),
        }
    }
}

impl Writer {
    /// Carries out what was asked. Lack of space is the asker's news; any other failed write ends the writer.
    pub(super) fn obey(&mut self, given: Given) -> Result<(), WriterError> {
        let result = match given.order {
            Order::Seal => self.seal().map(Done::Sealed),
            Order::Forget(destination) => {
                let known = self.shared.positions.remove(&destination);
                self.remove_consumed(AT_ONCE).map(|removed| {
                    self.release.soon(removed);
                    Done::Forgotten(known)
                })
            }
            Order::Change(settings) => {
                let before = std::mem::replace(&mut self.settings, settings);
                let judged = self.judge();
                match &judged {
                    Ok(()) => {
                        self.dead_letters.set_max_bytes(settings.dead_letter_bytes);
                        self.duplicates.resize(settings.duplicate_window);
                    }
                    // Who asked is told that everything stays as it was.
                    Err(_) => self.settings = before,
                }
                judged.map(|()| Done::Changed)
            }
        };
        let (answer, ended) = match result {
            Ok(done) => (Ok(done), Ok(())),
            Err(error) if error.is_no_space() => {
                // Whoever tries again is to find what is on its way.
                self.release.finish();
                (Err(error.to_string()), Ok(()))
            }
            Err(error) => (Err(error.to_string()), Err(error)),
        };
        // Whoever asked may have gone meanwhile.
        let _asker_is_gone = given.done.send(answer);
        ended
    }

    fn seal(&mut self) -> Result<Sealed, WriterError> {
        self.shared.segments.put_away()?;
        self.dead_letters.close()?;
        if let Ok(_nobody_erases) = self.shared.purging.try_lock() {
            self.dead_letters.tidy();
        }
        Ok(Sealed {
            records: self.shared.segments.end(),
            dead_letters: self.dead_letters.next(),
        })
    }
}
