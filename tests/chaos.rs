//! Everything goes wrong for a while: daemon, broker and vehicles are killed, stopped and paused, the cluster goes down,
//! networks are cut, the disk is full. At the end each destination has every acknowledged record, in order, and twice
//! only what was on its way when a session ended.
//!
//! `CHAOS_SECONDS` says for how long (default 40, and never less than it takes for each kind of misfortune to have
//! happened), `CHAOS_SEED` repeats the choices of a run. It needs root, for a disk and network namespaces of its own.
#![allow(clippy::unwrap_used)]

#[path = "support/account.rs"]
mod account;
#[path = "chaos/arrivals.rs"]
mod arrivals;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "chaos/fleet.rs"]
mod fleet;
#[path = "support/kafka.rs"]
mod kafka;
#[path = "chaos/ledger.rs"]
mod ledger;
#[path = "support/loop_disk.rs"]
mod loop_disk;
#[path = "chaos/misfortunes.rs"]
mod misfortunes;
#[path = "support/mosquitto.rs"]
mod mosquitto;
#[path = "support/netns.rs"]
mod netns;
#[path = "chaos/noted.rs"]
mod noted;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use daemon::{Daemon, wait_for};
use fleet::{Driving, Group};
use ledger::{Ledger, Meanings};
use loop_disk::LoopDisk;
use misfortunes::World;
use mosquitto::Mosquitto;
use netns::Netns;
use noted::Watch;
use rand::SeedableRng;
use rand::rngs::StdRng;
use waystation::cli::simulate::VehicleTally;

const VEHICLES: usize = 50;
/// Of these, in this process; the others in groups of so many, each a process in the vehicles' namespace.
const DRIVING: usize = 40;
const GROUP: usize = 5;
/// Records that mosquitto may be sent without its confirmation.
const WINDOW: usize = 100;
/// After the last misfortune nothing may take longer: what does is stuck.
const SETTLED: Duration = Duration::from_secs(60);
const DESTINATIONS: [&str; 3] = ["broker", "cloud", "file"];

