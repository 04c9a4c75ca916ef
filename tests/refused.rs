//! Records that a destination refuses: given up only when it refuses them alone and for good, and then kept as dead
//! letters; everything behind them goes on.
#![allow(clippy::unwrap_used)]

#[path = "support/account.rs"]
mod account;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/raw.rs"]
mod raw;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use daemon::{Daemon, wait_for};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use waystation::cli::simulate::Live;
use waystation::queue::{InspectError, Step, walk_dead_letters};

const LONG: Duration = Duration::from_secs(60);

/// The mock cluster takes what is in flight behind a refused batch, which a broker does not: it sees the gap in the
/// idempotent producer's sequence. One request at a time keeps the order that a broker would keep.
const IN_ORDER: &str = r#", "max.in.flight.requests.per.connection" = 1"#;

fn configured(servers: &str, more: &str) -> Daemon {
    let rest = format!(
        r#"
        [records]
        "*" = ["cloud"]
        [destinations.cloud]
        type = "kafka"
        namespace = "fleet"
        properties = {{ "bootstrap.servers" = "{servers}"{more} }}
        "#
    );
    Daemon::new(5, "", &rest)
}

fn dead_letter_files(daemon: &Daemon) -> usize {
    std::fs::read_dir(daemon.path("queue/dead-letters")).unwrap().count()
}

#[test]
fn a_refusal_of_a_whole_batch_condemns_no_record_in_it() {
    let cluster = kafka::cluster("fleet");
    let reading = kafka::Reading::new(&cluster, "fleet");
    let mut daemon = configured(&cluster.bootstrap_servers(), IN_ORDER);
    daemon.start();
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE],
    );
    let live = Arc::new(Live::default());
    let tallies = daemon.drive(5, 400, 200.0, &live).join().unwrap();
    wait_for("all has been read", LONG, || {
        reading.account(&tallies).delivered >= 2000
    });
    reading.account(&tallies).assert_complete(2000);
    daemon.wait_drained("cloud", LONG);
    assert_eq!(daemon.figure("cloud", "refused"), 0, "{}", daemon.log());
    assert_eq!(dead_letter_files(&daemon), 0);
}

#[test]
fn a_record_that_is_refused_alone_is_kept_as_a_dead_letter_and_the_rest_goes_on() {
    let cluster = kafka::cluster("fleet");
    let reading = kafka::Reading::new(&cluster, "fleet");
    let mut daemon = configured(&cluster.bootstrap_servers(), IN_ORDER);
    daemon.start();
    // More than what librdkafka still sends before it hears of the first: refused in company, then alone, after a wait
    // that grows as long as nothing is taken.
    let refusals = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE; 5];
    cluster.request_errors(RDKafkaApiKey::Produce, &refusals);
    let live = Arc::new(Live::default());
    let tallies = daemon.drive(5, 400, 200.0, &live).join().unwrap();
    daemon.wait_drained("cloud", LONG);
    let refused = daemon.figure("cloud", "refused") as usize;
    assert!((1..=refusals.len()).contains(&refused), "{refused}");
    // Connectivity records are among those that can be hit.
    wait_for("all others have been read", LONG, || {
        reading.account(&tallies).delivered >= 2000 - refused
    });
    let account = reading.account(&tallies);
    assert_eq!(account.out_of_order, 0, "{account:?}");
    assert!(dead_letter_files(&daemon) > 0);
    assert!(daemon.log().contains("record refused for good"));
    assert!(daemon.metrics().contains(&format!(
        "waystation_dead_letters_total{{destination=\"cloud\"}} {refused}"
    )));
    // What did not arrive is among the dead letters, each of it.
    daemon.terminate();
    let mut letters = BTreeSet::new();
    walk_dead_letters::<InspectError>(&daemon.path("queue"), u64::MAX, |step| {
        if let Step::Found((_, letter)) = step {
            letters.insert(String::from_utf8_lossy(&letter.txid).into_owned());
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(letters.len(), refused);
    wait_for("each of the acknowledged has arrived or is a dead letter", LONG, || {
        let arrived: BTreeSet<_> = reading
            .messages()
            .iter()
            .map(|message| message.header("txid"))
            .collect();
        let mut acked = tallies
            .iter()
            .flat_map(|vehicle| vehicle.acked.iter().map(|number| format!("{}-{number}", vehicle.vin)));
        acked.all(|txid| arrived.contains(&txid) || letters.contains(&txid))
    });
}

#[test]
fn a_record_above_the_clients_own_limit_is_a_dead_letter_too() {
    let cluster = kafka::cluster("fleet");
    let reading = kafka::Reading::new(&cluster, "fleet");
    let mut daemon = configured(&cluster.bootstrap_servers(), r#", "message.max.bytes" = 5000"#);
    daemon.start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (stored, _) = runtime.block_on(raw::send(&daemon, 4, "V", &raw::padded_vehicle_payload(20_000), 3));
    assert_eq!(stored, 3, "acknowledged: the gateway has them");
    let live = Arc::new(Live::default());
    let tallies = daemon.drive(2, 50, 0.0, &live).join().unwrap();
    daemon.wait_drained("cloud", LONG);
    assert_eq!(daemon.figure("cloud", "refused"), 3);
    wait_for("the smaller ones have been read", LONG, || {
        reading.account(&tallies).delivered >= 100
    });
    reading.account(&tallies).assert_complete(100);
}

#[test]
fn a_record_that_cannot_be_delivered_for_now_holds_up_its_destination_and_repeats_nothing_else() {
    let cluster = kafka::cluster("fleet");
    let reading = kafka::Reading::new(&cluster, "fleet");
    let mut daemon = configured(&cluster.bootstrap_servers(), IN_ORDER);
    daemon.start();
    // Not for good: the right to write can be given.
    let failures = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 500];
    cluster.request_errors(RDKafkaApiKey::Produce, &failures);
    let live = Arc::new(Live::default());
    let tallies = daemon.drive(5, 200, 200.0, &live).join().unwrap();
    wait_for("it has been tried again", LONG, || {
        daemon.figure("cloud", "failures") >= 3
    });
    cluster.clear_request_errors(RDKafkaApiKey::Produce);
    daemon.wait_drained("cloud", LONG);
    wait_for("all has been read", LONG, || {
        reading.account(&tallies).delivered >= 1000
    });
    reading.account(&tallies).assert_complete(1000);
    assert_eq!(daemon.figure("cloud", "refused"), 0);
    // Each try after the first sent one record.
    let (sent, confirmed) = (daemon.figure("cloud", "sent"), daemon.figure("cloud", "confirmed"));
    let failed = daemon.figure("cloud", "failures");
    assert!(
        sent < 2 * 1010 + 20,
        "{sent} sent, {confirmed} confirmed, {failed} failures"
    );
    assert!(
        daemon
            .log()
            .contains("give this client the right to write to the topic")
    );
}
