//! CURVE keys from their files: Z85, alone or as the reference's JSON.
//!
//! A secret key is never shown.

use std::path::Path;

use omq_tokio::{CurveKeypair, CurvePublicKey, CurveSecretKey};
use serde::Deserialize;

use crate::config::{AllowedClients, Curve};

/// The server's keys, and the clients that may subscribe, if not everybody may. The error names the key of the
/// configuration.
pub(super) fn load(curve: &Curve) -> Result<(CurveKeypair, Option<Vec<CurvePublicKey>>), String> {
    let secret = secret_key(&curve.server_key).map_err(|error| format!("server_key_file: {error}"))?;
    let allowed = match &curve.allowed {
        AllowedClients::Everybody => None,
        AllowedClients::Keys(keys) => Some(keys.clone()),
        AllowedClients::File(path) => {
            Some(public_keys(path).map_err(|error| format!("allowed_client_keys_file: {error}"))?)
        }
    };
    let keys = CurveKeypair {
        public: secret.derive_public(),
        secret,
    };
    Ok((keys, allowed))
}

/// The reference's key file.
#[derive(Deserialize)]
struct KeyPair {
    secret: String,
    public: String,
}

/// Characters of a key.
const Z85: usize = 40;

fn secret_key(path: &Path) -> Result<CurveSecretKey, String> {
    let text = read(path)?;
    let wrong = |what: &str| {
        format!(
            "{} {what}; write the secret key in Z85, 40 characters, or {{\"secret\": …, \"public\": …}}",
            path.display()
        )
    };
    // A brace is one of the characters of Z85 too.
    let is_pair = text.trim_start().starts_with('{') && text.trim().len() != Z85;
    let (secret, public) = match is_pair {
        false => (text.trim().to_owned(), None),
        true => {
            let pair: KeyPair = serde_json::from_str(&text).map_err(|error| {
                wrong(&format!(
                    "is no such file: line {}, column {}",
                    error.line(),
                    error.column()
                ))
            })?;
            (pair.secret, Some(pair.public))
        }
    };
    let secret = CurveSecretKey::from_z85(&secret).map_err(|_| wrong("holds no secret key"))?;
    match public.is_none_or(|public| secret.derive_public().to_z85() == public) {
        true => Ok(secret),
        false => Err(wrong("holds a public key that is not the secret key's")),
    }
}

/// The reference's array of public keys.
fn public_keys(path: &Path) -> Result<Vec<CurvePublicKey>, String> {
    let keys: Vec<String> = serde_json::from_str(&read(path)?)
        .map_err(|error| format!("{}: {error}; write a JSON array of public keys in Z85", path.display()))?;
    let key = |text: &String| {
        CurvePublicKey::from_z85(text).map_err(|_| {
            format!(
                "{}: {text:?} is not a public key; write the 40 characters of its Z85 form",
                path.display()
            )
        })
    };
    keys.iter().map(key).collect()
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| {
        format!(
            "cannot read {}: {error}; name a file that the gateway may read",
            path.display()
        )
    })
}
