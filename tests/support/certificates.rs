//! Certificates of every kind, made when a test runs.
#![allow(dead_code)]

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, PKCS_ECDSA_P256_SHA256, SignatureAlgorithm, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// An authority and its certificate.
pub(crate) struct Authority {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: Certificate,
}

/// A chain, leaf first, and the leaf's key: what a vehicle shows.
pub(crate) struct Shown {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

pub(crate) fn name(parts: &[(DnType, &str)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (kind, value) in parts {
        name.push(kind.clone(), *value);
    }
    name
}

pub(crate) fn authority_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&[(DnType::CommonName, common_name), (DnType::OrganizationName, "Test")]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

pub(crate) fn authority(common_name: &str) -> Authority {
    authority_with(authority_params(common_name), &PKCS_ECDSA_P256_SHA256)
}

pub(crate) fn authority_with(params: CertificateParams, algorithm: &'static SignatureAlgorithm) -> Authority {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Authority {
        issuer: Issuer::new(params, key),
        certificate,
    }
}

impl Authority {
    /// An authority that this one has signed.
    pub(crate) fn authority(&self, params: CertificateParams, algorithm: &'static SignatureAlgorithm) -> Authority {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Authority {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// A leaf that this authority has signed.
    pub(crate) fn signs(&self, params: &CertificateParams, algorithm: &'static SignatureAlgorithm) -> Shown {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Shown {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        }
    }

    pub(crate) fn vehicle(&self) -> Shown {
        self.signs(
            &vehicle(&[ExtendedKeyUsagePurpose::ClientAuth]),
            &PKCS_ECDSA_P256_SHA256,
        )
    }
}

/// A vehicle's certificate, valid for years, with these extended key usages.
pub(crate) fn vehicle(usages: &[ExtendedKeyUsagePurpose]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&[(DnType::CommonName, "5YJ3E1EA7KF000001")]);
    params.extended_key_usages = usages.to_vec();
    params.not_before = date_time_ymd(2020, 1, 1);
    params
}

pub(crate) fn usage(oid: &str) -> ExtendedKeyUsagePurpose {
    ExtendedKeyUsagePurpose::Other(oid.split('.').map(|arc| arc.parse().unwrap()).collect())
}
