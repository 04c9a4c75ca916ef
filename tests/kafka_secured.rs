//! A real Kafka broker that does not let everybody in, or take everything: whom the gateway trusts, how it shows who it
//! is, what it says when it may not, and that nothing is lost or swapped until it may.
//!
//! One broker serves all tests of this file; each has topics of its own.
#![allow(clippy::unwrap_used)]

#[path = "support/account.rs"]
mod account;
#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/kafka_broker.rs"]
mod kafka_broker;
#[path = "support/kcat.rs"]
mod kcat;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use certificates::{authority, vehicle};
use daemon::{Daemon, wait_for};
use kafka_broker::{Cluster, TYPES, chain_pem, key_pem};
use rcgen::{DnType, ExtendedKeyUsagePurpose, PKCS_ECDSA_P256_SHA256};
use waystation::cli::simulate::{Live, VehicleTally};

const LONG: Duration = Duration::from_secs(120);
const VEHICLES: usize = 3;
const RECORDS: u64 = 40;
const TOTAL: usize = VEHICLES * RECORDS as usize;

/// Never dropped: the broker ends with this program.
static CLUSTER: LazyLock<Cluster> = LazyLock::new(Cluster::single);

/// A gateway with these properties, and these lines beside them.
fn configured(namespace: &str, properties: &str, more: &str) -> Daemon {
    let daemon = Daemon::new(
        VEHICLES,
        "",
        &format!(
            r#"
            [records]
            "*" = ["cloud"]
            [destinations.cloud]
            type = "kafka"
            namespace = "{namespace}"
            {more}
            [destinations.cloud.properties]
            reconnect.backoff.max.ms = 1000
            {properties}
            "#
        ),
    );
    std::fs::write(daemon.path("brokers.pem"), CLUSTER.brokers.certificate.pem()).unwrap();
    daemon
}

fn sasl(user: &str, mechanism: &str) -> String {
    format!(
        "bootstrap.servers = \"localhost:{}\"\nsecurity.protocol = \"sasl_ssl\"\nssl.ca.location = \"brokers.pem\"\n\
         sasl.mechanism = \"{mechanism}\"\nsasl.username = \"{user}\"",
        CLUSTER.nodes[0].secured
    )
}

/// One that shows a password, which stands in a file.
fn with_password(namespace: &str, user: &str, mechanism: &str, password: &str) -> Daemon {
    let daemon = configured(namespace, &sasl(user, mechanism), "password_file = \"password\"");
    std::fs::write(daemon.path("password"), format!("{password}\n")).unwrap();
    daemon
}

fn drive(daemon: &Daemon) -> Vec<VehicleTally> {
    let fleet = daemon.drive(VEHICLES, RECORDS, 0.0, &Arc::new(Live::default()));
    fleet.join().unwrap()
}

fn assert_delivered(daemon: &Daemon, namespace: &str, tallies: &[VehicleTally]) {
    daemon.wait_drained("cloud", LONG);
    let messages = kcat::read_all(&CLUSTER, namespace, tallies, TOTAL);
    kcat::assert_everything(daemon, &messages, tallies, TOTAL);
    assert_eq!(daemon.last_error("cloud"), None);
    assert!(daemon.connected("cloud"));
}

fn wait_error(daemon: &Daemon, words: &str) {
    wait_for(words, LONG, || {
        daemon.last_error("cloud").is_some_and(|error| error.contains(words))
    });
    assert!(!daemon.connected("cloud"));
    assert!(daemon.log().contains(words), "it is in the log too");
    assert_eq!(daemon.figure("cloud", "confirmed"), 0);
}

#[test]
fn every_mechanism_delivers_over_tls_with_the_password_from_a_file() {
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let namespace = mechanism.to_lowercase();
        CLUSTER.create_topics(&namespace, &TYPES, &[]);
        let mut daemon = with_password(&namespace, "gateway", mechanism, "right");
        daemon.start();
        let tallies = drive(&daemon);
        assert_delivered(&daemon, &namespace, &tallies);
        assert_eq!(daemon.figure("cloud", "failures"), 0, "{}", daemon.log());
    }
}

#[test]
fn a_wrong_password_is_explained_costs_nothing_and_is_mended_in_its_file_alone() {
    for mechanism in ["PLAIN", "SCRAM-SHA-256"] {
        let namespace = format!("wrong-{}", mechanism.to_lowercase());
        CLUSTER.create_topics(&namespace, &TYPES, &[]);
        let mut daemon = with_password(&namespace, "gateway", mechanism, "geheim");
        daemon.start();
        let tallies = drive(&daemon);
        wait_error(&daemon, "check sasl.username, the password and sasl.mechanism");
        std::fs::write(daemon.path("password"), "right").unwrap();
        assert_delivered(&daemon, &namespace, &tallies);
        let shown = daemon.log() + &daemon.status().to_string() + &daemon.metrics();
        assert!(!shown.contains("geheim"), "{shown}");
    }
}

