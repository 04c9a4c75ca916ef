//! MQTT 5, QoS 1: a record is confirmed when every message it became has its PUBACK.
//!
//! Client, event loop and window are made anew for each session, with a clean start: what the broker or the library
//! remember of an earlier one is not relied on.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rumqttc::{
    AsyncClient, Broker, ClientError, ConnAck, ConnectionError, Error as MqttError, Event, EventLoop, MqttOptions,
    Packet, PublishNoticeError, PublishOptions, PublishProperties, SessionMode, StateError, TlsConfiguration,
    Transport,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::mqtt_errors::{disconnected, explain, outcome};
use super::prompt::Prompt;
use super::{Confirmation, Destination, News, Outcome, Rejected, Sent, Session, SessionError, mqtt_fields};
use crate::config::{self, MqttLayout};
use crate::queue::Queued;
use crate::record::payload;

/// An MQTT broker.
pub struct Mqtt {
    options: MqttOptions,
    config: config::Mqtt,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Beyond two keep-alive intervals, for a ping and its answer on a slow link.
const SLACK: Duration = Duration::from_secs(10);
/// Largest packet that is read: acknowledgements are all that a publisher is sent.
const INCOMING_BYTES: u32 = 64 << 10;
/// What a PUBLISH packet has beyond topic and payload: header, lengths, packet id and the properties below.
const PACKET_OVERHEAD: usize = 1280;
/// Bytes of a transaction id that go into a property: it is there once for each message that a record becomes.
const LONGEST_PROPERTY: usize = 256;

impl Mqtt {
    /// A broker as configured.
    pub fn new(name: &str, config: &config::Mqtt, queue: &str) -> Result<Self, String> {
        let client_id = config
            .client_id
            .clone()
            .unwrap_or_else(|| format!("waystation-{}-{name}", &queue[..12.min(queue.len())]));
        let mut options = MqttOptions::new(client_id, Broker::tcp(config.host.clone(), config.port));
        options
            .set_session_mode(SessionMode::Clean)
            .set_keep_alive(u16::try_from(config.keep_alive.as_secs()).unwrap_or(u16::MAX))
            .set_max_packet_size(Some(INCOMING_BYTES))
            .set_connect_timeout(CONNECT_TIMEOUT)
            .set_socket_connector(|address, _| Prompt::connect(address));
        options.set_outgoing_inflight_upper_limit(config.max_inflight);
        if let Some((user, password)) = &config.credentials {
            options.set_credentials(user.clone(), password.clone().into_bytes());
        }
        if let Some(tls) = &config.tls {
            options.set_transport(Transport::Tls(trust(tls)?));
        }
        Ok(Self {
            options,
            config: config.clone(),
        })
    }
}

fn trust(tls: &config::MqttTls) -> Result<TlsConfiguration, String> {
    match &tls.ca {
        Some(path) => {
            let ca = std::fs::read(path).map_err(|error| {
                format!(
                    "ca: cannot read {}: {error}; name a PEM file that the gateway may read",
                    path.display()
                )
            })?;
            match CertificateDer::pem_slice_iter(&ca).next() {
                Some(Ok(_)) => {}
                _ => {
                    return Err(format!(
                        "ca: {} holds no certificate; it must have the broker's authority in PEM form",
                        path.display()
                    ));
                }
            }
            Ok(TlsConfiguration::Simple {
                ca,
                alpn: None,
                client_auth: None,
            })
        }
        None => TlsConfiguration::try_default_rustls()
            .map_err(|error| format!("cannot use the system's certificate authorities: {error}; set ca")),
    }
}

impl Destination for Mqtt {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, SessionError>> {
        Box::pin(async move {
            let window = usize::from(self.config.max_inflight);
            let address = format!("{}:{}", self.config.host, self.config.port);
            let (client, mut events) = AsyncClient::builder(self.options.clone()).capacity(window).build();
            let connack = tokio::time::timeout(CONNECT_TIMEOUT, connect(&mut events, &address))
                .await
                .map_err(|_| {
                    SessionError(format!(
                        "no answer from {address} within {} s",
                        CONNECT_TIMEOUT.as_secs()
                    ))
                })??;
            let properties = connack.properties.as_ref();
            let max_packet = properties.and_then(|properties| properties.max_packet_size);
            let broker_window = properties
                .and_then(|properties| properties.receive_max)
                .map_or(window, usize::from);
            let (ended, end) = oneshot::channel();
            let events = AbortOnDropHandle::new(tokio::spawn(drive(events, 2 * self.config.keep_alive + SLACK, ended)));
            let session: Box<dyn Session> = Box::new(Publishing {
                config: self.config.clone(),
                client,
                _events: events,
                end: End(Some(end)),
                window: window.min(broker_window).max(1),
                max_packet: max_packet.map_or(usize::MAX, |bytes| bytes as usize),
                unsent: VecDeque::new(),
                in_flight: VecDeque::new(),
            });
            Ok(session)
        })
    }
}

async fn connect(events: &mut EventLoop, address: &str) -> Result<ConnAck, SessionError> {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(connack))) => return Ok(connack),
            Ok(_) => {}
            Err(error) => {
                return Err(SessionError(format!(
                    "cannot connect to {address}: {}",
                    explain(&error)
                )));
            }
        }
    }
}

