//! Lists of vehicle certificates that their authorities have revoked.
//!
//! Invariant: a certificate that a list names is refused, and so is one below an authority that a list names, also when the
//! list is past its date: a list that nobody renewed locks out those that it names, and nobody else.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor};
use webpki::{
    Cert, CertRevocationList, Error, OwnedCertRevocationList, RevocationCheckDepth, RevocationOptions,
    RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::tls::{Findings, outside, read};

const VEHICLE_CRL: &str = "listener.vehicle_crl";

/// The lists, as webpki takes them.
#[derive(Debug, Default)]
pub(super) struct Revoked(Vec<CertRevocationList<'static>>);

impl Revoked {
    /// Reads the lists in these files.
    pub(super) fn load(paths: &[PathBuf], findings: &mut Findings) -> Option<Self> {
        let lists: Vec<_> = paths.iter().map(|path| lists(path, findings)).collect();
        let lists: Vec<Vec<_>> = lists.into_iter().collect::<Option<_>>()?;
        Some(Self(lists.into_iter().flatten().collect()))
    }

    /// Whether one of the lists names a certificate of this path. `verify` goes the same path again, from the vehicle's
    /// certificate over these to this authority, with the lists that it is given.
    ///
    /// All lists are looked at, and each by itself: webpki takes the first one that has an issuer's name, and finds everybody
    /// guilty when another authority of that name has signed it.
    pub(super) fn names(
        &self,
        path: &VerifiedPath<'_>,
        verify: impl Fn(&[TrustAnchor<'_>], &[CertificateDer<'_>], RevocationOptions<'_>) -> Result<(), Error>,
    ) -> bool {
        let anchor = std::slice::from_ref(path.anchor());
        let above: Vec<_> = path.intermediate_certificates().map(Cert::der).collect();
        let certificates = || std::iter::once::<&Cert<'_>>(path.end_entity()).chain(path.intermediate_certificates());
        self.0.iter().any(|list| {
            let named = certificates().any(|certificate| {
                list.issuer() == certificate.issuer() && !matches!(list.find_serial(certificate.serial()), Ok(None))
            });
            named && condemns(list, |options| verify(anchor, &above, options))
        })
    }
}

/// Whether a list that has the name and the number is the authority's own: signed with its key.
fn condemns(list: &CertRevocationList<'static>, verify: impl Fn(RevocationOptions<'_>) -> Result<(), Error>) -> bool {
    let lists = [list];
    let Ok(options) = RevocationOptionsBuilder::new(&lists) else {
        return false;
    };
    let options = options
        .with_depth(RevocationCheckDepth::Chain)
        // There need not be a list for every authority.
        .with_status_policy(UnknownStatusPolicy::Allow);
    !matches!(
        verify(options.build()),
        Ok(())
            | Err(
                Error::InvalidCrlSignatureForPublicKey | Error::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_)
            )
    )
}

fn lists(path: &Path, findings: &mut Findings) -> Option<Vec<CertRevocationList<'static>>> {
    let shown = format!("{VEHICLE_CRL}: {}", path.display());
    let pem = findings.keep(read(VEHICLE_CRL, path))?;
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    let found = found
        .map_err(|error| format!("{shown} is not valid PEM: {error}; the file is cut off or damaged, get it again"));
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

fn one(
    shown: &str,
    der: &CertificateRevocationListDer<'_>,
    findings: &mut Findings,
) -> Option<CertRevocationList<'static>> {
    let list = OwnedCertRevocationList::from_der(der)
        .map_err(|error| format!("{shown}: a list in it cannot be used: {error:?}; have its authority issue it again"));
    let list = findings.keep(list)?;
    if let Ok((_, parsed)) = CertificateRevocationList::from_der(der) {
        let issuer = parsed.issuer();
        let until = parsed.next_update();
        findings.good.push(format!(
            "{shown}: certificates of {issuer} that are revoked: {}",
            parsed.iter_revoked_certificates().count()
        ));
        if let Some(why) = until.and_then(|until| outside(parsed.last_update(), until)) {
            findings.warnings.push(format!(
                "{shown}: the list of {issuer} {why}; what it names stays refused, what was revoked since is not; get its successor"
            ));
        }
    }
    Some(CertRevocationList::Owned(list))
}
