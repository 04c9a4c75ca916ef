//! Who gets through the TLS handshake: real ones, over loopback, with certificates of every kind.
#![allow(clippy::unwrap_used)]

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/tls.rs"]
mod tls;

use std::fs;
use std::sync::{Arc, Mutex};

use certificates::{Shown, authority, authority_params, authority_with, usage, vehicle};
use rcgen::{
    ExtendedKeyUsagePurpose as Usage, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512,
    PKCS_RSA_SHA256, PKCS_RSA_SHA512, date_time_ymd,
};
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, RootCertStore, SignatureScheme};
use tls::{BOTH_VERSIONS, Gateway, openssl};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use waystation::cli::pki::Pki;
use waystation::cli::vehicle_tls::client_config;
use waystation::record::identity::{IssuerTable, identify};

#[tokio::test]
async fn every_kind_of_key_and_signature_that_vehicles_have_is_accepted() {
    for authority_algorithm in [
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_ECDSA_P521_SHA512,
        &PKCS_RSA_SHA512,
    ] {
        let authority = authority_with(authority_params("TeslaMotors"), authority_algorithm);
        let gateway = Gateway::trusting(&[&authority]);
        for algorithm in [
            &PKCS_ECDSA_P256_SHA256,
            &PKCS_ECDSA_P384_SHA384,
            &PKCS_ECDSA_P521_SHA512,
            &PKCS_RSA_SHA256,
        ] {
            let shown = authority.signs(&vehicle(&[Usage::ClientAuth]), algorithm);
            let met = gateway.meets_vehicle(&shown).await;
            let chain = met.unwrap_or_else(|error| panic!("{authority_algorithm:?} signed {algorithm:?}: {error:?}"));
            assert_eq!(chain, shown.chain);
            let identity = identify(&chain[0], &IssuerTable::default()).unwrap();
            assert_eq!(&*identity.sender_id, "vehicle_device.5YJ3E1EA7KF000001");
        }
    }
}

