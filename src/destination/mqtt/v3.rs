//! MQTT 3.1.1, with `rumqttc-v4-next`.
//!
//! A broker cannot say no to a message here: what its rules forbid, or what is too large for it, it acknowledges and
//! drops, or it ends the connection. Only the acknowledgement is passed on, because there is nothing else.

use std::io::ErrorKind;

use futures_util::future::BoxFuture;
use rumqttc_v4::{
    AsyncClient, Broker, ClientError, ConnectReturnCode, ConnectionError, Error as MqttError, Event, EventLoop,
    LastWill, MqttOptions, NetworkOptions, Packet, PublishNoticeError, PublishOptions, QoS, SessionMode, StateError,
    Transport,
};

use super::link::{
    Acknowledged, CONNECT_TIMEOUT, Client, Ended, Events, INCOMING_BYTES, Message, OFFLINE, Opened, Settings,
    Unanswered,
};
use super::tls;
use crate::config::Qos;
use crate::destination::Outcome;
use crate::destination::prompt::{Prompt, Written};

/// The protocol's own limit. What a broker takes it does not tell.
const OUTGOING_BYTES: usize = 256 << 20;

/// Connects, and waits for the CONNACK.
pub(super) async fn open(settings: &Settings) -> Result<Opened, String> {
    let credentials = settings.credentials()?;
    let qos = quality(settings.config.qos);
    let broker = Broker::tcp(settings.certified_name(), settings.config.port);
    let mut options = MqttOptions::new(settings.client_id.clone(), broker);
    let (address, written) = (settings.address(), Written::default());
    let counted = written.clone();
    options
        .set_session_mode(SessionMode::Clean)
        .set_keep_alive(settings.keep_alive_seconds())
        .set_max_packet_size(INCOMING_BYTES as usize, OUTGOING_BYTES)
        .set_inflight(settings.config.max_inflight)
        // By itself it would be one, and each message a write of its own.
        .set_max_request_batch(settings.capacity())
        .set_socket_connector(move |_, _| Prompt::connect(address.clone(), counted.clone()));
    if let Some((user, password)) = credentials {
        options.set_credentials(user, password.into_bytes());
    }
    if let Some(tls) = &settings.tls {
        options.set_transport(Transport::Tls(tls.clone()));
    }
    if let Some(topic) = &settings.status_topic {
        options.set_last_will(LastWill::new(topic.clone(), OFFLINE, qos, true));
    }
    let (client, mut events) = AsyncClient::builder(options).capacity(settings.capacity()).build();
    let mut network = NetworkOptions::new();
    network.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
    events.set_network_options(network);
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => break,
            Ok(_) => {}
            Err(error) => return Err(explain(&error)),
        }
    }
    Ok(Opened {
        client: Box::new(V3 { client, qos }),
        events: Box::new(events),
        written,
        max_packet: None,
        receive_max: None,
        keep_alive: None,
    })
}

struct V3 {
    client: AsyncClient,
    qos: QoS,
}

impl Client for V3 {
    fn publish(&self, message: Message) -> Result<Option<Acknowledged>, String> {
        let options = PublishOptions::new(self.qos).retain(message.retain);
        match self.client.try_publish_tracked(message.topic, message.payload, options) {
            Ok(notice) => Ok(Some(Box::pin(async move {
                match notice.wait_completion_async().await {
                    Ok(()) => Ok(Outcome::Delivered),
                    Err(PublishNoticeError::Recv | PublishNoticeError::Qos0NotFlushed) => Err(Unanswered::Ended),
                    Err(error) => Err(Unanswered::Failed(format!("publish failed: {error}"))),
                }
            }))),
            Err(ClientError::RequestChannelDisconnected(_)) => Ok(None),
            Err(error) => Err(format!("cannot publish: {error}")),
        }
    }

    fn disconnect(&self) -> BoxFuture<'_, bool> {
        Box::pin(async { self.client.disconnect().await.is_ok() })
    }
}

impl Events for EventLoop {
    fn next(&mut self) -> BoxFuture<'_, Result<(), Ended>> {
        Box::pin(async {
            match self.poll().await {
                Ok(_) => Ok(()),
                Err(error) => Err(Ended::Lost(format!("connection lost: {}", explain(&error)))),
            }
        })
    }
}

fn quality(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}

/// Why a connection could not be made or was lost.
fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::Io(error) => tls::explain(error),
        ConnectionError::Tls(error) => tls::refused(error),
        ConnectionError::ConnectionRefused(code) => {
            let advice = match code {
                ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
                    "; check username and password_file, and the broker's rules for them"
                }
                ConnectReturnCode::BadClientId => "; set another client_id",
                ConnectReturnCode::RefusedProtocolVersion => "; it does not speak MQTT 3.1.1: set protocol = \"5\"",
                _ => "",
            };
            format!("the broker refuses the connection: {code:?}{advice}")
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => "the broker answers no more".to_owned(),
        ConnectionError::MqttState(StateError::ConnectionAborted) => hung_up("the broker closed the connection"),
        ConnectionError::MqttState(StateError::Io(error) | StateError::Deserialization(MqttError::Io(error))) => {
            match error.kind() {
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => hung_up(&error.to_string()),
                _ => tls::explain(error),
            }
        }
        ConnectionError::MqttState(StateError::Deserialization(error)) => {
            format!("the broker sent what is not MQTT 3.1.1: {error}")
        }
        error => error.to_string(),
    }
}

/// To hang up is all that a broker of this version can do about a message that it does not like.
fn hung_up(how: &str) -> String {
    format!(
        "{how}; if that goes on, see in the broker's log whether this client may publish to its topics, and set \
         max_packet_size to what it takes"
    )
}