#[test]
fn nothing_is_lost_out_of_order_twice_without_reason_or_stuck_whatever_goes_wrong() {
    let seconds = setting("CHAOS_SECONDS").unwrap_or(40);
    let seed = setting("CHAOS_SEED").unwrap_or_else(rand::random);
    eprintln!("CHAOS_SEED={seed} CHAOS_SECONDS={seconds}");
    let started = Instant::now();
    let mut world = world(seed);
    let driving = Driving::new(&world.daemon, DRIVING, SETTLED);
    world.groups.iter_mut().for_each(Group::start);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end || world.done.len() < misfortunes::ALL.len() {
        world.wait(200, 1500);
        world.strike();
    }
    eprintln!("{:.0} s of chaos: {:?}", started.elapsed().as_secs_f64(), world.done);

    let calm = Instant::now();
    let tallies = finish(&mut world, driving);
    drain(&world, calm);
    let took = calm.elapsed();

    let file = arrivals::from_file(&world.daemon.path("records.jsonl"));
    // Delivered is not yet received. What does not come is found below, with its name.
    let readers = Instant::now() + SETTLED;
    let complete = |world: &World| world.at_broker.records().min(world.in_kafka.records()) >= file.records();
    while !complete(&world) && Instant::now() < readers {
        world.collect();
        std::thread::sleep(Duration::from_millis(20));
    }
    judge(&world, &file, &tallies, took);
    assert!(!world.daemon.log().contains("ERROR"), "nothing was reported lost");
    let (status, _) = world.daemon.terminate();
    assert!(status.success(), "{status}");
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

/// Everything up and running but the vehicles.
fn world(seed: u64) -> World {
    let cluster = kafka::cluster("fleet");
    let reading = kafka::Reading::new(&cluster, "fleet");
    let (broker_net, vehicles_net) = (Netns::new(0), Netns::new(1));
    let mut broker = Mosquitto::started_by(broker_net.starter());
    broker.start();
    let mut daemon = Daemon::reached_by(
        "0.0.0.0",
        &[vehicles_net.outside.to_string()],
        VEHICLES,
        "max_bytes = \"1 GiB\"\nsegment_size = \"1 MiB\"\nkeep_free = \"0 B\"",
        &format!(
            r#"
            [records]
            "*" = ["broker", "cloud", "file"]
            [destinations.broker]
            type = "mqtt"
            url = "mqtt://{}:{}"
            topic_base = "fleet"
            layout = "records"
            keep_alive = "2s"
            max_inflight = {WINDOW}
            [destinations.cloud]
            type = "kafka"
            namespace = "fleet"
            [destinations.cloud.properties]
            "bootstrap.servers" = "{}"
            "reconnect.backoff.max.ms" = 500
            [destinations.file]
            type = "log"
            path = "records.jsonl"
            required = true
            "#,
            broker_net.inside,
            broker.port,
            cluster.bootstrap_servers()
        ),
    );
    let disk = LoopDisk::new(&daemon.path("queue"), 64);
    daemon.start();
    let groups = (DRIVING..VEHICLES).step_by(GROUP);
    World {
        rng: StdRng::seed_from_u64(seed),
        watch: Watch::new(daemon.admin),
        groups: groups
            .map(|first| Group::new(&daemon, &vehicles_net, first, GROUP, SETTLED))
            .collect(),
        subscriber: Some(broker.subscribe("fleet/#")),
        daemon,
        disk,
        broker,
        broker_net,
        vehicles_net,
        reading,
        cluster,
        at_broker: Ledger::default(),
        in_kafka: Ledger::default(),
        deck: Vec::new(),
        done: BTreeMap::new(),
    }
}

/// Stops the vehicles, each of which has to have all its acks, and gives what was acknowledged to each.
fn finish(world: &mut World, driving: Driving) -> Vec<VehicleTally> {
    let acked = |group: &Group| -> Vec<usize> { group.tallies().iter().map(|one| one.acked.len()).collect() };
    for group in &world.groups {
        let before = acked(group);
        wait_for("every vehicle of a group gets acks again", SETTLED, || {
            before.iter().zip(acked(group)).all(|(before, now)| now > *before)
        });
    }
    let mut tallies = driving.finish();
    for vehicle in &tallies {
        assert_eq!(
            vehicle.acked.len() as u64,
            vehicle.sent,
            "{} has all its acks",
            vehicle.vin
        );
    }
    for group in &mut world.groups {
        assert!(group.finish(SETTLED), "a group of vehicles has all its acks");
        tallies.extend(group.tallies());
    }
    assert_eq!(tallies.len(), VEHICLES);
    tallies
}

/// Waits until the daemon says of each destination that nothing is left.
fn drain(world: &World, since: Instant) {
    let mut told = since.elapsed();
    loop {
        let status = world.daemon.status();
        let destinations = status["destinations"].as_array().unwrap().iter();
        let waiting: Vec<_> = destinations
            .filter(|one| one["backlog"] != 0 || one["in_flight"] != 0)
            .collect();
        if waiting.is_empty() {
            return;
        }
        assert!(since.elapsed() < SETTLED, "stuck: {waiting:#?}\n{status}");
        if since.elapsed() > told + SETTLED / 12 {
            told = since.elapsed();
            eprintln!("after {told:?} not drained: {waiting:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn judge(world: &World, file: &Ledger, tallies: &[VehicleTally], took: Duration) {
    let ledgers = [&world.at_broker, &world.in_kafka, file];
    let mut meanings = Meanings::new();
    ledgers.iter().for_each(|ledger| ledger.tell(&mut meanings));
    let acked: usize = tallies.iter().map(|vehicle| vehicle.acked.len()).sum();
    eprintln!(
        "{acked} records acknowledged, {} delivered, settled after {:.1} s",
        meanings.len(),
        took.as_secs_f64()
    );
    let verdicts = DESTINATIONS.iter().zip(ledgers).map(|(destination, ledger)| {
        let mut intervals = world.watch.hold().intervals(destination);
        if *destination == "broker" {
            ledger::within_window(&mut intervals, &meanings, WINDOW);
        }
        let verdict = ledger.judge(tallies, &meanings, &intervals);
        let may_be = meanings
            .keys()
            .filter(|number| intervals.iter().any(|one| (one.from..one.to).contains(number)));
        eprintln!(
            "{destination}: lost {}, out of order {}, duplicates {} ({} unexplained; sessions ended with {} on their way)",
            verdict.lost,
            verdict.out_of_order,
            verdict.duplicates,
            verdict.unexplained,
            may_be.count()
        );
        verdict
    });
    let verdicts: Vec<_> = verdicts.collect();
    for (verdict, destination) in verdicts.iter().zip(DESTINATIONS) {
        verdict.assert_good(destination);
    }
}
