//! Verification of vehicles' certificate chains, beside what rustls brings: it takes any extended key usage that allows
//! clients, holds authorities to their own validity, and sends no list of them.
//!
//! Invariant: no chain is accepted that ends at an authority outside its validity at the time of the handshake.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, ExtendedKeyPurpose, OtherError, SignatureScheme,
};
use webpki::{
    EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter, KeyUsage, RequiredEkuNotFoundContext,
    VerifiedPath,
};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate, X509Version};

use super::revocation::Revoked;
use crate::record::legible::legible;

/// Content octets of 1.3.6.1.5.5.7.3.2.
const CLIENT_AUTH: KeyPurposeId<'static> = KeyPurposeId::new(&[0x2b, 6, 1, 5, 5, 7, 3, 2]);
/// Content octets of 2.5.29.37.0.
const ANY_USAGE: KeyPurposeId<'static> = KeyPurposeId::new(&[0x55, 0x1d, 0x25, 0]);

/// A vehicle sends one or two. webpki looks for a path through all that it is sent, in every order: a few hundred keep a
/// processor busy for seconds, and whoever sends them need not be a vehicle.
const MOST_INTERMEDIATES: usize = 6;
/// What is told of the usages in a certificate, which may be as many and as long as there is room for in a handshake.
const MOST_USAGES: usize = 4;
const LONGEST_USAGE: usize = 16;

/// An authority that vehicles' chains may end at: a root or an intermediate.
#[derive(Debug)]
pub(super) struct Anchor {
    anchor: TrustAnchor<'static>,
    subject: String,
    not_before: ASN1Time,
    not_after: ASN1Time,
}

/// A certificate of a bundle that no chain may end at.
pub(super) struct UnusableAnchor {
    /// Its subject, if that much can be read.
    pub(super) subject: Option<String>,
    /// What is wrong with it.
    pub(super) reason: String,
}

impl Anchor {
    pub(super) fn new(der: &CertificateDer<'_>) -> Result<Self, UnusableAnchor> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| UnusableAnchor {
            subject: None,
            reason: format!("it cannot be read: {error}"),
        })?;
        let subject = certificate.subject().to_string();
        let unusable = |reason: String| UnusableAnchor {
            subject: Some(subject.clone()),
            reason,
        };
        // A certificate of version 1 cannot say whether it is an authority; being in the bundle has to be enough.
        if certificate.version() != X509Version::V1 && !certificate.is_ca() {
            return Err(unusable(
                "it is not an authority's (no CA:TRUE in its basic constraints)".to_owned(),
            ));
        }
        let usages = certificate
            .extended_key_usage()
            .map_err(|error| unusable(error.to_string()))?;
        if usages.is_some_and(|usages| !usages.value.any && !usages.value.client_auth) {
            return Err(unusable(
                "its extended key usage does not allow client certificates".to_owned(),
            ));
        }
        let anchor = webpki::anchor_from_trusted_cert(der)
            .map_err(|error| unusable(format!("{error:?}")))?
            .to_owned();
        let validity = certificate.validity();
        let (not_before, not_after) = (validity.not_before, validity.not_after);
        Ok(Self {
            anchor,
            subject,
            not_before,
            not_after,
        })
    }

    pub(super) fn subject(&self) -> &str {
        &self.subject
    }

    pub(super) fn anchor(&self) -> &TrustAnchor<'static> {
        &self.anchor
    }

    /// First and last moment.
    pub(super) fn validity(&self) -> (ASN1Time, ASN1Time) {
        (self.not_before, self.not_after)
    }
}

/// Verifies vehicles' certificates; see the module for how it differs from rustls' own verifier.
#[derive(Debug)]
pub(super) struct VehicleVerifier {
    anchors: Vec<TrustAnchor<'static>>,
    /// When each of `anchors` is valid, by the same index.
    validities: Vec<(UnixTime, UnixTime)>,
    revoked: Revoked,
    algorithms: WebPkiSupportedAlgorithms,
}

impl VehicleVerifier {
    pub(super) fn new(anchors: Vec<Anchor>, revoked: Revoked, algorithms: WebPkiSupportedAlgorithms) -> Self {
        let (anchors, validities) = anchors
            .into_iter()
            .map(|anchor| (anchor.anchor, (unix(anchor.not_before), unix(anchor.not_after))))
            .unzip();
        Self {
            anchors,
            validities,
            revoked,
            algorithms,
        }
    }

