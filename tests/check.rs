//! `waystation check`: each thing that an installer gets wrong is named by exactly its own line, with the fix.
#![allow(clippy::unwrap_used)]

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/faketime.rs"]
mod faketime;
#[path = "support/machine.rs"]
mod machine;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{lchown, symlink};
use std::process::Command;

use certificates::{Authority, Shown, authority, authority_params, authority_with};
use daemon::free_port;
use machine::Machine;
use rcgen::{CertificateParams, PKCS_ECDSA_P256_SHA256, date_time_ymd};

/// A server's certificate for these names, by an authority.
fn server(authority: &Authority, names: &[&str], from: i32, until: i32) -> Shown {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    authority.signs(&params, &PKCS_ECDSA_P256_SHA256)
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Puts a certificate, its authority behind it, and its key where the machine has them.
fn install(machine: &Machine, authority: &Authority, shown: &Shown, with_chain: bool) {
    let chain = if with_chain {
        authority.certificate.pem()
    } else {
        String::new()
    };
    machine.write("server.pem", pem("CERTIFICATE", &shown.chain[0]) + &chain);
    machine.write("server.key", pem("PRIVATE KEY", shown.key.secret_der()));
}

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn nothing_is_said_of_a_machine_on_which_nothing_is_wrong() {
    let machine = Machine::new();
    assert_eq!(machine.complaints(&["--name", "localhost"]), [""; 0]);
    assert!(!machine.path("queue").exists() && !machine.path("out.jsonl").exists());
}

#[test]
fn the_servers_certificate() {
    let issuer = authority("Server CA");
    let cases = [
        (server(&issuer, &["localhost"], 2020, 2021), "expired on 2021-01-01"),
        (
            server(&issuer, &["localhost"], 2090, 2091),
            "is not valid before 2090-01-01",
        ),
    ];
    for (shown, words) in cases {
        let machine = Machine::new();
        install(&machine, &issuer, &shown, true);
        machine.says("✗ listener.certificate: ", words);
    }
    let valid = |names: &[&str]| server(&issuer, names, 2020, 2090);
    let machine = Machine::new();
    install(&machine, &issuer, &valid(&["localhost"]), false);
    machine.says("! listener.certificate: ", "holds only the server's certificate");
    install(&machine, &issuer, &valid(&["localhost"]), true);
    machine.says_with(
        &["--name", "gate.example.com"],
        "✗ listener.certificate: ",
        "is for localhost and not for gate.example.com",
    );
    install(&machine, &issuer, &valid(&["*.example.com"]), true);
    assert_eq!(machine.complaints(&["--name", "gate.example.com"]), [""; 0]);
    install(&machine, &issuer, &valid(&[]), true);
    machine.says("✗ listener.certificate: ", "is for no host name");
    let shown = valid(&["localhost"]);
    install(&machine, &issuer, &shown, true);
    let other = authority("Somebody Else").certificate.pem();
    machine.write("server.pem", pem("CERTIFICATE", &shown.chain[0]) + &other);
    machine.says("! listener.certificate: ", "should be by that of its issuer");
    machine.write("server.pem", &shown.chain[0]);
    machine.says("✗ listener.certificate: ", "openssl x509 -inform der");
    machine.write("server.pem", "no certificate\n");
    machine.says("✗ listener.certificate: ", "holds no certificate");
    fs::remove_file(machine.path("server.pem")).unwrap();
    machine.says("✗ listener.certificate: cannot read ", "put the file there");
}

#[test]
fn the_private_key() {
    let machine = Machine::new();
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    machine.write("server.key", &other);
    machine.says("✗ listener.private_key: ", "does not belong to the first certificate");
    let (from, to) = (machine.path("server.key"), machine.path("encrypted.key"));
    openssl(&[
        "pkey",
        "-in",
        from.to_str().unwrap(),
        "-out",
        to.to_str().unwrap(),
        "-aes256",
        "-passout",
        "pass:secret",
    ]);
    machine.daemon.edit("server.key", "encrypted.key");
    machine.says("✗ listener.private_key: ", "it is encrypted");
    machine.write("encrypted.key", "nothing\n");
    machine.says("✗ listener.private_key: ", "there is none in it");
    machine.daemon.edit("encrypted.key", "absent.key");
    machine.says("✗ listener.private_key: cannot read ", "put the file there");
}

#[test]
fn the_authorities_of_vehicles() {
    let machine = Machine::new();
    machine.write("vehicle-ca.pem", authority("Let's Encrypt E7").certificate.pem());
    machine.says(
        "! listener.vehicle_ca: none of the authorities there (Let's Encrypt E7)",
        "add the issuer to [identity]",
    );
    machine.daemon.edit(
        "[queue]",
        "[identity]\nissuers = { \"Let's Encrypt E7\" = \"vehicle_device\" }\n[queue]",
    );
    assert_eq!(machine.complaints(&[]), [""; 0]);
    let mut expired = authority_params("TeslaMotors");
    expired.not_before = date_time_ymd(2019, 1, 1);
    expired.not_after = date_time_ymd(2020, 1, 1);
    let expired = authority_with(expired, &PKCS_ECDSA_P256_SHA256).certificate.pem();
    machine.write("vehicle-ca.pem", authority("TeslaMotors").certificate.pem() + &expired);
    machine.says("! listener.vehicle_ca: ", "expired on 2020-01-01");
    machine.write("vehicle-ca.pem", "-----BEGIN CERTIFICATE-----\nAA");
    machine.says("✗ listener.vehicle_ca: ", "is not valid PEM");
    fs::remove_file(machine.path("vehicle-ca.pem")).unwrap();
    machine.says("✗ listener.vehicle_ca: cannot read ", "put the file there");
}

#[test]
fn other_files_of_the_listener() {
    let machine = Machine::new();
    machine.daemon.edit("[queue]", "vehicle_crl = \"revoked.pem\"\n[queue]");
    machine.says("✗ listener.vehicle_crl: cannot read ", "put the file there");
    machine.write("revoked.pem", "");
    machine.says("✗ listener.vehicle_crl: ", "holds no list");
    let machine = Machine::new();
    machine.daemon.edit("[queue]", "public_key = \"server.key\"\n[queue]");
    machine.says("✗ listener.public_key: ", "openssl ec -in private.pem -pubout");
}

#[test]
fn ports() {
    let machine = Machine::new();
    for (key, port) in [
        ("listener.bind", machine.daemon.port),
        ("admin.bind", machine.daemon.admin),
    ] {
        let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let pid = std::process::id();
        machine.says(&format!("✗ {key}: cannot listen on "), &format!("process {pid})"));
        drop(taken);
    }
    machine.daemon.edit(
        "[listener]\n            bind = \"127.0.0.1",
        "[listener]\n            bind = \"192.0.2.1",
    );
    machine.says(
        "✗ listener.bind: cannot listen on ",
        "no interface of this machine has this address",
    );
}

#[test]
fn the_place_of_the_queue() {
    let machine = Machine::new();
    machine.write("queue", "a file");
    machine.says("✗ queue.path: ", "is not a directory");
    fs::remove_file(machine.path("queue")).unwrap();
    symlink("/nowhere/queue", machine.path("queue")).unwrap();
    machine.says("✗ queue.path: ", "is a link to /nowhere/queue, which is not there");
    let at = |path: &str| {
        let machine = Machine::new();
        machine.daemon.edit("path = \"queue\"", &format!("path = \"{path}\""));
        machine
    };
    at("/proc/queue").says("✗ queue.path: ", "cannot write in /proc");
    at("/dev/shm/waystation-queue").says("✗ queue.path: ", "is in memory (tmpfs at /dev/shm)");
    let machine = Machine::new();
    machine.daemon.edit("[queue]", "[queue]\nkeep_free = \"1000000 GiB\"");
    machine.says("✗ queue.path: ", "vehicles will be refused; free some space");
    let machine = Machine::new();
    machine
        .daemon
        .edit("max_bytes = \"64 MiB\"", "max_bytes = \"1000000 GiB\"");
    machine.says("! queue.path: ", "so that the queue is full before queue.max_bytes");
}

/// As a command leaves it that was run as root in an older build, or whoever copies a queue.
#[test]
fn a_queue_of_which_a_part_is_another_users() {
    let mut machine = Machine::new();
    machine.daemon.start();
    machine.daemon.terminate();
    machine.give_to_nobody();
    let said = |arguments: &[&str]| {
        let output = machine.as_nobody(arguments);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), said)
    };
    assert_eq!(said(&["check"]).0, Some(0), "{}", said(&["check"]).1);
    let queue = machine.path("queue");
    fs::create_dir_all(queue.join("segments")).unwrap();
    for part in ["segments", "dead-letters", "cursors"] {
        let part = queue.join(part);
        lchown(&part, Some(0), Some(0)).unwrap();
        let (code, words) = said(&["check"]);
        let line = format!("✗ queue.path: cannot write {}: Permission denied", part.display());
        assert!(
            code == Some(1) && words.contains(&line) && words.contains("chown -R"),
            "{words}"
        );
        let (code, words) = said(&["run"]);
        let named = words.lines().last().unwrap();
        assert!(
            code == Some(1) && named.contains(part.to_str().unwrap()) && named.contains("(chown -R)"),
            "{words}"
        );
        machine.give_to_nobody();
    }
}

