//! The processes that are measured and those that load them: pinned, asked for their memory and their time, and ended
//! with the benchmark, however that ends: the kernel kills them when its thread that starts them is gone.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::daemon::{free_port, get};
use crate::load::{CONNECTED, Load, Loaded};

/// The program under test, built with the benchmark.
pub(crate) const WAYSTATION: &str = env!("CARGO_BIN_EXE_waystation");
/// The environment that the unit starts it with is part of what is measured.
const UNIT: &str = include_str!("../../systemd/waystation.service");
/// What the benchmark's own executable is when it is started again: see `main`.
pub(crate) const ROLE: &str = "WAYSTATION_BENCH_ROLE";

/// Which processor a process gets; all of them where there is one only.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    Gateway,
    Load,
}

impl Side {
    /// `None`: there is one only.
    fn processor(self) -> Option<usize> {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        (processors >= 2).then_some(match self {
            Self::Gateway => 0,
            Self::Load => 1,
        })
    }
}

fn pinned(side: Side, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    if let Some(processor) = side.processor() {
        command.args(["taskset", "--cpu-list", &processor.to_string()]);
    }
    command.arg(program);
    command
}

/// Starts what is not this executable's, a broker: with the processor that the load has.
pub(crate) fn beside<T>(start: impl FnOnce() -> T) -> T {
    let before = sched_getaffinity(None).expect("Linux knows it");
    if let Some(processor) = Side::Load.processor() {
        let mut side = CpuSet::new();
        side.set(processor);
        sched_setaffinity(None, &side).expect("it is one of this process's");
    }
    let started = start();
    sched_setaffinity(None, &before).expect("it was so before");
    started
}

/// A process that is killed when it is dropped.
pub(crate) struct Process(Child, Option<BufReader<ChildStdout>>);

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let said = child.stdout.take().map(BufReader::new);
        Self(child, said)
    }

    /// One that says a line when it is ready, and perhaps more later.
    pub(crate) fn saying(mut command: Command) -> (Self, String) {
        command.stdout(Stdio::piped());
        let mut process = Self::start(command);
        let line = process.line();
        (process, line)
    }

    /// The next line that it says.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        let said = self.1.as_mut().expect("it was started to be heard");
        said.read_line(&mut line).expect("it is text");
        line.trim_end().to_owned()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    /// A figure of `/proc/PID/status`, in bytes.
    fn status(&self, name: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("it runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .expect("Linux has it");
        let number = line.trim_start_matches(':').trim().trim_end_matches(" kB");
        number.parse::<f64>().expect("a number") * 1024.0
    }

    /// Resident memory, in bytes.
    pub(crate) fn memory(&self) -> f64 {
        self.status("VmRSS")
    }

    /// Processor time until now, in seconds.
    pub(crate) fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("it runs");
        // Behind the name, which may have spaces in it: the 12th and 13th are user and system time.
        let fields: Vec<_> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
        (ticks(11) + ticks(12)) / rustix::param::clock_ticks_per_second() as f64
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    /// SIGTERM, and its end.
    pub(crate) fn end(mut self) {
        self.signal(Signal::TERM);
        self.0.wait().expect("it was started here");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

/// A gateway with its folder and its ports.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    pub(crate) port: u16,
    admin: u16,
}

/// What a gateway is configured with beyond what all have.
pub(crate) struct Setup<'a> {
    pub(crate) pki: &'a Path,
    /// Configuration, log and, unless the queue is elsewhere, the queue.
    pub(crate) dir: &'a Path,
    pub(crate) queue: &'a str,
    pub(crate) rest: &'a str,
}

/// Where records go that need not go anywhere: a live feed without a subscriber.
pub(crate) const TO_NOBODY: &str = r#"
[records]
V = ["live"]
[destinations.live]
type = "zmq"
bind = "tcp://127.0.0.1:PORT"
namespace = "bench"
"#;

