//! What goes wrong with an MQTT broker, in words that a person can act on.

use rumqttc::{ConnectReturnCode, ConnectionError, DisconnectReasonCode, PubAckReason, PublishNoticeError, StateError};

use super::Outcome;

/// Why a connection could not be made or was lost.
pub(super) fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::Io(error) => error.to_string(),
        ConnectionError::Tls(error) => {
            format!("TLS: {error}; check the broker's certificate, its name, and `ca`")
        }
        ConnectionError::ConnectionRefused(code)
        | ConnectionError::MqttState(StateError::ConnFail { reason: code }) => {
            let advice = match code {
                ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
                    "; check username and password_file, and the broker's rules for them"
                }
                ConnectReturnCode::ClientIdentifierNotValid | ConnectReturnCode::BadClientId => {
                    "; set another client_id"
                }
                ConnectReturnCode::UnsupportedProtocolVersion | ConnectReturnCode::RefusedProtocolVersion => {
                    "; the broker must speak MQTT 5"
                }
                _ => "",
            };
            format!("the broker refuses the connection: {code:?}{advice}")
        }
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code,
            reason_string,
        }) => disconnected(*reason_code, reason_string.as_deref()),
        ConnectionError::MqttState(StateError::ConnectionAborted) => "the broker closed the connection".to_owned(),
        ConnectionError::MqttState(StateError::AwaitPingResp) => "the broker answers no more".to_owned(),
        ConnectionError::MqttState(StateError::Deserialization(error)) => match error {
            rumqttc::Error::Io(error) => error.to_string(),
            error => format!("the broker sent what is not MQTT 5: {error}"),
        },
        ConnectionError::MqttState(StateError::Io(error)) => error.to_string(),
        error => error.to_string(),
    }
}

/// Why the broker said goodbye.
pub(super) fn disconnected(code: DisconnectReasonCode, reason: Option<&str>) -> String {
    let advice = match code {
        DisconnectReasonCode::SessionTakenOver => "; another client has the same client_id: give each gateway its own",
        DisconnectReasonCode::NotAuthorized => "; give this client the right to publish to its topics",
        _ => "",
    };
    let reason = reason.map(|reason| format!(", {reason:?}")).unwrap_or_default();
    format!("the broker ended the connection: {code:?}{reason}{advice}")
}

/// What a failed publish means for its record; `Err` when it says nothing about the record but that the session ended.
pub(super) fn outcome(error: &PublishNoticeError) -> Result<Outcome, String> {
    let reason = match error {
        PublishNoticeError::V5PubAck(reason) => reason,
        PublishNoticeError::RetainNotSupported => {
            return Err("the broker keeps no retained messages; set retain = false".to_owned());
        }
        error => return Err(format!("publish failed: {error}")),
    };
    Ok(match reason {
        PubAckReason::TopicNameInvalid | PubAckReason::PayloadFormatInvalid => {
            Outcome::Refused(format!("refused by the broker: {reason:?}"))
        }
        PubAckReason::NotAuthorized => {
            Outcome::Failed("not authorised; give this client the right to publish to its topics".to_owned())
        }
        PubAckReason::QuotaExceeded => {
            Outcome::Failed("the broker's quota for this client is used up; raise it or wait".to_owned())
        }
        other => Outcome::Failed(format!("publish failed: {other:?}")),
    })
}
