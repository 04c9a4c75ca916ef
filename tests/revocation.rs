//! Vehicle certificates that their authorities have revoked.
#![allow(clippy::unwrap_used)]

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/tls.rs"]
mod tls;

use std::fs;

use certificates::{Authority, Shown, authority, authority_params, vehicle};
use rcgen::{
    CertificateRevocationListParams, ExtendedKeyUsagePurpose, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::CertificateError;
use tls::Gateway;

/// A vehicle of an authority, with a serial number.
fn numbered(authority: &Authority, number: u64) -> Shown {
    let mut params = vehicle(&[ExtendedKeyUsagePurpose::ClientAuth]);
    params.serial_number = Some(SerialNumber::from(number));
    authority.signs(&params, &PKCS_ECDSA_P256_SHA256)
}

/// A list of these numbers, whose successor is due in that year.
fn list(authority: &Authority, numbers: &[u64], due: i32) -> String {
    let revoked = |number: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*number),
        revocation_time: date_time_ymd(2021, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2022, 1, 1),
        next_update: date_time_ymd(due, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: numbers.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&authority.issuer).unwrap().pem().unwrap()
}

fn with_lists(authorities: &[&Authority], lists: &[String]) -> Gateway {
    let mut gateway = Gateway::trusting(authorities);
    for (at, list) in lists.iter().enumerate() {
        let path = gateway.dir.path().join(format!("revoked-{at}.pem"));
        fs::write(&path, list).unwrap();
        gateway.config.vehicle_crl.push(path);
    }
    gateway
}

#[tokio::test]
async fn a_revoked_vehicle_is_refused_and_its_neighbours_are_not() {
    let [ours, other] = [authority("TeslaMotors"), authority("Other")];
    let gateway = with_lists(&[&ours, &other], &[list(&ours, &[7, 9], 2090)]);
    assert_eq!(
        gateway.meets_vehicle(&numbered(&ours, 7)).await,
        Err(CertificateError::Revoked)
    );
    assert!(gateway.meets_vehicle(&numbered(&ours, 8)).await.is_ok());
    assert!(
        gateway.meets_vehicle(&numbered(&other, 7)).await.is_ok(),
        "another authority's number, of which there is no list"
    );
}

#[tokio::test]
async fn every_list_of_an_authority_counts() {
    let ours = authority("TeslaMotors");
    let lists = [list(&ours, &[7], 2023), list(&ours, &[7, 8], 2090)];
    let one_file = [lists.concat()];
    for lists in [&lists[..], &one_file] {
        let gateway = with_lists(&[&ours], lists);
        for (number, is_in) in [(7, false), (8, false), (9, true)] {
            let met = gateway.meets_vehicle(&numbered(&ours, number)).await;
            assert_eq!(met.is_ok(), is_in, "{number}: {met:?}");
        }
    }
}

#[tokio::test]
async fn a_list_counts_for_certificates_under_every_key_of_its_authority_and_locks_out_nobody_else() {
    let [old, new] = [authority("TeslaMotors"), authority("TeslaMotors")];
    let gateway = with_lists(&[&old, &new], &[list(&new, &[7], 2090)]);
    for (authority, number, is_in) in [(&old, 7, false), (&old, 8, true), (&new, 7, false), (&new, 8, true)] {
        let met = gateway.meets_vehicle(&numbered(authority, number)).await;
        assert_eq!(met.is_ok(), is_in, "{number}: {met:?}");
    }
    assert_eq!(gateway.warnings(), [""; 0]);
    let warnings = with_lists(&[&old], &[list(&new, &[7], 2090)]).warnings();
    let expected = "listener.vehicle_crl: revoked-0.pem: the authority of that name in listener.vehicle_ca has not signed the list of \
        CN=TeslaMotors, O=Test; what it names is refused all the same; get it again, or add the authority that signed it";
    assert_eq!(warnings, [expected]);
}

#[tokio::test]
async fn what_is_below_a_revoked_authority_is_refused() {
    let root = authority("Root");
    let mut params = authority_params("TeslaMotors");
    params.serial_number = Some(SerialNumber::from(5_u64));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let below = root.authority(params, &PKCS_ECDSA_P256_SHA256);
    let mut shown = numbered(&below, 1);
    shown.chain.push(below.certificate.der().clone());
    assert!(with_lists(&[&root], &[]).meets_vehicle(&shown).await.is_ok());
    let gateway = with_lists(&[&root], &[list(&root, &[5], 2090)]);
    assert_eq!(gateway.meets_vehicle(&shown).await, Err(CertificateError::Revoked));
}

