//! The vehicles: most of them in this process, and groups of them in processes of their own that can be killed.
//!
//! A vehicle is in one process at a time, and a new one begins only when the old one is gone: two at once would take
//! the connection from each other for ever. What the gateway still holds of the old one's connection, it has to end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;
use tokio_util::sync::CancellationToken;
use waystation::cli::simulate::{self, Live, Mix, Plan, VehicleTally};

use crate::daemon::{Daemon, signal, wait_for};
use crate::netns::Netns;

/// Records a second of each vehicle.
const RATE: f64 = 10.0;
const MIX: [u32; 3] = [80, 10, 10];
const WINDOW: usize = 64;

/// Vehicles in this process.
pub(crate) struct Driving {
    stop: CancellationToken,
    thread: JoinHandle<Vec<VehicleTally>>,
}

impl Driving {
    /// They send until they are stopped, and then wait so long for their last acks.
    pub(crate) fn new(daemon: &Daemon, vehicles: usize, linger: Duration) -> Self {
        let vehicles = simulate::load_vehicles(daemon.dir.path(), vehicles).unwrap();
        let plan = Plan {
            connect: format!("localhost:{}", daemon.port),
            rate: RATE,
            records: None,
            duration: None,
            window: WINDOW,
            mix: Mix(MIX),
            linger,
            memory: None,
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(simulate::run_fleet(vehicles, plan, Arc::new(Live::default()), stopped))
        });
        Self { stop, thread }
    }

    /// The tallies, when all acks are there or have been waited for.
    pub(crate) fn finish(self) -> Vec<VehicleTally> {
        self.stop.cancel();
        self.thread.join().unwrap()
    }
}

/// A process with some vehicles. What they know to be acknowledged is in a file, line by line, and survives it.
pub(crate) struct Group {
    command: Command,
    acks: PathBuf,
    vins: Vec<String>,
    child: Option<Child>,
}

impl Group {
    /// The vehicles from the `first` on, so many, in this namespace; at the end they wait so long for acks.
    pub(crate) fn new(daemon: &Daemon, net: &Netns, first: usize, vehicles: usize, linger: Duration) -> Self {
        let pki = daemon.path(&format!("group-{first}"));
        let vins = hand_out(daemon.dir.path(), &pki, first, vehicles);
        let acks = pki.join("acks");
        let mut command = net.command(Path::new(env!("CARGO_BIN_EXE_waystation")));
        command
            .arg("simulate")
            .args(["--connect", &format!("{}:{}", net.outside, daemon.port)])
            .args(["--vehicles", &vehicles.to_string(), "--rate", &RATE.to_string()])
            .args(["--window", &WINDOW.to_string(), "--mix", "80,10,10"])
            .args(["--linger", &format!("{}s", linger.as_secs())])
            .arg("--remember")
            .arg(&acks)
            .arg("--pki")
            .arg(&pki)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self {
            command,
            acks,
            vins,
            child: None,
        }
    }

    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        self.child = Some(self.command.spawn().unwrap());
    }

    pub(crate) fn kill_9(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, which: Signal) {
        signal(self.child.as_ref().expect("it runs"), which);
    }

    /// Ends in order: no new records, and the acks of all that were sent. Whether they came.
    pub(crate) fn finish(&mut self, limit: Duration) -> bool {
        let mut child = self.child.take().expect("it runs");
        signal(&child, Signal::INT);
        wait_for("a group of vehicles ends", limit, || {
            child.try_wait().unwrap().is_some()
        });
        child.wait().unwrap().success()
    }

    /// What each of its vehicles knows to be acknowledged.
    pub(crate) fn tallies(&self) -> Vec<VehicleTally> {
        let text = fs::read_to_string(&self.acks).unwrap_or_default();
        // A line that a kill cut off was not remembered.
        let whole = text.rfind('\n').map_or("", |at| &text[..at]);
        let of = |vin: &String| VehicleTally {
            vin: vin.clone(),
            acked: whole
                .lines()
                .filter_map(|line| line.strip_prefix(vin.as_str())?.strip_prefix('-')?.parse().ok())
                .collect(),
            ..VehicleTally::default()
        };
        self.vins.iter().map(of).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill_9();
        }
    }
}

/// Copies the certificates of some vehicles into a folder of their own. Gives their VINs.
fn hand_out(from: &Path, to: &Path, first: usize, vehicles: usize) -> Vec<String> {
    fs::create_dir_all(to.join("vehicles")).unwrap();
    fs::copy(from.join("server-ca.pem"), to.join("server-ca.pem")).unwrap();
    let names = fs::read_dir(from.join("vehicles")).unwrap();
    let mut vins: Vec<_> = names
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".pem").map(str::to_owned)
        })
        .collect();
    vins.sort();
    let vins = vins[first..first + vehicles].to_vec();
    for vin in &vins {
        for name in [format!("vehicles/{vin}.pem"), format!("vehicles/{vin}.key")] {
            fs::copy(from.join(&name), to.join(&name)).unwrap();
        }
    }
    vins
}