    /// Whether a path may end where it does. An authority that was renewed with its old key is in the bundle twice, and
    /// one valid certificate of it is enough.
    fn check_anchor(&self, path: &VerifiedPath<'_>, now: UnixTime) -> Result<(), webpki::Error> {
        let mut error = webpki::Error::UnknownIssuer;
        for (anchor, (not_before, not_after)) in self.anchors.iter().zip(&self.validities) {
            if anchor != path.anchor() {
                continue;
            }
            error = match () {
                () if now < *not_before => webpki::Error::CertNotValidYet {
                    time: now,
                    not_before: *not_before,
                },
                () if now > *not_after => webpki::Error::CertExpired {
                    time: now,
                    not_after: *not_after,
                },
                () => return Ok(()),
            };
        }
        Err(error)
    }
}

fn unix(time: ASN1Time) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0)))
}

impl ClientCertVerifier for VehicleVerifier {
    fn client_auth_mandatory(&self) -> bool {
        // `/status` and the public key are served to clients without one; the upgrade is not.
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A long list of foreign authorities is known to make vehicles send no certificate.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let refusal = |error| {
            name_certificate(end_entity, &error);
            refusal(error)
        };
        if intermediates.len() > MOST_INTERMEDIATES {
            return Err(refusal(webpki::Error::MaximumPathDepthExceeded));
        }
        let leaf = EndEntityCert::try_from(end_entity).map_err(refusal)?;
        // Where this says no another path is looked for.
        let check = |path: &VerifiedPath<'_>| {
            self.check_anchor(path, now)?;
            match self.revoked.names_any_of(path) {
                true => Err(webpki::Error::CertRevoked),
                false => Ok(()),
            }
        };
        leaf.verify_for_usage(
            self.algorithms.all,
            &self.anchors,
            intermediates,
            now,
            ClientUsage,
            None,
            Some(&check),
        )
        .map_err(refusal)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// clientAuth, anyExtendedKeyUsage, or no extended key usage at all. Asked for the leaf and for every intermediate.
struct ClientUsage;

impl ExtendedKeyUsageValidator for ClientUsage {
    fn validate(&self, usages: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let mut present = Vec::new();
        for usage in usages {
            let usage = usage?;
            if usage == CLIENT_AUTH || usage == ANY_USAGE {
                return Ok(());
            }
            if present.len() < MOST_USAGES {
                let mut number = usage.to_decoded_oid();
                number.truncate(LONGEST_USAGE);
                present.push(number);
            }
        }
        if present.is_empty() {
            return Ok(());
        }
        let required = KeyUsage::client_auth();
        Err(webpki::Error::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext {
            required,
            present,
        }))
    }
}

/// Whose certificate was refused, and what to do: rustls says neither.
fn name_certificate(leaf: &CertificateDer<'_>, error: &webpki::Error) {
    let advice = match error {
        webpki::Error::UnknownIssuer => "if it is a vehicle's, add its authority to listener.vehicle_ca",
        webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => {
            "renew it, and check the clock of this machine"
        }
        webpki::Error::InvalidSignatureForPublicKey => {
            "listener.vehicle_ca has another authority of that name; if it is a vehicle's, add the one that signed it"
        }
        webpki::Error::CertRevoked => "its authority has revoked it (listener.vehicle_crl)",
        webpki::Error::RequiredEkuNotFoundContext(_) => "it is not made for clients (extended key usage clientAuth)",
        webpki::Error::MaximumPathDepthExceeded => "it comes with more certificates than a vehicle sends",
        _ => "it cannot be used",
    };
    let reason = legible(error);
    match X509Certificate::from_der(leaf) {
        Ok((_, certificate)) => {
            let (subject, issuer) = (legible(certificate.subject()), legible(certificate.issuer()));
            tracing::info!(%subject, %issuer, reason, "a client certificate was refused; {advice}");
        }
        Err(_) => tracing::info!(reason, "a client certificate was refused: it is not X.509"),
    }
}

/// What rustls logs and answers with, for what webpki found.
fn refusal(error: webpki::Error) -> rustls::Error {
    use webpki::Error as E;
    let reason = match error {
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        E::CertNotValidYet { time, not_before } => CertificateError::NotValidYetContext { time, not_before },
        E::InvalidCertValidity => CertificateError::Expired,
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::CertRevoked => CertificateError::Revoked,
        E::UnsupportedCriticalExtension => CertificateError::UnhandledCriticalExtension,
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        E::UnsupportedSignatureAlgorithmContext(context) => CertificateError::UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id: context.signature_algorithm_id,
            supported_algorithms: context.supported_algorithms,
        },
        E::UnsupportedSignatureAlgorithmForPublicKeyContext(context) => {
            CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
                signature_algorithm_id: context.signature_algorithm_id,
                public_key_algorithm_id: context.public_key_algorithm_id,
            }
        }
        E::RequiredEkuNotFoundContext(context) => CertificateError::InvalidPurposeContext {
            required: ExtendedKeyPurpose::ClientAuth,
            presented: context.present.into_iter().map(ExtendedKeyPurpose::Other).collect(),
        },
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    rustls::Error::InvalidCertificate(reason)
}
