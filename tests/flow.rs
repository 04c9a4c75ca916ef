//! How fast a destination is sent records and when, from where on, and how much is kept for it.
#![allow(clippy::unwrap_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/faketime.rs"]
mod faketime;
#[path = "support/files.rs"]
mod files;
#[path = "support/raw.rs"]
mod raw;

use std::fs;
use std::time::{Duration, Instant};

use daemon::{Daemon, free_port, wait_for};
use faketime::Clock;
use files::{daemon, file, held, numbered, send, txids};

const SOME: Duration = Duration::from_secs(30);

#[test]
fn a_limit_bounds_what_waits_for_a_cluster_that_is_away_too() {
    let nobody = free_port();
    let rest = format!(
        r#"
        [records]
        V = ["cloud", "file"]
        [destinations.file]
        type = "log"
        path = "file.jsonl"
        max_records_per_second = 40
        [destinations.cloud]
        type = "kafka"
        namespace = "fleet"
        max_records_per_second = 40
        properties = {{ "bootstrap.servers" = "127.0.0.1:{nobody}" }}
        "#
    );
    let mut daemon = Daemon::new(1, "", &rest);
    daemon.start();
    send(&daemon, 0, &numbered(0, 400));
    wait_for("half a second's worth is on its way", SOME, || {
        daemon.figure("cloud", "in_flight") == 20
    });
    // One that answers has two seconds' worth meanwhile.
    let from = daemon.figure("file", "confirmed");
    wait_for("time has passed", SOME, || {
        daemon.figure("file", "confirmed") >= from + 80
    });
    assert_eq!(daemon.figure("cloud", "in_flight"), 20);
}

#[test]
fn a_pause_keeps_records_and_a_reload_ends_it() {
    let mut daemon = daemon(1, "", &[("file", "pause = true")]);
    daemon.start();
    send(&daemon, 0, &numbered(0, 20));
    assert_eq!(held(&daemon, "file").as_deref(), Some("paused by the configuration"));
    assert_eq!(daemon.figure("file", "sent"), 0);
    daemon.edit("pause = true", "");
    let said = daemon.reload();
    assert!(!said.contains("waits for a restart"), "{said}");
    daemon.wait_drained("file", SOME);
    assert_eq!(txids(&daemon, "file").len(), 20);
    assert_eq!(held(&daemon, "file"), None);
    daemon.edit("[destinations.file]", "[destinations.file]\npause = true");
    daemon.reload();
    wait_for("it is held again", SOME, || held(&daemon, "file").is_some());
    send(&daemon, 0, &numbered(20, 25));
    assert_eq!(daemon.figure("file", "sent"), 20);
    assert_eq!(daemon.figure("file", "backlog"), 5);
}

#[test]
fn what_it_is_sent_changes_at_once_though_another_key_of_it_waits_for_a_restart() {
    let mut daemon = daemon(1, "", &[("file", "pause = false")]);
    daemon.start();
    daemon.edit("\"file.jsonl\"", "\"other.jsonl\"");
    daemon.edit("pause = false", "pause = true");
    for _ in 0..2 {
        assert!(daemon.reload().contains("destinations.file"), "{}", daemon.log());
        wait_for("it is held", SOME, || held(&daemon, "file").is_some());
    }
    send(&daemon, 0, &numbered(0, 5));
    assert_eq!(daemon.figure("file", "sent"), 0);
    daemon.edit("pause = true", "vins = { deny = [\"5YJ3E1EA7KF999999\"] }");
    assert!(daemon.reload().contains("destinations.file"), "{}", daemon.log());
    daemon.wait_drained("file", SOME);
    assert_eq!(txids(&daemon, "file").len(), 5, "in the file of the start");
    assert!(!daemon.path("other.jsonl").exists());
}

#[test]
fn no_more_goes_out_than_the_speed_limit_allows_and_a_reload_changes_it() {
    let mut daemon = daemon(
        1,
        "",
        &[("slow", "pause = true\nmax_records_per_second = 50"), ("quick", "")],
    );
    daemon.start();
    send(&daemon, 0, &numbered(0, 200));
    daemon.wait_drained("quick", SOME);
    let started = Instant::now();
    daemon.edit("pause = true", "");
    daemon.reload();
    daemon.wait_drained("slow", SOME);
    // A slow machine takes longer; a limit that does not hold is over at once.
    assert!(
        started.elapsed() > Duration::from_millis(3_800),
        "{:?}",
        started.elapsed()
    );
    // Lines of so many bytes, of which so many a second go out.
    let line = fs::metadata(daemon.path("slow.jsonl")).unwrap().len() / 200;
    daemon.edit(
        "max_records_per_second = 50",
        &format!("max_bytes_per_second = \"{} B\"", 50 * line),
    );
    daemon.reload();
    let started = Instant::now();
    send(&daemon, 0, &numbered(200, 400));
    daemon.wait_drained("slow", SOME);
    assert!(
        started.elapsed() > Duration::from_millis(3_700),
        "{:?}",
        started.elapsed()
    );
    daemon.edit("max_bytes_per_second = ", "max_bytes_per_second = \"100 MiB\" # ");
    daemon.reload();
    send(&daemon, 0, &numbered(400, 600));
    daemon.wait_drained("slow", SOME);
    let all: Vec<String> = (0..600).map(|number| number.to_string()).collect();
    assert_eq!(txids(&daemon, "slow"), all);
}

