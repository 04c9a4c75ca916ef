//! The files that the listener's TLS is made of: what is accepted, what is refused, and what is worth a warning.
#![allow(clippy::unwrap_used)]

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/tls.rs"]
mod tls;

use std::path::{Path, PathBuf};
use std::{env, fs};

use certificates::{authority, authority_params, authority_with, vehicle};
use rcgen::{
    ExtendedKeyUsagePurpose as Usage, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P521_SHA512, PKCS_RSA_SHA256,
    PKCS_RSA_SHA512, date_time_ymd,
};
use tls::{Gateway, openssl};
use waystation::cli::pki::Pki;
use waystation::config::Listener;
use waystation::listener::tls::load;

#[test]
fn the_authorities_of_real_vehicles_load_and_the_expired_one_is_named() {
    let data = env::var_os("WAYSTATION_VEHICLE_CA_DIR")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data")).filter(|dir| dir.is_dir()));
    let (gateway, expired) = match data {
        Some(dir) => {
            let mut gateway = Gateway::new("");
            gateway.config.vehicle_ca = vec![
                dir.join("vehicle-ca-production.pem"),
                dir.join("vehicle-ca-engineering.pem"),
            ];
            (
                gateway,
                "CN=Tesla Issuing CA, O=Tesla Motors, L=Palo Alto, ST=California, C=US expired on 2025-05-06",
            )
        }
        None => {
            eprintln!("not run with the real authorities: WAYSTATION_VEHICLE_CA_DIR names a folder with their files");
            // Without the real ones: the same kinds of key, and one that has expired.
            let mut params = authority_params("Tesla Issuing CA");
            params.not_after = date_time_ymd(2025, 5, 6);
            let expired = authority_with(params, &PKCS_RSA_SHA256);
            let root = authority_with(authority_params("Root"), &PKCS_ECDSA_P521_SHA512);
            let issuing = root.authority(authority_params("Issuing"), &PKCS_ECDSA_P256_SHA256);
            let rsa = authority_with(authority_params("RSA Root"), &PKCS_RSA_SHA512);
            (
                Gateway::trusting(&[&expired, &root, &issuing, &rsa]),
                "CN=Tesla Issuing CA, O=Test expired on 2025-05-06",
            )
        }
    };
    let warnings = gateway.warnings();
    // Others expire later.
    assert!(warnings.iter().any(|warning| warning.contains(expired)), "{warnings:?}");
}

#[test]
fn a_certificate_that_is_passed_over_is_a_warning() {
    let [one, two] = ["TeslaMotors", "Tesla"].map(|name| authority(name).certificate.pem().trim_end().to_owned());
    let trusted = two.replace("CERTIFICATE", "TRUSTED CERTIFICATE");
    for bundle in [
        format!("{one}{two}\n{one}\n"),
        format!("\u{feff}{one}\n{two}\n"),
        format!("{one}\n{trusted}\n"),
    ] {
        let warnings = Gateway::new(&bundle).warnings();
        assert!(
            warnings
                .iter()
                .any(|warning| warning.contains(" certificates are read, the rest are passed over")),
            "{warnings:?}: {bundle}"
        );
    }
    assert_eq!(Gateway::new(&format!("{one}\n{two}\n")).warnings(), [""; 0]);
}

#[test]
fn certificates_that_cannot_be_authorities_are_named_and_left_out() {
    let good = authority("TeslaMotors");
    let leaf = vehicle(&[]).self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    let mut params = authority_params("Servers Only");
    params.extended_key_usages = vec![Usage::ServerAuth];
    let servers = authority_with(params, &PKCS_ECDSA_P256_SHA256).certificate.pem();
    let garbage = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n";
    let bundle = format!("# ours\r\n{leaf}{servers}{garbage}{}", good.certificate.pem());
    let warnings = Gateway::new(&bundle).warnings();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert_eq!(
        warnings[0],
        "listener.vehicle_ca: vehicle-ca.pem: the certificate CN=5YJ3E1EA7KF000001 is not used: it is not an authority's (no CA:TRUE in its basic constraints)"
    );
    assert_eq!(
        warnings[1],
        "listener.vehicle_ca: vehicle-ca.pem: the certificate CN=Servers Only, O=Test is not used: its extended key usage does not allow client certificates"
    );
    assert!(
        warnings[2].starts_with(
            "listener.vehicle_ca: vehicle-ca.pem: the certificate number 3 is not used: it cannot be read"
        ),
        "{warnings:?}"
    );
    let refused = Gateway::new(&leaf).refused();
    assert!(
        refused.starts_with("listener.vehicle_ca: no certificate in vehicle-ca.pem can verify vehicles; ")
            && refused.contains(": vehicle-ca.pem: the certificate CN=5YJ3E1EA7KF000001 is not used: it is not"),
        "{refused}"
    );
}