impl Gateway {
    /// What starts it, and the ports of vehicles and of the admin pages.
    pub(crate) fn command(setup: &Setup<'_>) -> (Command, u16, u16) {
        let (port, admin) = (free_port(), free_port());
        let config = configuration(setup, port, admin);
        let log = fs::File::create(setup.dir.join("log.txt")).expect("a file");
        let mut command = pinned(Side::Gateway, Path::new(WAYSTATION));
        command.arg("run").arg("--config").arg(&config);
        command.env_remove("JOURNAL_STREAM").env_remove("NOTIFY_SOCKET");
        let lines = UNIT.lines().filter_map(|line| line.strip_prefix("Environment="));
        command.envs(
            lines
                .flat_map(str::split_whitespace)
                .filter_map(|word| word.split_once('=')),
        );
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        (command, port, admin)
    }

    /// Started and serving.
    pub(crate) fn start(setup: &Setup<'_>) -> Self {
        let (command, port, admin) = Self::command(setup);
        let mut process = Process::start(command);
        let log = setup.dir.join("log.txt");
        let deadline = Instant::now() + Duration::from_secs(120);
        while get(admin, "/status").as_deref() != Some("ok") {
            let said = fs::read_to_string(&log).unwrap_or_default();
            let ended = process.0.try_wait().expect("it was started here");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "the gateway did not start:\n{said}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { process, port, admin }
    }

    /// One of its own figures.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = get(self.admin, "/metrics").expect("it answers");
        let line = text.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        line.rsplit(' ')
            .next()
            .and_then(|value| value.parse().ok())
            .expect("a number")
    }

    /// How many records a destination has not confirmed.
    pub(crate) fn backlog(&self, destination: &str) -> f64 {
        self.metric(&format!("waystation_backlog_records{{destination=\"{destination}\""))
    }
}

fn configuration(setup: &Setup<'_>, port: u16, admin: u16) -> PathBuf {
    let path = setup.dir.join("config.toml");
    let pki = setup.pki.display();
    let Setup { dir, queue, rest, .. } = setup;
    let place = match queue.contains("path =") {
        true => String::new(),
        false => format!("path = \"{}\"", dir.join("queue").display()),
    };
    let rest = rest.replace("PORT", &free_port().to_string());
    let text = format!(
        r#"
        [listener]
        bind = "127.0.0.1:{port}"
        certificate = "{pki}/server.pem"
        private_key = "{pki}/server.key"
        vehicle_ca = ["{pki}/vehicle-ca.pem"]
        messages_per_second = 1000000
        max_connections = 2000
        [queue]
        {place}
        {queue}
        [admin]
        bind = "127.0.0.1:{admin}"
        [log]
        level = "warn"
        {rest}
        "#
    );
    fs::write(&path, text).expect("the folder can be written to");
    path
}

/// This executable again, as `role` with these words.
pub(crate) fn role(side: Side, role: &str, words: &[&str]) -> Command {
    let own = std::env::current_exe().expect("Linux knows it");
    let mut command = pinned(side, &own);
    command.env(ROLE, role).args(words).stdin(Stdio::null());
    command
}

/// The vehicles, connected.
pub(crate) struct Vehicles(Process);

impl Vehicles {
    pub(crate) fn connect(load: &Load) -> Self {
        Self::with(load, Stdio::inherit())
    }

    /// Those of a gateway that is killed: what they say of that is no news.
    pub(crate) fn connect_silent(load: &Load) -> Self {
        Self::with(load, Stdio::null())
    }

    fn with(load: &Load, complaints: Stdio) -> Self {
        let words = serde_json::to_string(load).expect("plain values");
        let mut command = role(Side::Load, "load", &[&words]);
        command.stderr(complaints);
        let (process, said) = Process::saying(command);
        assert_eq!(said, CONNECTED, "the vehicles did not connect");
        Self(process)
    }

    /// Waits until they have driven.
    pub(crate) fn arrive(mut self) -> Loaded {
        let line = self.0.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("the vehicles say {line:?}: {error}"))
    }
}
