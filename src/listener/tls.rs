//! The TLS that vehicles meet: the gateway's own certificate, and who signs theirs.
//!
//! Invariants: a client that sends no certificate completes the handshake without an identity; one that sends a
//! certificate completes it only if that chains, at that moment, to an authority of the bundles that is itself valid.
//! Sessions are never resumed, because a resumed one would be let in without looking at its certificate again.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use thiserror::Error;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::verifier::{Anchor, UnusableAnchor, VehicleVerifier};
use crate::config;

/// The server's TLS, ready to accept with.
#[derive(Clone)]
pub struct Loaded {
    /// What `tokio_rustls::TlsAcceptor` takes.
    pub server: Arc<ServerConfig>,
    /// What works but should be looked at, one sentence each: an expired authority, a certificate without its chain.
    pub warnings: Vec<String>,
    /// Those of the warnings that mean that no vehicle will connect: the server's certificate is not valid now.
    pub outdated: Vec<String>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

/// Why the listener's TLS cannot be set up.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is damaged.
    #[error("{} is not valid PEM: {reason}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file holds no certificate.
    #[error("{} holds no certificate; it should have a \"-----BEGIN CERTIFICATE-----\"", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The server certificate cannot be used.
    #[error("the first certificate in {} cannot be used: {reason}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file holds no private key that can be used.
    #[error("{} holds no usable private key: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The private key is another certificate's.
    #[error(
        "the private key in {} does not belong to the first certificate in {}; name a matching pair, the server's own \
         certificate first and its chain after it",
        key.display(), certificate.display()
    )]
    KeyMismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// No authority is left to verify vehicles with.
    #[error("no certificate in {files} can verify vehicles: {reasons}")]
    NoAuthority {
        /// The files.
        files: String,
        /// What is wrong with each certificate.
        reasons: String,
    },
    /// The TLS library refuses the configuration.
    #[error("cannot set up TLS: {0}")]
    Library(#[from] rustls::Error),
}

/// Reads certificate, key and vehicle authorities from the files that the configuration names.
pub fn load(config: &config::Listener) -> Result<Loaded, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut warnings = Vec::new();
    let mut outdated = Vec::new();
    let key = server_key(config, &provider, &mut outdated, &mut warnings)?;
    let verifier = vehicle_verifier(&config.vehicle_ca, &provider, &mut warnings)?;
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)));
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(Loaded {
        server: Arc::new(server),
        warnings: [outdated.clone(), warnings].concat(),
        outdated,
    })
}

fn server_key(
    config: &config::Listener,
    provider: &CryptoProvider,
    outdated: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<CertifiedKey, TlsError> {
    let path = &config.certificate;
    let chain = certificates(path)?;
    let key_path = &config.private_key;
    let pem = read(key_path)?;
    let bad_key = |reason: String| TlsError::Key {
        path: key_path.clone(),
        reason,
    };
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound if pem.windows(9).any(|word| word == b"ENCRYPTED") => bad_key(
            "it is encrypted, and nobody is there to be asked for its passphrase; decrypt it with openssl pkey"
                .to_owned(),
        ),
        rustls::pki_types::pem::Error::NoItemsFound => {
            bad_key("there is none in it; a PKCS#8, SEC1 or PKCS#1 key in PEM form is needed".to_owned())
        }
        error => bad_key(error.to_string()),
    })?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| bad_key(error.to_string()))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            return Err(TlsError::KeyMismatch {
                certificate: path.clone(),
                key: key_path.clone(),
            });
        }
        Err(error) => {
            return Err(TlsError::Certificate {
                path: path.clone(),
                reason: error.to_string(),
            });
        }
    }
    look_at_chain(path, &certified.cert, outdated, warnings)?;
    Ok(certified)
}

/// What vehicles may object to in the server's certificate and chain.
fn look_at_chain(
    path: &Path,
    chain: &[CertificateDer<'_>],
    outdated: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<(), TlsError> {
    let bad = |reason: String| TlsError::Certificate {
        path: path.to_owned(),
        reason,
    };
    let chain: Vec<X509Certificate<'_>> = chain
        .iter()
        .map(|der| X509Certificate::from_der(der).map(|(_, certificate)| certificate))
        .collect::<Result<_, _>>()
        .map_err(|error| bad(error.to_string()))?;
    let shown = path.display();
    let now = now();
    for certificate in &chain {
        let (subject, validity) = (certificate.subject(), certificate.validity());
        if now > validity.not_after.timestamp() {
            outdated.push(format!(
                "{shown}: the certificate of {subject} expired on {}; vehicles will not connect",
                date(validity.not_after)
            ));
        } else if now < validity.not_before.timestamp() {
            outdated.push(format!(
                "{shown}: the certificate of {subject} is not valid before {}; vehicles will not connect, or this \
                 machine's clock is wrong",
                date(validity.not_before)
            ));
        }
    }
    if let [leaf] = chain.as_slice()
        && leaf.issuer().as_raw() != leaf.subject().as_raw()
    {
        warnings.push(format!(
            "{shown}: holds only the server's certificate; unless {} is a root that vehicles know, add the certificates \
             of its chain",
            leaf.issuer()
        ));
    }
    for pair in chain.windows(2) {
        if pair[0].issuer().as_raw() != pair[1].subject().as_raw() {
            warnings.push(format!(
                "{shown}: the certificate of {} is followed by that of {}, and should be by that of its issuer {}",
                pair[0].subject(),
                pair[1].subject(),
                pair[0].issuer()
            ));
        }
    }
    Ok(())
}

fn vehicle_verifier(
    paths: &[PathBuf],
    provider: &CryptoProvider,
    warnings: &mut Vec<String>,
) -> Result<VehicleVerifier, TlsError> {
    let now = now();
    let mut anchors = Vec::new();
    let mut unusable = Vec::new();
    for path in paths {
        for (index, der) in certificates(path)?.iter().enumerate() {
            let shown = path.display();
            match Anchor::new(der) {
                Ok(anchor) => {
                    let (not_before, not_after) = anchor.validity();
                    if now > not_after.timestamp() {
                        warnings.push(format!(
                            "{shown}: the authority {} expired on {}; no vehicle can be verified by it",
                            anchor.subject(),
                            date(not_after)
                        ));
                    } else if now < not_before.timestamp() {
                        warnings.push(format!(
                            "{shown}: the authority {} is not valid before {}; until then no vehicle can be verified by it",
                            anchor.subject(),
                            date(not_before)
                        ));
                    }
                    anchors.push(anchor);
                }
                Err(UnusableAnchor { subject, reason }) => {
                    let subject = subject.unwrap_or_else(|| format!("number {}", index + 1));
                    unusable.push(format!("{shown}: the certificate {subject} is not used: {reason}"));
                }
            }
        }
    }
    if anchors.is_empty() {
        let files: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(TlsError::NoAuthority {
            files: files.join(", "),
            reasons: unusable.join("; "),
        });
    }
    warnings.append(&mut unusable);
    Ok(VehicleVerifier::new(
        anchors,
        provider.signature_verification_algorithms,
    ))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::Pem {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned() });
    }
    Ok(certificates)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Seconds since the epoch; a clock from before it has every certificate not valid yet.
fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

fn date(time: ASN1Time) -> String {
    time.to_datetime().date().to_string()
}
