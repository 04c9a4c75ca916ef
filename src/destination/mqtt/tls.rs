//! TLS towards a broker: the authorities that are trusted, and the certificate that is shown.
//!
//! Invariant: every file is read and checked when the destination is made, so that `check` and the start find what is
//! wrong, and not the first connection.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rumqttc::TlsConfiguration;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, ClientConfig, RootCertStore};

use crate::config::MqttTls;

pub(super) fn configuration(tls: &MqttTls) -> Result<TlsConfiguration, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = match &tls.ca {
        Some(path) => ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(authorities(path)?)
            .with_no_client_auth(),
        None => match TlsConfiguration::try_default_rustls() {
            Ok(TlsConfiguration::Rustls(config)) => Arc::unwrap_or_clone(config),
            Ok(_) => return Err("cannot use the system's certificate authorities; set ca".to_owned()),
            Err(error) => {
                return Err(format!(
                    "cannot use the system's certificate authorities: {error}; set ca"
                ));
            }
        },
    };
    if let Some((certificate, key)) = &tls.client {
        let chain = certificates("client_certificate", certificate)?;
        let private = read("client_key", key)?;
        let private = PrivateKeyDer::from_pem_slice(&private).map_err(|_| {
            format!(
                "client_key: {} holds no private key; it must have the key of client_certificate in PEM form, \
                 unencrypted",
                key.display()
            )
        })?;
        let certified = CertifiedKey::from_der(chain, private, &provider).map_err(|error| {
            format!(
                "client_key: {} is of no use with {}: {error}; the key must be that of the first certificate",
                key.display(),
                certificate.display()
            )
        })?;
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
    }
    Ok(TlsConfiguration::Rustls(Arc::new(config)))
}

/// An I/O error in words: what the broker says of this gateway's certificate comes as one.
pub(super) fn explain(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let advice = match inner {
        Some(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)) => {
            "; the broker wants a certificate: set client_certificate and client_key"
        }
        Some(rustls::Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate,
        )) => "; the broker does not trust client_certificate",
        _ => "",
    };
    format!("{error}{advice}")
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut authorities = RootCertStore::empty();
    for certificate in certificates("ca", path)? {
        authorities.add(certificate).map_err(|error| {
            format!(
                "ca: {} holds what cannot be an authority: {error}; it must have the broker's authority in PEM form",
                path.display()
            )
        })?;
    }
    Ok(authorities)
}

/// Never empty.
fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(key, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!(
            "{key}: {} holds no certificate; it must have {} in PEM form",
            path.display(),
            if key == "ca" {
                "the broker's authority"
            } else {
                "this gateway's certificate and its chain"
            }
        )),
    }
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| {
        format!(
            "{key}: cannot read {}: {error}; name a PEM file that the gateway may read",
            path.display()
        )
    })
}
