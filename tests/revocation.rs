//! Vehicle certificates that their authorities have revoked.
#![allow(clippy::unwrap_used)]

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/tls.rs"]
mod tls;

use std::fs;

use certificates::{Authority, Shown, authority, authority_params, vehicle};
use rcgen::{
    CertificateRevocationListParams, ExtendedKeyUsagePurpose, KeyIdMethod, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    RevokedCertParams, SerialNumber, date_time_ymd,
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
async fn a_list_says_nothing_of_another_authority_with_the_same_name() {
    let [old, new] = [authority("TeslaMotors"), authority("TeslaMotors")];
    let lists = [list(&old, &[7], 2090), list(&new, &[8], 2090)];
    for count in 0..=2 {
        let gateway = with_lists(&[&old, &new], &lists[..count]);
        for (authority, number, needs) in [(&old, 7, 1), (&old, 8, 3), (&new, 7, 3), (&new, 8, 2)] {
            let met = gateway.meets_vehicle(&numbered(authority, number)).await;
            assert_eq!(met.is_ok(), count < needs, "{count} lists, {number}: {met:?}");
        }
    }
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
