//! MQTT 5, with `rumqttc-v5-next`: connections, and what goes wrong with a broker in words that a person can act on.
//!
//! Invariant: only an answer of the broker's to the message itself is passed on as its outcome.

use std::fmt::{self, Debug, Display, Formatter};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rumqttc::{
    AsyncClient, Broker, ClientError, ConnectReturnCode, ConnectionError, DisconnectReasonCode, Error as MqttError,
    Event, EventLoop, LastWill, MqttOptions, Packet, PublishNoticeError, PublishOptions, PublishProperties, QoS,
    SessionMode, StateError, Transport,
};

use super::link::{
    Acknowledged, CONNECT_TIMEOUT, Client, Ended, Events, INCOMING_BYTES, Message, OFFLINE, Opened, Settings,
    Unanswered,
};
use super::tls;
use crate::config::{self, Qos};
use crate::destination::Outcome;
use crate::destination::prompt::{Prompt, Written};
use crate::record::stored::RecordId;

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
        .set_max_packet_size(Some(INCOMING_BYTES))
        .set_connect_timeout(CONNECT_TIMEOUT)
        .set_socket_connector(move |_, _| Prompt::connect(address.clone(), counted.clone()));
    options.set_outgoing_inflight_upper_limit(settings.config.max_inflight);
    // By itself it would be one, and each message a write of its own.
    options.set_max_request_batch(settings.capacity());
    if let Some((user, password)) = credentials {
        options.set_credentials(user, password.into_bytes());
    }
    if let Some(tls) = &settings.tls {
        options.set_transport(Transport::Tls(tls.clone()));
    }
    if let Some(topic) = &settings.status_topic {
        options.set_last_will(LastWill::new(topic.clone(), OFFLINE, qos, true, None));
    }
    let (client, mut events) = AsyncClient::builder(options).capacity(settings.capacity()).build();
    let connack = loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(connack))) => break connack,
            Ok(_) => {}
            Err(
                ConnectionError::ConnectionRefused(code)
                | ConnectionError::MqttState(StateError::ConnFail { reason: code }),
            ) => return Err(refused(code, &settings.config)),
            Err(error) => return Err(explain(&error)),
        }
    };
    let properties = connack.properties.as_ref();
    obeys(
        properties.and_then(|properties| properties.max_qos),
        properties.and_then(|properties| properties.retain_available),
        &settings.config,
    )?;
    Ok(Opened {
        client: Box::new(V5 { client, qos }),
        events: Box::new(events),
        written,
        max_packet: properties.and_then(|properties| properties.max_packet_size),
        receive_max: properties.and_then(|properties| properties.receive_max),
        keep_alive: properties
            .and_then(|properties| properties.server_keep_alive)
            .map(|seconds| Duration::from_secs(seconds.into())),
    })
}

struct V5 {
    client: AsyncClient,
    qos: QoS,
}

