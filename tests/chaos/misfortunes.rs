//! What goes wrong, in an order that the seed decides: a deck that is shuffled whenever it is used up, so that each kind
//! happens once before any happens twice.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rustix::process::Signal;

use crate::daemon::{Daemon, wait_for};
use crate::fleet::Group;
use crate::kafka::{Cluster, Reading};
use crate::ledger::Ledger;
use crate::loop_disk::LoopDisk;
use crate::mosquitto::{Mosquitto, Subscriber};
use crate::netns::Netns;
use crate::noted::Watch;
use crate::{SETTLED, arrivals};

/// A kind of misfortune.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Misfortune {
    DaemonKilled,
    DaemonStopped,
    DaemonPaused,
    BrokerKilled,
    BrokerPaused,
    BrokerCutOff,
    KafkaDown,
    DiskFull,
    VehiclesKilled,
    VehiclesPaused,
    VehiclesCutOff,
}

use Misfortune::*;

pub(crate) const ALL: [Misfortune; 11] = [
    DaemonKilled,
    DaemonStopped,
    DaemonPaused,
    BrokerKilled,
    BrokerPaused,
    BrokerCutOff,
    KafkaDown,
    DiskFull,
    VehiclesKilled,
    VehiclesPaused,
    VehiclesCutOff,
];

/// Everything that something can happen to. What is first is dropped first: the disk before the folder that it is in.
pub(crate) struct World {
    pub(crate) rng: StdRng,
    pub(crate) watch: Watch,
    pub(crate) groups: Vec<Group>,
    pub(crate) disk: LoopDisk,
    pub(crate) daemon: Daemon,
    pub(crate) subscriber: Option<Subscriber>,
    pub(crate) broker: Mosquitto,
    pub(crate) broker_net: Netns,
    pub(crate) vehicles_net: Netns,
    pub(crate) reading: Reading,
    pub(crate) cluster: Cluster,
    /// What arrived at mosquitto's subscribers, and in Kafka.
    pub(crate) at_broker: Ledger,
    pub(crate) in_kafka: Ledger,
    pub(crate) deck: Vec<Misfortune>,
    pub(crate) done: BTreeMap<Misfortune, u32>,
}

impl World {
    /// The next misfortune, and its end.
    pub(crate) fn strike(&mut self) {
        if self.deck.is_empty() {
            self.deck = ALL.to_vec();
            self.deck.shuffle(&mut self.rng);
        }
        let what = self.deck.pop().unwrap();
        self.happens(what);
        self.collect();
    }

    fn happens(&mut self, what: Misfortune) {
        *self.done.entry(what).or_default() += 1;
        match what {
            DaemonKilled => self.kill_daemon(),
            DaemonStopped => self.stop_daemon(),
            DaemonPaused => {
                self.daemon.pause();
                self.wait(300, 5000);
                self.daemon.resume();
            }
            BrokerKilled => self.kill_broker(),
            BrokerPaused => {
                self.broker.pause();
                self.outlast(5000, DaemonKilled);
                self.broker.resume();
            }
            BrokerCutOff => {
                self.broker_net.cut();
                self.outlast(6000, DaemonKilled);
                self.broker_net.mend();
            }
            KafkaDown => {
                self.cluster.broker_down(1).unwrap();
                // The same producer sends again what was on its way, and the mock cluster does not recognise it.
                self.watch.hold().disturbed("cloud");
                self.outlast(5000, DaemonKilled);
                self.cluster.broker_up(1).unwrap();
                self.watch.hold().undisturbed("cloud");
            }
            DiskFull => {
                self.disk.leave(0);
                self.outlast(3000, DaemonKilled);
                self.disk.make_room();
            }
            VehiclesKilled => {
                let group = self.some_group();
                self.groups[group].kill_9();
                self.wait(0, 2000);
                self.groups[group].start();
            }
            VehiclesPaused => {
                let group = self.some_group();
                self.groups[group].signal(Signal::STOP);
                self.outlast(5000, DaemonKilled);
                self.groups[group].signal(Signal::CONT);
            }
            VehiclesCutOff => {
                self.vehicles_net.cut();
                self.outlast(6000, VehiclesKilled);
                self.vehicles_net.mend();
            }
        }
    }

    /// Between two misfortunes, or for as long as one lasts: the one time that is not waited for something.
    pub(crate) fn wait(&mut self, from: u64, to: u64) {
        std::thread::sleep(Duration::from_millis(self.rng.random_range(from..to)));
    }

    /// Lets something last for so many milliseconds at most; now and then another misfortune comes on top.
    fn outlast(&mut self, most: u64, another: Misfortune) {
        self.wait(150, most / 2);
        if self.rng.random_ratio(1, 3) {
            self.happens(another);
        }
        self.wait(150, most / 2);
    }

    fn some_group(&mut self) -> usize {
        self.rng.random_range(0..self.groups.len())
    }

    fn kill_daemon(&mut self) {
        let mut noted = self.watch.hold();
        self.daemon.kill_9();
        noted.ended(&self.daemon.show());
        self.daemon.start();
    }

    fn stop_daemon(&mut self) {
        let mut noted = self.watch.hold();
        let (status, _) = self.daemon.terminate();
        assert!(status.success(), "{status}");
        noted.ended(&self.daemon.show());
        self.daemon.start();
    }

    /// Not with something confirmed that its subscriber has not had: that would be the broker's own loss.
    fn kill_broker(&mut self) {
        // The subscriber is beside the broker and goes on; no confirmation comes through any more.
        self.broker_net.cut();
        let mut before = (0, 0);
        let mut quiet = 0;
        wait_for("the subscriber has what was confirmed", SETTLED, || {
            arrivals::from_subscriber(self.subscriber.as_ref().unwrap(), &mut self.at_broker);
            let now = (self.daemon.figure("broker", "cursor"), self.at_broker.arrived());
            quiet = if before == now { quiet + 1 } else { 0 };
            before = now;
            // Everything is routed to the broker: the number before the cursor is a record's that it has confirmed. And
            // quiet for a while: what it has confirmed without getting through would be heard after the cut.
            quiet >= 20 && self.at_broker.end() >= now.0
        });
        self.broker.kill_9();
        let old = self.subscriber.take().unwrap();
        arrivals::from_subscriber(&old, &mut self.at_broker);
        drop(old);
        self.broker.start();
        self.subscriber = Some(self.broker.subscribe("fleet/#"));
        self.broker_net.mend();
    }

    /// Takes in what has arrived.
    pub(crate) fn collect(&mut self) {
        arrivals::from_subscriber(self.subscriber.as_ref().unwrap(), &mut self.at_broker);
        arrivals::from_kafka(&self.reading, &mut self.in_kafka);
    }
}
