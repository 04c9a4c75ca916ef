//! The TLS that vehicles meet: the gateway's own certificate, and who signs theirs. All files of `[listener]` are read
//! here, and everything that is wrong with them is told at once.
//!
//! Invariants: a client that sends no certificate completes the handshake without an identity; one that sends a
//! certificate completes it only if that chains, at that moment, to an authority of the bundles that is itself valid.
//! Sessions are never resumed, because a resumed one would be let in without looking at its certificate again.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{InconsistentKeys, ServerConfig};
use thiserror::Error;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::revocation::{Revoked, VEHICLE_CRL};
use super::verifier::{Anchor, UnusableAnchor, VehicleVerifier};
use crate::config;
use crate::config::secret::pem_fault;

const CERTIFICATE: &str = "listener.certificate";
const PRIVATE_KEY: &str = "listener.private_key";
const VEHICLE_CA: &str = "listener.vehicle_ca";
const PUBLIC_KEY: &str = "listener.public_key";

/// The server's TLS, ready to accept with. What is said about the files names their configuration keys.
#[derive(Clone)]
pub struct Loaded {
    /// What `tokio_rustls::TlsAcceptor` takes.
    pub server: Arc<ServerConfig>,
    /// The content of `listener.public_key`.
    pub public_key: Option<Bytes>,
    /// What is in order, one sentence each.
    pub good: Vec<String>,
    /// What works but should be looked at, one sentence each: an expired authority, a certificate without its chain.
    pub warnings: Vec<String>,
    /// What means that no vehicle will connect now: a certificate, or all authorities, outside their validity. It
    /// keeps nothing from starting, because the clock may be what is wrong.
    pub outdated: Vec<String>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("warnings", &self.warnings)
            .field("outdated", &self.outdated)
            .finish_non_exhaustive()
    }
}

/// Why the listener's TLS cannot be set up.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The files: one line for each thing that is wrong. Never empty.
    #[error("{}", .0.join("\n"))]
    Files(Vec<String>),
    /// The TLS library refuses the configuration.
    #[error("cannot set up TLS: {0}")]
    Library(#[from] rustls::Error),
}

#[derive(Default)]
pub(super) struct Findings {
    pub(super) good: Vec<String>,
    pub(super) warnings: Vec<String>,
    outdated: Vec<String>,
    faults: Vec<String>,
}

impl Findings {
    /// Notes a fault, so that reading can go on with the next file.
    pub(super) fn keep<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|fault| self.faults.push(fault)).ok()
    }
}

/// Reads certificate, key, vehicle authorities and public key from the files that the configuration names.
pub fn load(config: &config::Listener) -> Result<Loaded, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut findings = Findings::default();
    let key = server_key(config, &provider, &mut findings);
    let verifier = vehicle_verifier(config, &provider, &mut findings);
    let public_key = config.public_key.as_deref().map(|path| public_key(path, &mut findings));
    let (Some(key), Some(verifier), [], public_key) = (key, verifier, &*findings.faults, public_key.flatten()) else {
        return Err(TlsError::Files([findings.faults, findings.outdated].concat()));
    };
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)));
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(Loaded {
        server: Arc::new(server),
        public_key,
        good: findings.good,
        warnings: findings.warnings,
        outdated: findings.outdated,
    })
}

fn server_key(config: &config::Listener, provider: &CryptoProvider, findings: &mut Findings) -> Option<CertifiedKey> {
    let path = config.certificate.display();
    let chain = certificates(CERTIFICATE, &config.certificate, findings);
    let chain = findings.keep(chain);
    let chain = chain.filter(|chain| {
        let looked_at = look_at_chain(&config.certificate, chain, findings);
        findings.keep(looked_at).is_some()
    });
    let key = findings.keep(private_key(&config.private_key, provider));
    let certified = CertifiedKey::new(chain?, key?);
    let key_path = config.private_key.display();
    let fits = match certified.keys_match() {
        Ok(()) => {
            let good = format!("{PRIVATE_KEY}: {key_path} is the key of the certificate in {path}");
            findings.good.push(good);
            Ok(())
        }
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => Err(format!(
            "{PRIVATE_KEY}: the private key in {key_path} does not belong to the first certificate in {path}; name a \
             matching pair, the server's own certificate first and its chain after it"
        )),
        Err(error) => Err(unusable_certificate(&config.certificate, error)),
    };
    findings.keep(fits).map(|()| certified)
}

