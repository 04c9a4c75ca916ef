//! How a session ends: what the vehicle is told, and what is waited for.
//!
//! Acks of what is on the disk are sent before the close; a newer connection of the same vehicle waits for all this
//! only briefly.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::sync::CancellationToken;

use super::session::{READ_BUFFER, Session, WRITE_TIMEOUT};
use crate::queue::Refusal;

/// For the rest of a message that is far too large.
const LINGER: Duration = Duration::from_secs(10);
/// Bytes of messages that wait for their commit: about as many as the writer waits for.
const MUCH: usize = 64 << 10;
/// For the vehicle to read its last acks and close.
const LAST_ACKS: Duration = Duration::from_secs(2);
/// For a connection that has been replaced to take its last acks.
pub(super) const REPLACED_PATIENCE: Duration = Duration::from_secs(1);

/// Why a session ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The vehicle closed it.
    Closed,
    /// The socket failed.
    Socket(String),
    /// A newer connection of the same vehicle is there.
    Replaced,
    /// The gateway stops.
    Draining,
    /// It said nothing for too long.
    Idle,
    /// It did something that ends a connection.
    Violation(CloseCode, &'static str),
    /// Its records cannot be stored.
    Refused(Refusal),
}

/// Some time after a newer connection came.
pub(super) async fn replaced_for(replaced: &CancellationToken, patience: Duration) {
    replaced.cancelled().await;
    tokio::time::sleep(patience).await;
}

impl Session {
    /// What the vehicle is told at the end. Acks of what is on the disk by then are still sent.
    pub(super) async fn part(&mut self, end: &End) {
        let close = match end {
            End::Closed => None,
            End::Socket(_) => {
                self.around.counters.socket_errors.add();
                return;
            }
            End::Replaced => {
                self.around.counters.replaced.add();
                Some((CloseCode::Policy, "replaced by a newer connection of this vehicle"))
            }
            End::Draining => {
                while !self.waiting.is_empty() {
                    let Ok(committed) = self.submitter.advanced(self.released).await else {
                        break;
                    };
                    if self.release(committed).await.is_err() {
                        return;
                    }
                }
                Some((CloseCode::Restart, "the gateway is stopping"))
            }
            End::Idle => Some((CloseCode::Away, "nothing was heard for too long")),
            End::Violation(code, reason) => Some((*code, *reason)),
            End::Refused(Refusal::Full) => Some((
                CloseCode::Again,
                "the gateway cannot store records now, try again later",
            )),
            End::Refused(Refusal::Stopped) => Some((
                CloseCode::Again,
                "the gateway has stopped storing records, try again later",
            )),
        };
        let told = match close {
            Some(_) => self.release(self.submitter.committed()).await,
            None => Ok(()),
        };
        if let End::Refused(_) = end {
            let refused = self.waiting.iter().filter(|waiting| waiting.stored).count();
            self.around.counters.not_acked.add_many(refused as u64);
        }
        if told.is_err() {
            return;
        }
        let frame = close.map(|(code, reason)| CloseFrame {
            code,
            reason: reason.into(),
        });
        // The connection ends either way.
        let closed = timeout(WRITE_TIMEOUT, self.socket.close(frame)).await;
        tracing::debug!(connection_id = %self.connection_id, in_order = matches!(closed, Ok(Ok(()))), "socket closed");
        match end {
            End::Violation(CloseCode::Size, _) => self.linger(LINGER).await,
            // Until the vehicle has read its acks and closed: a reset would take them with it.
            _ if matches!(closed, Ok(Ok(()))) => self.linger(LAST_ACKS).await,
            _ => {}
        }
    }

    /// Reads what the vehicle is still sending, and throws it away: a socket that is closed with unread bytes is reset,
    /// and a vehicle whose sending fails may not read the reply that says why.
    async fn linger(&mut self, patience: Duration) {
        let stream = self.socket.get_mut();
        let mut thrown_away = vec![0; READ_BUFFER];
        let rest = async {
            stream.shutdown().await?;
            while stream.read(&mut thrown_away).await? > 0 {}
            std::io::Result::Ok(())
        };
        let ended = timeout(patience, rest).await;
        tracing::debug!(connection_id = %self.connection_id, in_order = matches!(ended, Ok(Ok(()))), "rest thrown away");
    }

    /// Waits for the disk, and acknowledges nothing more: much that a vehicle has waiting counts against it until it is
    /// stored, however often it connects. Little of it may wait for company, and holds up no new connection.
    pub(super) async fn settle(&mut self) {
        if self.waiting_bytes < MUCH {
            return;
        }
        let all = self.released + self.waiting.len() as u64;
        while self.submitter.committed() < all && self.submitter.advanced(self.submitter.committed()).await.is_ok() {}
    }
}