impl Client for V5 {
    fn publish(&self, message: Message) -> Result<Option<Acknowledged>, String> {
        let subject = Subject {
            topic: message.topic.clone(),
            record: message.record,
        };
        let properties = message.properties.into_iter();
        let properties = PublishProperties {
            user_properties: properties.map(|(name, value)| (name.to_owned(), value)).collect(),
            ..PublishProperties::default()
        };
        let options = PublishOptions::new(self.qos)
            .retain(message.retain)
            .properties(properties);
        match self.client.try_publish_tracked(message.topic, message.payload, options) {
            Ok(notice) => Ok(Some(Box::pin(async move {
                match notice.wait_completion_async().await {
                    Ok(()) => Ok(Outcome::Delivered),
                    Err(error) => outcome(&error, &subject),
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
                Ok(Event::Incoming(Packet::Disconnect(disconnect))) => {
                    let properties = disconnect.properties.as_ref();
                    let text = properties.and_then(|properties| properties.reason_string.as_deref());
                    Err(Ended::Lost(disconnected(disconnect.reason_code, text)))
                }
                Ok(_) => Ok(()),
                Err(error) => Err(ended(&error)),
            }
        })
    }
}

/// mosquitto's answer to a message above its message_size_limit, a code that MQTT does not have in an acknowledgement.
const PACKET_TOO_LARGE: u8 = 0x95;

fn ended(error: &ConnectionError) -> Ended {
    match error {
        ConnectionError::MqttState(StateError::Deserialization(MqttError::InvalidConnectReturnCode(
            PACKET_TOO_LARGE,
        ))) => Ended::Answered(format!(
            "the broker refused it with reason code {PACKET_TOO_LARGE:#04x}: packet too large"
        )),
        // Another code that is not known here says nothing about any record.
        error => Ended::Lost(format!("connection lost: {}", explain(error))),
    }
}

fn quality(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}

/// Why the broker does not let this client in.
fn refused(code: ConnectReturnCode, config: &config::Mqtt) -> String {
    let advice = match code {
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
            "check username and password_file, and the broker's rules for them".to_owned()
        }
        ConnectReturnCode::ClientIdentifierNotValid | ConnectReturnCode::BadClientId => {
            "set another client_id".to_owned()
        }
        ConnectReturnCode::UnsupportedProtocolVersion | ConnectReturnCode::RefusedProtocolVersion => {
            "it does not speak MQTT 5: set protocol = \"3.1.1\"".to_owned()
        }
        ConnectReturnCode::RetainNotSupported => no_retained(config),
        // The will has the quality of service of everything else.
        ConnectReturnCode::QoSNotSupported => match config.qos {
            Qos::ExactlyOnce => too_much_asked(1),
            Qos::AtLeastOnce | Qos::AtMostOnce => too_much_asked(0),
        },
        _ => return format!("the broker refuses the connection: {code:?}"),
    };
    format!("the broker refuses the connection: {code:?}; {advice}")
}

/// Whether the broker takes what it will be sent: what it says with its CONNACK the client library only half minds, and
/// the broker ends the connection at the first message.
fn obeys(max_qos: Option<u8>, retain_available: Option<u8>, config: &config::Mqtt) -> Result<(), String> {
    match (max_qos, retain_available) {
        (Some(most), _) if most < quality(config.qos) as u8 => Err(too_much_asked(most)),
        (_, Some(0)) if config.retain || config.status => Err(no_retained(config)),
        _ => Ok(()),
    }
}

fn too_much_asked(most: u8) -> String {
    format!("the broker takes QoS {most} at most; set qos = {most}")
}

fn no_retained(config: &config::Mqtt) -> String {
    let keys = match (config.retain, config.status) {
        (true, true) => "retain = false and status = false",
        (true, false) => "retain = false",
        (false, _) => "status = false",
    };
    format!("the broker keeps no retained messages; set {keys}")
}

/// Why a connection could not be made or was lost.
fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::Io(error) => tls::explain(error),
        ConnectionError::Tls(error) => tls::refused(error),
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code,
            reason_string,
        }) => disconnected(*reason_code, reason_string.as_deref()),
        ConnectionError::MqttState(StateError::ConnectionAborted) => "the broker closed the connection".to_owned(),
        ConnectionError::MqttState(StateError::AwaitPingResp) => "the broker answers no more".to_owned(),
        ConnectionError::MqttState(StateError::Deserialization(error)) => match error {
            MqttError::Io(error) => tls::explain(error),
            error => format!("the broker sent what is not MQTT 5: {error}"),
        },
        ConnectionError::MqttState(StateError::Io(error)) => tls::explain(error),
        error => error.to_string(),
    }
}

/// Why the broker said goodbye.
fn disconnected(code: DisconnectReasonCode, reason: Option<&str>) -> String {
    let advice = match code {
        DisconnectReasonCode::SessionTakenOver => "; another client has the same client_id: give each gateway its own",
        DisconnectReasonCode::NotAuthorized => "; give this client the right to publish to its topics",
        DisconnectReasonCode::PacketTooLarge => "; set max_packet_size to what the broker takes",
        DisconnectReasonCode::QuotaExceeded => "; raise the broker's quota for this client or wait",
        DisconnectReasonCode::ReceiveMaximumExceeded => "; set a lower max_inflight",
        _ => "",
    };
    let reason = reason.map(|reason| format!(", {reason:?}")).unwrap_or_default();
    format!("the broker ended the connection: {code:?}{reason}{advice}")
}

