//! Everything goes wrong for a while: the daemon is killed, stopped and paused, brokers too, networks are cut, the disk
//! is full. At the end each destination has every acknowledged record, in order.
//!
//! `CHAOS_SECONDS` says for how long (default 40), `CHAOS_SEED` repeats the choices of a run.
#![allow(clippy::unwrap_used)]

#[path = "support/account.rs"]
mod account;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/loop_disk.rs"]
mod loop_disk;
#[path = "support/mosquitto.rs"]
mod mosquitto;
#[path = "support/proxy.rs"]
mod proxy;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use account::account;
use daemon::{Daemon, wait_for};
use loop_disk::LoopDisk;
use mosquitto::{Mosquitto, Received, Subscriber};
use proxy::Proxy;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use waystation::cli::simulate::Live;

const VEHICLES: usize = 50;
const RATE: f64 = 10.0;
const LONG: Duration = Duration::from_secs(180);

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

struct World {
    rng: StdRng,
    daemon: Daemon,
    disk: LoopDisk,
    broker: Mosquitto,
    proxy: Proxy,
    subscriber: Option<Subscriber>,
    /// What subscribers of brokers that were killed had received.
    received: Vec<Received>,
    cluster: kafka::Cluster,
    done: BTreeMap<&'static str, u32>,
}

impl World {
    fn pause(&mut self, from: u64, to: u64) {
        std::thread::sleep(Duration::from_millis(self.rng.random_range(from..to)));
    }

    /// One misfortune, and its end.
    fn strike(&mut self) {
        let what = match self.rng.random_range(0..8) {
            0 => {
                self.daemon.kill_9();
                self.pause(0, 500);
                self.daemon.start();
                "daemon killed"
            }
            1 => {
                let (status, _) = self.daemon.terminate();
                assert!(status.success(), "{status}");
                self.daemon.start();
                "daemon stopped"
            }
            2 => {
                self.daemon.pause();
                self.pause(300, 2000);
                self.daemon.resume();
                "daemon paused"
            }
            3 => {
                self.proxy.close();
                self.pause(300, 3000);
                self.proxy.open();
                "network to mosquitto cut"
            }
            4 => {
                self.broker.pause();
                self.pause(300, 2000);
                self.broker.resume();
                "mosquitto paused"
            }
            5 => {
                self.kill_broker();
                "mosquitto killed"
            }
            6 => {
                self.cluster.broker_down(1).unwrap();
                self.pause(300, 3000);
                self.cluster.broker_up(1).unwrap();
                "kafka down"
            }
            _ => {
                self.disk.leave(0);
                self.pause(300, 3000);
                self.disk.make_room();
                "disk full"
            }
        };
        *self.done.entry(what).or_default() += 1;
    }

    /// Not with something confirmed that its subscriber has not had: that would be the broker's own loss.
    fn kill_broker(&mut self) {
        self.proxy.mute();
        let subscriber = self.subscriber.take().unwrap();
        // Everything is routed to the broker, so that the number before the cursor is a record's that it has confirmed.
        let highest = || {
            let messages = subscriber.messages();
            let had = self.received.iter().chain(&messages);
            had.map(|message| message.property("record").rsplit_once('-').unwrap().1.parse().unwrap())
                .max()
        };
        let mut cursor = None;
        wait_for("the subscriber has what was confirmed", LONG, || {
            let now = self.daemon.figure("broker", "cursor");
            // Twice the same: no confirmation is on its way through the gateway any more.
            let settled = cursor.replace(now) == Some(now);
            settled && highest().map_or(0, |highest: u64| highest + 1) >= now
        });
        self.broker.kill_9();
        self.received.extend(subscriber.messages());
        drop(subscriber);
        self.proxy.close();
        self.broker.start();
        self.subscriber = Some(Subscriber::new(self.broker.port, "fleet/#"));
        self.proxy.open();
    }
}

#[test]
fn nothing_is_lost_or_out_of_order_whatever_goes_wrong() {
    let seconds = setting("CHAOS_SECONDS").unwrap_or(40);
    let seed = setting("CHAOS_SEED").unwrap_or_else(rand::random);
    eprintln!("CHAOS_SEED={seed} CHAOS_SECONDS={seconds}");
    let cluster = kafka::cluster("fleet");
    let reading = kafka::Reading::new(&cluster, "fleet");
    let mut broker = Mosquitto::new();
    broker.start();
    let proxy = Proxy::new(broker.port);
    proxy.open();
    let daemon = Daemon::new(
        VEHICLES,
        "max_bytes = \"1 GiB\"\nsegment_size = \"1 MiB\"\nkeep_free = \"0 B\"",
        &format!(
            r#"
            [records]
            "*" = ["broker", "cloud", "file"]
            [destinations.broker]
            type = "mqtt"
            url = "mqtt://127.0.0.1:{}"
            topic_base = "fleet"
            layout = "records"
            keep_alive = "2s"
            [destinations.cloud]
            type = "kafka"
            namespace = "fleet"
            properties = {{ "bootstrap.servers" = "{}", "reconnect.backoff.max.ms" = 500 }}
            [destinations.file]
            type = "log"
            path = "records.jsonl"
            required = true
            "#,
            proxy.port,
            cluster.bootstrap_servers()
        ),
    );
    let disk = LoopDisk::new(&daemon.path("queue"), 64);
    let mut world = World {
        rng: StdRng::seed_from_u64(seed),
        subscriber: Some(Subscriber::new(broker.port, "fleet/#")),
        daemon,
        disk,
        broker,
        proxy,
        received: Vec::new(),
        cluster,
        done: BTreeMap::new(),
    };
    world.daemon.start();
    let live = Arc::new(Live::default());
    let records = (RATE * seconds as f64) as u64;
    let fleet = world.daemon.drive(VEHICLES, records, RATE, &live);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        world.pause(200, 1500);
        world.strike();
    }
    eprintln!("{:?}", world.done);
    let tallies = fleet.join().unwrap();
    let total = VEHICLES * records as usize;
    let acked: usize = tallies.iter().map(|vehicle| vehicle.acked.len()).sum();
    assert_eq!(acked, total, "every vehicle got all its acks in the end");
    for destination in ["broker", "cloud", "file"] {
        world.daemon.wait_drained(destination, LONG);
    }

    let broker = || {
        let messages = [world.received.clone(), world.subscriber.as_ref().unwrap().messages()].concat();
        let ids = messages
            .iter()
            .map(|message| (message.property("txid").to_owned(), String::new()));
        account(&tallies, ids)
    };
    let file = || {
        let text = std::fs::read_to_string(world.daemon.path("records.jsonl")).unwrap();
        // A line that a kill cut off is no record; it came again.
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        account(
            &tallies,
            lines.map(|line| (line["txid"].as_str().unwrap().to_owned(), String::new())),
        )
    };
    wait_for("mosquitto's subscriber has all", LONG, || broker().delivered >= total);
    wait_for("all has been read from kafka", LONG, || {
        reading.account(&tallies).delivered >= total
    });
    broker().assert_complete(total);
    reading.account(&tallies).assert_complete(total);
    file().assert_complete(total);
    assert!(!world.daemon.log().contains("ERROR"), "nothing was reported lost");
    let (status, _) = world.daemon.terminate();
    assert!(status.success(), "{status}");
}