fn private_key(path: &Path, provider: &CryptoProvider) -> Result<Arc<dyn SigningKey>, String> {
    let pem = read(PRIVATE_KEY, path)?;
    let bad = |reason: &dyn fmt::Display| {
        format!(
            "{PRIVATE_KEY}: {} holds no usable private key: {reason}",
            path.display()
        )
    };
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        _ if pem.windows(9).any(|word| word == b"ENCRYPTED") => {
            bad(&"it is encrypted, and nobody is there to be asked for its passphrase; decrypt it with openssl pkey")
        }
        rustls::pki_types::pem::Error::NoItemsFound => {
            bad(&"there is none in it; a PKCS#8, SEC1 or PKCS#1 key in PEM form is needed")
        }
        error => bad(&pem_fault(&error)),
    })?;
    provider.key_provider.load_private_key(key).map_err(|error| bad(&error))
}

fn unusable_certificate(path: &Path, reason: impl fmt::Display) -> String {
    format!(
        "{CERTIFICATE}: the certificates in {} cannot be used: {reason}; have them issued again",
        path.display()
    )
}

/// What vehicles may object to in the server's certificate and chain.
fn look_at_chain(path: &Path, chain: &[CertificateDer<'_>], findings: &mut Findings) -> Result<(), String> {
    let chain: Vec<X509Certificate<'_>> = chain
        .iter()
        .map(|der| X509Certificate::from_der(der).map(|(_, certificate)| certificate))
        .collect::<Result<_, _>>()
        .map_err(|error| unusable_certificate(path, error))?;
    let shown = format!("{CERTIFICATE}: {}", path.display());
    let outdated: Vec<String> = chain
        .iter()
        .filter_map(|certificate| {
            let validity = certificate.validity();
            let why = outside(validity.not_before, validity.not_after)?;
            let subject = certificate.subject();
            Some(format!(
                "{shown}: the certificate of {subject} {why}; no vehicle will connect; renew it, or set this machine's clock"
            ))
        })
        .collect();
    if let ([leaf, ..], true) = (chain.as_slice(), outdated.is_empty()) {
        let validity = leaf.validity();
        let (from, to) = (date(validity.not_before), date(validity.not_after));
        findings.good.push(format!("{shown} is valid from {from} to {to}"));
    }
    findings.outdated.extend(outdated);
    if let [leaf] = chain.as_slice()
        && leaf.issuer().as_raw() != leaf.subject().as_raw()
    {
        findings.warnings.push(format!(
            "{shown}: holds only the server's certificate; unless {} is a root that vehicles know, add the certificates \
             of its chain",
            leaf.issuer()
        ));
    }
    for pair in chain.windows(2) {
        if pair[0].issuer().as_raw() != pair[1].subject().as_raw() {
            findings.warnings.push(format!(
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
    config: &config::Listener,
    provider: &CryptoProvider,
    findings: &mut Findings,
) -> Option<VehicleVerifier> {
    let paths = &config.vehicle_ca;
    let revoked = Revoked::load(&config.vehicle_crl, findings);
    let mut anchors = Vec::new();
    let mut unusable = Vec::new();
    let mut outside_validity = 0;
    let mut readable = true;
    for path in paths {
        let certificates = certificates(VEHICLE_CA, path, findings);
        let Some(certificates) = findings.keep(certificates) else {
            readable = false;
            continue;
        };
        for (index, der) in certificates.iter().enumerate() {
            let shown = path.display();
            match Anchor::new(der) {
                Ok(anchor) => {
                    let (not_before, not_after) = anchor.validity();
                    if let Some(why) = outside(not_before, not_after) {
                        outside_validity += 1;
                        findings.warnings.push(format!(
                            "{VEHICLE_CA}: {shown}: the authority {} {why}; no vehicle can be verified by it; add its successor if vehicles need it",
                            anchor.subject()
                        ));
                    }
                    if revoked.as_ref().is_some_and(|revoked| revoked.names(der)) {
                        findings.warnings.push(format!(
                            "{VEHICLE_CA}: {shown}: the authority {} is named in a list of {VEHICLE_CRL}, and as long as it is here its \
                             vehicles are let in; take it out",
                            anchor.subject()
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
    let files: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    let (files, usable) = (files.join(", "), anchors.len() - outside_validity);
    match anchors.len() {
        0 if readable => findings.faults.push(format!(
            "{VEHICLE_CA}: no certificate in {files} can verify vehicles; name the PEM file of the authorities that sign \
             theirs: {}",
            unusable.join("; ")
        )),
        0 => {}
        _ if usable == 0 => findings.outdated.push(format!(
            "{VEHICLE_CA}: no authority in {files} is valid now, so that no vehicle can connect; put the current \
             authorities there, or set this machine's clock"
        )),
        _ => findings
            .good
            .push(format!("{VEHICLE_CA}: authorities that can verify vehicles: {usable}, in {files}")),
    }
    let unusable = unusable.iter().map(|reason| format!("{VEHICLE_CA}: {reason}"));
    findings.warnings.extend(unusable);
    let (revoked, algorithms) = (revoked?, provider.signature_verification_algorithms);
    let authorities: Vec<_> = anchors.iter().map(Anchor::anchor).collect();
    revoked.look_at_signatures(&authorities, &algorithms, findings);
    (!anchors.is_empty()).then(|| VehicleVerifier::new(anchors, revoked, algorithms))
}

fn public_key(path: &Path, findings: &mut Findings) -> Option<Bytes> {
    let pem = findings.keep(read(PUBLIC_KEY, path))?;
    let shown = format!("{PUBLIC_KEY}: {}", path.display());
    const BEGIN: &[u8] = b"-----BEGIN PUBLIC KEY-----";
    let found = pem.windows(BEGIN.len()).any(|word| word == BEGIN);
    match found {
        true => findings.good.push(format!("{shown} is a public key")),
        false => findings.faults.push(format!(
            "{shown} holds no \"-----BEGIN PUBLIC KEY-----\"; `openssl ec -in private.pem -pubout` writes one"
        )),
    }
    found.then(|| pem.into())
}

fn certificates(key: &str, path: &Path, findings: &mut Findings) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = format!("{key}: {}", path.display());
    let content = read(key, path)?;
    let certificates = CertificateDer::pem_slice_iter(&content)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| {
            format!(
                "{shown} is not valid PEM: {}; the file is cut off or damaged, get it again",
                pem_fault(&error)
            )
        })?;
    if certificates.is_empty() {
        // A DER certificate is a sequence, and begins so.
        let advice = match content.first() {
            Some(0x30) => "; `openssl x509 -inform der` makes one of this file",
            _ => "",
        };
        return Err(format!(
            "{shown} holds no certificate; it should have a \"-----BEGIN CERTIFICATE-----\"{advice}"
        ));
    }
    let text = String::from_utf8_lossy(&content);
    let labels = text
        .split("-----BEGIN ")
        .skip(1)
        .filter_map(|rest| rest.split("-----").next());
    let begun = labels.filter(|label| label.ends_with("CERTIFICATE")).count();
    if begun > certificates.len() {
        findings.warnings.push(format!(
            "{shown}: {} of its {begun} certificates are read, the rest are passed over; have each \"-----BEGIN \
             CERTIFICATE-----\" at the beginning of a line, with nothing else in it",
            certificates.len()
        ));
    }
    Ok(certificates)
}

pub(super) fn read(key: &str, path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::NotFound => "put the file there, or name the one that there is",
            ErrorKind::PermissionDenied => "let the user that waystation runs as read it and enter its directories",
            _ => "name a PEM file",
        };
        format!("{key}: cannot read {}: {error}; {advice}", path.display())
    })
}

/// Why something with this validity is not valid now, if it is not.
pub(super) fn outside(not_before: ASN1Time, not_after: ASN1Time) -> Option<String> {
    let now = now();
    let (from, to) = (date(not_before), date(not_after));
    if now > not_after.timestamp() {
        Some(format!("expired on {to} (valid from {from})"))
    } else if now < not_before.timestamp() {
        Some(format!("is not valid before {from} (until {to})"))
    } else {
        None
    }
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
