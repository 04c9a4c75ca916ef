//! A real mosquitto and a real subscriber, `mosquitto_sub`, each as a process.
#![allow(dead_code)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::daemon::{alone, bound, free_port, require, signal, wait_for};

pub(crate) const INSTALL: &str = "apt-get install -y mosquitto mosquitto-clients";

/// How a program is started: as it is, or in a network namespace.
type Starter = Box<dyn Fn(&Path) -> Command>;

/// A broker; without persistence unless it is asked for: killed, it comes back without its state.
pub(crate) struct Mosquitto {
    dir: tempfile::TempDir,
    pub(crate) port: u16,
    starter: Starter,
    child: Option<Child>,
}

impl Mosquitto {
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// One with these lines in its configuration too, in which `DIR` is its directory.
    pub(crate) fn with(more: &str) -> Self {
        Self::made("127.0.0.1", more, Box::new(alone))
    }

    /// One that the kernel kills when the thread that starts it has ended.
    pub(crate) fn bound() -> Self {
        // Started by root it would become another user.
        Self::made("127.0.0.1", "user root", Box::new(bound))
    }

    /// One whose process is started by this, and that listens on all addresses there.
    pub(crate) fn started_by(starter: impl Fn(&Path) -> Command + 'static) -> Self {
        Self::made("0.0.0.0", "", Box::new(starter))
    }

    fn made(address: &str, more: &str, starter: Starter) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let config = format!(
            "listener {port} {address}\nallow_anonymous true\npersistence false\nmax_queued_messages 0\n\
             max_queued_bytes 0\nmax_inflight_messages 200\nlog_type error\n{}\n",
            more.replace("DIR", &dir.path().display().to_string())
        );
        fs::write(dir.path().join("mosquitto.conf"), config).unwrap();
        Self {
            dir,
            port,
            starter,
            child: None,
        }
    }

    /// A file in its directory.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.dir.path().join(name), content).unwrap();
    }

    /// A password file, as `mosquitto_passwd` writes it, in its directory.
    pub(crate) fn write_password(&self, name: &str, user: &str, password: &str) {
        let made = Command::new(require("mosquitto_passwd", INSTALL))
            .args(["-b", "-c"])
            .arg(self.dir.path().join(name))
            .args([user, password])
            .status()
            .unwrap();
        assert!(made.success());
    }

    pub(crate) fn start(&mut self) {
        let child = (self.starter)(&require("mosquitto", INSTALL))
            .arg("-c")
            .arg(self.dir.path().join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Its own view of the network: ours may be cut off from it.
        let sockets = format!("/proc/{}/net/tcp", child.id());
        let listening = format!(":{:04X} 00000000:0000 0A ", self.port);
        self.child = Some(child);
        wait_for("mosquitto listens", Duration::from_secs(10), || {
            fs::read_to_string(&sockets).is_ok_and(|sockets| sockets.contains(&listening))
        });
    }

    /// Subscribes beside it, over its own loopback.
    pub(crate) fn subscribe(&self, filter: &str) -> Subscriber {
        Subscriber::started_by(&*self.starter, self.port, filter, &[])
    }

    /// SIGSTOP: it does nothing until it is resumed.
    pub(crate) fn pause(&self) {
        signal(self.child.as_ref().expect("it runs"), rustix::process::Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        signal(self.child.as_ref().expect("it runs"), rustix::process::Signal::CONT);
    }

    /// SIGTERM: what it is to keep, it writes down.
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        signal(&child, rustix::process::Signal::TERM);
        child.wait().unwrap();
    }

    pub(crate) fn kill_9(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill_9();
        }
    }
}

/// Routes everything to the destination `broker`, on this port and under `fleet/`, with a message for each record.
pub(crate) fn everything_to(port: u16) -> String {
    format!(
        r#"
        [records]
        "*" = ["broker"]
        [destinations.broker]
        type = "mqtt"
        url = "mqtt://127.0.0.1:{port}"
        topic_base = "fleet"
        layout = "records"
        "#
    )
}