/// Moves packets until the connection ends; it is never opened again by the same event loop.
async fn drive(mut events: EventLoop, silence: Duration, ended: oneshot::Sender<Ended>) {
    let reason = loop {
        // Pings are events too: a poll that gives none for so long hangs in a write.
        let Ok(event) = tokio::time::timeout(silence, events.poll()).await else {
            break Ended::Lost(format!("the broker has taken nothing for {} s", silence.as_secs()));
        };
        match event {
            Ok(Event::Incoming(Packet::Disconnect(disconnect))) => {
                let text = disconnect
                    .properties
                    .as_ref()
                    .and_then(|properties| properties.reason_string.as_deref());
                break Ended::Lost(disconnected(disconnect.reason_code, text));
            }
            Ok(_) => {}
            // mosquitto's answer to a message above its message_size_limit: a code that MQTT does not have there.
            Err(ConnectionError::MqttState(StateError::Deserialization(MqttError::InvalidConnectReturnCode(code)))) => {
                break Ended::Answered(format!("the broker refused it with reason code {code:#04x}"));
            }
            Err(error) => break Ended::Lost(format!("connection lost: {}", explain(&error))),
        }
    };
    // Before the word of it, so that nobody queues a DISCONNECT for an event loop that has ended.
    drop(events);
    // The session may have ended first.
    drop(ended.send(reason));
}

type Acknowledged = BoxFuture<'static, Result<(), PublishNoticeError>>;

struct Publishing {
    config: config::Mqtt,
    client: AsyncClient,
    _events: AbortOnDropHandle<()>,
    end: End,
    window: usize,
    max_packet: usize,
    /// Messages that wait for room in the window, with their record's number; `true` for a record's last.
    unsent: VecDeque<(u64, bool, Message)>,
    /// Messages without PUBACK, in the order of their sending. `None`: a record that became no message at all.
    in_flight: VecDeque<(u64, bool, Option<Acknowledged>)>,
}

/// The event loop's last word, which comes once.
struct End(Option<oneshot::Receiver<Ended>>);

/// How an event loop ended.
#[derive(Debug)]
enum Ended {
    /// With the connection.
    Lost(String),
    /// With an answer to some message that the protocol does not have: that message was refused.
    Answered(String),
}

impl Ended {
    /// An answer can be to any message in flight. It is held against the oldest record, which is then tried alone: the
    /// one that is meant comes to be the oldest in its turn.
    fn means(self, oldest: Option<u64>) -> Result<News, SessionError> {
        match (self, oldest) {
            (Self::Answered(reason), Some(number)) => {
                let outcome = Outcome::Refused(reason);
                Ok(vec![Confirmation { number, outcome }].into())
            }
            (Self::Answered(reason) | Self::Lost(reason), _) => Err(SessionError(reason)),
        }
    }
}

impl End {
    /// Cancel-safe; answers at once when the word has been heard before.
    async fn wait(&mut self) -> Ended {
        let ended = Ended::Lost("the event loop has ended".to_owned());
        let Some(end) = self.0.as_mut() else { return ended };
        let reason = end.await.unwrap_or(ended);
        self.0 = None;
        reason
    }
}

struct Message {
    topic: String,
    payload: Vec<u8>,
    properties: PublishProperties,
}

impl Session for Publishing {
    fn is_up(&self) -> bool {
        true
    }

    fn has_room(&self) -> bool {
        self.unsent.is_empty() && self.in_flight.len() < self.window
    }

