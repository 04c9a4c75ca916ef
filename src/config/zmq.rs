//! A `type = "zmq"` destination: where its socket is, and who may subscribe.
//!
//! Invariant: without CURVE nothing beyond this machine can subscribe, unless that is asked for in so many words.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use omq_tokio::CurvePublicKey;

use super::checked::or;
use super::destinations::topic_namespace;
use super::paths::Base;
use super::reader::{Field, Table};
use super::{AllowedClients, Curve, Zmq};

/// Bytes of a Unix socket's path that the system takes.
const LONGEST_PATH: usize = 107;

pub(super) fn zmq(name: &str, table: &Table<'_>, base: Base<'_>, warnings: &mut Vec<String>) -> Option<Zmq> {
    let bind = table.required(
        "bind",
        "write ipc:///run/waystation/records.ipc, or tcp://127.0.0.1:PORT",
    );
    let namespace = table.required("namespace", "the first frame is {namespace}_{record type}");
    let namespace = namespace.and_then(|field| topic_namespace(&field));
    let high_water_mark = or(table, "high_water_mark", Some(1000), |field| field.integer(1..=100_000));
    let metadata = or(table, "metadata", Some(false), |field| field.boolean());
    let plaintext = or(table, "allow_plaintext", Some(false), |field| field.boolean());
    let curve = curve(name, table, base, warnings);
    let (field, plaintext, curve) = (bind?, plaintext?, curve?);
    let (bind, exposed) = endpoint(&field)?;
    if exposed && curve.is_none() && !plaintext {
        field.refuse(
            "lets anybody on the network read every record; write server_key_file for CURVE, a loopback address, or \
             allow_plaintext = true",
        );
        return None;
    }
    Some(Zmq {
        bind,
        namespace: namespace?,
        high_water_mark: u32::try_from(high_water_mark?).ok()?,
        metadata: metadata?,
        curve,
    })
}

/// The endpoint as the library takes it, and whether other machines reach it.
fn endpoint(field: &Field<'_>) -> Option<(String, bool)> {
    let text = field.text()?;
    if let Some(path) = text.strip_prefix("ipc://") {
        return match path.starts_with('/') && path.len() <= LONGEST_PATH {
            true => Some((text.to_owned(), false)),
            false => {
                field.refuse(format_args!(
                    "has no absolute path of at most {LONGEST_PATH} bytes; write one, such as ipc:///run/waystation/records.ipc"
                ));
                None
            }
        };
    }
    let address = text
        .strip_prefix("tcp://")
        .and_then(|address| match address.strip_prefix("*:") {
            Some(port) => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port.parse().ok()?)),
            None => address.parse().ok(),
        });
    match address.filter(|address| address.port() != 0) {
        Some(address) => Some((format!("tcp://{address}"), !address.ip().is_loopback())),
        None => {
            field.refuse("is not an address to bind; write tcp://IP:PORT, tcp://*:PORT or ipc:///PATH");
            None
        }
    }
}

/// The outer `None` when something is wrong with the keys.
fn curve(name: &str, table: &Table<'_>, base: Base<'_>, warnings: &mut Vec<String>) -> Option<Option<Curve>> {
    let file = table.field("server_key_file");
    let (inline, listed) = (
        table.field("allowed_client_keys"),
        table.field("allowed_client_keys_file"),
    );
    let Some(file) = file else {
        if let Some(keys) = inline.as_ref().or(listed.as_ref()) {
            keys.mistake("server_key_file is missing; without the server's own key there is no CURVE");
            return None;
        }
        return Some(None);
    };
    if let (Some(inline), Some(_)) = (&inline, &listed) {
        inline.mistake("allowed_client_keys_file is there too; leave one of the two");
        return None;
    }
    let allowed = match (&inline, &listed) {
        (Some(field), _) => {
            let keys = field.strings().into_iter().map(|(text, key)| public_key(&key, text));
            AllowedClients::Keys(keys.collect::<Option<_>>()?)
        }
        (None, Some(field)) => AllowedClients::File(base.path(field)?),
        (None, None) => {
            warnings.push(format!(
                "destinations.{name}: any client that knows the server's public key may subscribe; allowed_client_keys \
                 would name those that may"
            ));
            AllowedClients::Everybody
        }
    };
    Some(Some(Curve {
        server_key: base.path(&file)?,
        allowed,
    }))
}

fn public_key(field: &Field<'_>, text: &str) -> Option<CurvePublicKey> {
    let key = CurvePublicKey::from_z85(text);
    if key.is_err() {
        field.mistake(format_args!(
            "{text:?} is not a public key; write the 40 characters of its Z85 form"
        ));
    }
    key.ok()
}