/// What one subscriber has received, in order: topic, user properties and payload (hex) of each message. What gateways
/// say of themselves is kept apart.
pub(crate) struct Subscriber {
    child: Child,
    thread: Option<JoinHandle<()>>,
    messages: Arc<Mutex<Vec<Received>>>,
    statuses: Arc<Mutex<Vec<Received>>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) topic: String,
    pub(crate) properties: String,
    pub(crate) payload: Vec<u8>,
}

impl Received {
    /// The value of a user property.
    pub(crate) fn property(&self, name: &str) -> &str {
        let mut parts = self.properties.split(' ');
        let found = parts.find_map(|part| part.strip_prefix(name)?.strip_prefix(':'));
        found.unwrap_or_else(|| panic!("no {name} in {:?}", self.properties))
    }
}

impl Subscriber {
    /// Subscribes, and returns when the broker has confirmed it.
    pub(crate) fn new(port: u16, filter: &str) -> Self {
        Self::started_by(&alone, port, filter, &[])
    }

    /// With other words for mosquitto_sub besides.
    pub(crate) fn with(port: u16, filter: &str, more: &[&str]) -> Self {
        Self::started_by(&alone, port, filter, more)
    }

    /// One for which the broker keeps what comes while it is away.
    pub(crate) fn lasting(port: u16, filter: &str) -> Self {
        Self::started_by(&alone, port, filter, &["-c", "-i", "lasting", "-x", "600"])
    }

    fn started_by(starter: &dyn Fn(&Path) -> Command, port: u16, filter: &str, more: &[&str]) -> Self {
        // Line by line: into a pipe, what it says about itself would come in blocks.
        let mut child = starter(Path::new("stdbuf"))
            .arg("-oL")
            .arg(require("mosquitto_sub", INSTALL))
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &port.to_string(),
                "-V",
                "5",
                "-q",
                "1",
                "-d",
                "-t",
                filter,
            ])
            .args(more)
            .args(["-F", "MESSAGE\t%t\t%P\t%x"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let messages: Arc<Mutex<Vec<Received>>> = Arc::default();
        let statuses: Arc<Mutex<Vec<Received>>> = Arc::default();
        let subscribed = Arc::new(Mutex::new(false));
        let (received, confirmed) = (Arc::clone(&messages), Arc::clone(&subscribed));
        let of_gateways = Arc::clone(&statuses);
        let output = BufReader::new(child.stdout.take().unwrap());
        let thread = std::thread::spawn(move || {
            for line in output.lines() {
                let Ok(line) = line else { return };
                if line.starts_with("Subscribed") {
                    *confirmed.lock().unwrap() = true;
                }
                let mut parts = line.split('\t');
                if parts.next() != Some("MESSAGE") {
                    continue;
                }
                let mut part = || parts.next().unwrap_or_default().to_owned();
                let (topic, properties, hex) = (part(), part(), part());
                let payload = (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap());
                let list = match topic.contains("/waystation/") {
                    true => &of_gateways,
                    false => &received,
                };
                list.lock().unwrap().push(Received {
                    topic,
                    properties,
                    payload: payload.collect(),
                });
            }
        });
        wait_for("mosquitto_sub is subscribed", Duration::from_secs(10), || {
            if let Some(ended) = child.try_wait().unwrap() {
                let mut error = String::new();
                child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
                panic!("mosquitto_sub ended: {ended} {error}");
            }
            *subscribed.lock().unwrap()
        });
        Self {
            child,
            thread: Some(thread),
            messages,
            statuses,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.messages.lock().unwrap().len()
    }

    pub(crate) fn messages(&self) -> Vec<Received> {
        self.messages.lock().unwrap().clone()
    }

    /// What gateways have said of themselves: topics and words.
    pub(crate) fn statuses(&self) -> Vec<(String, String)> {
        let statuses = self.statuses.lock().unwrap();
        let words = statuses
            .iter()
            .map(|one| (one.topic.clone(), String::from_utf8_lossy(&one.payload).into_owned()));
        words.collect()
    }

    /// The messages since the last call.
    pub(crate) fn take(&self) -> Vec<Received> {
        std::mem::take(&mut self.messages.lock().unwrap())
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