/// What a message was about: who reads a refusal can do nothing about a topic that it does not name.
struct Subject {
    topic: String,
    record: Option<RecordId>,
}

impl Display for Subject {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.record {
            Some(record) => write!(f, "{} (record {record})", self.topic),
            None => f.write_str(&self.topic),
        }
    }
}

/// What a failed publish means for its record.
fn outcome(error: &PublishNoticeError, subject: &Subject) -> Result<Outcome, Unanswered> {
    // PUBACK and PUBREC have the same codes.
    match error {
        PublishNoticeError::V5PubAck(reason) => Ok(refusal(*reason as u8, reason, subject)),
        PublishNoticeError::V5PubRec(reason) => Ok(refusal(*reason as u8, reason, subject)),
        PublishNoticeError::Recv | PublishNoticeError::Qos0NotFlushed => Err(Unanswered::Ended),
        PublishNoticeError::RetainNotSupported => Err(Unanswered::Failed(
            "the broker keeps no retained messages; set retain = false and status = false".to_owned(),
        )),
        error => Err(Unanswered::Failed(format!("publish failed: {error}"))),
    }
}

fn refusal(code: u8, name: &dyn Debug, subject: &Subject) -> Outcome {
    match code {
        0x87 => Outcome::Failed(format!(
            "not authorised to publish to {subject}; give this client the right to"
        )),
        0x97 => Outcome::Failed("the broker's quota for this client is used up; raise it or wait".to_owned()),
        // The topic or the payload is not to its liking.
        0x90 | 0x99 => Outcome::Refused(format!("refused by the broker: {name:?}")),
        _ => Outcome::Failed(format!("publish failed: {name:?}")),
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::{PubAckReason, PubRecReason};

    use super::*;
    use crate::record::stored::QueueId;

    #[test]
    fn only_a_message_that_is_wrong_in_itself_is_refused_for_good() {
        let subject = Subject {
            topic: "t/VIN/v/Soc".to_owned(),
            record: Some(RecordId {
                queue: QueueId(*b"one queue of two"),
                number: 7,
            }),
        };
        let of = |error| outcome(&error, &subject).ok();
        for reason in [PubAckReason::TopicNameInvalid, PubAckReason::PayloadFormatInvalid] {
            assert!(matches!(
                of(PublishNoticeError::V5PubAck(reason)),
                Some(Outcome::Refused(_))
            ));
        }
        for (reason, words) in [
            (
                PubRecReason::NotAuthorized,
                "not authorised to publish to t/VIN/v/Soc (record 6f6e65207175657565206f662074776f-7); give",
            ),
            (PubRecReason::QuotaExceeded, "quota"),
            (PubRecReason::UnspecifiedError, "UnspecifiedError"),
        ] {
            match of(PublishNoticeError::V5PubRec(reason)) {
                Some(Outcome::Failed(said)) => assert!(said.contains(words), "{said}"),
                other => panic!("{other:?}"),
            }
        }
        assert!(of(PublishNoticeError::Recv).is_none());
    }

    #[test]
    fn of_the_codes_that_mqtt_does_not_have_only_too_large_is_held_against_a_record() {
        let of = |code| {
            let error = StateError::Deserialization(MqttError::InvalidConnectReturnCode(code));
            ended(&ConnectionError::MqttState(error))
        };
        assert!(matches!(of(0x95), Ended::Answered(said) if said.contains("0x95")));
        for code in [0x01, 0x42, 0x8f, 0xff] {
            assert!(matches!(of(code), Ended::Lost(_)), "{code:#x}");
        }
    }
}
