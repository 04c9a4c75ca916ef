//! The real binary as a process: started, killed, stopped, and asked how it is.
#![allow(dead_code)]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use waystation::cli::pki::{self, Pki};
use waystation::cli::simulate::{self, Live, Mix, Plan, VehicleTally};

/// A configured gateway: its directory, its ports, its process while it runs.
pub(crate) struct Daemon {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) port: u16,
    pub(crate) admin: u16,
    config: PathBuf,
    environment: Vec<(String, String)>,
    open_files: Option<String>,
    child: Option<Child>,
}

/// A port that is free now, and that nobody else in this process is given: below those that the kernel gives out, so that
/// no connection takes it before whoever asked for it listens.
pub(crate) fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (std::process::id().wrapping_mul(101).wrapping_add(given) % 22_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until something holds, or fails with what was waited for.
pub(crate) fn wait_for(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Daemon {
    /// A directory with a PKI for so many vehicles and a configuration with these records and destinations.
    pub(crate) fn new(vehicles: usize, queue: &str, rest: &str) -> Self {
        Self::reached_by("127.0.0.1", &[], vehicles, queue, rest)
    }

    /// One that listens on this address, and whose certificate has these names and addresses too.
    pub(crate) fn reached_by(bind: &str, names: &[String], vehicles: usize, queue: &str, rest: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Pki::new(names)
            .unwrap()
            .write(dir.path(), &pki::vins(vehicles))
            .unwrap();
        let (port, admin) = (free_port(), free_port());
        let config = dir.path().join("config.toml");
        let text = format!(
            r#"
            shutdown_grace = "20s"
            [listener]
            bind = "{bind}:{port}"
            certificate = "server.pem"
            private_key = "server.key"
            vehicle_ca = ["vehicle-ca.pem"]
            messages_per_second = 100000
            [queue]
            path = "queue"
            {queue}
            [admin]
            bind = "127.0.0.1:{admin}"
            {rest}
            "#
        );
        fs::write(&config, text).unwrap();
        Self {
            dir,
            port,
            admin,
            config,
            environment: Vec::new(),
            open_files: None,
            child: None,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the process and waits until it serves.
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log.txt"))
            .unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_waystation"));
        let mut command = match &self.open_files {
            None => alone(program),
            Some(limit) => limited(limit, program),
        };
        let child = command
            .arg("run")
            .arg("--config")
            .arg(&self.config)
            .env_remove("JOURNAL_STREAM")
            .env_remove("NOTIFY_SOCKET")
            .envs(self.environment.clone())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(30);
        while get(self.admin, "/status").as_deref() != Some("ok") {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "did not start: {ended:?}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn kill_9(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and how and after what time it ended.
    pub(crate) fn terminate(&mut self) -> (ExitStatus, Duration) {
        let mut child = self.child.take().expect("it runs");
        let pid = rustix::process::Pid::from_child(&child);
        let started = Instant::now();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        wait_for("the process ends", Duration::from_secs(40), || {
            child.try_wait().unwrap().is_some()
        });
        (child.wait().unwrap(), started.elapsed())
    }

    /// SIGSTOP: it does nothing until it is resumed.
    pub(crate) fn pause(&self) {
        signal(self.child.as_ref().expect("it runs"), rustix::process::Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        signal(self.child.as_ref().expect("it runs"), rustix::process::Signal::CONT);
    }

    /// Changes the configuration file.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(from), "{from:?} in\n{text}");
        fs::write(&self.config, text.replace(from, to)).unwrap();
    }

    /// SIGHUP, and what it logs about that.
    pub(crate) fn reload(&self) -> String {
        let before = self.log().len();
        signal(self.child.as_ref().expect("it runs"), rustix::process::Signal::HUP);
        let said = || self.log()[before..].to_owned();
        wait_for("it says what became of the reload", Duration::from_secs(20), || {
            said().lines().any(|line| line.contains("reloaded"))
        });
        said()
    }

    /// A variable of the process that is started next.
    pub(crate) fn environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// How many files the process that is started next may have open: `SOFT:HARD`.
    pub(crate) fn limit_open_files(&mut self, limit: &str) {
        self.open_files = Some(limit.to_owned());
    }

    /// Runs a command on its configuration, in its environment.
    pub(crate) fn run_with_environment(&self, arguments: &[&str]) -> std::process::Output {
        Command::new(env!("CARGO_BIN_EXE_waystation"))
            .args(arguments)
            .arg("--config")
            .arg(&self.config)
            .envs(self.environment.clone())
            .output()
            .unwrap()
    }

    /// Resident memory, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let pid = self.child.as_ref().expect("it runs").id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log.txt")).unwrap_or_default()
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        status_at(self.admin).unwrap_or_else(|| panic!("no status\n{}", self.log()))
    }

    /// What `waystation queue show` says of its queue; also while it does not run.
    pub(crate) fn show(&self) -> serde_json::Value {
        let output = Command::new(env!("CARGO_BIN_EXE_waystation"))
            .args(["queue", "show", "--json", "--config"])
            .arg(&self.config)
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "queue show: {} {words}", output.status);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) fn metrics(&self) -> String {
        get(self.admin, "/metrics").unwrap()
    }

    /// One destination's figure in the status.
    pub(crate) fn figure(&self, destination: &str, name: &str) -> u64 {
        let one = self.destination(destination);
        one[name].as_u64().unwrap_or_else(|| panic!("{name} in {one}"))
    }

    /// Why nothing arrives at a destination.
    pub(crate) fn last_error(&self, destination: &str) -> Option<String> {
        self.destination(destination)["last_error"].as_str().map(str::to_owned)
    }

    /// Whether a destination's last word was a good one.
    pub(crate) fn connected(&self, destination: &str) -> bool {
        self.destination(destination)["connected"].as_bool().unwrap()
    }

    fn destination(&self, name: &str) -> serde_json::Value {
        let status = self.status();
        let destinations = status["destinations"].as_array().unwrap();
        destinations.iter().find(|one| one["name"] == name).unwrap().clone()
    }

    /// Waits until a destination has everything that is committed.
    pub(crate) fn wait_drained(&self, destination: &str, limit: Duration) {
        wait_for(&format!("{destination} has drained"), limit, || {
            self.figure(destination, "backlog") == 0
        });
    }

    /// Vehicles that send so many records each, in a thread of their own, so that a test can be written down in the
    /// order in which things happen.
    pub(crate) fn drive(
        &self,
        vehicles: usize,
        records: u64,
        rate: f64,
        live: &Arc<Live>,
    ) -> JoinHandle<Vec<VehicleTally>> {
        self.fleet(vehicles, Some(records), rate, live, CancellationToken::new())
    }

    /// Vehicles that send until they are told to stop.
    pub(crate) fn drive_until(
        &self,
        stop: &CancellationToken,
        vehicles: usize,
        rate: f64,
        live: &Arc<Live>,
    ) -> JoinHandle<Vec<VehicleTally>> {
        self.fleet(vehicles, None, rate, live, stop.clone())
    }

    fn fleet(
        &self,
        vehicles: usize,
        records: Option<u64>,
        rate: f64,
        live: &Arc<Live>,
        stop: CancellationToken,
    ) -> JoinHandle<Vec<VehicleTally>> {
        let vehicles = simulate::load_vehicles(self.dir.path(), vehicles).unwrap();
        let live = Arc::clone(live);
        let plan = Plan {
            connect: format!("localhost:{}", self.port),
            rate,
            records,
            duration: None,
            window: 64,
            mix: Mix([80, 10, 10]),
            linger: Duration::from_secs(120),
            memory: None,
        };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(simulate::run_fleet(vehicles, plan, live, stop))
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(4000);
            eprintln!(
                "--- the daemon's log ends with\n{}",
                String::from_utf8_lossy(&log.as_bytes()[from..])
            );
        }
    }
}

/// What a daemon with this admin port says of itself, if it runs and is not paused.
pub(crate) fn status_at(admin: u16) -> Option<serde_json::Value> {
    let body = get(admin, "/status.json")?;
    Some(serde_json::from_str(&body).unwrap())
}

pub(crate) fn signal(child: &Child, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
}

/// What a page of this port says, if it answers with 200.
pub(crate) fn get(port: u16, path: &str) -> Option<String> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}

/// A program that gets none of our open files. librdkafka's mock cluster does not mark its sockets as not to be inherited:
/// a child that had them would keep connections and listeners alive that the cluster has closed, and nobody answers there.
pub(crate) fn alone(program: &Path) -> Command {
    const CLOSE: &str = r#"for fd in /proc/self/fd/*; do
        fd=${fd##*/}
        if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi
    done
    exec "$@""#;
    let mut command = Command::new("bash");
    command.args(["-c", CLOSE, "bash"]).arg(program);
    command
}

/// A program that may have so many files open: `SOFT:HARD`.
pub(crate) fn limited(limit: &str, program: &Path) -> Command {
    let mut command = alone(&require("prlimit", "apt-get install -y util-linux"));
    command.arg(format!("--nofile={limit}")).arg(program);
    command
}

pub(crate) const SETPRIV: &str = "apt-get install -y util-linux";

/// The same, killed by the kernel when the thread that starts it has ended. It must not change its user: then it would
/// live on.
pub(crate) fn bound(program: &Path) -> Command {
    let mut command = alone(&require("setpriv", SETPRIV));
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// The command that has to be there.
pub(crate) fn require(command: &str, install: &str) -> PathBuf {
    sought(command, install).unwrap_or_else(|missing| panic!("{missing}"))
}

/// Where a command is, or that it is missing and the line that installs it.
pub(crate) fn sought(command: &str, install: &str) -> Result<PathBuf, String> {
    let folders = std::env::var("PATH").unwrap() + ":/usr/sbin:/sbin";
    let found = folders
        .split(':')
        .map(|folder| Path::new(folder).join(command))
        .find(|path| path.is_file());
    found.ok_or_else(|| format!("{command} is missing; install it: {install}"))
}