#[tokio::test]
async fn more_certificates_than_a_vehicle_sends_are_refused_unread() {
    let root = authority("Root");
    let below = root.authority(authority_params("TeslaMotors"), &PKCS_ECDSA_P256_SHA256);
    let gateway = Gateway::trusting(&[&root]);
    let mut shown = below.vehicle();
    shown.chain.push(below.certificate.der().clone());
    for number in 0..5 {
        shown
            .chain
            .push(authority(&number.to_string()).certificate.der().clone());
    }
    assert!(gateway.meets_vehicle(&shown).await.is_ok(), "six beside its own");
    shown.chain.push(authority("5").certificate.der().clone());
    match gateway.meets_vehicle(&shown).await {
        Err(CertificateError::Other(error)) => assert!(error.to_string().contains("MaximumPathDepth"), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn p256_keys_that_sign_with_sha512_are_accepted_as_openssl_makes_them() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    openssl(
        dir.path(),
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-521 -nodes -sha512 -days 9 -subj /CN=Root -keyout root.key -out root.pem",
    );
    openssl(
        dir.path(),
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=TeslaMotors -keyout ca.key -out ca.csr",
    );
    fs::write(
        at("ca.ext"),
        "basicConstraints=critical,CA:TRUE\nextendedKeyUsage=anyExtendedKeyUsage\n",
    )
    .unwrap();
    openssl(
        dir.path(),
        "x509 -req -in ca.csr -CA root.pem -CAkey root.key -set_serial 2 -sha512 -days 9 -extfile ca.ext -out ca.pem",
    );
    openssl(
        dir.path(),
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=VIN1 -keyout leaf.key -out leaf.csr",
    );
    fs::write(at("leaf.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
    openssl(
        dir.path(),
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -set_serial 3 -sha512 -days 9 -extfile leaf.ext -out leaf.pem",
    );
    let certificate = |name: &str| CertificateDer::from_pem_file(at(name)).unwrap();
    let shown = Shown {
        chain: vec![certificate("leaf.pem"), certificate("ca.pem")],
        key: PrivateKeyDer::from_pem_file(at("leaf.key")).unwrap(),
    };
    let leaf_only = Shown {
        chain: vec![certificate("leaf.pem")],
        key: shown.key.clone_key(),
    };
    let root = Gateway::new(&fs::read_to_string(at("root.pem")).unwrap());
    assert_eq!(root.meets_vehicle(&shown).await, Ok(shown.chain.clone()));
    assert_eq!(
        root.meets_vehicle(&leaf_only).await,
        Err(CertificateError::UnknownIssuer)
    );
    // An intermediate in the bundle is an authority of its own.
    let intermediate = Gateway::new(&fs::read_to_string(at("ca.pem")).unwrap());
    assert_eq!(
        intermediate.meets_vehicle(&leaf_only).await,
        Ok(leaf_only.chain.clone())
    );
}

#[tokio::test]
async fn client_any_and_absent_extended_key_usages_are_accepted() {
    let authority = authority("TeslaMotors");
    let gateway = Gateway::trusting(&[&authority]);
    let tesla = || usage("1.3.6.1.4.1.49279.2.5.1");
    let accepted = [
        vec![],
        vec![Usage::ClientAuth],
        vec![Usage::Any],
        vec![tesla(), Usage::ServerAuth, Usage::ClientAuth],
        vec![tesla(), Usage::Any],
    ];
    for usages in accepted {
        let shown = authority.signs(&vehicle(&usages), &PKCS_ECDSA_P256_SHA256);
        assert_eq!(
            gateway.meets_vehicle(&shown).await,
            Ok(shown.chain.clone()),
            "{usages:?}"
        );
    }
}

#[tokio::test]
async fn any_other_extended_key_usage_is_refused() {
    let authority = authority("TeslaMotors");
    let gateway = Gateway::trusting(&[&authority]);
    for usages in [
        vec![Usage::ServerAuth],
        vec![usage("1.3.6.1.4.1.49279.2.5.1")],
        vec![Usage::CodeSigning, Usage::ServerAuth],
    ] {
        let shown = authority.signs(&vehicle(&usages), &PKCS_ECDSA_P256_SHA256);
        let refused = gateway.meets_vehicle(&shown).await;
        assert!(
            matches!(refused, Err(CertificateError::InvalidPurposeContext { .. })),
            "{usages:?}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn an_intermediates_extended_key_usage_counts_too() {
    let root = authority("Root");
    let gateway = Gateway::trusting(&[&root]);
    for (usages, accepted) in [
        (vec![], true),
        (vec![Usage::Any], true),
        (vec![Usage::ClientAuth], true),
        (vec![Usage::ServerAuth], false),
    ] {
        let mut params = authority_params("TeslaMotors");
        params.extended_key_usages = usages.clone();
        let intermediate = root.authority(params, &PKCS_ECDSA_P256_SHA256);
        let mut shown = intermediate.vehicle();
        shown.chain.push(intermediate.certificate.der().clone());
        assert_eq!(gateway.meets_vehicle(&shown).await.is_ok(), accepted, "{usages:?}");
    }
}

#[tokio::test]
async fn certificates_outside_their_validity_are_refused() {
    let authority = authority("TeslaMotors");
    let gateway = Gateway::trusting(&[&authority]);
    let mut expired = vehicle(&[]);
    expired.not_after = date_time_ymd(2021, 1, 1);
    let refused = gateway
        .meets_vehicle(&authority.signs(&expired, &PKCS_ECDSA_P256_SHA256))
        .await;
    assert!(
        matches!(refused, Err(CertificateError::ExpiredContext { .. })),
        "{refused:?}"
    );
    let mut early = vehicle(&[]);
    early.not_before = date_time_ymd(2090, 1, 1);
    let refused = gateway
        .meets_vehicle(&authority.signs(&early, &PKCS_ECDSA_P256_SHA256))
        .await;
    assert!(
        matches!(refused, Err(CertificateError::NotValidYetContext { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn strangers_are_refused() {
    let ours = authority("TeslaMotors");
    let gateway = Gateway::trusting(&[&ours]);
    // Of an authority that calls itself the same, of one with another name, and of nobody.
    let refused = gateway.meets_vehicle(&authority("TeslaMotors").vehicle()).await;
    assert_eq!(refused, Err(CertificateError::BadSignature));
    assert_eq!(
        gateway.meets_vehicle(&authority("Other").vehicle()).await,
        Err(CertificateError::UnknownIssuer)
    );
    let key = KeyPair::generate().unwrap();
    let own = vehicle(&[Usage::ClientAuth]).self_signed(&key).unwrap();
    let shown = Shown {
        chain: vec![own.der().clone()],
        key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
    };
    assert_eq!(
        gateway.meets_vehicle(&shown).await,
        Err(CertificateError::UnknownIssuer)
    );
    // A vehicle's certificate that another vehicle claims to have been signed by.
    let leaf = ours.vehicle();
    let params = vehicle(&[]);
    let signer = rcgen::Issuer::new(params, KeyPair::try_from(leaf.key.secret_der()).unwrap());
    let key = KeyPair::generate().unwrap();
    let below = vehicle(&[]).signed_by(&key, &signer).unwrap();
    let chain = vec![below.der().clone(), leaf.chain[0].clone()];
    let shown = Shown {
        chain,
        key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
    };
    assert!(gateway.meets_vehicle(&shown).await.is_err());
}

#[tokio::test]
async fn without_a_certificate_the_handshake_succeeds_and_names_nobody() {
    let gateway = Gateway::trusting(&[&authority("TeslaMotors")]);
    let mut roots = RootCertStore::empty();
    roots.add(gateway.ca.clone()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    assert_eq!(gateway.meets(Arc::new(client)).await, Ok(None));
}

#[tokio::test]
async fn a_simulated_vehicle_of_the_throwaway_pki_gets_through_with_its_identity() {
    let pki = Pki::new(&[]).unwrap();
    let gateway = Gateway::new(pki.vehicle_ca_pem());
    let (certificate, key) = pki.vehicle("5YJ3E1EA7KF000042").unwrap();
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let met = gateway
        .meets(client_config(std::slice::from_ref(&gateway.ca), chain, key).unwrap())
        .await;
    let identity = identify(&met.unwrap().unwrap()[0], &IssuerTable::default()).unwrap();
    assert_eq!(&*identity.sender_id, "vehicle_device.5YJ3E1EA7KF000042");
    assert_eq!(gateway.warnings(), Vec::<String>::new());
}

/// Notes which authorities the server says it accepts.
#[derive(Debug, Default)]
struct Hints(Mutex<Option<usize>>);

impl ResolvesClientCert for Hints {
    fn resolve(&self, hints: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        *self.0.lock().unwrap() = Some(hints.len());
        None
    }
    fn has_certs(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn the_certificate_request_carries_no_list_of_authorities() {
    let gateway = Gateway::trusting(&[&authority("TeslaMotors"), &authority("Tesla Issuing CA")]);
    for version in BOTH_VERSIONS {
        let mut roots = RootCertStore::empty();
        roots.add(gateway.ca.clone()).unwrap();
        let hints = Arc::new(Hints::default());
        let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_cert_resolver(hints.clone());
        assert_eq!(gateway.meets(Arc::new(client)).await, Ok(None));
        assert_eq!(*hints.0.lock().unwrap(), Some(0), "{:?}", version.version);
    }
}

#[tokio::test]
async fn an_expired_authority_authenticates_nobody_and_is_named() {
    let mut params = authority_params("Tesla Issuing CA");
    params.not_after = date_time_ymd(2025, 5, 6);
    let expired = authority_with(params, &PKCS_ECDSA_P256_SHA256);
    let good = authority("TeslaMotors");
    let gateway = Gateway::trusting(&[&expired, &good]);
    let warning =
        "listener.vehicle_ca: vehicle-ca.pem: the authority CN=Tesla Issuing CA, O=Test expired on 2025-05-06";
    let warnings = gateway.warnings();
    assert!(warnings.len() == 1 && warnings[0].starts_with(warning), "{warnings:?}");
    let refused = gateway.meets_vehicle(&expired.vehicle()).await;
    assert!(
        matches!(refused, Err(CertificateError::ExpiredContext { .. })),
        "{refused:?}"
    );
    // Nor if the vehicle brings it along, nor through an intermediate that is still valid.
    let mut shown = expired.vehicle();
    shown.chain.push(expired.certificate.der().clone());
    assert!(gateway.meets_vehicle(&shown).await.is_err());
    let intermediate = expired.authority(authority_params("Middle"), &PKCS_ECDSA_P256_SHA256);
    let mut shown = intermediate.vehicle();
    shown.chain.push(intermediate.certificate.der().clone());
    assert!(gateway.meets_vehicle(&shown).await.is_err());
    let shown = good.vehicle();
    assert_eq!(gateway.meets_vehicle(&shown).await, Ok(shown.chain.clone()));
}

#[tokio::test]
async fn an_authority_that_was_renewed_with_its_key_stays_trusted() {
    let mut params = authority_params("TeslaMotors");
    params.not_after = date_time_ymd(2025, 5, 6);
    let old = authority_with(params, &PKCS_ECDSA_P256_SHA256);
    let renewed = authority_params("TeslaMotors")
        .self_signed(old.issuer.key())
        .unwrap()
        .pem();
    for bundle in [
        format!("{}{renewed}", old.certificate.pem()),
        format!("{renewed}{}", old.certificate.pem()),
    ] {
        let gateway = Gateway::new(&bundle);
        let shown = old.vehicle();
        assert_eq!(gateway.meets_vehicle(&shown).await, Ok(shown.chain.clone()));
    }
}

#[tokio::test]
async fn an_authority_that_is_not_valid_yet_authenticates_nobody_and_is_named() {
    let mut params = authority_params("TeslaMotors");
    params.not_before = date_time_ymd(2090, 1, 1);
    let early = authority_with(params, &PKCS_ECDSA_P256_SHA256);
    let gateway = Gateway::trusting(&[&early]);
    assert!(gateway.warnings()[0].contains("CN=TeslaMotors, O=Test is not valid before 2090-01-01"));
    let refused = gateway.meets_vehicle(&early.vehicle()).await;
    assert!(
        matches!(refused, Err(CertificateError::NotValidYetContext { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn sessions_are_not_resumed_around_the_certificate_check() {
    let authority = authority("TeslaMotors");
    let gateway = Gateway::trusting(&[&authority]);
    let server = gateway.load().unwrap().server;
    for version in BOTH_VERSIONS {
        let mut roots = RootCertStore::empty();
        roots.add(gateway.ca.clone()).unwrap();
        let shown = authority.vehicle();
        let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(shown.chain, shown.key)
            .unwrap();
        let client = Arc::new(client);
        for _ in 0..2 {
            let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let stream = TcpStream::connect(socket.local_addr().unwrap()).await.unwrap();
            let connector = TlsConnector::from(client.clone());
            let connect = connector.connect(ServerName::try_from("localhost").unwrap(), stream);
            let accept = async {
                TlsAcceptor::from(server.clone())
                    .accept(socket.accept().await.unwrap().0)
                    .await
            };
            let (_, accepted) = tokio::join!(connect, accept);
            assert_eq!(
                accepted.unwrap().get_ref().1.handshake_kind(),
                Some(rustls::HandshakeKind::Full)
            );
        }
    }
}

#[tokio::test]
async fn an_authority_of_version_1_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    openssl(
        dir.path(),
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=TeslaMotors -keyout ca.key -out ca.csr",
    );
    openssl(dir.path(), "x509 -req -in ca.csr -key ca.key -days 9 -out ca.pem");
    openssl(
        dir.path(),
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=VIN1 -keyout leaf.key -out leaf.csr",
    );
    fs::write(at("leaf.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
    openssl(
        dir.path(),
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -set_serial 3 -days 9 -extfile leaf.ext -out leaf.pem",
    );
    let gateway = Gateway::new(&fs::read_to_string(at("ca.pem")).unwrap());
    assert_eq!(gateway.warnings(), Vec::<String>::new());
    let shown = Shown {
        chain: vec![CertificateDer::from_pem_file(at("leaf.pem")).unwrap()],
        key: PrivateKeyDer::from_pem_file(at("leaf.key")).unwrap(),
    };
    assert_eq!(gateway.meets_vehicle(&shown).await, Ok(shown.chain.clone()));
}