    fn send(&mut self, queued: &Queued) -> Result<Sent, Rejected> {
        let number = queued.id.number;
        let (messages, inexpressible) = self.messages(queued).map_err(Rejected::ForGood)?;
        let packet = |message: &Message| message.topic.len() + message.payload.len() + PACKET_OVERHEAD;
        if let Some(large) = messages.iter().find(|message| packet(message) > self.max_packet) {
            let reason = format!(
                "{} bytes on {} are more than the broker's maximum packet size of {}",
                large.payload.len(),
                large.topic,
                self.max_packet
            );
            return Err(Rejected::ForGood(reason));
        }
        let last = messages.len().checked_sub(1);
        if last.is_none() {
            self.in_flight.push_back((number, true, None));
        }
        for (at, message) in messages.into_iter().enumerate() {
            self.unsent.push_back((number, Some(at) == last, message));
        }
        self.fill().map_err(Rejected::SessionLost)?;
        Ok(Sent { inexpressible })
    }

    fn news(&mut self) -> BoxFuture<'_, Result<News, SessionError>> {
        Box::pin(async move {
            loop {
                self.fill().map_err(SessionError)?;
                let Some((number, last, acknowledged)) = self.in_flight.front_mut() else {
                    return self.ended(None).await;
                };
                let (number, last) = (*number, *last);
                let result = match acknowledged {
                    None => Ok(()),
                    Some(acknowledged) => tokio::select! {
                        biased;
                        result = acknowledged => result,
                        ended = self.end.wait() => return ended.means(Some(number)),
                    },
                };
                let outcome = match result {
                    Ok(()) => Outcome::Delivered,
                    // Nobody answered: the event loop's last word says why.
                    Err(PublishNoticeError::Recv) => return self.ended(Some(number)).await,
                    Err(error) => outcome(&error).map_err(SessionError)?,
                };
                self.in_flight.pop_front();
                if outcome == Outcome::Delivered && !last {
                    continue;
                }
                return Ok(vec![Confirmation { number, outcome }].into());
            }
        })
    }

    fn close(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // A DISCONNECT, so that the broker does not take this for a lost connection; it need not arrive.
            if self.client.disconnect().await.is_ok() {
                let ended = tokio::time::timeout(Duration::from_millis(500), self.end.wait()).await;
                tracing::debug!(in_time = ended.is_ok(), "mqtt disconnected");
            }
        })
    }
}

impl Publishing {
    async fn ended(&mut self, number: Option<u64>) -> Result<News, SessionError> {
        self.end.wait().await.means(number)
    }

    fn fill(&mut self) -> Result<(), String> {
        while self.in_flight.len() < self.window
            && let Some((number, last, message)) = self.unsent.pop_front()
        {
            let options = PublishOptions::at_least_once()
                .retain(self.config.retain)
                .properties(message.properties);
            let notice = match self.client.try_publish_tracked(message.topic, message.payload, options) {
                Ok(notice) => notice,
                // The connection has ended; `news` says why.
                Err(ClientError::RequestChannelDisconnected(_)) => {
                    self.unsent.clear();
                    return Ok(());
                }
                Err(error) => return Err(format!("cannot publish: {error}")),
            };
            self.in_flight
                .push_back((number, last, Some(Box::pin(notice.wait_completion_async()))));
        }
        Ok(())
    }

    /// What a record becomes, and how many of its values JSON cannot express.
    fn messages(&self, queued: &Queued) -> Result<(Vec<Message>, usize), String> {
        let record = &queued.record;
        let payload =
            payload::transform(&record.record_type, &record.vin, &record.payload).map_err(|error| error.to_string())?;
        let base = &self.config.topic_base;
        let message = |topic: String, payload: Vec<u8>| Message {
            topic,
            payload,
            properties: PublishProperties {
                user_properties: vec![
                    ("txid".to_owned(), property(&record.txid)),
                    ("record".to_owned(), queued.stable_id().to_string()),
                    ("received_at".to_owned(), record.received_at.to_string()),
                ],
                ..PublishProperties::default()
            },
        };
        match self.config.layout {
            MqttLayout::Records => {
                let (vin, record_type) = (mqtt_fields::clean(&record.vin), mqtt_fields::clean(&record.record_type));
                Ok((
                    vec![message(format!("{base}/{vin}/{record_type}"), payload.to_vec())],
                    0,
                ))
            }
            MqttLayout::Fields => {
                let fields = mqtt_fields::expand(&record.vin, &record.record_type, &payload);
                let fields = fields.map_err(|error| error.to_string())?;
                let inexpressible = fields.iter().filter(|field| field.not_finite).count();
                let messages = fields
                    .into_iter()
                    .map(|field| message(format!("{base}/{}", field.topic), field.payload));
                Ok((messages.collect(), inexpressible))
            }
        }
    }
}

/// A transaction id as a string that every broker takes; a real one is left as it is.
fn property(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST_PROPERTY)]);
    text.chars()
        .map(|character| {
            if mqtt_fields::is_unsendable(character) {
                '_'
            } else {
                character
            }
        })
        .collect()
}