/// An authority below another, with a serial number and, where there is one, the key that it had.
fn below(root: &Authority, name: &str, number: u64, key: Option<&Authority>) -> Authority {
    let mut params = authority_params(name);
    params.serial_number = Some(SerialNumber::from(number));
    let key = match key {
        Some(old) => KeyPair::try_from(old.issuer.key().serialize_der()).unwrap(),
        None => KeyPair::generate().unwrap(),
    };
    let certificate = params.signed_by(&key, &root.issuer).unwrap();
    Authority {
        issuer: Issuer::new(params, key),
        certificate,
    }
}

/// What a vehicle sends beside its own certificate is for it to choose.
fn sends(vehicle: &Shown, above: &[&Authority]) -> Shown {
    let above = above.iter().map(|authority| authority.certificate.der().clone());
    Shown {
        chain: [vehicle.chain[0].clone()].into_iter().chain(above).collect(),
        key: vehicle.key.clone_key(),
    }
}

#[tokio::test]
async fn a_revoked_vehicle_does_not_get_in_by_another_way_to_the_root() {
    let root = authority("Root");
    let old = below(&root, "TeslaMotors", 1, None);
    let new = below(&root, "TeslaMotors", 2, None);
    // The old key under the new one, as a change of keys has it.
    let cross = below(&new, "TeslaMotors", 3, Some(&old));
    let vehicle = numbered(&old, 7);
    let ways = [
        &[&old][..],
        &[&cross, &new],
        &[&cross, &new, &old],
        &[&new, &cross, &old],
    ];
    for (list, is_in) in [
        (list(&old, &[7], 2090), false),
        (list(&new, &[7], 2090), false),
        (list(&old, &[8], 2090), true),
    ] {
        let gateway = with_lists(&[&root], &[list]);
        for way in ways {
            let met = gateway.meets_vehicle(&sends(&vehicle, way)).await;
            assert_eq!(met.is_ok(), is_in, "{} sent: {met:?}", way.len());
        }
    }
}

#[tokio::test]
async fn a_vehicle_with_a_way_over_no_revoked_authority_is_let_in() {
    let root = authority("Root");
    let old = below(&root, "TeslaMotors", 5, None);
    let renewed = below(&root, "TeslaMotors", 6, Some(&old));
    let vehicle = numbered(&old, 7);
    let gateway = with_lists(&[&root], &[list(&root, &[5], 2090)]);
    for (way, is_in) in [
        (&[&old][..], false),
        (&[&old, &renewed], true),
        (&[&renewed, &old], true),
    ] {
        let met = gateway.meets_vehicle(&sends(&vehicle, way)).await;
        assert_eq!(met.is_ok(), is_in, "{} sent: {met:?}", way.len());
    }
}

#[test]
fn an_authority_of_the_bundle_that_a_list_names_is_told() {
    let root = authority("Root");
    let named = below(&root, "TeslaMotors", 5, None);
    let warnings = with_lists(&[&named], &[list(&root, &[5], 2090)]).warnings();
    let expected = "listener.vehicle_ca: vehicle-ca.pem: the authority CN=TeslaMotors, O=Test is named in a list of \
        listener.vehicle_crl, and as long as it is here its vehicles are let in; take it out";
    assert_eq!(warnings, [expected]);
}

#[tokio::test]
async fn an_old_list_locks_out_whom_it_names_and_nobody_else() {
    let ours = authority("TeslaMotors");
    let gateway = with_lists(&[&ours], &[list(&ours, &[7], 2023)]);
    assert_eq!(
        gateway.meets_vehicle(&numbered(&ours, 7)).await,
        Err(CertificateError::Revoked)
    );
    assert!(gateway.meets_vehicle(&numbered(&ours, 8)).await.is_ok());
    assert_eq!(
        gateway.warnings(),
        [
            "listener.vehicle_crl: revoked-0.pem: the list of CN=TeslaMotors, O=Test expired on 2023-01-01 (valid from 2022-01-01); \
             what it names stays refused, what was revoked since is not; get its successor"
        ]
    );
}

#[test]
fn a_list_that_cannot_be_read_is_named_and_nothing_is_loaded() {
    let ours = authority("TeslaMotors");
    let cases = [
        (
            "",
            "revoked-0.pem holds no list; it should have a \"-----BEGIN X509 CRL-----\"",
        ),
        (
            "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
            "revoked-0.pem: a list in it cannot be used: ",
        ),
        ("-----BEGIN X509 CRL-----\nAA", "revoked-0.pem is not valid PEM: "),
    ];
    for (text, said) in cases {
        let refused = with_lists(&[&ours], &[text.to_owned()]).refused();
        assert!(
            refused.starts_with(&format!("listener.vehicle_crl: {said}")),
            "{refused}"
        );
    }
}