#[test]
fn a_password_file_that_goes_away_is_named_and_its_return_is_enough() {
    CLUSTER.create_topics("gone", &TYPES, &[]);
    let mut daemon = with_password("gone", "gateway", "PLAIN", "wrong");
    daemon.start();
    wait_error(&daemon, "check sasl.username");
    std::fs::remove_file(daemon.path("password")).unwrap();
    wait_error(&daemon, "password: No such file or directory");
    let tallies = drive(&daemon);
    std::fs::write(daemon.path("password"), "right\n").unwrap();
    assert_delivered(&daemon, "gone", &tallies);
}

#[test]
fn a_broker_that_is_not_trusted_gets_nothing_until_its_authority_is_there() {
    CLUSTER.create_topics("untrusted", &TYPES, &[]);
    let mut daemon = with_password("untrusted", "gateway", "PLAIN", "right");
    std::fs::write(daemon.path("brokers.pem"), authority("Others").certificate.pem()).unwrap();
    daemon.start();
    let tallies = drive(&daemon);
    wait_error(&daemon, "verify that ssl.ca.location is correctly configured");
    std::fs::write(daemon.path("brokers.pem"), CLUSTER.brokers.certificate.pem()).unwrap();
    assert_delivered(&daemon, "untrusted", &tallies);
}

#[test]
fn a_broker_with_another_name_gets_nothing_until_it_is_called_by_its_own() {
    CLUSTER.create_topics("misnamed", &TYPES, &[]);
    let mut daemon = with_password("misnamed", "gateway", "PLAIN", "right");
    daemon.edit("\"localhost:", "\"127.0.0.1:");
    daemon.start();
    let tallies = drive(&daemon);
    wait_error(&daemon, "the certificate is not for the name in bootstrap.servers");
    daemon.terminate();
    daemon.edit(
        &format!("\"127.0.0.1:{}", CLUSTER.nodes[0].secured),
        &format!("\"localhost:{}", CLUSTER.nodes[0].secured),
    );
    daemon.start();
    assert_delivered(&daemon, "misnamed", &tallies);
}

#[test]
fn a_certificate_with_an_encrypted_key_is_a_way_to_show_who_one_is() {
    CLUSTER.create_topics("certified", &TYPES, &[]);
    let properties = format!(
        "bootstrap.servers = \"localhost:{}\"\nsecurity.protocol = \"ssl\"\nssl.ca.location = \"brokers.pem\"\n\
         ssl.certificate.location = \"own.pem\"\nssl.key.location = \"own.key\"",
        CLUSTER.nodes[0].certified
    );
    let mut daemon = configured("certified", &properties, "key_password_file = \"key-password\"");
    let mut params = vehicle(&[ExtendedKeyUsagePurpose::ClientAuth]);
    params.distinguished_name = certificates::name(&[(DnType::CommonName, "gateway")]);
    let own = CLUSTER.clients.signs(&params, &PKCS_ECDSA_P256_SHA256);
    std::fs::write(daemon.path("own.pem"), chain_pem(&own)).unwrap();
    std::fs::write(daemon.path("clear.key"), key_pem(&own)).unwrap();
    std::fs::write(daemon.path("key-password"), "tellnobody\n").unwrap();
    let encrypted = std::process::Command::new(daemon::require("openssl", "apt-get install -y openssl"))
        .args(["pkcs8", "-topk8", "-v2", "aes-256-cbc"])
        .arg("-in")
        .arg(daemon.path("clear.key"))
        .arg("-out")
        .arg(daemon.path("own.key"))
        .arg("-passout")
        .arg(format!("file:{}", daemon.path("key-password").display()))
        .status();
    assert!(encrypted.unwrap().success());
    daemon.start();
    let tallies = drive(&daemon);
    assert_delivered(&daemon, "certified", &tallies);
    assert_eq!(daemon.figure("cloud", "failures"), 0, "{}", daemon.log());
}

#[test]
fn a_client_without_rights_waits_until_it_is_given_them() {
    CLUSTER.create_topics("forbidden", &TYPES, &[]);
    let mut daemon = with_password("forbidden", "guest", "SCRAM-SHA-256", "right");
    daemon.start();
    let tallies = drive(&daemon);
    wait_error(&daemon, "give this client the right to write to the topic");
    CLUSTER.let_guest_write("forbidden_");
    assert_delivered(&daemon, "forbidden", &tallies);
}
