//! What a `type = "zmq"` destination may be told: addresses, keys, and who may listen.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use omq_tokio::CurveKeypair;
use waystation::config::{Config, DestinationKind, Zmq, parse};
use waystation::destination;

fn text(lines: &str) -> String {
    format!(
        r#"[listener]
certificate = "a"
private_key = "b"
vehicle_ca = "c"
[records]
"*" = "feed"
[destinations.feed]
type = "zmq"
namespace = "fleet"
{lines}"#
    )
}

fn config(dir: &Path, lines: &str) -> Config {
    parse(&text(lines), &dir.join("config.toml")).unwrap()
}

fn zmq(config: &Config) -> &Zmq {
    let DestinationKind::Zmq(zmq) = &config.destinations[0].kind else {
        panic!("{config:?}")
    };
    zmq
}

fn mistake(dir: &Path, lines: &str) -> String {
    let error = parse(&text(lines), &dir.join("config.toml")).unwrap_err().to_string();
    error.replace(&format!("{}/", dir.display()), "")
}

#[test]
fn addresses_of_this_machine_need_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    for bind in [
        "ipc:///run/waystation/records.ipc",
        "tcp://127.0.0.1:5284",
        "tcp://[::1]:5284",
    ] {
        let config = config(dir.path(), &format!("bind = \"{bind}\""));
        let zmq = zmq(&config);
        assert_eq!(
            (zmq.bind.as_str(), zmq.high_water_mark, zmq.metadata),
            (bind, 1000, false)
        );
        assert!(zmq.curve.is_none());
        assert!(!config.destinations[0].required, "a live feed fills no queue");
    }
}

#[test]
fn a_port_that_is_taken_is_refused_whoever_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |lines: &str, words: &str| {
        let said = mistake(dir.path(), lines);
        assert!(said.contains(words), "{words}: {said}");
    };
    refused(
        "bind = \"tcp://127.0.0.1:443\"",
        "feed binds tcp://127.0.0.1:443, which is taken by listener.bind = \"[::]:443\"",
    );
    refused(
        "bind = \"tcp://*:8780\"\nallow_plaintext = true",
        "feed binds tcp://0.0.0.0:8780, which is taken by admin.bind = \"127.0.0.1:8780\"",
    );
    let two = |one: &str, other: &str| {
        format!(
            "bind = \"{one}\"\nallow_plaintext = true\n[destinations.other]\ntype = \"zmq\"\nnamespace = \"n\"\nbind = \
             \"{other}\""
        )
    };
    refused(
        &two("tcp://0.0.0.0:5284", "tcp://127.0.0.1:5284"),
        "feed and other bind tcp://0.0.0.0:5284 and tcp://127.0.0.1:5284, of which only one can be",
    );
    config(dir.path(), &two("tcp://0.0.0.0:5284", "tcp://127.0.0.1:5285"));
}

#[test]
fn beyond_this_machine_curve_or_a_word_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    for bind in [
        "tcp://0.0.0.0:5284",
        "tcp://*:5284",
        "tcp://[::]:5284",
        "tcp://192.168.1.2:5284",
    ] {
        assert_eq!(
            mistake(dir.path(), &format!("bind = \"{bind}\"")),
            format!(
                "config.toml:10: destinations.feed.bind: \"{bind}\" lets anybody on the network read every record; write \
                 server_key_file for CURVE, a loopback address, or allow_plaintext = true"
            )
        );
        let config = config(dir.path(), &format!("bind = \"{bind}\"\nallow_plaintext = true"));
        assert_eq!(zmq(&config).bind, bind.replace('*', "0.0.0.0"));
    }
}

#[test]
fn keys_are_read_alone_and_as_the_reference_writes_them() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = (CurveKeypair::generate(), CurveKeypair::generate());
    let (secret, public, other) = (server.secret.to_z85(), server.public.to_z85(), client.public.to_z85());
    let write = |name: &str, content: String| fs::write(dir.path().join(name), content).unwrap();
    write("plain", format!("{secret}\n"));
    write(
        "pair",
        serde_json::json!({"secret": secret, "public": public}).to_string(),
    );
    write("clients", serde_json::json!([other]).to_string());
    for key in ["plain", "pair"] {
        for clients in [
            "allowed_client_keys_file = \"clients\"".to_owned(),
            format!("allowed_client_keys = [{}]", serde_json::json!(other)),
        ] {
            let lines = format!("bind = \"tcp://*:5284\"\nserver_key_file = \"{key}\"\n{clients}");
            let config = config(dir.path(), &lines);
            assert_eq!(config.warnings, Vec::<String>::new());
            destination::build(&config.destinations[0], "queue").unwrap();
        }
    }
    let open = config(dir.path(), "bind = \"tcp://*:5284\"\nserver_key_file = \"plain\"");
    assert_eq!(
        open.warnings,
        [
            "destinations.feed: any client that knows the server's public key may subscribe; allowed_client_keys would \
             name those that may"
        ]
    );
}

