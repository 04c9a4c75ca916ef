//! A `type = "mqtt"` destination: which broker, over what connection, and what records become there.
//!
//! Invariant: with any setting but `qos = 0`, about which there is a warning, a record counts as delivered only when the
//! broker has confirmed it; and no key is taken that would have no effect.

use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::checked::or;
use super::paths::Base;
use super::reader::{Field, Table};
use super::secret;

/// An MQTT broker.
#[derive(Clone, PartialEq, Eq)]
pub struct Mqtt {
    /// The version of the protocol.
    pub protocol: MqttProtocol,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// `mqtts://`.
    pub tls: Option<MqttTls>,
    /// User name and password.
    pub credentials: Option<(String, MqttPassword)>,
    /// `None`: `waystation-`, the first 12 characters of the queue's id, `-` and the destination's name.
    pub client_id: Option<String>,
    /// What stands before `/{VIN}/…` in every topic; may be empty.
    pub topic_base: String,
    /// How records become messages.
    pub layout: MqttLayout,
    /// When a message counts as delivered.
    pub qos: Qos,
    /// Whether messages are retained by the broker.
    pub retain: bool,
    /// Whether `{topic_base}/waystation/{client id}/status` says that the gateway is there.
    pub status: bool,
    /// Keep-alive interval.
    pub keep_alive: Duration,
    /// Publishes that may be unconfirmed at once.
    pub max_inflight: u16,
    /// Bytes of the largest packet that is sent, where the broker itself does not name a smaller one.
    pub max_packet_size: Option<u64>,
}

/// A password, or where it stands.
#[derive(Clone, PartialEq, Eq)]
pub enum MqttPassword {
    /// From the configuration; empty without one.
    Given(String),
    /// `password_file`, which each session reads anew.
    File(PathBuf),
}

/// Versions of MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MqttProtocol {
    /// 3.1.1: no user properties, and the broker cannot say no to a message.
    V3,
    /// 5.
    V5,
}

/// When a message counts as delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    /// 0: when it has been written to the connection.
    AtMostOnce,
    /// 1: with its PUBACK.
    AtLeastOnce,
    /// 2: with its PUBCOMP.
    ExactlyOnce,
}

/// TLS towards an MQTT broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttTls {
    /// PEM file with the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM files with a certificate (and its chain, leaf first) and its private key, for brokers that ask for one.
    pub client: Option<(PathBuf, PathBuf)>,
    /// The name in the broker's certificate, when it is not the host.
    pub server_name: Option<String>,
}

/// How records become MQTT messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MqttLayout {
    /// One JSON value per field, as Tesla's server publishes them.
    Fields,
    /// One message per record at `{base}/{VIN}/{type}`.
    Records,
}

