//! The daemon killed with -9 twenty times under load: nothing acknowledged is lost or out of order, and only what was
//! not yet saved as delivered comes twice.
#![allow(clippy::unwrap_used)]

#[path = "support/account.rs"]
mod account;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/kafka.rs"]
mod kafka;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use daemon::{Daemon, wait_for};
use tokio_util::sync::CancellationToken;
use waystation::cli::simulate::Live;

const VEHICLES: usize = 20;
const RATE: f64 = 50.0;
const KILLS: u64 = 20;
const LONG: Duration = Duration::from_secs(120);

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
    let stop = CancellationToken::new();
    let fleet = daemon.drive_until(&stop, VEHICLES, RATE, &live);
    for kill in 0..KILLS {
        let acked = live.totals().2;
        wait_for("vehicles reconnect and get acks", LONG, || live.totals().2 > acked);
        // At any moment of the two seconds that follow: in a commit, a save of the cursors, a roll, a delivery.
        let moment = seed.wrapping_mul(kill * 2 + 1) % 2000;
        std::thread::sleep(Duration::from_millis(moment));
        daemon.kill_9();
        daemon.start();
    }
    stop.cancel();
    let tallies = fleet.join().unwrap();
    let total = tallies.iter().map(|vehicle| vehicle.sent as usize).sum();
    assert!(total > 1_000, "{total}");
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
    let mut copies = BTreeMap::<u64, usize>::new();
    for message in &messages {
        *copies.entry(number(message)).or_default() += 1;
    }
    let log = daemon.log();
    let figure = |line: &str, name: &str| -> u64 {
        let value = line.split(name).nth(1).unwrap().split(' ').next().unwrap();
        value.parse().unwrap()
    };
    // What each start after a kill found: the cursor, and a number beyond all that were used before.
    let starts = |said: &'static str, name: &'static str| {
        let lines = log.lines().filter(move |line| line.contains(said)).skip(1);
        lines.map(move |line| figure(line, name)).collect::<Vec<_>>()
    };
    let (resumed, opened) = (
        starts("destination resumes", "cursor="),
        starts("queue opened", "next="),
    );
    assert_eq!((resumed.len() as u64, opened.len() as u64), (KILLS, KILLS));
    // The cursors are saved while it runs, once a second at most: otherwise everything would be explained below.
    let saved = resumed.windows(2).filter(|pair| pair[1] > pair[0]).count();
    assert!(saved >= 2, "{resumed:?}");
    let explained = |number: u64| {
        let again = resumed.iter().zip(&opened);
        again
            .filter(|(cursor, next)| (**cursor..**next).contains(&number))
            .count()
    };
    let unexplained: Vec<_> = copies
        .iter()
        .filter(|(number, copies)| **copies > 1 + explained(**number))
        .collect();
    assert!(unexplained.is_empty(), "{unexplained:?} of {resumed:?} to {opened:?}");
    let repeated: usize = copies.values().map(|copies| copies - 1).sum();
    println!(
        "{repeated} of {} came twice, each explained by a cursor",
        messages.len()
    );
    // And the vehicles themselves sent some twice, having had no ack: new records with an old transaction id.
    let resent: u64 = tallies.iter().map(|vehicle| vehicle.resent).sum();
    assert!(
        account.duplicates <= repeated + resent as usize,
        "{} duplicates",
        account.duplicates
    );
    assert!(!daemon.log().contains("ERROR"), "nothing was reported lost");
}
