//! A libzmq subscriber as a process of its own, started, stopped and read line by line.
#![allow(dead_code)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::daemon::{alone, signal, wait_for};

const INSTALL: &str = "python3 -m venv target/venv && target/venv/bin/pip install -r tests/foreign/requirements.txt";

/// The Python of the tests' own environment, or the line that makes it.
pub(crate) fn python() -> Command {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python");
    assert!(
        python.is_file(),
        "{} is missing; make it in {}: {INSTALL}",
        python.display(),
        env!("CARGO_MANIFEST_DIR")
    );
    alone(&python)
}

pub(crate) struct Subscriber {
    pub(crate) child: Child,
    thread: Option<JoinHandle<()>>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Subscriber {
    pub(crate) fn new(endpoint: &str, topic: &str, more: &[&str]) -> Self {
        let mut child = python()
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/subscriber.py"))
            .args([endpoint, topic])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let read = Arc::clone(&lines);
        let output = BufReader::new(child.stdout.take().unwrap());
        let thread = std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                read.lock().unwrap().push(line);
            }
        });
        Self {
            child,
            thread: Some(thread),
            lines,
        }
    }

    /// Waits until something happened on its connection.
    pub(crate) fn wait_event(&self, name: &str) {
        wait_for(&format!("libzmq says {name}"), Duration::from_secs(20), || {
            self.with("EVENT ").iter().any(|event| event == name)
        });
    }

    /// What stands behind a word, of each line that begins with it.
    pub(crate) fn with(&self, word: &str) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        let found = lines.iter().filter_map(|line| line.strip_prefix(word));
        found.map(str::to_owned).collect()
    }

    /// The frames of each message so far.
    pub(crate) fn messages(&self) -> Vec<Vec<Vec<u8>>> {
        let frames = |line: &String| line.split(' ').map(bytes).collect();
        self.with("MESSAGE ").iter().map(frames).collect()
    }

    /// How many messages there were, as `--summary` says it.
    pub(crate) fn summary(&self) -> u64 {
        self.with("SUMMARY ").pop().map_or(0, |count| count.parse().unwrap())
    }

    /// SIGSTOP: it reads nothing any more.
    pub(crate) fn pause(&self) {
        signal(&self.child, rustix::process::Signal::STOP);
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
    match hex {
        "-" => Vec::new(),
        hex => (0..hex.len() / 2).map(byte).collect(),
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
