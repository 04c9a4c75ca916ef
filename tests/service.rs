//! The daemon as a service manager sees it: readiness, watchdog, the end, exit codes, metrics.
#![allow(clippy::unwrap_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/loop_disk.rs"]
mod loop_disk;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use daemon::{Daemon, free_port, require, signal, wait_for};
use loop_disk::LoopDisk;
use rustix::process::Signal;
use waystation::cli::pki::{self, Pki};
use waystation::cli::simulate::Live;

const LOG: &str = r#"
    [records]
    "*" = ["file"]
    [destinations.file]
    type = "log"
    path = "out.jsonl"
"#;

fn waystation(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_waystation"))
        .args(arguments)
        .output()
        .unwrap()
}

/// A gateway that is told that this socket is systemd's, with a watchdog of so much.
struct Service {
    systemd: UnixDatagram,
    child: std::process::Child,
}

impl Service {
    fn start(daemon: &Daemon, watchdog: Duration) -> Self {
        let socket = daemon.path("notify");
        let systemd = UnixDatagram::bind(&socket).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_waystation"))
            .args(["run", "--config"])
            .arg(daemon.path("config.toml"))
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", watchdog.as_micros().to_string())
            .env_remove("WATCHDOG_PID")
            .stderr(fs::File::create(daemon.path("log.txt")).unwrap())
            .spawn()
            .unwrap();
        Self { systemd, child }
    }

    /// What it says next, if it says anything within so much.
    fn told(&self, within: Duration) -> Option<String> {
        self.systemd.set_read_timeout(Some(within)).unwrap();
        let mut buffer = [0; 1024];
        let length = self.systemd.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned())
    }

    /// Waits until it says something that begins so.
    fn wait(&self, prefix: &str) -> String {
        let told = std::iter::from_fn(|| self.told(Duration::from_secs(30)));
        let found = told.into_iter().find(|state| state.starts_with(prefix));
        found.unwrap_or_else(|| panic!("{prefix} was not said"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.kill());
        self.child.wait().unwrap();
    }
}