#[test]
fn destinations_on_this_machine() {
    let machine = Machine::new();
    machine.daemon.edit("out.jsonl", "nowhere/out.jsonl");
    machine.says("✗ destinations.file.path: ", "does not exist; make it");
    machine.daemon.edit("nowhere/out.jsonl", "vehicles");
    fs::create_dir_all(machine.path("vehicles")).unwrap();
    machine.says("✗ destinations.file.path: ", "is a directory; name a file in it");
    let machine = Machine::new();
    machine
        .daemon
        .edit("type = \"log\"", "type = \"log\"\nvins = { allow_file = \"fleet\" }");
    machine.says(
        "✗ destination \"file\": vins.allow_file: cannot read ",
        "with a VIN in each line",
    );
    let machine = Machine::new();
    let port = free_port();
    machine.destination(&format!(
        "type = \"zmq\"\nbind = \"tcp://127.0.0.1:{port}\"\nnamespace = \"n\"\nserver_key_file = \"key\"\nallowed_client_keys_file = \"keys\""
    ));
    machine.says("✗ destination \"more\": ", "key");
}

#[test]
fn sockets_of_destinations() {
    let machine = Machine::new();
    let port = free_port();
    machine.destination(&format!(
        "type = \"zmq\"\nbind = \"tcp://127.0.0.1:{port}\"\nnamespace = \"n\""
    ));
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    machine.says("✗ destinations.more.bind: cannot listen on ", "another process has it");
    drop(taken);
    let mut bind = format!("tcp://127.0.0.1:{port}");
    let mut rebind = |to: String| {
        machine.daemon.edit(&bind, &to);
        bind = to;
    };
    let folder = machine.path("");
    let at = |name: &str| format!("ipc://{}", folder.join(name).display());
    rebind(at("nowhere/x.ipc"));
    machine.says("✗ destinations.more.bind: ", "does not exist; make it");
    rebind(at("server.pem"));
    machine.says("✗ destinations.more.bind: ", "is a file and no socket");
    rebind("ipc:///proc/x.ipc".to_owned());
    machine.says("✗ destinations.more.bind: ", "cannot write in /proc");
    for own in [at("x.ipc"), "ipc:///run/waystation/records.ipc".to_owned()] {
        rebind(own);
        assert_eq!(machine.complaints(&[]), [""; 0]);
    }
}

