//! When a record is acknowledged: once it is on the disk, each time that it comes, and never if it is not kept.
#![allow(clippy::unwrap_used)]

#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/vehicle.rs"]
mod vehicle;

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use gateway::{Options, Running};
use vehicle::{PAYLOAD, ack, record};
use waystation::record::envelope::{self, Reply};

#[tokio::test]
async fn no_ack_comes_before_the_record_is_on_the_disk() {
    let gateway = Running::with(Options {
        queue: "commit_delay = \"700ms\"",
        ..Options::default()
    })
    .await;
    let segments = gateway.dir.path().join("queue/segments");
    let mut vehicle = gateway.connect(1).await;
    for txid in ["the-first-of-these-records", "the-second-of-these-records"] {
        let before = Instant::now();
        vehicle.delivers(1, txid).await;
        assert!(before.elapsed() >= Duration::from_millis(700), "{:?}", before.elapsed());
        let stored = fs::read_dir(&segments).unwrap().any(|segment| {
            let bytes = fs::read(segment.unwrap().path()).unwrap();
            bytes.windows(txid.len()).any(|part| part == txid.as_bytes())
        });
        assert!(stored, "{txid} is acknowledged and not in any segment");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_record_that_comes_twice_is_acknowledged_twice() {
    let gateway = Running::start().await;
    let mut vehicle = gateway.connect(1).await;
    vehicle.delivers(1, "again").await;
    vehicle.delivers(1, "again").await;
    vehicle.leave().await;
    gateway.connect(1).await.delivers(1, "again").await;
    assert_eq!(gateway.report().listener.acked, 3);
    assert_eq!(gateway.stop().await.lines.len(), 1, "and is stored once");
}

#[tokio::test]
async fn each_of_five_hundred_records_in_a_row_gets_one_ack() {
    let gateway = Running::with(Options {
        listener: "messages_per_second = 1000000",
        ..Options::default()
    })
    .await;
    let mut vehicle = gateway.connect(1).await;
    let txids: Vec<String> = (0..500).map(|number| format!("txid-{number}")).collect();
    for txid in &txids {
        vehicle.send(record(1, "V", txid, PAYLOAD)).await;
    }
    let mut acked = BTreeSet::new();
    for _ in &txids {
        match envelope::read_reply(&vehicle.reply().await) {
            Ok(Reply::Ack { txid, topic }) if topic == "V" => assert!(acked.insert(txid.clone()), "{txid:?} twice"),
            other => panic!("{other:?}"),
        }
    }
    assert!(txids.iter().all(|txid| acked.contains(txid.as_bytes())));
    vehicle.delivers(1, "after").await;
    let stopped = gateway.stop().await;
    let delivered: Vec<_> = stopped
        .lines
        .iter()
        .map(|line| line["txid"].as_str().unwrap())
        .collect();
    assert_eq!(delivered[..500], txids);
}

#[tokio::test]
async fn what_cannot_be_stored_is_not_acknowledged_and_the_vehicle_is_sent_away() {
    let gateway = Running::with(Options {
        listener: "messages_per_second = 1000000",
        queue: "commit_delay = \"5ms\"\nsegment_size = \"1 MiB\"\nmax_bytes = \"4 MiB\"",
        records: "trace = \"lines\"",
        // Every write to it fails, so that nothing ever leaves the queue.
        destinations: "[destinations.lines]\ntype = \"log\"\npath = \"/dev/full\"\nrequired = true",
        ..Options::default()
    })
    .await;
    let mut vehicle = gateway.connect(1).await;
    let payload = vec![b'x'; 100_000];
    let mut acked = 0;
    let code = loop {
        let txid = format!("txid-{acked}");
        vehicle.send(record(1, "trace", &txid, &payload)).await;
        match vehicle.answer().await {
            Ok(reply) => assert_eq!(reply, ack("trace", &txid)),
            Err(code) => break code,
        }
        acked += 1;
        assert!(acked < 100, "4 MiB hold less than that");
    };
    assert_eq!(code, Some(1013));
    assert!(acked > 5, "{acked}");
    let report = gateway.report();
    assert!(report.queue.full);
    assert_eq!((report.listener.acked, report.listener.not_acked), (acked, 1));
    assert_eq!(report.queue.committed, acked);
    let (status, sentence) = gateway.dial(1).refused().await;
    assert_eq!(
        (status, sentence.trim_end()),
        (503, "the queue is full, try again later")
    );
    gateway
        .reports("the vehicle is gone", |report| report.listener.connections == 0)
        .await;
    gateway.end().await;
}