#[test]
fn a_wrong_key_file_is_told_with_its_fix() {
    let dir = tempfile::tempdir().unwrap();
    let (server, client) = (CurveKeypair::generate(), CurveKeypair::generate());
    let mixed = serde_json::json!({"secret": server.secret.to_z85(), "public": client.public.to_z85()});
    let write = |name: &str, content: &str| fs::write(dir.path().join(name), content).unwrap();
    write("mixed", &mixed.to_string());
    write("good", &server.secret.to_z85());
    write("short", "abc");
    write("broken", "{\"secret\": 7}");
    write("strange", "[\"x\"]");
    let fix = "write the secret key in Z85, 40 characters, or {\"secret\": …, \"public\": …}";
    for (lines, expected) in [
        (
            "server_key_file = \"none\"",
            "server_key_file: cannot read none: No such file or directory (os error 2); name a file that the gateway may read",
        ),
        (
            "server_key_file = \"short\"",
            &format!("server_key_file: short holds no secret key; {fix}"),
        ),
        (
            "server_key_file = \"broken\"",
            &format!("server_key_file: broken is no such file: line 1, column 12; {fix}"),
        ),
        (
            "server_key_file = \"mixed\"",
            &format!("server_key_file: mixed holds a public key that is not the secret key's; {fix}"),
        ),
        (
            "server_key_file = \"good\"\nallowed_client_keys_file = \"mixed\"",
            "allowed_client_keys_file: mixed: invalid type: map, expected a sequence at line 1 column 0; write a JSON array of public keys in Z85",
        ),
        (
            "server_key_file = \"good\"\nallowed_client_keys_file = \"strange\"",
            "allowed_client_keys_file: strange: \"x\" is not a public key; write the 40 characters of its Z85 form",
        ),
    ] {
        let config = config(dir.path(), &format!("bind = \"tcp://127.0.0.1:5284\"\n{lines}"));
        let Err(error) = destination::build(&config.destinations[0], "queue") else {
            panic!("{lines} is taken");
        };
        let error = error.to_string().replace(&format!("{}/", dir.path().display()), "");
        assert_eq!(error, format!("destination \"feed\": {expected}"));
    }
}

#[test]
fn each_mistake_is_told_with_its_fix() {
    let dir = tempfile::tempdir().unwrap();
    let local = "bind = \"tcp://127.0.0.1:5284\"\n";
    for (lines, expected) in [
        (
            "bind = \"tcp://localhost:5284\"",
            "10: destinations.feed.bind: \"tcp://localhost:5284\" is not an address to bind; write tcp://IP:PORT, tcp://*:PORT or ipc:///PATH",
        ),
        (
            "bind = \"tcp://127.0.0.1:0\"",
            "10: destinations.feed.bind: \"tcp://127.0.0.1:0\" is not an address to bind; write tcp://IP:PORT, tcp://*:PORT or ipc:///PATH",
        ),
        (
            "bind = \"ipc://records.ipc\"",
            "10: destinations.feed.bind: \"ipc://records.ipc\" has no absolute path of at most 107 bytes; write one, such as ipc:///run/waystation/records.ipc",
        ),
        (
            &format!("{local}high_water_mark = 0"),
            "11: destinations.feed.high_water_mark: 0 is not allowed; write a whole number from 1 to 100000",
        ),
        (
            &format!("{local}allowed_client_keys = []"),
            "11: destinations.feed.allowed_client_keys: server_key_file is missing; without the server's own key there is no CURVE",
        ),
        (
            &format!("{local}server_key_file = \"good\"\nallowed_client_keys = [\"x\"]"),
            "12: destinations.feed.allowed_client_keys[0]: \"x\" is not a public key; write the 40 characters of its Z85 form",
        ),
    ] {
        assert_eq!(mistake(dir.path(), lines), format!("config.toml:{expected}"));
    }
}

#[test]
fn two_destinations_at_one_address_are_a_mistake() {
    let dir = tempfile::tempdir().unwrap();
    for bind in ["ipc:///run/waystation/records.ipc", "tcp://127.0.0.1:5284"] {
        let second =
            |bind: &str| format!("[destinations.other]\ntype = \"zmq\"\nnamespace = \"other\"\nbind = \"{bind}\"");
        let both = |other: &str| format!("bind = \"{bind}\"\n{}", second(other));
        let expected = format!(
            "config.toml:7: destinations: feed and other both bind {bind}; write another address for one of them"
        );
        assert_eq!(mistake(dir.path(), &both(bind)), expected);
        config(dir.path(), &both("tcp://127.0.0.1:5285"));
    }
}

#[test]
fn a_key_that_begins_with_a_brace_is_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let braced = || Some(CurveKeypair::generate().secret.to_z85()).filter(|key| key.starts_with('{'));
    let key = std::iter::repeat_with(braced).flatten().next().unwrap();
    fs::write(dir.path().join("key"), format!("{key}\n")).unwrap();
    let config = config(dir.path(), "bind = \"tcp://127.0.0.1:5284\"\nserver_key_file = \"key\"");
    assert!(destination::build(&config.destinations[0], "queue").is_ok());
}