pub(super) fn mqtt(name: &str, table: &Table<'_>, base: Base<'_>, warnings: &mut Vec<String>) -> Option<Mqtt> {
    let url = table.required(
        "url",
        "write mqtt://HOST or mqtts://HOST, with :PORT if it is not 1883 or 8883",
    );
    let broker = url.as_ref().and_then(broker);
    let protocol = or(table, "protocol", Some(MqttProtocol::V5), |field| {
        field.choice(&[("5", MqttProtocol::V5), ("3.1.1", MqttProtocol::V3)])
    });
    let topic_base = table.required("topic_base", "it begins every topic: {topic_base}/{VIN}/…");
    let topic_base = topic_base.and_then(|field| topic_base_of(name, &field, warnings));
    let layout = or(table, "layout", Some(MqttLayout::Fields), |field| {
        field.choice(&[("fields", MqttLayout::Fields), ("records", MqttLayout::Records)])
    });
    let credentials = credentials(table, base);
    let client_id = optional(table, "client_id", |field| {
        let id = field.text()?;
        let usable = id.len() <= 128 && !id.chars().any(char::is_control);
        if !usable {
            field.refuse("is not a client id; write 1 to 128 printable characters");
        }
        Some(id.to_owned()).filter(|_| usable)
    });
    let qos = or(table, "qos", Some(Qos::AtLeastOnce), |field| {
        field.integer(0..=2).map(|qos| match qos {
            0 => Qos::AtMostOnce,
            1 => Qos::AtLeastOnce,
            _ => Qos::ExactlyOnce,
        })
    });
    let retain = or(table, "retain", Some(false), |field| field.boolean());
    let status = or(table, "status", Some(true), |field| field.boolean());
    let keep_alive = or(table, "keep_alive", Some(Duration::from_secs(30)), |field| {
        field.duration(Duration::from_secs(1)..=Duration::from_secs(18 * 3_600))
    });
    let max_inflight = or(table, "max_inflight", Some(100), |field| field.integer(1..=1_000));
    let max_packet_size = optional(table, "max_packet_size", |field| field.size(512..=256 << 20));
    let tls = tls(table, base, broker.as_ref().is_none_or(|(_, _, encrypted)| *encrypted));

    let (host, port, encrypted) = broker?;
    let (credentials, qos) = (credentials?, qos?);
    if credentials.is_some() && !encrypted && !matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1") {
        warnings.push(format!(
            "destinations.{name}: the password goes to {host} unencrypted; mqtts:// would protect it"
        ));
    }
    if qos == Qos::AtMostOnce {
        warnings.push(format!(
            "destinations.{name}: with qos = 0 the broker confirms nothing: records that are on their way when a \
             connection ends are lost; qos = 1 loses none"
        ));
    }
    let tls = tls?;
    Some(Mqtt {
        protocol: protocol?,
        host,
        port,
        tls: encrypted.then_some(tls),
        credentials,
        client_id: client_id?,
        topic_base: topic_base?,
        layout: layout?,
        qos,
        retain: retain?,
        status: status?,
        // MQTT counts whole seconds.
        keep_alive: Duration::from_secs(keep_alive?.as_secs()),
        max_inflight: u16::try_from(max_inflight?).ok()?,
        max_packet_size: max_packet_size?,
    })
}

/// A key without a default; the outer `None` when something is wrong with its value.
fn optional<'d, T>(
    table: &Table<'d>,
    key: &'static str,
    read: impl FnOnce(&Field<'d>) -> Option<T>,
) -> Option<Option<T>> {
    match table.field(key) {
        Some(field) => read(&field).map(Some),
        None => Some(None),
    }
}

fn tls(table: &Table<'_>, base: Base<'_>, encrypted: bool) -> Option<MqttTls> {
    let keys = ["ca", "client_certificate", "client_key", "server_name"];
    let [ca, certificate, key, server_name] = keys.map(|key| table.field(key));
    if !encrypted {
        for (name, field) in keys.iter().zip([&ca, &certificate, &key, &server_name]) {
            if let Some(field) = field {
                field.mistake(format_args!(
                    "is only for mqtts://; change url to mqtts:// or remove {name}"
                ));
            }
        }
    }
    let path = |field: Option<Field<'_>>| match field {
        Some(field) => base.path(&field).map(Some),
        None => Some(None),
    };
    match (&certificate, &key) {
        (Some(field), None) => field.mistake("client_key is missing; name the file with its private key"),
        (None, Some(field)) => field.mistake("client_certificate is missing; name the file with the key's certificate"),
        _ => {}
    }
    let (ca, certificate, key) = (path(ca), path(certificate), path(key));
    let server_name = match server_name {
        Some(field) => {
            let name = field.text()?;
            if ServerName::try_from(name).is_err() {
                field.refuse("is not a name that a certificate can have; write a host name or an IP address");
                return None;
            }
            Some(name.to_owned())
        }
        None => None,
    };
    Some(MqttTls {
        ca: ca?,
        client: certificate?.zip(key?),
        server_name,
    })
}

