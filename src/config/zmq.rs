//! A `type = "zmq"` destination: where its socket is, and who may subscribe.
//!
//! Invariant: without CURVE nothing beyond this machine can subscribe, unless that is asked for in so many words.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use omq_tokio::{CurvePublicKey, CurveSecretKey};
use serde::Deserialize;

use super::checked::{Base, or};
use super::destinations::topic_namespace;
use super::reader::{Field, Table};
use super::{Curve, Zmq};

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
    let secret = base.path(&file).and_then(|path| secret_key(&file, &path));
    let allowed = match (&inline, &listed) {
        (Some(field), _) => {
            let keys = field
                .strings()
                .into_iter()
                .map(|(text, key)| public_key(&key, text))
                .collect();
            Some(keys)
        }
        (None, Some(field)) => Some(base.path(field).and_then(|path| public_keys(field, &path))),
        (None, None) => None,
    };
    if allowed.is_none() {
        warnings.push(format!(
            "destinations.{name}: any client that knows the server's public key may subscribe; allowed_client_keys \
             would name those that may"
        ));
    }
    Some(Some(Curve {
        secret: secret?,
        allowed: match allowed {
            Some(keys) => Some(keys?),
            None => None,
        },
    }))
}

/// The reference's key file.
#[derive(Deserialize)]
struct KeyPair {
    secret: String,
    public: String,
}

/// A Z85 key alone in the file, or the reference's `{"secret": …, "public": …}`. Never shown.
fn secret_key(field: &Field<'_>, path: &Path) -> Option<CurveSecretKey> {
    let text = read(field, path)?;
    let wrong = |what: &str| {
        field.mistake(format_args!(
            "{} {what}; write the secret key in Z85, 40 characters, or {{\"secret\": …, \"public\": …}}",
            path.display()
        ));
    };
    let (secret, public) = match text.trim_start().starts_with('{') {
        false => (text.trim().to_owned(), None),
        true => match serde_json::from_str::<KeyPair>(&text) {
            Ok(pair) => (pair.secret, Some(pair.public)),
            Err(error) => {
                wrong(&format!(
                    "is not such a file: line {}, column {}",
                    error.line(),
                    error.column()
                ));
                return None;
            }
        },
    };
    let Ok(secret) = CurveSecretKey::from_z85(&secret) else {
        wrong("holds no secret key");
        return None;
    };
    if public.is_some_and(|public| secret.derive_public().to_z85() != public) {
        wrong("holds a public key that is not the secret key's");
        return None;
    }
    Some(secret)
}

/// The reference's array of public keys.
fn public_keys(field: &Field<'_>, path: &Path) -> Option<Vec<CurvePublicKey>> {
    let text = read(field, path)?;
    match serde_json::from_str::<Vec<String>>(&text) {
        Ok(keys) => keys.iter().map(|key| public_key(field, key)).collect(),
        Err(error) => {
            field.mistake(format_args!(
                "{}: {error}; write a JSON array of public keys in Z85",
                path.display()
            ));
            None
        }
    }
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

fn read(field: &Field<'_>, path: &Path) -> Option<String> {
    std::fs::read_to_string(path)
        .map_err(|error| {
            field.mistake(format_args!(
                "cannot read {}: {error}; name a file that the gateway may read",
                path.display()
            ));
        })
        .ok()
}