#[test]
fn systemd_is_told_when_it_is_ready_alive_and_stopping_and_how_it_is() {
    let daemon = Daemon::new(1, "", LOG);
    let mut service = Service::start(&daemon, Duration::from_millis(600));
    let told = |limit| service.told(Duration::from_secs(limit)).unwrap();
    assert_eq!(told(20), "READY=1");
    // The file may not be open by then.
    let state = service.wait("STATUS=");
    if state != "STATUS=0 vehicles; queue 0 KiB; file: nothing sent yet" {
        assert_eq!(state, "STATUS=0 vehicles; queue 0 KiB; file: connected");
    } else {
        service.wait("STATUS=0 vehicles; queue 0 KiB; file: connected");
    }
    service.wait("WATCHDOG=1");
    service.wait("WATCHDOG=1");
    let live = Arc::new(Live::default());
    daemon.drive(1, 5, 0.0, &live).join().unwrap();
    let status = service.wait("STATUS=");
    assert!(
        status.ends_with("; file: connected") && !status.contains("queue 0 KiB"),
        "{status}"
    );
    let pid = rustix::process::Pid::from_child(&service.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    service.wait("STOPPING=1");
    wait_for("the process ends", Duration::from_secs(30), || {
        service.child.try_wait().unwrap().is_some()
    });
    assert!(service.child.wait().unwrap().success());
}

/// It would end the process, which passes for a service that was stopped.
#[test]
fn a_reload_during_the_start_is_done_when_it_has_started() {
    let daemon = Daemon::new(1, "", LOG);
    let (config, real) = (daemon.path("config.toml"), daemon.path("real.toml"));
    fs::rename(&config, &real).unwrap();
    assert!(Command::new("mkfifo").arg(&config).status().unwrap().success());
    let mut service = Service::start(&daemon, Duration::from_secs(60));
    // As soon as somebody reads.
    let mut slow = fs::File::options().write(true).open(&config).unwrap();
    signal(&service.child, Signal::HUP);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(service.child.try_wait().unwrap(), None);
    let text = fs::read_to_string(&real).unwrap();
    fs::rename(&real, &config).unwrap();
    slow.write_all(text.as_bytes()).unwrap();
    drop(slow);
    service.wait("READY=1");
    service.wait("RELOADING=1");
    service.wait("READY=1");
    assert!(daemon.log().contains("configuration reloaded"), "{}", daemon.log());
}

#[test]
fn a_writer_that_is_stuck_in_the_disk_starves_the_watchdog() {
    let daemon = Daemon::new(1, "keep_free = \"1 MiB\"", LOG);
    let disk = LoopDisk::new(&daemon.path("disk"), 64);
    daemon.edit("path = \"queue\"", "path = \"disk/queue\"");
    let service = Service::start(&daemon, Duration::from_secs(3));
    service.wait("READY=1");
    service.wait("WATCHDOG=1");
    let frozen = disk.freeze();
    // Something to write, which hangs.
    let live = Arc::new(Live::default());
    let fleet = daemon.drive(1, 1, 0.0, &live);
    wait_for("it says that its writer is stuck", Duration::from_secs(60), || {
        // Like systemd, which hears all of it.
        while service.told(Duration::from_millis(1)).is_some() {}
        daemon
            .log()
            .contains("the queue's writer is stuck: the watchdog is not fed any more")
    });
    let hungry = std::iter::from_fn(|| service.told(Duration::from_secs(4)));
    assert_eq!(hungry.filter(|state| state == "WATCHDOG=1").count(), 0);
    drop(frozen);
    service.wait("WATCHDOG=1");
    fleet.join().unwrap();
}

#[test]
fn a_socket_that_systemd_opened_is_taken_over() {
    let mut daemon = Daemon::new(1, "", LOG);
    // Taken, so that a gateway that binds by itself does not start.
    let passed = free_port();
    let taken = TcpListener::bind(("127.0.0.1", daemon.port)).unwrap();
    let activate = require("systemd-socket-activate", "apt-get install -y systemd");
    let mut child = Command::new(activate)
        .arg(format!("--listen=127.0.0.1:{passed}"))
        .arg(env!("CARGO_BIN_EXE_waystation"))
        .args(["run", "--config"])
        .arg(daemon.path("config.toml"))
        .stderr(fs::File::create(daemon.path("log.txt")).unwrap())
        .spawn()
        .unwrap();
    daemon.port = passed;
    let live = Arc::new(Live::default());
    let tallies = daemon.drive(1, 20, 0.0, &live).join().unwrap();
    assert_eq!(tallies[0].acked.len(), 20, "{}", daemon.log());
    assert!(daemon.log().contains("is not used"), "{}", daemon.log());
    child.kill().unwrap();
    child.wait().unwrap();
    drop(taken);
}

#[test]
fn exit_codes_tell_what_kind_of_failure_it_was() {
    assert_eq!(waystation(&["--version"]).status.code(), Some(0));
    assert_eq!(waystation(&["no-such-command"]).status.code(), Some(2));
    for (arguments, fix) in [
        ("simulate --pki x --connect gateway", "add :PORT"),
        ("simulate --pki x --vehicles 0", "from 1 on"),
        ("demo --for 0s", "more than 0"),
        ("demo --for 5s --outage 10s", "shorter than --for 5s"),
        ("pki --out x --vin bad/vin", "\"bad/vin\" is not a VIN"),
        ("pki --out x --name https://gateway", "not a host name"),
    ] {
        let output = waystation(&arguments.split(' ').collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(fix), "{said}");
    }
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    fs::write(&config, "[listener]\nbind = \"nonsense\"\n").unwrap();
    for command in ["run", "check"] {
        let output = waystation(&[command, "--config", config.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(78));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("listener.bind") && text.contains("nonsense"), "{text}");
    }
    let missing = waystation(&["run", "--config", "/no/such/file.toml"]);
    assert_eq!(missing.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/no/such/file.toml"));
}

#[test]
fn run_tells_all_that_is_wrong_with_files_and_destinations_and_counts_it_as_configuration() {
    let daemon = Daemon::new(1, "", LOG);
    let config = daemon.path("config.toml");
    let run = || {
        let output = waystation(&["run", "--config", config.to_str().unwrap()]);
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let right = fs::read_to_string(&config).unwrap();
    let wrong = right
        .replace("server.pem", "none.pem")
        .replace("server.key", "none.key")
        .replace("vehicle-ca.pem", "none-ca.pem");
    fs::write(&config, wrong).unwrap();
    let (code, said) = run();
    assert_eq!(code, Some(78), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    for (line, key) in lines.iter().zip(["certificate", "private_key", "vehicle_ca"]) {
        assert!(
            line.starts_with(&format!("waystation: listener.{key}: cannot read ")),
            "{said}"
        );
    }
    let broker = |name| {
        format!("[destinations.{name}]\ntype = \"mqtt\"\nurl = \"mqtts://h\"\ntopic_base = \"t\"\nca = \"no.pem\"\n")
    };
    fs::write(&config, format!("{right}\n{}{}", broker("one"), broker("two"))).unwrap();
    let (code, said) = run();
    assert_eq!(code, Some(78), "{said}");
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("waystation: ")).collect();
    assert!(
        lines.len() == 2 && lines[0].contains("\"one\"") && lines[1].contains("\"two\""),
        "{said}"
    );
}

#[test]
fn run_says_what_check_says_of_a_queue_or_a_port_that_it_cannot_have() {
    let daemon = Daemon::new(1, "", LOG);
    let config = daemon.path("config.toml");
    let says = |command: &str| {
        let output = waystation(&[command, "--config", config.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let taken = TcpListener::bind(("127.0.0.1", daemon.port)).unwrap();
    let port = format!(
        "listener.bind: cannot listen on 127.0.0.1:{0}: Address already in use (os error 98); another process has it: `ss -ltnp 'sport = :{0}'` shows which; stop that, or write another port\n",
        daemon.port
    );
    fs::write(daemon.path("queue"), "a file").unwrap();
    let queue = format!(
        "queue.path: {} is not a directory; name another, or move that file away\n",
        daemon.path("queue").display()
    );
    assert!(says("run").contains(&port), "{}", says("run"));
    let checked = says("check");
    assert!(
        checked.contains(port.trim_end()) && checked.contains(&queue),
        "{checked}"
    );
    drop(taken);
    assert!(says("run").contains(&queue), "{}", says("run"));
}

#[test]
fn check_finds_what_would_keep_it_from_running_and_changes_nothing() {
    let mut daemon = Daemon::new(1, "", LOG);
    let config = daemon.path("config.toml");
    let check = || waystation(&["check", "--config", config.to_str().unwrap()]);
    let lines = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let good = check();
    assert_eq!(good.status.code(), Some(0), "{}", lines(&good));
    assert!(!daemon.path("queue").exists() && !daemon.path("out.jsonl").exists());

    let right = fs::read_to_string(&config).unwrap();
    for (path, fault) in [("nowhere/out.jsonl", "does not exist"), ("vehicles", "is a directory")] {
        fs::write(&config, right.replace("out.jsonl", path)).unwrap();
        let said = lines(&check());
        let line = said.lines().find(|line| line.starts_with("✗ destinations.file.path"));
        assert!(line.is_some_and(|line| line.contains(fault)), "{said}");
    }
    fs::write(&config, &right).unwrap();

    daemon.start();
    let running = check();
    assert_eq!(running.status.code(), Some(0), "{}", lines(&running));
    for note in ["queue.path", "listener.bind", "admin.bind"] {
        assert!(lines(&running).contains(&format!("· {note}")), "{}", lines(&running));
    }
    daemon.terminate();

    let expired = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    fs::write(daemon.path("server.pem"), params.self_signed(&expired).unwrap().pem()).unwrap();
    fs::write(daemon.path("server.key"), expired.serialize_pem()).unwrap();
    let outdated = check();
    assert_eq!(outdated.status.code(), Some(1));
    assert_eq!(lines(&outdated).matches('✗').count(), 1, "{}", lines(&outdated));
    let line = format!("✗ listener.certificate: {}", daemon.path("server.pem").display());
    assert!(lines(&outdated).contains(&line), "{}", lines(&outdated));
    assert!(
        lines(&outdated).contains("expired on 2021-01-01 (valid from 2020-01-01)"),
        "{}",
        lines(&outdated)
    );

    fs::copy(daemon.path("vehicles/5YJ3E1EA7KF000001.key"), daemon.path("server.key")).unwrap();
    let other_key = check();
    assert_eq!(other_key.status.code(), Some(1));
    assert!(
        lines(&other_key).contains("✗ listener.private_key"),
        "{}",
        lines(&other_key)
    );
    fs::remove_file(daemon.path("server.pem")).unwrap();
    assert!(lines(&check()).contains("server.pem"));
    fs::remove_dir_all(daemon.path("queue")).unwrap();
    fs::write(daemon.path("queue"), "a file").unwrap();
    assert!(lines(&check()).contains("✗ queue.path"), "{}", lines(&check()));
}

#[test]
fn vehicles_of_another_pki_say_once_that_it_is_not_the_gateways() {
    let mut daemon = Daemon::new(2, "", LOG);
    daemon.start();
    let address = format!("localhost:{}", daemon.port);
    let other = daemon.path("other");
    let vins = pki::vins(2);
    Pki::new(&[]).unwrap().write(&other, &vins).unwrap();
    let says = || {
        let pki = other.to_str().unwrap();
        let output = waystation(&[
            "simulate",
            "--pki",
            pki,
            "--connect",
            &address,
            "--vehicles",
            "2",
            "--duration",
            "500ms",
        ]);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let foreign = format!(
        "--pki {} does not belong to this gateway; name the folder that",
        other.display()
    );
    let said = says();
    assert_eq!(said.matches(&foreign).count(), 1, "{said}");
    // It trusts the gateway, and is still not let in.
    fs::copy(daemon.path("server-ca.pem"), other.join("server-ca.pem")).unwrap();
    let said = says();
    assert_eq!(said.matches(&foreign).count(), 1, "{said}");
}

#[test]
fn the_last_line_of_the_demo_has_the_figures_of_its_account() {
    let output = waystation(&["demo", "--for", "2s", "--outage", "1s"]);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{shown}");
    let (lines, account) = shown.split_once("\n\n").unwrap();
    let last = lines.lines().last().unwrap();
    let after = |text: &str, name: &str| -> u64 {
        let (_, rest) = text.split_once(name).unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    assert_eq!(after(last, "sent"), after(account, "sent"), "{shown}");
    assert_eq!(after(last, "acked"), after(account, "acknowledged"), "{shown}");
    let read = after(account, "delivered") + after(account, "duplicates");
    assert_eq!(after(last, "delivered"), read, "{shown}");
}

#[test]
fn metrics_have_the_names_that_dashboards_use() {
    let mut daemon = Daemon::new(2, "", LOG);
    daemon.start();
    let live = Arc::new(Live::default());
    daemon.drive(2, 100, 0.0, &live).join().unwrap();
    // Two connectivity records for each vehicle.
    wait_for("all is in the file", Duration::from_secs(20), || {
        daemon.figure("file", "confirmed") == 204
    });
    let metrics = daemon.metrics();
    for line in [
        r#"record_total{record_type="other"} 204"#,
        "reliable_ack 200",
        "reliable_ack_miss 0",
        "record_too_big_total 0",
        "socket_err_total 0",
        r#"dispatch_total{destination="file"} 204"#,
        r#"waystation_backlog_records{destination="file"} 0"#,
        "waystation_committed_records_total 204",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
    }
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok() && !name.is_empty(), "{line}");
    }
    let lines = fs::read_to_string(daemon.path("out.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 204);
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["payload"]["vin"] == line["vin"], "{line}");
    }
}
