//! Certificates, authorities and lists that somebody renews: taken over while vehicles are connected, without a word from
//! an operator; what is broken changes nothing, and the log and the status say so.
#![allow(clippy::unwrap_used)]

#[path = "support/daemon.rs"]
mod daemon;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use daemon::{Daemon, wait_for};
use waystation::cli::pki::Pki;
use waystation::cli::simulate::Live;

const SOME: Duration = Duration::from_secs(30);
const FILE: &str = r#"
    [records]
    "*" = ["file"]
    [destinations.file]
    type = "log"
    path = "records.jsonl"
"#;

/// The certificate that a new connection is shown, as PEM without white space.
fn shown(daemon: &Daemon) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{}", daemon.port)])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    first_certificate(&String::from_utf8_lossy(&output.stdout))
}

fn first_certificate(text: &str) -> String {
    const END: &str = "-----END CERTIFICATE-----";
    let from = text
        .find("-----BEGIN CERTIFICATE-----")
        .unwrap_or_else(|| panic!("{text}"));
    let to = from + text[from..].find(END).unwrap() + END.len();
    text[from..to].split_whitespace().collect()
}

/// Another certificate for the same name, with its key.
fn renew(daemon: &Daemon, number: u32) -> String {
    let pki = Pki::new(&[]).unwrap();
    let server = pki.server().unwrap();
    fs::write(daemon.path(&format!("archive/fullchain{number}.pem")), &server.chain).unwrap();
    fs::write(daemon.path(&format!("archive/privkey{number}.pem")), &server.key).unwrap();
    first_certificate(&server.chain)
}

/// Points the links at certificate and key of this number, as certbot does: one after the other.
fn switch(daemon: &Daemon, number: u32) {
    for name in ["fullchain", "privkey"] {
        let link = daemon.path(&format!("live/{name}.pem"));
        if fs::symlink_metadata(&link).is_ok() {
            fs::remove_file(&link).unwrap();
        }
        symlink(format!("../archive/{name}{number}.pem"), &link).unwrap();
    }
}

#[test]
fn a_certificate_behind_links_is_renewed_under_load_and_nobody_is_disconnected() {
    let mut daemon = Daemon::new(3, "", FILE);
    for folder in ["archive", "live"] {
        fs::create_dir(daemon.path(folder)).unwrap();
    }
    fs::rename(daemon.path("server.pem"), daemon.path("archive/fullchain1.pem")).unwrap();
    fs::rename(daemon.path("server.key"), daemon.path("archive/privkey1.pem")).unwrap();
    switch(&daemon, 1);
    daemon.edit("\"server.pem\"", "\"live/fullchain.pem\"");
    daemon.edit("\"server.key\"", "\"live/privkey.pem\"");
    daemon.start();
    let first = shown(&daemon);
    let live = Arc::new(Live::default());
    let fleet = daemon.drive(3, 1_500, 100.0, &live);
    wait_for("the fleet has acks", SOME, || live.totals().2 >= 20);

    let second = renew(&daemon, 2);
    assert_ne!(first, second);
    switch(&daemon, 2);
    wait_for("new connections get the new certificate", SOME, || {
        shown(&daemon) == second
    });

    // A key that belongs to another certificate.
    renew(&daemon, 3);
    fs::copy(daemon.path("archive/privkey2.pem"), daemon.path("archive/privkey3.pem")).unwrap();
    switch(&daemon, 3);
    let error = || daemon.status()["reload_error"].as_str().map(str::to_owned);
    wait_for("it says that the renewal is broken", SOME, || error().is_some());
    assert!(
        error().unwrap().contains("does not belong to the first certificate"),
        "{error:?}",
        error = error()
    );
    assert!(daemon.log().contains("changed files cannot be used"));
    assert_eq!(shown(&daemon), second, "what worked goes on");

    let fourth = renew(&daemon, 4);
    switch(&daemon, 4);
    wait_for("the mended one is taken", SOME, || shown(&daemon) == fourth);
    wait_for("and nothing is wrong any more", SOME, || error().is_none());
    for vehicle in fleet.join().unwrap() {
        assert_eq!((vehicle.connections, vehicle.acked.len()), (1, 1_500));
    }
}