#[test]
fn what_is_not_routed_and_what_is_misspelt() {
    let machine = Machine::new();
    machine
        .daemon
        .edit("\"*\" = [\"file\"]", "V = [\"file\"]\nerrors = [\"file\"]");
    machine.says(
        "! records: alerts and \"*\", every other type, are not named",
        "not kept",
    );
    let machine = Machine::new();
    machine.daemon.edit("private_key", "privat_key");
    let output = machine.check(&[]);
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("did you mean \"private_key\"?"), "{said}");
}

#[test]
fn a_clock_that_was_never_set() {
    let mut machine = Machine::new();
    let clock = faketime::Clock::new(&mut machine.daemon);
    clock.step("-50y");
    let output = machine.daemon.run_with_environment(&["check"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().find(|line| line.starts_with("✗ the clock says 19"));
    assert!(
        line.is_some_and(|line| line.contains("timedatectl set-ntp true")),
        "{said}"
    );
}

#[test]
fn programs_get_json() {
    let machine = Machine::new();
    fs::remove_file(machine.path("server.key")).unwrap();
    let output = machine.check(&["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["faults"], 1);
    let findings = report["findings"].as_array().unwrap();
    let faults: Vec<_> = findings
        .iter()
        .filter(|finding| finding["verdict"] == "fault")
        .collect();
    assert_eq!(faults.len(), 1);
    assert!(
        faults[0]["message"]
            .as_str()
            .unwrap()
            .starts_with("listener.private_key: cannot read ")
    );
    assert!(findings.iter().any(|finding| finding["verdict"] == "good"));
}
