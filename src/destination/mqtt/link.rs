//! The seam between the session and the two client crates: a connection that takes messages and says what became of them.
//!
//! It owns no policy: windows, order and what a confirmation means for a record are the session's.

use std::time::Duration;

use futures_util::future::BoxFuture;
use rumqttc::TlsConfiguration;

use crate::config::{self, MqttPassword, secret};
use crate::destination::Outcome;
use crate::destination::prompt::Written;
use crate::record::stored::RecordId;

pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest packet that is read: acknowledgements are all that a publisher is sent.
pub(super) const INCOMING_BYTES: u32 = 64 << 10;
/// What the will says, and a gateway that stops in order.
pub(super) const OFFLINE: &str = "offline";

/// Everything that makes a connection.
pub(super) struct Settings {
    pub(super) config: config::Mqtt,
    pub(super) client_id: String,
    pub(super) tls: Option<TlsConfiguration>,
    /// Where it is said whether the gateway is there; retained, and the topic of the will.
    pub(super) status_topic: Option<String>,
}

impl Settings {
    /// Where the broker is.
    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.config.host, self.config.port)
    }

    /// What both crates take for the host, and check the certificate against: where to connect to is said by
    /// [`Self::address`].
    pub(super) fn certified_name(&self) -> String {
        let tls = self.config.tls.as_ref();
        let name = tls.and_then(|tls| tls.server_name.as_ref());
        name.unwrap_or(&self.config.host).clone()
    }

    /// User name and password, as they are now.
    pub(super) fn credentials(&self) -> Result<Option<(String, String)>, String> {
        let Some((user, password)) = &self.config.credentials else {
            return Ok(None);
        };
        let password = match password {
            MqttPassword::Given(password) => password.clone(),
            MqttPassword::File(path) => secret::read(path).map_err(|error| secret::unreadable(path, &error))?,
        };
        Ok(Some((user.clone(), password)))
    }

    pub(super) fn keep_alive_seconds(&self) -> u16 {
        u16::try_from(self.config.keep_alive.as_secs()).unwrap_or(u16::MAX)
    }

    /// Room for a window, and for the word that the gateway goes.
    pub(super) fn capacity(&self) -> usize {
        usize::from(self.config.max_inflight) + 1
    }
}

/// A connection that the broker has accepted.
pub(super) struct Opened {
    pub(super) client: Box<dyn Client>,
    pub(super) events: Box<dyn Events>,
    /// What the connection has taken.
    pub(super) written: Written,
    /// Bytes of the largest packet that the broker takes.
    pub(super) max_packet: Option<u32>,
    /// Messages that it takes without having confirmed them.
    pub(super) receive_max: Option<u16>,
    /// The interval of pings that it wants instead of the configured one; zero: none.
    pub(super) keep_alive: Option<Duration>,
}

/// The half that takes messages.
pub(super) trait Client: Send + Sync {
    /// Hands a message over, never waiting. `None`: the connection has ended.
    fn publish(&self, message: Message) -> Result<Option<Acknowledged>, String>;

    /// Has a DISCONNECT sent; false if the connection has ended.
    fn disconnect(&self) -> BoxFuture<'_, bool>;
}

/// The half that moves packets, as long as it is asked to.
pub(super) trait Events: Send {
    /// The next packet or ping, or the end; not to be called again after that.
    fn next(&mut self) -> BoxFuture<'_, Result<(), Ended>>;
}

/// What the broker answers to a message.
pub(super) type Acknowledged = BoxFuture<'static, Result<Outcome, Unanswered>>;

/// Why a message has no answer.
pub(super) enum Unanswered {
    /// The connection has ended, for a reason that [`Events::next`] has told.
    Ended,
    /// Something else, that does not concern this message alone.
    Failed(String),
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It was lost.
    Lost(String),
    /// With an answer to some message that the protocol does not have: that message was refused.
    Answered(String),
}

/// A message to publish.
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) retain: bool,
    /// Left out where the protocol has none.
    pub(super) properties: Vec<(&'static str, String)>,
    /// What it is made of, unless it is the gateway's own word.
    pub(super) record: Option<RecordId>,
}

impl Message {
    /// What it counts for.
    pub(super) fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len()
    }
}