#[test]
fn private_keys_load_in_each_of_their_forms() {
    let gateway = Gateway::trusting(&[&authority("TeslaMotors")]);
    let dir = gateway.dir.path();
    openssl(
        dir,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -subj /CN=gateway -keyout ec.key -out ec.pem",
    );
    openssl(dir, "ec -in ec.key -out sec1.key");
    openssl(
        dir,
        "req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=gateway -keyout rsa.key -out rsa.pem",
    );
    openssl(dir, "rsa -in rsa.key -traditional -out pkcs1.key");
    for (certificate, key, form) in [
        ("ec.pem", "ec.key", "-----BEGIN PRIVATE KEY"),
        ("ec.pem", "sec1.key", "-----BEGIN EC PRIVATE KEY"),
        ("rsa.pem", "rsa.key", "-----BEGIN PRIVATE KEY"),
        ("rsa.pem", "pkcs1.key", "-----BEGIN RSA PRIVATE KEY"),
    ] {
        assert!(fs::read_to_string(dir.join(key)).unwrap().contains(form), "{key}");
        let mut config = gateway.config.clone();
        (config.certificate, config.private_key) = (dir.join(certificate), dir.join(key));
        let loaded = load(&config).unwrap_or_else(|error| panic!("{key}: {error}"));
        assert_eq!(loaded.warnings, Vec::<String>::new());
    }
}

#[test]
fn files_that_cannot_be_used_are_named_with_what_is_wrong() {
    let mut gateway = Gateway::trusting(&[&authority("TeslaMotors")]);
    let dir = gateway.dir.path().to_owned();
    let good = gateway.config.clone();
    let other = Pki::new(&[]).unwrap();
    fs::write(dir.join("other.key"), &other.server().unwrap().key).unwrap();
    fs::write(dir.join("empty"), "nothing\n").unwrap();
    fs::write(dir.join("cut.pem"), "-----BEGIN CERTIFICATE-----\nMAMC\n").unwrap();
    openssl(
        &dir,
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes256 -pass pass:x -out locked.key",
    );

    gateway.config.private_key = dir.join("other.key");
    assert_eq!(
        gateway.refused(),
        "listener.private_key: the private key in other.key does not belong to the first certificate in server.pem; name a matching pair, the server's own certificate first and its chain after it"
    );
    gateway.config.private_key = dir.join("none.key");
    assert_eq!(
        gateway.refused(),
        "listener.private_key: cannot read none.key: No such file or directory (os error 2); put the file there, or name the one that there is"
    );
    gateway.config.private_key = dir.join("empty");
    assert_eq!(
        gateway.refused(),
        "listener.private_key: empty holds no usable private key: there is none in it; a PKCS#8, SEC1 or PKCS#1 key in PEM form is needed"
    );
    // As it comes out of an environment variable.
    let key = fs::read_to_string(dir.join("server.key")).unwrap();
    let (no_end, cut_off) = (
        "a \"-----BEGIN …-----\" has no END, or what is between them is not in lines of its own",
        "a \"-----BEGIN …-----\" in it is cut off",
    );
    for (name, key, why) in [
        ("line.key", key.replace('\n', ""), no_end),
        ("words.key", key.replace('\n', " "), no_end),
        ("escaped.key", key.replace('\n', "\\n"), cut_off),
        ("cut.key", key[..key.len() / 2].to_owned(), no_end),
    ] {
        fs::write(dir.join(name), &key).unwrap();
        gateway.config.private_key = dir.join(name);
        assert_eq!(
            gateway.refused(),
            format!("listener.private_key: {name} holds no usable private key: {why}")
        );
    }
    gateway.config.private_key = dir.join("locked.key");
    assert_eq!(
        gateway.refused(),
        "listener.private_key: locked.key holds no usable private key: it is encrypted, and nobody is there to be asked for its passphrase; decrypt it with openssl pkey"
    );

    gateway.config = Listener {
        certificate: dir.join("empty"),
        ..good.clone()
    };
    assert_eq!(
        gateway.refused(),
        "listener.certificate: empty holds no certificate; it should have a \"-----BEGIN CERTIFICATE-----\""
    );
    gateway.config = Listener {
        certificate: dir.join("cut.pem"),
        ..good.clone()
    };
    assert!(
        gateway
            .refused()
            .starts_with("listener.certificate: cut.pem is not valid PEM: "),
        "{}",
        gateway.refused()
    );
    openssl(&dir, "x509 -in server.pem -outform der -out server.der");
    gateway.config = Listener {
        certificate: dir.join("server.der"),
        ..good.clone()
    };
    assert!(
        gateway
            .refused()
            .ends_with("; `openssl x509 -inform der` makes one of this file")
    );
    gateway.config = Listener {
        vehicle_ca: vec![dir.join("empty")],
        ..good
    };
    assert_eq!(
        gateway.refused(),
        "listener.vehicle_ca: empty holds no certificate; it should have a \"-----BEGIN CERTIFICATE-----\""
    );
}

