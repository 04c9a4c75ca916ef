//! `waystation check` beyond this machine: upstreams that cannot be reached, and a gateway as vehicles meet it.
#![allow(clippy::unwrap_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/machine.rs"]
mod machine;
#[path = "support/mosquitto.rs"]
mod mosquitto;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use daemon::{alone, free_port, wait_for};
use machine::Machine;
use mosquitto::Mosquitto;

#[test]
fn upstreams_that_cannot_be_reached() {
    let nobody = free_port();
    let mqtt = |url: &str| format!("type = \"mqtt\"\nurl = \"{url}\"\ntopic_base = \"t\"\nlayout = \"records\"");
    let kafka = |servers: &str| {
        format!("type = \"kafka\"\nnamespace = \"n\"\nproperties = {{ \"bootstrap.servers\" = \"{servers}\" }}")
    };
    let cases = [
        (
            mqtt("mqtt://no-such-host.invalid"),
            "✗ destinations.more.url: the name no-such-host.invalid is not known",
            "check its spelling",
        ),
        (
            mqtt(&format!("mqtt://127.0.0.1:{nobody}")),
            "✗ destination \"more\": cannot be reached: ",
            "Connection refused",
        ),
        (
            kafka("no-such-host.invalid:9092"),
            "✗ destinations.more.properties.\"bootstrap.servers\": the name no-such-host.invalid is not known",
            "check its spelling",
        ),
        (
            kafka(&format!("127.0.0.1:{nobody}")),
            "✗ destination \"more\": cannot be reached: ",
            "Connection refused",
        ),
    ];
    for (lines, begin, words) in cases {
        let machine = Machine::new();
        machine.destination(&lines);
        machine.says(begin, words);
        assert_eq!(machine.complaints(&["--offline"]), [""; 0]);
    }
}

#[test]
fn a_broker_that_does_not_let_the_gateway_in() {
    let mut broker = Mosquitto::with("allow_anonymous false\npassword_file DIR/users");
    broker.write_password("users", "gateway", "right");
    broker.start();
    let machine = Machine::new();
    machine.destination(&format!(
        "type = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{}\"\ntopic_base = \"t\"\nlayout = \"records\"\nusername = \"gateway\"\npassword_file = \"password\"",
        broker.port
    ));
    machine.write("password", "wrong\n");
    machine.says("✗ destination \"more\": cannot be reached: ", "password");
    machine.write("password", "right\n");
    assert_eq!(machine.complaints(&[]), [""; 0]);
    // TLS where there is none.
    machine.daemon.edit("mqtt://127.0.0.1", "mqtts://127.0.0.1");
    let complaints = machine.complaints(&[]);
    let [line] = &complaints[..] else {
        panic!("{complaints:#?}")
    };
    assert!(
        line.starts_with("✗ destination \"more\": cannot be reached: "),
        "{line}"
    );
}

#[test]
fn a_broker_that_takes_less_than_the_gateway_will_ask_for() {
    for (limit, words) in [
        ("max_qos 0", "takes QoS 0 at most; set qos = 0"),
        (
            "retain_available false",
            "keeps no retained messages; set status = false",
        ),
    ] {
        // Only who begins like the gateway is known there.
        let mut broker = Mosquitto::with(&format!("{limit}\nclientid_prefixes gate"));
        broker.start();
        let machine = Machine::new();
        machine.destination(&format!(
            "type = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{}\"\ntopic_base = \"t\"\nlayout = \"records\"\nclient_id = \"gate\"",
            broker.port
        ));
        machine.says("✗ destination \"more\": cannot be reached: ", words);
    }
}

/// OpenSSL's own server, as a stranger that answers in the gateway's place.
struct Stranger {
    child: Child,
    port: u16,
}

impl Stranger {
    fn new(machine: &Machine, more: &[&str]) -> Self {
        let port = free_port();
        let child = alone(&daemon::require("openssl", "apt-get install -y openssl"))
            .args(["s_server", "-quiet", "-www", "-accept", &port.to_string()])
            .arg("-cert_chain")
            .arg(machine.path("server.pem"))
            .arg("-cert")
            .arg(machine.path("server.pem"))
            .arg("-key")
            .arg(machine.path("server.key"))
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("it listens", Duration::from_secs(20), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self { child, port }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn from_outside(address: &str, ca: &std::path::Path) -> (Vec<String>, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_waystation"))
        .args(["check", "--server", address, "--ca"])
        .arg(ca)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (said.lines().map(str::to_owned).collect(), output.status.code())
}

fn faults(lines: &[String]) -> Vec<&String> {
    lines.iter().filter(|line| line.starts_with('✗')).collect()
}

#[test]
fn a_gateway_from_outside() {
    let mut machine = Machine::new();
    let ca = machine.path("server-ca.pem");
    machine.daemon.start();
    let port = machine.daemon.port;
    let (lines, code) = from_outside(&format!("localhost:{port}"), &ca);
    assert_eq!((faults(&lines), code), (Vec::new(), Some(0)), "{lines:#?}");
    assert!(
        lines.contains(&"✓ it asks for a client certificate and sends no list of acceptable authorities".to_owned())
    );
    // An authority that did not sign it.
    let (lines, code) = from_outside(&format!("localhost:{port}"), &machine.path("vehicle-ca.pem"));
    assert_eq!((faults(&lines).len(), code), (1, Some(1)), "{lines:#?}");
    assert!(
        faults(&lines)[0].starts_with("✗ it is not trusted for localhost"),
        "{lines:#?}"
    );
    let nobody = free_port();
    let (lines, _) = from_outside(&format!("localhost:{nobody}"), &ca);
    assert!(faults(&lines)[0].contains("is the gateway running"), "{lines:#?}");
    let (lines, _) = from_outside("no-such-host.invalid:443", &ca);
    assert!(faults(&lines)[0].contains("check the DNS record"), "{lines:#?}");
    let (lines, _) = from_outside("gateway.example.com", &ca);
    assert!(faults(&lines)[0].contains("is not HOST:PORT"), "{lines:#?}");
}

#[test]
fn what_answers_in_the_gateways_place() {
    let machine = Machine::new();
    let ca = machine.path("server-ca.pem");
    let listed = machine.path("vehicle-ca.pem");
    let stranger = Stranger::new(&machine, &["-verify", "1", "-CAfile", listed.to_str().unwrap()]);
    let (lines, _) = from_outside(&format!("localhost:{}", stranger.port), &ca);
    assert_eq!(faults(&lines).len(), 1, "{lines:#?}");
    assert!(
        faults(&lines)[0].starts_with("✗ it sends a list of acceptable authorities (1)"),
        "{lines:#?}"
    );
    let stranger = Stranger::new(&machine, &[]);
    let (lines, _) = from_outside(&format!("localhost:{}", stranger.port), &ca);
    assert_eq!(faults(&lines).len(), 1, "{lines:#?}");
    assert!(
        faults(&lines)[0].starts_with("✗ it asks for no client certificate"),
        "{lines:#?}"
    );
}
