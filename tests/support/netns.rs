//! A network namespace of its own, with one cable to ours that the test cuts and mends.
//!
//! Names are of the process that made them: what a killed run left is found by that and taken away.
#![allow(dead_code)]

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Output};

use rustix::process::{Pid, Signal, kill_process};

use crate::daemon::{alone, require};

const INSTALL: &str = "apt-get install -y iproute2";
const PREFIX: &str = "waystation-test";
/// Networks of four addresses each, of those that are for tests of networks (RFC 2544): nobody's route.
const NETWORKS: u32 = 1 << 15;
const FIRST: u32 = u32::from_be_bytes([198, 18, 0, 0]);

/// A namespace; it is deleted when this is dropped.
pub(crate) struct Netns {
    name: String,
    /// Our end of the cable.
    link: String,
    /// The address of our end, and of the end inside.
    pub(crate) outside: Ipv4Addr,
    pub(crate) inside: Ipv4Addr,
}

/// The end of the cable inside; every namespace has names of its own.
const INSIDE: &str = "cable";

impl Netns {
    /// A namespace with its cable plugged in; the number tells those of one process apart.
    pub(crate) fn new(number: u32) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes network namespaces and needs root: sudo env \"PATH=$PATH\" scripts/test.sh --test chaos"
        );
        clear_left_overs();
        let process = std::process::id();
        let (outside, inside) = free_network(process.wrapping_mul(4).wrapping_add(number));
        let this = Self {
            name: format!("{PREFIX}-{process}-{number}"),
            link: format!("wt{process}-{number}"),
            outside,
            inside,
        };
        ip(&["netns", "add", &this.name]);
        ip(&[
            "link", "add", &this.link, "type", "veth", "peer", "name", INSIDE, "netns", &this.name,
        ]);
        ip(&["addr", "add", &format!("{outside}/30"), "dev", &this.link]);
        ip(&["link", "set", &this.link, "up"]);
        this.inside(&["addr", "add", &format!("{inside}/30"), "dev", INSIDE]);
        this.inside(&["link", "set", "lo", "up"]);
        this.mend();
        this
    }

    /// A program that is to run inside. It has the process id of the child itself.
    pub(crate) fn command(&self, program: &Path) -> Command {
        inside_of(&self.name, program)
    }

    /// The same, for those who start programs themselves.
    pub(crate) fn starter(&self) -> impl Fn(&Path) -> Command + 'static {
        let name = self.name.clone();
        move |program| inside_of(&name, program)
    }

    /// From here on nothing gets through, and nobody is told.
    pub(crate) fn cut(&self) {
        // The end inside: ours would take its route along, and packets would look for another way.
        self.inside(&["link", "set", INSIDE, "down"]);
    }

    /// Ends a cut.
    pub(crate) fn mend(&self) {
        self.inside(&["link", "set", INSIDE, "up"]);
    }

    fn inside(&self, arguments: &[&str]) {
        ip(&[&["-n", &self.name], arguments].concat());
    }
}

fn inside_of(name: &str, program: &Path) -> Command {
    let mut command = alone(&require("ip", INSTALL));
    command.args(["netns", "exec", name]).arg(program);
    command
}

impl Drop for Netns {
    fn drop(&mut self) {
        delete(&self.name);
    }
}

/// The addresses of a network that no interface of ours has.
fn free_network(wish: u32) -> (Ipv4Addr, Ipv4Addr) {
    let taken = ip(&["-4", "-o", "addr", "show"]);
    let network = |at: u32| FIRST + 4 * (wish.wrapping_add(at) % NETWORKS);
    let free = (0..NETWORKS)
        .map(network)
        .find(|network| !taken.contains(&format!(" {}/", Ipv4Addr::from(network + 1))))
        .expect("one of them is free");
    (Ipv4Addr::from(free + 1), Ipv4Addr::from(free + 2))
}

/// Deletes the namespaces of processes that are gone.
fn clear_left_overs() {
    for line in ip(&["netns", "list"]).lines() {
        let name = line.split(' ').next().unwrap_or_default();
        let parts = name.strip_prefix(PREFIX).map(|rest| rest.split('-'));
        let Some(process) = parts.and_then(|mut parts| parts.nth(1)) else {
            continue;
        };
        if !Path::new("/proc").join(process).exists() {
            eprintln!("a killed run left {name}: deleted");
            delete(name);
        }
    }
}

/// Deletes a namespace with whatever still runs in it. Its end of the cable takes the other one along.
fn delete(name: &str) {
    let running = run(&["netns", "pids", name]);
    for process in String::from_utf8_lossy(&running.stdout).lines() {
        if let Some(process) = process.parse().ok().and_then(Pid::from_raw) {
            // An error: it has ended by now.
            kill_process(process, Signal::KILL).ok();
        }
    }
    let deleted = run(&["netns", "delete", name]);
    if !deleted.status.success() {
        eprintln!("{name} is still there: {}", String::from_utf8_lossy(&deleted.stderr));
    }
}

fn ip(arguments: &[&str]) -> String {
    let output = run(arguments);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {words}", arguments.join(" "));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn run(arguments: &[&str]) -> Output {
    let program = require("ip", INSTALL);
    Command::new(program).args(arguments).output().unwrap()
}