#[test]
fn a_list_of_a_destination_that_was_removed_keeps_no_certificate_from_being_renewed() {
    let more = format!("{FILE}\n[destinations.gone]\ntype = \"log\"\nvins = {{ deny_file = \"list\" }}");
    let mut daemon = Daemon::new(0, "", &more.replace("[\"file\"]", "[\"file\", \"gone\"]"));
    fs::write(daemon.path("list"), "").unwrap();
    daemon.start();
    daemon.edit("[\"file\", \"gone\"]", "[\"file\"]");
    daemon.edit(
        "[destinations.gone]\ntype = \"log\"\nvins = { deny_file = \"list\" }",
        "",
    );
    let said = daemon.reload();
    assert!(said.contains("destinations.gone"), "{said}");
    fs::remove_file(daemon.path("list")).unwrap();
    let pki = Pki::new(&[]).unwrap();
    let server = pki.server().unwrap();
    fs::write(daemon.path("server.pem"), &server.chain).unwrap();
    fs::write(daemon.path("server.key"), &server.key).unwrap();
    let renewed = first_certificate(&server.chain);
    wait_for("the new certificate is shown", SOME, || shown(&daemon) == renewed);
}

#[test]
fn a_changed_authority_counts_for_new_connections() {
    let mut daemon = Daemon::new(1, "", FILE);
    daemon.start();
    let authority = fs::read_to_string(daemon.path("vehicle-ca.pem")).unwrap();
    let other = tempfile::tempdir().unwrap();
    Pki::new(&[]).unwrap().write(other.path(), &[]).unwrap();
    fs::copy(other.path().join("vehicle-ca.pem"), daemon.path("vehicle-ca.pem")).unwrap();
    let read_again = || daemon.log().matches("changed files read again").count();
    wait_for("it is read", SOME, || read_again() == 1);
    let live = Arc::new(Live::default());
    let fleet = daemon.drive(1, 10, 0.0, &live);
    wait_for("the vehicle is a stranger", SOME, || {
        daemon
            .log()
            .contains("a client certificate was refused; listener.vehicle_ca has another authority of that name")
    });
    fs::write(daemon.path("vehicle-ca.pem"), authority).unwrap();
    wait_for("it is read", SOME, || read_again() == 2);
    assert_eq!(fleet.join().unwrap()[0].acked.len(), 10);
}

#[test]
fn a_list_of_a_destination_that_waits_for_a_restart_is_read_again_all_the_same() {
    let more = format!("{FILE}\nvins = {{ deny_file = \"list\" }}");
    let mut daemon = Daemon::new(1, "", &more);
    fs::write(daemon.path("list"), "").unwrap();
    daemon.start();
    daemon.edit("path = \"records.jsonl\"", "path = \"others.jsonl\"");
    let said = daemon.reload();
    assert!(said.contains("destinations.file"), "{said}");
    // A configuration that is refused, until it is mended.
    daemon.edit("path = \"others.jsonl\"", "path = 7");
    assert!(daemon.reload().contains("not reloaded"));
    let vin = waystation::cli::pki::vins(1).remove(0);
    fs::write(daemon.path("list"), &vin).unwrap();
    wait_for("the list is read", SOME, || {
        daemon.log().contains("changed files read again")
    });
    let error = daemon.status()["reload_error"].to_string();
    assert!(error.contains("destinations.file.path"), "{error}");
    let live = Arc::new(Live::default());
    let fleet = daemon.drive(1, 10, 0.0, &live);
    assert_eq!(fleet.join().unwrap()[0].acked.len(), 10);
    daemon.wait_drained("file", SOME);
    assert_eq!(
        fs::read_to_string(daemon.path("records.jsonl")).unwrap(),
        "",
        "nothing of that vehicle leaves"
    );
}
