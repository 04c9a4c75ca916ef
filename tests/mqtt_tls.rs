//! MQTT over TLS, in both versions: whom the gateway trusts, and how it shows who it is.
#![allow(clippy::unwrap_used)]

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/mosquitto.rs"]
mod mosquitto;

use std::sync::Arc;
use std::time::Duration;

use certificates::{Authority, Shown, authority, authority_params, authority_with, vehicle};
use daemon::{Daemon, free_port, wait_for};
use mosquitto::{Mosquitto, Subscriber};
use rcgen::{ExtendedKeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::pki_types::PrivateKeyDer;
use waystation::cli::simulate::Live;

const LONG: Duration = Duration::from_secs(60);
const PROTOCOLS: [&str; 2] = ["5", "3.1.1"];

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

fn chain(shown: &Shown) -> String {
    shown.chain.iter().map(|der| pem("CERTIFICATE", der)).collect()
}

fn key(shown: &Shown) -> String {
    let PrivateKeyDer::Pkcs8(der) = &shown.key else {
        panic!("certificates are made with PKCS#8 keys");
    };
    pem("PRIVATE KEY", der.secret_pkcs8_der())
}

fn broker_certificate(authority: &Authority, name: &str) -> Shown {
    let mut params = vehicle(&[ExtendedKeyUsagePurpose::ServerAuth]);
    params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
    authority.signs(&params, &PKCS_ECDSA_P256_SHA256)
}

struct Setup {
    broker: Mosquitto,
    plain: u16,
    brokers: Authority,
    clients: Authority,
}

/// A broker with a certificate for this name, and with a second listener for subscribers.
fn setup(name: &str, more: &str) -> Setup {
    let (brokers, clients) = (authority("Brokers"), authority("Clients"));
    let plain = free_port();
    let mut broker = Mosquitto::with(&format!(
        "user root\ncafile DIR/clients.pem\ncertfile DIR/server.pem\nkeyfile DIR/server.key\n{more}\n\
         listener {plain} 127.0.0.1"
    ));
    let server = broker_certificate(&brokers, name);
    broker.write("clients.pem", clients.certificate.pem());
    broker.write("server.pem", chain(&server));
    broker.write("server.key", key(&server));
    broker.start();
    Setup {
        broker,
        plain,
        brokers,
        clients,
    }
}

fn configured(setup: &Setup, protocol: &str, more: &str) -> Daemon {
    let daemon = Daemon::new(
        1,
        "",
        &format!(
            r#"
            [records]
            "*" = ["broker"]
            [destinations.broker]
            type = "mqtt"
            url = "mqtts://localhost:{}"
            protocol = "{protocol}"
            topic_base = "fleet"
            layout = "records"
            ca = "broker-ca.pem"
            {more}
            "#,
            setup.broker.port
        ),
    );
    std::fs::write(daemon.path("broker-ca.pem"), setup.brokers.certificate.pem()).unwrap();
    daemon
}

fn delivers(setup: &Setup, daemon: &mut Daemon) {
    let subscriber = Subscriber::new(setup.plain, "fleet/#");
    daemon.start();
    let live = Arc::new(Live::default());
    daemon.drive(1, 20, 0.0, &live).join().unwrap();
    daemon.wait_drained("broker", LONG);
    wait_for("all has arrived", LONG, || subscriber.count() >= 20);
    assert_eq!(
        daemon.figure("broker", "failures"),
        0,
        "{:?}",
        daemon.last_error("broker")
    );
}

fn fails(daemon: &mut Daemon, words: &str) {
    daemon.start();
    wait_for(words, LONG, || {
        daemon.last_error("broker").is_some_and(|error| error.contains(words))
    });
}

#[test]
fn a_broker_is_trusted_by_its_authority_and_its_name() {
    for protocol in PROTOCOLS {
        let setup = setup("localhost", "");
        delivers(&setup, &mut configured(&setup, protocol, ""));
        let mut stranger = configured(&setup, protocol, "");
        let other = authority("Others").certificate.pem();
        std::fs::write(stranger.path("broker-ca.pem"), other).unwrap();
        fails(&mut stranger, "UnknownIssuer");
    }
}

#[test]
fn a_name_in_the_certificate_that_is_not_the_host_can_be_said() {
    for protocol in PROTOCOLS {
        let setup = setup("broker.fleet.example", "");
        delivers(
            &setup,
            &mut configured(&setup, protocol, "server_name = \"broker.fleet.example\""),
        );
        fails(&mut configured(&setup, protocol, ""), "`server_name`");
    }
}

#[test]
fn a_broker_that_wants_a_certificate_gets_one() {
    for protocol in PROTOCOLS {
        // The user name is the certificate's: without one there is none.
        let setup = setup("localhost", "require_certificate true\nuse_identity_as_username true");
        let own = setup.clients.signs(
            &vehicle(&[ExtendedKeyUsagePurpose::ClientAuth]),
            &PKCS_ECDSA_P256_SHA256,
        );
        let keys = "client_certificate = \"own.pem\"\nclient_key = \"own.key\"";
        let mut daemon = configured(&setup, protocol, keys);
        std::fs::write(daemon.path("own.pem"), chain(&own)).unwrap();
        std::fs::write(daemon.path("own.key"), key(&own)).unwrap();
        delivers(&setup, &mut daemon);
        let stranger = authority("Others").signs(
            &vehicle(&[ExtendedKeyUsagePurpose::ClientAuth]),
            &PKCS_ECDSA_P256_SHA256,
        );
        let mut unknown = configured(&setup, protocol, keys);
        std::fs::write(unknown.path("own.pem"), chain(&stranger)).unwrap();
        std::fs::write(unknown.path("own.key"), key(&stranger)).unwrap();
        fails(&mut unknown, "the broker does not trust client_certificate");
        let mut nobody = configured(&setup, protocol, "");
        fails(&mut nobody, "set client_certificate and client_key");
        assert_eq!(nobody.figure("broker", "confirmed"), 0);
    }
}

#[test]
fn a_broker_that_shows_its_authoritys_own_certificate_is_told_what_to_make() {
    let mut setup = setup("localhost", "");
    setup.broker.kill_9();
    let mut params = authority_params("Home");
    params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
    let own = authority_with(params, &PKCS_ECDSA_P256_SHA256);
    setup.broker.write("server.pem", own.certificate.pem());
    setup.broker.write("server.key", own.issuer.key().serialize_pem());
    setup.broker.start();
    for protocol in PROTOCOLS {
        let mut daemon = configured(&setup, protocol, "");
        std::fs::write(daemon.path("broker-ca.pem"), own.certificate.pem()).unwrap();
        fails(&mut daemon, "let it sign one for the broker");
    }
}