/// Host, port and whether it is encrypted, of an MQTT URL.
fn broker(field: &Field<'_>) -> Option<(String, u16, bool)> {
    let url = field.text()?;
    if url.contains('@') {
        // Not shown: it may hold a password.
        field.mistake("holds credentials; write them as username and password_file");
        return None;
    }
    let (rest, encrypted) = match (url.strip_prefix("mqtt://"), url.strip_prefix("mqtts://")) {
        (Some(rest), _) => (rest, false),
        (_, Some(rest)) => (rest, true),
        _ => {
            field.refuse("is not an MQTT address; write mqtt://HOST or mqtts://HOST, with :PORT if need be");
            return None;
        }
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        field.refuse("has a path; end it after the host and port, and write the topic prefix as topic_base");
        return None;
    }
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (
            Some(host).filter(|host| host.parse::<std::net::Ipv6Addr>().is_ok()),
            port,
        ),
        None => {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            let usable = !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
            (Some(host).filter(|_| usable), port)
        }
    };
    let port = match port.strip_prefix(':') {
        Some(number) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            let port = number.parse().ok().filter(|port| *port != 0);
            if port.is_none() {
                field.refuse(format_args!(
                    "has the port {number}, which is out of range; write one from 1 to 65535"
                ));
                return None;
            }
            port
        }
        None if port.is_empty() => Some(if encrypted { 8883 } else { 1883 }),
        _ => None,
    };
    let (Some(host), Some(port)) = (host, port) else {
        field.refuse("is not an MQTT address; write mqtt://HOST or mqtts://HOST, with :PORT if need be");
        return None;
    };
    Some((host.to_owned(), port, encrypted))
}

/// As it is written: Tesla's server puts `/{VIN}/…` behind whatever stands there, and consumers have subscribed to that.
fn topic_base_of(name: &str, field: &Field<'_>, warnings: &mut Vec<String>) -> Option<String> {
    let topic = field.string()?;
    if topic.contains('\0') {
        // Not shown: a terminal would not either.
        field.mistake("has a NUL in it, which no topic can have; write it without");
        return None;
    }
    let wrong = if topic.contains(['+', '#']) {
        Some("has a wildcard in it; + and # cannot be published to")
    } else if topic.len() > 256 {
        Some("is too long to begin a topic; write at most 256 bytes")
    } else {
        None
    };
    if let Some(wrong) = wrong {
        field.refuse(wrong);
        return None;
    }
    let odd = if topic.starts_with('$') {
        Some("what begins with $ belongs to the broker, and subscribers to # do not see it")
    } else if topic.chars().any(char::is_control) {
        Some("brokers may end the connection because of its control characters")
    } else if topic.split('/').any(str::is_empty) {
        Some("subscribers have to name the empty level in it too")
    } else {
        None
    };
    if let Some(odd) = odd {
        let topic = format!("{topic}/{{VIN}}/…");
        warnings.push(format!("destinations.{name}: topics will be {topic:?}; {odd}"));
    }
    Some(topic.to_owned())
}

/// User name and password; the outer `None` when something is wrong with them. Passwords are never shown.
fn credentials(table: &Table<'_>, base: Base<'_>) -> Option<Option<(String, MqttPassword)>> {
    let username = table.field("username");
    let password = table.field("password");
    let file = table.field("password_file");
    if let (Some(password), Some(_)) = (&password, &file) {
        password.mistake("password_file is there too; leave one of the two");
        return None;
    }
    if let (None, Some(secret)) = (&username, password.as_ref().or(file.as_ref())) {
        secret.mistake("username is missing; a password needs one");
    }
    let password = match (&password, &file) {
        (Some(field), _) => field.secret().map(MqttPassword::Given),
        (None, Some(field)) => base.path(field).and_then(|path| {
            secret::checked(field, &path, base)?;
            Some(MqttPassword::File(path))
        }),
        (None, None) => Some(MqttPassword::Given(String::new())),
    };
    match username {
        Some(field) => Some(Some((field.text()?.to_owned(), password?))),
        None => password.map(|_| None),
    }
}
