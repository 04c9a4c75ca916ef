//! A broker as it is configured, and how a session with it begins.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::ending::drive;
use super::link::{CONNECT_TIMEOUT, Settings};
use super::session::Publishing;
use super::{messages, tls, v3, v5};
use crate::config::{self, MqttProtocol};
use crate::destination::{Destination, Session, SessionError};

/// An MQTT broker.
pub struct Mqtt {
    name: String,
    settings: Settings,
    /// Whether the broker has said no to the status. It is not tried again then: mosquitto with `max_queued_messages 0`
    /// ends the connection after each such answer.
    status_refused: Arc<AtomicBool>,
}

/// Beyond two keep-alive intervals, for a ping and its answer on a slow link.
const SLACK: Duration = Duration::from_secs(10);
const ONLINE: &str = "online";

impl Mqtt {
    /// A broker as configured.
    pub fn new(name: &str, config: &config::Mqtt, queue: &str) -> Result<Self, String> {
        let client_id = config
            .client_id
            .clone()
            .unwrap_or_else(|| format!("waystation-{}-{name}", &queue[..12.min(queue.len())]));
        let status = config.status;
        Ok(Self {
            name: name.to_owned(),
            settings: Settings {
                tls: config.tls.as_ref().map(tls::configuration).transpose()?,
                status_topic: status.then(|| messages::status_topic(&config.topic_base, &client_id)),
                client_id,
                config: config.clone(),
            },
            status_refused: Arc::default(),
        })
    }

    /// The same for who only asks whether it would be let in: under another client id than the gateway's, so that one that
    /// runs is left alone, and without a word that others would see.
    pub fn asking(name: &str, config: &config::Mqtt) -> Result<Self, String> {
        let client_id = match &config.client_id {
            Some(id) => format!("{id}-check"),
            None => format!("waystation-check-{}", std::process::id()),
        };
        let asking = config::Mqtt {
            client_id: Some(client_id),
            ..config.clone()
        };
        let mut broker = Self::new(name, &asking, "")?;
        broker.settings.status_topic = None;
        Ok(broker)
    }

    async fn begin(&self) -> Result<Publishing, SessionError> {
        let Settings { config, .. } = &self.settings;
        let opened = match config.protocol {
            MqttProtocol::V3 => v3::open(&self.settings).await,
            MqttProtocol::V5 => v5::open(&self.settings).await,
        };
        let opened = opened
            .map_err(|reason| SessionError(format!("cannot connect to {}: {reason}", self.settings.address())))?;
        let (ended, end) = oneshot::channel();
        let keep_alive = opened.keep_alive.unwrap_or(config.keep_alive);
        // Without pings a broker may be silent for ever; what it does not confirm is found out all the same.
        let silence = (!keep_alive.is_zero()).then(|| 2 * keep_alive + SLACK);
        let events = AbortOnDropHandle::new(tokio::spawn(drive(opened.events, opened.written, silence, ended)));
        let window = config.max_inflight.min(opened.receive_max.unwrap_or(u16::MAX));
        let max_packet = u64::from(opened.max_packet.unwrap_or(u32::MAX));
        let max_packet = max_packet.min(config.max_packet_size.unwrap_or(u64::MAX));
        let mut session = Publishing::new(&self.name, config.clone(), opened.client, events, end);
        session.status_topic.clone_from(&self.settings.status_topic);
        session.status_refused = Arc::clone(&self.status_refused);
        session.window = usize::from(window.max(1));
        session.max_packet = usize::try_from(max_packet).unwrap_or(usize::MAX);
        session.announce(ONLINE).await?;
        Ok(session)
    }
}

impl Destination for Mqtt {
    fn has_broker(&self) -> bool {
        true
    }

    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, SessionError>> {
        Box::pin(async move {
            let session = tokio::time::timeout(CONNECT_TIMEOUT, self.begin()).await;
            let session: Box<dyn Session> = Box::new(session.map_err(|_| {
                SessionError(format!(
                    "no answer from {} within {} s",
                    self.settings.address(),
                    CONNECT_TIMEOUT.as_secs()
                ))
            })??);
            Ok(session)
        })
    }
}
