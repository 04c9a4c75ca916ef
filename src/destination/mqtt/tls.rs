//! TLS towards a broker: the authorities that are trusted, and the certificate that is shown.
//!
//! Invariant: every file is read and checked when the destination is made, so that `check` and the start find what is
//! wrong, and not the first connection.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rumqttc::TlsConfiguration;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, CertificateError, ClientConfig, OtherError, RootCertStore};

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

/// Why there is no TLS with a broker, in words.
pub(super) fn refused(error: &(dyn Error + 'static)) -> String {
    let advice = said_by_rustls(error).and_then(of_no_use);
    let advice = advice.unwrap_or("check the broker's certificate, its name, `ca` and `server_name`");
    format!("TLS: {error}; {advice}")
}

/// What is wrong with a broker's certificate whose names and authority may be right.
fn of_no_use(error: &rustls::Error) -> Option<&'static str> {
    let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(error))) = error else {
        return None;
    };
    match error.downcast_ref()? {
        webpki::Error::CaUsedAsEndEntity => Some(
            "the broker shows an authority's own certificate; let it sign one for the broker (not an authority, with the \
             broker's name as subjectAltName), have the broker show that, and leave the authority's in `ca`",
        ),
        webpki::Error::UnsupportedCertVersion => Some(
            "the broker's certificate is of X.509 version 1, which has no names; make one of version 3, with the \
             broker's name as subjectAltName (openssl x509 -req does with -extfile)",
        ),
        _ => None,
    }
}

/// What rustls said, in whatever it is wrapped.
fn said_by_rustls<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        // It is not its own source's.
        let within = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let within = within.and_then(|within| within.downcast_ref());
        if let Some(found) = within.or_else(|| error.downcast_ref()) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// An I/O error in words: what the broker says of this gateway's certificate comes as one.
pub(super) fn explain(error: &io::Error) -> String {
    let inner = said_by_rustls(error);
    if inner.and_then(of_no_use).is_some() {
        return refused(error);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_of_no_use_is_explained_however_the_error_is_wrapped() {
        for (fault, words) in [
            (webpki::Error::CaUsedAsEndEntity, "let it sign one for the broker"),
            (webpki::Error::UnsupportedCertVersion, "make one of version 3"),
        ] {
            let fault = CertificateError::Other(OtherError(Arc::new(fault)));
            let fault = rustls::Error::InvalidCertificate(fault);
            assert!(refused(&fault).contains(words), "{}", refused(&fault));
            let wrapped = io::Error::other(fault);
            assert!(explain(&wrapped).contains(words), "{}", explain(&wrapped));
            let outer = rumqttc::TlsError::Io(wrapped);
            assert!(refused(&outer).contains(words), "{}", refused(&outer));
        }
        let other = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        assert!(
            refused(&other).ends_with("`ca` and `server_name`"),
            "{}",
            refused(&other)
        );
    }
}
