//! `type = "kafka"`: secrets from files, what would break a promise or have no effect, and what `check` finds by trying.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;

use waystation::config::{Config, DestinationKind, Kafka, parse};

const SECURED: &str = r#"
"security.protocol" = "SASL_SSL"
"sasl.mechanism" = "SCRAM-SHA-512"
"sasl.username" = "gateway"
"#;

/// A configuration in a directory of its own, in which `secret` is a file.
struct Case {
    dir: tempfile::TempDir,
    text: String,
}

impl Case {
    fn new(keys: &str, properties: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret"), "geheim\r\n").unwrap();
        let text = format!(
            r#"
[listener]
bind = "127.0.0.1:0"
certificate = "server.pem"
private_key = "server.key"
vehicle_ca = "vehicle-ca.pem"
[queue]
path = "queue"
[admin]
bind = "127.0.0.1:1"
[records]
"*" = "cloud"
[destinations.cloud]
type = "kafka"
namespace = "fleet"
{keys}
[destinations.cloud.properties]
"bootstrap.servers" = "localhost:1"
{properties}
"#
        );
        Self { dir, text }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn parsed(&self) -> Result<Config, String> {
        parse(&self.text, &self.path("config.toml")).map_err(|error| error.to_string())
    }

    fn config(&self) -> Config {
        self.parsed().unwrap()
    }

    fn kafka(&self) -> Kafka {
        match self.config().destinations.remove(0).kind {
            DestinationKind::Kafka(kafka) => kafka,
            other => panic!("{other:?}"),
        }
    }

    /// What is wrong, without the place.
    fn mistake(&self) -> String {
        let said = self.parsed().unwrap_err();
        assert_eq!(said.lines().count(), 1, "{said}");
        said.split_once("destinations.cloud.").unwrap().1.to_owned()
    }

    /// What `waystation check` says about the destination.
    fn check(&self) -> String {
        fs::write(self.path("config.toml"), &self.text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_waystation"))
            .args(["check", "--offline", "--config"])
            .arg(self.path("config.toml"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let line = said.lines().find(|line| line.contains("destination"));
        line.unwrap_or_else(|| panic!("{said}")).to_owned()
    }
}

#[test]
fn secrets_stand_in_files_and_never_in_what_is_shown() {
    let keys = "password_file = \"secret\"\nkey_password_file = \"secret\"";
    let case = Case::new(keys, &format!("{SECURED}\"ssl.key.location\" = \"own.key\""));
    let kafka = case.kafka();
    let files: Vec<_> = kafka
        .secret_files
        .iter()
        .map(|(name, path)| (name.as_str(), path.clone()))
        .collect();
    let secret = case.path("secret");
    assert_eq!(files, [("sasl.password", secret.clone()), ("ssl.key.password", secret)]);
    assert!(!format!("{:?}", case.config()).contains("geheim"));
    let inline = Case::new("", &format!("{SECURED}\"sasl.password\" = \"geheim\""));
    assert_eq!(inline.kafka().properties["sasl.password"], "geheim");
    assert!(!format!("{:?}", inline.config()).contains("geheim"));
}

#[test]
fn paths_start_where_the_configurations_own_do() {
    let locations = r#"
"security.protocol" = "ssl"
"ssl.ca.location" = "ca.pem"
"ssl.certificate.location" = "/etc/own.pem"
"ssl.key.location" = "keys/own.key"
"#;
    let case = Case::new("", locations);
    let kafka = case.kafka();
    let is = |name: &str, path: &Path| assert_eq!(Path::new(&kafka.properties[name]), path);
    is("ssl.ca.location", &case.path("ca.pem"));
    is("ssl.certificate.location", Path::new("/etc/own.pem"));
    is("ssl.key.location", &case.path("keys/own.key"));
    let probing = Case::new("", "security.protocol = \"ssl\"\nssl.ca.location = \"probe\"");
    assert_eq!(probing.kafka().properties["ssl.ca.location"], "probe");
}

#[test]
fn a_secret_that_cannot_be_used_is_a_mistake() {
    let file = "password_file = \"secret\"";
    let no_user = SECURED.replace("\"sasl.username\" = \"gateway\"", "");
    let cases = [
        (
            file,
            "",
            "password_file: has no effect without \"security.protocol\" = \"sasl_ssl\" among the properties",
        ),
        (
            file,
            no_user.as_str(),
            "password_file: \"sasl.username\" is missing among the properties; a password needs one",
        ),
        (
            "key_password_file = \"secret\"",
            SECURED,
            "key_password_file: has no effect without \"ssl.key.location\" and \"security.protocol\" = \"ssl\" or \
             \"sasl_ssl\" among the properties",
        ),
        (
            file,
            &format!("{SECURED}\"sasl.password\" = \"geheim\""),
            "password_file: sasl.password is there too; leave one of the two",
        ),
    ];
    for (keys, properties, message) in cases {
        assert_eq!(Case::new(keys, properties).mistake(), message);
    }
    let missing = Case::new("password_file = \"none\"", SECURED);
    let path = missing.path("none").display().to_string();
    assert_eq!(
        missing.mistake(),
        format!(
            "password_file: cannot read {path}: No such file or directory (os error 2); write the password into it, \
             and let the gateway read it"
        )
    );
}

#[test]
fn properties_that_would_stop_or_swap_records_are_refused_with_the_reason() {
    let cases = [
        (
            "\"queuing.strategy\" = \"lifo\"",
            "another strategy would swap them; remove it",
        ),
        ("\"topic.blacklist\" = \"^a\"", "would hold back all others; remove it"),
        (
            "\"plugin.library.paths\" = \"x\"",
            "a plugin could change or drop records on their way; remove it",
        ),
        (
            "\"internal.termination.signal\" = 15",
            "would no longer stop or reload it; remove it",
        ),
        (
            "\"api.version.request\" = false",
            "librdkafka has to ask them for it; remove it",
        ),
        (
            "\"topic.partitioner\" = \"random\"",
            "is not allowed under this name: write \"partitioner\"",
        ),
        ("\"topic.acks\" = 1", "is not allowed under this name: write \"acks\""),
        ("\"linger.ms\" = 1001", "each would wait so long; write 0 to 1000"),
        (
            "\"queue.buffering.max.ms\" = \"x\"",
            "each would wait so long; write 0 to 1000",
        ),
        ("\"socket.max.fails\" = 0", "nothing would arrive; write 1"),
        (
            "\"sasl.mechanisms\" = \"GSSAPI\"",
            "is not in this build; write one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512",
        ),
        (
            "\"security.protocol\" = \"sasl_ssl\"",
            "properties: \"sasl.mechanism\" is missing; write one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, as the broker \
             wants it",
        ),
    ];
    for (property, reason) in cases {
        let said = Case::new("", property).mistake();
        assert!(said.ends_with(reason), "{said}");
    }
    let said = Case::new("", "\"test.mock.num.brokers\" = 1").mistake();
    assert!(
        said.contains("its brokers are part of librdkafka and keep nothing"),
        "{said}"
    );
    for harmless in [
        "\"linger.ms\" = 0.5",
        "\"socket.max.fails\" = 3",
        "\"request.timeout.ms\" = 1000",
        "\"topic.metadata.refresh.interval.ms\" = 60000",
    ] {
        Case::new("", harmless).config();
    }
}

#[test]
fn protection_that_is_not_there_is_a_warning() {
    let warning = |properties: &str| Case::new("", properties).config().warnings;
    let begins = |what: &str| format!("destinations.cloud: {what}");
    assert_eq!(
        warning("\"ssl.ca.location\" = \"ca.pem\""),
        [begins(
            "ssl.ca.location has no effect without \"security.protocol\" = ssl or sasl_ssl"
        )]
    );
    assert_eq!(
        warning("\"sasl.username\" = \"u\"\n\"security.protocol\" = \"ssl\""),
        [begins(
            "sasl.username has no effect without \"security.protocol\" = sasl_ssl"
        )]
    );
    assert_eq!(
        warning("\"sasl.mechanism\" = \"PLAIN\"\n\"security.protocol\" = \"sasl_plaintext\""),
        [begins(
            "the password goes to the brokers unencrypted; \"security.protocol\" = \"sasl_ssl\" would protect it"
        )]
    );
    for off in [
        "\"enable.ssl.certificate.verification\" = false",
        "\"ssl.endpoint.identification.algorithm\" = \"none\"",
    ] {
        let said = warning(&format!("{SECURED}{off}"));
        assert!(
            said.len() == 1 && said[0].contains("can pass for one of them"),
            "{said:?}"
        );
    }
    assert_eq!(warning(SECURED), [""; 0]);
}

#[test]
fn a_batch_that_brokers_refuse_is_made_smaller() {
    let warning = |properties: &str| Case::new("", properties).config().warnings;
    let large = format!("{SECURED}\n\"batch.size\" = 2000000");
    let said = warning(&large);
    assert!(
        said.len() == 1 && said[0].contains("batch.size") && said[0].contains("1000000 is used"),
        "{said:?}"
    );
    assert_eq!(warning(&format!("{SECURED}\n\"batch.size\" = 1000000")), [""; 0]);
}

#[test]
fn check_tries_files_and_properties_without_connecting_anywhere() {
    let good = Case::new("password_file = \"secret\"", SECURED);
    assert_eq!(good.check(), "✓ destination \"cloud\": its settings can be used");
    for compression in ["gzip", "snappy", "lz4", "zstd"] {
        let case = Case::new("", &format!("\"compression.type\" = \"{compression}\""));
        assert!(case.check().starts_with('✓'), "{compression}");
    }
    for key in ["ssl.ca.location", "ssl.certificate.location", "ssl.key.location"] {
        let case = Case::new(
            "",
            &format!("\"security.protocol\" = \"ssl\"\n\"{key}\" = \"none.pem\""),
        );
        let path = case.path("none.pem").display().to_string();
        assert_eq!(
            case.check(),
            format!(
                "✗ destination \"cloud\": properties.\"{key}\": cannot read {path}: No such file or directory (os \
                 error 2); name a file that is there, and let the gateway read it"
            )
        );
    }
    let key = Case::new("", "\"security.protocol\" = \"ssl\"\n\"ssl.key.location\" = \"secret\"");
    assert!(key.check().contains("ssl.key.location"), "{}", key.check());
    let unknown = Case::new("", "\"compression.type\" = \"brotli\"");
    let said = unknown.check();
    assert!(said.starts_with('✗') && said.contains("brotli"), "{said}");
    // Under a name that nobody knows it may be a password.
    let misspelt = Case::new("", "\"sasl.pasword\" = \"hunter2\"");
    let said = misspelt.check();
    assert!(said.contains("sasl.pasword") && !said.contains("hunter2"), "{said}");
}