#[test]
fn what_vehicles_may_object_to_in_the_servers_certificate_is_a_warning() {
    let gateway = Gateway::trusting(&[&authority("TeslaMotors")]);
    let server_ca = authority("Server CA");
    let write = |params: &rcgen::CertificateParams, more: &str| {
        let key = KeyPair::generate().unwrap();
        let pem = params.signed_by(&key, &server_ca.issuer).unwrap().pem();
        fs::write(&gateway.config.certificate, format!("{pem}{more}")).unwrap();
        fs::write(&gateway.config.private_key, key.serialize_pem()).unwrap();
        gateway.warnings()
    };
    let (chain, stranger) = (server_ca.certificate.pem(), authority("Other CA").certificate.pem());
    let mut params = vehicle(&[]);
    assert_eq!(write(&params, &chain), Vec::<String>::new());
    assert_eq!(
        write(&params, ""),
        [
            "listener.certificate: server.pem: holds only the server's certificate; unless CN=Server CA, O=Test is a root that vehicles know, add the certificates of its chain"
        ]
    );
    assert_eq!(
        write(&params, &stranger),
        [
            "listener.certificate: server.pem: the certificate of CN=5YJ3E1EA7KF000001 is followed by that of CN=Other CA, O=Test, and should be by that of its issuer CN=Server CA, O=Test"
        ]
    );
    params.not_before = date_time_ymd(2090, 1, 1);
    assert_eq!(write(&params, &chain), Vec::<String>::new());
    assert!(gateway.outdated()[0].contains("CN=5YJ3E1EA7KF000001 is not valid before 2090-01-01"));
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
    assert_eq!(write(&params, &chain), Vec::<String>::new());
    assert_eq!(
        gateway.outdated(),
        [
            "listener.certificate: server.pem: the certificate of CN=5YJ3E1EA7KF000001 expired on 2021-01-01 (valid from 2020-01-01); no vehicle will connect; renew it, or set this machine's clock"
        ]
    );
}

#[test]
fn authorities_that_have_all_expired_let_no_vehicle_in_and_some_are_a_warning() {
    let mut params = authority_params("Old CA");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
    let old = authority_with(params, &PKCS_ECDSA_P256_SHA256);
    let some = Gateway::trusting(&[&old, &authority("New CA")]);
    assert_eq!(some.outdated(), Vec::<String>::new());
    let named = "listener.vehicle_ca: vehicle-ca.pem: the authority CN=Old CA, O=Test expired on 2021-01-01 (valid from 2020-01-01)";
    assert!(some.warnings()[0].starts_with(named), "{:?}", some.warnings());
    let all = Gateway::trusting(&[&old]);
    assert!(all.warnings()[0].starts_with(named), "{:?}", all.warnings());
    assert!(
        all.outdated()[0].starts_with("listener.vehicle_ca: no authority in vehicle-ca.pem is valid now"),
        "{:?}",
        all.outdated()
    );
}

#[test]
fn everything_that_is_wrong_with_the_files_is_told_at_once_by_key() {
    let mut gateway = Gateway::trusting(&[&authority("TeslaMotors")]);
    let dir = gateway.dir.path().to_owned();
    fs::write(dir.join("private.pem"), "-----BEGIN EC PRIVATE KEY-----\n").unwrap();
    gateway.config.certificate = dir.join("none.pem");
    gateway.config.private_key = dir.join("none.key");
    gateway.config.vehicle_ca.insert(0, dir.join("none-1.pem"));
    gateway.config.vehicle_ca.push(dir.join("none-2.pem"));
    gateway.config.public_key = Some(dir.join("private.pem"));
    let missing = |key, name| {
        format!(
            "listener.{key}: cannot read {name}: No such file or directory (os error 2); put the file there, or name the one that there is"
        )
    };
    let refused = gateway.refused();
    let told: Vec<&str> = refused.lines().collect();
    assert_eq!(
        told,
        [
            &missing("certificate", "none.pem"),
            &missing("private_key", "none.key"),
            &missing("vehicle_ca", "none-1.pem"),
            &missing("vehicle_ca", "none-2.pem"),
            "listener.public_key: private.pem holds no \"-----BEGIN PUBLIC KEY-----\"; `openssl ec -in private.pem -pubout` writes one",
        ]
    );
}
