//! The daemon killed with -9 twenty times under load: nothing acknowledged is lost or out of order, and only what was
//! not yet saved as delivered comes twice.
#![allow(clippy::unwrap_used)]

#[path = "support/account.rs"]
mod account;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/kafka.rs"]
mod kafka;

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::{Daemon, wait_for};
use waystation::cli::simulate::Live;

const VEHICLES: usize = 20;
const RATE: f64 = 50.0;
const KILLS: u64 = 20;
const LONG: Duration = Duration::from_secs(120);
/// For the consumer to read what the cluster has.
const READING: Duration = Duration::from_millis(300);

#[test]
fn twenty_kills_lose_nothing() {
    let cluster = kafka::cluster("fleet");
    let reading = kafka::Reading::new(&cluster, "fleet");
    let mut daemon = Daemon::new(
        VEHICLES,
        r#"segment_size = "1 MiB""#,
        &format!(
            r#"
            [records]
            "*" = ["cloud"]
            [destinations.cloud]
            type = "kafka"
            namespace = "fleet"
            properties = {{ "bootstrap.servers" = "{}" }}
            "#,
            cluster.bootstrap_servers()
        ),
    );
    daemon.start();
    let live = Arc::new(Live::default());
    let seed = RandomState::new().hash_one(0);
    println!("seed {seed}");
    let records = (KILLS as f64 * 1.8 * RATE) as u64;
    let fleet = daemon.drive(VEHICLES, records, RATE, &live);
    let mut kills = Vec::new();
    for kill in 0..KILLS {
        let acked = live.totals().2;
        wait_for("vehicles reconnect and get acks", LONG, || live.totals().2 > acked);
        // At any moment of the two seconds that follow: in a commit, a save of the cursors, a roll, a delivery.
        let moment = seed.wrapping_mul(kill * 2 + 1) % 2000;
        std::thread::sleep(Duration::from_millis(moment));
        daemon.kill_9();
        kills.push(Instant::now());
        daemon.start();
    }
    let tallies = fleet.join().unwrap();
    let total = VEHICLES * records as usize;
    daemon.wait_drained("cloud", LONG);
    wait_for("all has been read", LONG, || {
        reading.account(&tallies).delivered >= total
    });
    let account = reading.account(&tallies);
    account.assert_complete(total);
    assert_eq!(tallies.iter().map(|vehicle| vehicle.acked.len()).sum::<usize>(), total);

    // A record comes twice only where the cursor that the file had at a start lay before it: not yet saved as
    // delivered, or in flight.
    let messages = reading.messages();
    let number = |message: &kafka::Consumed| {
        message
            .header("record")
            .rsplit_once('-')
            .unwrap()
            .1
            .parse::<u64>()
            .unwrap()
    };
    let arrivals: Vec<_> = messages.iter().map(|message| (message.at, number(message))).collect();
    let distinct = |numbers: &mut dyn Iterator<Item = u64>| numbers.collect::<HashSet<_>>().len();
    let repeated = arrivals.len() - distinct(&mut arrivals.iter().map(|(_, number)| *number));
    let log = daemon.log();
    let resumed = log
        .lines()
        .filter(|line| line.contains("destination resumes"))
        .skip(1)
        .map(|line| {
            let cursor = line.split("cursor=").nth(1).unwrap().split(' ').next().unwrap();
            cursor.parse::<u64>().unwrap()
        });
    let resumed: Vec<_> = resumed.collect();
    assert_eq!(resumed.len(), kills.len());
    // The cursors are saved while it runs, once a second at most: otherwise everything would be explained below.
    let saved = resumed.windows(2).filter(|pair| pair[1] > pair[0]).count();
    assert!(saved >= 2, "{resumed:?}");
    let unsaved = kills.iter().zip(&resumed).map(|(kill, cursor)| {
        // Reading lags behind delivering: what was read a little later may have been delivered before the kill.
        let before = |(at, number): &&(Instant, u64)| *at <= *kill + READING && number >= cursor;
        distinct(&mut arrivals.iter().filter(before).map(|(_, number)| *number))
    });
    let explained = unsaved.sum::<usize>();
    println!(
        "{repeated} of {} came twice, {explained} explained by the cursors",
        arrivals.len()
    );
    assert!(repeated <= explained, "{repeated} came twice, {explained} explained");
    // And the vehicles themselves sent some twice, having had no ack: new records with an old transaction id.
    let resent: u64 = tallies.iter().map(|vehicle| vehicle.resent).sum();
    assert!(
        account.duplicates <= explained + resent as usize,
        "{} duplicates",
        account.duplicates
    );
    assert!(!daemon.log().contains("ERROR"), "nothing was reported lost");
}
