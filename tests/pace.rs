//! A vehicle that sends too fast, or does not read: it is read no faster than its limits, it loses nothing, and it
//! delays nobody else.
#![allow(clippy::unwrap_used)]

#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/vehicle.rs"]
mod vehicle;

use std::time::{Duration, Instant};

use futures_util::SinkExt;
use gateway::{Options, Running};
use tokio_tungstenite::tungstenite::Message;
use vehicle::{PAYLOAD, ack, record};

#[tokio::test]
async fn a_vehicle_over_its_rate_is_read_no_faster_and_loses_nothing() {
    let gateway = Running::with(Options {
        listener: "messages_per_second = 20",
        ..Options::default()
    })
    .await;
    let started = Instant::now();
    let (mut fast, mut other) = (gateway.connect(1).await, gateway.connect(2).await);
    for number in 0..50 {
        fast.send(record(1, "V", &format!("fast-{number}"), PAYLOAD)).await;
    }
    other.delivers(2, "other").await;
    for number in 0..50 {
        assert_eq!(fast.reply().await, ack("V", &format!("fast-{number}")));
    }
    // A second's worth at once, and the rest at 20 a second.
    assert!(
        started.elapsed() >= Duration::from_millis(1_400),
        "{:?}",
        started.elapsed()
    );
    let listener = gateway.report().listener;
    let waits = listener.rate_limited;
    assert!(
        (2..=31).contains(&waits),
        "one for each record, if it was quick enough: {waits}"
    );
    let lines = gateway.stop().await.lines;
    let txids: Vec<_> = lines
        .iter()
        .filter_map(|line| line["txid"].as_str())
        .filter(|txid| *txid != "other")
        .collect();
    let expected: Vec<_> = (0..50).map(|number| format!("fast-{number}")).collect();
    assert_eq!(txids, expected);
}

#[tokio::test]
async fn a_vehicle_that_connects_again_and_again_is_no_faster_for_it() {
    let gateway = Running::with(Options {
        listener: "messages_per_second = 20",
        ..Options::default()
    })
    .await;
    let started = Instant::now();
    for connection in 0..4 {
        let mut vehicle = gateway.connect(1).await;
        for number in 0..20 {
            let txid = format!("{connection}-{number}");
            vehicle.send(record(1, "V", &txid, PAYLOAD)).await;
        }
        for number in 0..20 {
            assert_eq!(vehicle.reply().await, ack("V", &format!("{connection}-{number}")));
        }
        vehicle.leave().await;
    }
    // A second's worth at once, and three more at 20 a second.
    let elapsed = started.elapsed();
    assert!(elapsed >= Duration::from_millis(2_900), "{elapsed:?}");
    gateway.stop().await;
}

#[tokio::test]
async fn messages_that_are_not_kept_count_towards_the_rate_too() {
    let gateway = Running::with(Options {
        listener: "messages_per_second = 20",
        ..Options::default()
    })
    .await;
    let started = Instant::now();
    let mut vehicle = gateway.connect(1).await;
    for _ in 0..50 {
        vehicle.send(Vec::new()).await;
    }
    for _ in 0..50 {
        assert_eq!(vehicle.reply().await, ack("", ""));
    }
    assert!(
        started.elapsed() >= Duration::from_millis(1_400),
        "{:?}",
        started.elapsed()
    );
    gateway.stop().await;
}

#[tokio::test]
async fn what_waits_for_its_commit_is_bounded_and_the_rest_waits_in_the_socket() {
    let gateway = Running::with(Options {
        listener: "messages_per_second = 1000000",
        queue: "commit_delay = \"300ms\"",
        // Five of these records, each with the 256 bytes that an entry costs beside it.
        adjust: |config| config.listener.max_waiting_bytes = 4 * (record(1, "V", "00", PAYLOAD).len() + 256) + 1,
        ..Options::default()
    })
    .await;
    let started = Instant::now();
    let mut vehicle = gateway.connect(1).await;
    for number in 10..30 {
        vehicle.send(record(1, "V", &number.to_string(), PAYLOAD)).await;
    }
    for number in 10..30 {
        assert_eq!(vehicle.reply().await, ack("V", &number.to_string()));
    }
    // Four commits of five records, none of which is early.
    assert!(
        started.elapsed() >= Duration::from_millis(1_200),
        "{:?}",
        started.elapsed()
    );
    let report = gateway.report();
    assert!(
        (4..=5).contains(&report.listener.backpressured),
        "{}",
        report.listener.backpressured
    );
    assert!(report.queue.commits >= 4, "{}", report.queue.commits);
    assert_eq!(gateway.stop().await.lines.len(), 20);
}

#[tokio::test]
async fn a_vehicle_that_waits_for_its_commit_is_not_a_silent_one() {
    let gateway = Running::with(Options {
        listener: "idle_timeout = \"200ms\"",
        queue: "commit_delay = \"1500ms\"",
        adjust: |config| config.listener.max_waiting_bytes = 1,
        ..Options::default()
    })
    .await;
    let mut vehicle = gateway.connect(1).await;
    for txid in ["first", "second"] {
        vehicle.delivers(1, txid).await;
    }
    assert_eq!(gateway.report().listener.idle_closed, 0);
    gateway.stop().await;
}

#[tokio::test]
async fn a_vehicle_that_never_reads_its_acks_is_closed_and_delays_no_other() {
    let gateway = Running::with(Options {
        listener: "messages_per_second = 1000",
        ..Options::default()
    })
    .await;
    let mut dial = gateway.dial(1);
    dial.receive_buffer = Some(4096);
    let mut deaf = dial.connect().await.unwrap();
    let mut other = gateway.connect(2).await;
    // Acks repeat the txid, so that these are as large as the records.
    let message = record(1, "V", &"x".repeat(200_000), PAYLOAD);
    let flood = tokio::spawn(async move {
        let mut sent = 0;
        while deaf.0.send(Message::Binary(message.clone())).await.is_ok() {
            sent += 1;
        }
        sent
    });
    let started = Instant::now();
    let (mut delivered, mut slowest) = (0, Duration::ZERO);
    // It has ten seconds to take what it was sent.
    while !flood.is_finished() {
        let before = Instant::now();
        assert!(started.elapsed() < Duration::from_secs(60), "it is never closed");
        other.delivers(2, &delivered.to_string()).await;
        slowest = slowest.max(before.elapsed());
        delivered += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let sent = flood.await.unwrap();
    assert!(delivered > 20, "{delivered}");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    let report = gateway
        .reports("it has left", |report| report.listener.connections == 1)
        .await;
    assert_eq!(report.listener.socket_errors, 1);
    // What it was not told is kept all the same: it will come again.
    assert!(report.listener.types["V"].records <= delivered + sent + 1);
    other.delivers(2, "after").await;
    gateway.stop().await;
}
