//! Lists of vehicle certificates that their authorities have revoked.
//!
//! Invariant: a certificate that a list names is refused, and so is one below an authority that a list names, also when the
//! list is past its date: a list that nobody renewed locks out those that it names, and nobody else. A certificate is named by
//! its issuer's name and its number, whichever of the issuer's keys the list is signed with.

use std::path::{Path, PathBuf};

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor};
use webpki::{Cert, CertRevocationList, EndEntityCert, OwnedCertRevocationList, VerifiedPath};
use x509_parser::asn1_rs::Any;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::tls::{Findings, outside, read};
use crate::config::secret::pem_fault;

pub(super) const VEHICLE_CRL: &str = "listener.vehicle_crl";

/// The lists. webpki's own check looks at the first one alone that has an issuer's name, and refuses everybody if it is signed
/// with another key than the issuer's in that path: an authority that has changed its key would lock out its vehicles.
#[derive(Debug, Default)]
pub(super) struct Revoked(Vec<List>);

#[derive(Debug)]
struct List {
    /// Where it comes from, and whose it is.
    shown: String,
    issuer: String,
    list: CertRevocationList<'static>,
    der: CertificateRevocationListDer<'static>,
}

impl Revoked {
    /// Reads the lists in these files.
    pub(super) fn load(paths: &[PathBuf], findings: &mut Findings) -> Option<Self> {
        let lists: Vec<_> = paths.iter().map(|path| lists(path, findings)).collect();
        let lists: Vec<Vec<_>> = lists.into_iter().collect::<Option<_>>()?;
        Some(Self(lists.into_iter().flatten().collect()))
    }

    /// Whether a list names a certificate of this path.
    pub(super) fn names_any_of(&self, path: &VerifiedPath<'_>) -> bool {
        self.has(path.end_entity())
            || path
                .intermediate_certificates()
                .any(|certificate| self.has(certificate))
    }

    /// Whether a list names this certificate.
    pub(super) fn names(&self, certificate: &CertificateDer<'_>) -> bool {
        EndEntityCert::try_from(certificate).is_ok_and(|certificate| self.has(&certificate))
    }

    fn has(&self, certificate: &Cert<'_>) -> bool {
        self.0.iter().any(|List { list, .. }| {
            // What cannot be looked up counts as named.
            list.issuer() == certificate.issuer() && !matches!(list.find_serial(certificate.serial()), Ok(None))
        })
    }

    /// Says which lists none of these authorities can have signed, although one has the name.
    pub(super) fn look_at_signatures(
        &self,
        authorities: &[&TrustAnchor<'_>],
        algorithms: &WebPkiSupportedAlgorithms,
        findings: &mut Findings,
    ) {
        for list in &self.0 {
            let keys = authorities
                .iter()
                .filter(|authority| *authority.subject == *list.list.issuer());
            let mut keys = keys.map(|authority| &*authority.subject_public_key_info).peekable();
            if keys.peek().is_some() && !keys.any(|key| list.is_signed_with(key, algorithms)) {
                findings.warnings.push(format!(
                    "{}: the authority of that name in listener.vehicle_ca has not signed the list of {}; what it names is refused all \
                     the same; get it again, or add the authority that signed it",
                    list.shown, list.issuer
                ));
            }
        }
    }
}

impl List {
    /// Whether it is signed with this key: the content of a SubjectPublicKeyInfo (RFC 5280).
    fn is_signed_with(&self, key: &[u8], algorithms: &WebPkiSupportedAlgorithms) -> bool {
        let list = Part::first(&self.der).and_then(|list| parts(list.content));
        let (Some([signed, by, signature]), Some([kind, key])) = (list, parts(key)) else {
            return false;
        };
        algorithms.all.iter().any(|algorithm| {
            *algorithm.signature_alg_id() == *by.content
                && *algorithm.public_key_alg_id() == *kind.content
                && algorithm
                    .verify_signature(key.bits(), signed.whole, signature.bits())
                    .is_ok()
        })
    }
}

/// One value of a DER encoding.
#[derive(Clone, Copy)]
struct Part<'a> {
    whole: &'a [u8],
    content: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Part<'a> {
    fn first(der: &'a [u8]) -> Option<Self> {
        let (rest, value) = Any::from_der(der).ok()?;
        let whole = der.get(..der.len() - rest.len())?;
        Some(Self {
            whole,
            content: value.data,
            rest,
        })
    }

    /// The octets of a bit string, which begins with the number of bits that its last one lacks.
    fn bits(&self) -> &'a [u8] {
        self.content.get(1..).unwrap_or_default()
    }
}

/// So many values, one behind the other.
fn parts<const N: usize>(mut der: &[u8]) -> Option<[Part<'_>; N]> {
    let mut parts = [Part {
        whole: &[],
        content: &[],
        rest: &[],
    }; N];
    for part in &mut parts {
        *part = Part::first(der)?;
        der = part.rest;
    }
    Some(parts)
}

fn lists(path: &Path, findings: &mut Findings) -> Option<Vec<List>> {
    let shown = format!("{VEHICLE_CRL}: {}", path.display());
    let pem = findings.keep(read(VEHICLE_CRL, path))?;
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| {
        format!(
            "{shown} is not valid PEM: {}; the file is cut off or damaged, get it again",
            pem_fault(&error)
        )
    });
    let found = findings.keep(found)?;
    if found.is_empty() {
        findings.keep::<()>(Err(format!(
            "{shown} holds no list; it should have a \"-----BEGIN X509 CRL-----\"; `openssl crl -inform der` makes one of a list in DER"
        )));
        return None;
    }
    let lists = found.iter().map(|der| one(&shown, der, findings));
    lists.collect::<Vec<_>>().into_iter().collect()
}

fn one(shown: &str, der: &CertificateRevocationListDer<'_>, findings: &mut Findings) -> Option<List> {
    let list = OwnedCertRevocationList::from_der(der)
        .map_err(|error| format!("{shown}: a list in it cannot be used: {error:?}; have its authority issue it again"));
    let list = findings.keep(list)?;
    let issuer = match CertificateRevocationList::from_der(der) {
        Ok((_, parsed)) => {
            look_at(shown, &parsed, findings);
            parsed.issuer().to_string()
        }
        Err(_) => "an authority".to_owned(),
    };
    Some(List {
        shown: shown.to_owned(),
        issuer,
        list: CertRevocationList::Owned(list),
        der: der.to_vec().into(),
    })
}

fn look_at(shown: &str, list: &CertificateRevocationList<'_>, findings: &mut Findings) {
    let (issuer, until) = (list.issuer(), list.next_update());
    findings.good.push(format!(
        "{shown}: certificates of {issuer} that are revoked: {}",
        list.iter_revoked_certificates().count()
    ));
    if let Some(why) = until.and_then(|until| outside(list.last_update(), until)) {
        findings.warnings.push(format!(
            "{shown}: the list of {issuer} {why}; what it names stays refused, what was revoked since is not; get its successor"
        ));
    }
}