#[test]
fn a_schedule_opens_and_closes_while_records_come() {
    let mut daemon = daemon(1, "", &[("night", "schedule = [\"22:00-06:00\"]"), ("always", "")]);
    let clock = Clock::new(&mut daemon);
    daemon.environment("TZ", "UTC");
    clock.set(21 * 3_600);
    daemon.start();
    send(&daemon, 0, &numbered(0, 5));
    daemon.wait_drained("always", SOME);
    assert_eq!(
        held(&daemon, "night").as_deref(),
        Some("outside of its schedule, which goes on at 22:00")
    );
    assert_eq!(txids(&daemon, "night"), Vec::<String>::new());
    clock.set(22 * 3_600);
    daemon.wait_drained("night", SOME);
    assert_eq!(txids(&daemon, "night").len(), 5);
    assert_eq!(held(&daemon, "night"), None);
    clock.set(6 * 3_600);
    wait_for("it closes", SOME, || held(&daemon, "night").is_some());
    send(&daemon, 0, &numbered(5, 10));
    daemon.wait_drained("always", SOME);
    assert_eq!(daemon.figure("night", "backlog"), 5);
    assert_eq!(txids(&daemon, "night").len(), 5);
}

#[test]
fn a_new_destination_begins_where_it_is_told_to() {
    let mut daemon = daemon(1, "", &[("kept", "pause = true\nrequired = true")]);
    daemon.start();
    send(&daemon, 0, &numbered(0, 5));
    daemon.terminate();
    daemon.edit("= [\"kept\"]", "= [\"kept\", \"old\", \"new\"]");
    let more = [file("old", ""), file("new", "start = \"now\"")].join("\n");
    daemon.edit("[destinations.kept]", &format!("{more}[destinations.kept]"));
    daemon.start();
    send(&daemon, 0, &numbered(5, 8));
    daemon.wait_drained("old", SOME);
    daemon.wait_drained("new", SOME);
    assert_eq!(txids(&daemon, "old").len(), 8);
    assert_eq!(txids(&daemon, "new"), ["5", "6", "7"]);
    // It is new only once.
    daemon.terminate();
    daemon.edit("start = \"now\"", "start = \"now\"\npause = true");
    daemon.start();
    send(&daemon, 0, &numbered(8, 10));
    daemon.kill_9();
    daemon.edit("start = \"now\"\npause = true", "start = \"now\"");
    daemon.start();
    daemon.wait_drained("new", SOME);
    assert_eq!(txids(&daemon, "new"), ["5", "6", "7", "8", "9"]);
}

#[test]
fn a_destination_with_a_bounded_backlog_loses_its_oldest_and_fills_nothing() {
    let mut daemon = daemon(
        1,
        "segment_size = \"1 MiB\"\nmax_bytes = \"64 MiB\"",
        &[
            ("dead", "pause = true\nmax_backlog = \"3 MiB\""),
            ("live", "required = true"),
        ],
    );
    daemon.start();
    let records = |from: usize, to: usize| -> Vec<_> {
        let payload = raw::padded_vehicle_payload(50_000);
        (from..to)
            .map(|number| ("V", number.to_string(), payload.clone()))
            .collect()
    };
    for batch in 0..10 {
        send(&daemon, 0, &records(batch * 20, batch * 20 + 20));
    }
    daemon.wait_drained("live", SOME);
    wait_for("the oldest have gone", SOME, || {
        daemon.figure("dead", "dropped") > 0 && daemon.status()["queue"]["disk_bytes"].as_u64().unwrap() < 5 << 20
    });
    assert_eq!(daemon.figure("live", "dropped"), 0);
    assert!(
        daemon
            .log()
            .contains("not for this destination: it may hold 3145728 bytes (max_backlog)")
    );
    daemon.edit("pause = true\n", "");
    daemon.reload();
    daemon.wait_drained("dead", SOME);
    let dropped = daemon.figure("dead", "dropped") as usize;
    let newest: Vec<String> = (dropped..200).map(|number| number.to_string()).collect();
    assert_eq!(txids(&daemon, "dead"), newest);
    assert!((20..=180).contains(&dropped), "{dropped}");
    assert_eq!(txids(&daemon, "live").len(), 200);
}

#[test]
fn a_destination_that_leaves_the_configuration_keeps_its_place_with_a_warning() {
    let mut daemon = daemon(1, "", &[("left", "pause = true\nrequired = true"), ("live", "")]);
    daemon.start();
    send(&daemon, 0, &numbered(0, 7));
    daemon.wait_drained("live", SOME);
    daemon.terminate();
    let entry = file("left", "pause = true\nrequired = true");
    daemon.edit(&entry, "");
    daemon.edit("\"left\", ", "");
    daemon.start();
    let log = daemon.log();
    let warning = log.lines().find(|line| line.contains("no longer configured")).unwrap();
    assert!(
        warning.contains("left") && warning.contains("records=7") && warning.contains("`waystation queue forget left`"),
        "{warning}"
    );
    daemon.terminate();
    daemon.edit("= [\"live\"]", "= [\"left\", \"live\"]");
    daemon.edit(
        "[destinations.live]",
        &format!("{}[destinations.live]", file("left", "")),
    );
    daemon.start();
    daemon.wait_drained("left", SOME);
    assert_eq!(txids(&daemon, "left").len(), 7);
}
