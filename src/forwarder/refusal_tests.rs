//! What becomes of records that a destination refuses, and of those beside and behind them.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::super::status::Status;
use super::*;
use crate::config;
use crate::destination::{Destination, Sent, SessionError};
use crate::queue::{Item, Queue, Settings, WhenFull, WriterThread};
use crate::record::Record;

/// Takes so many records at once, and answers all of them at once.
const WINDOW: usize = 10;
const BAD: Duration = Duration::from_millis(1_600);

type Refuses = fn(u64) -> bool;

/// A destination that refuses some records.
#[derive(Clone)]
struct Picky {
    /// Whether it leaves in doubt which one it is that it refuses.
    doubts: bool,
    /// Whether a session is over with its first refusal, and nothing else of what was on its way is answered.
    ends: bool,
    refuses: Arc<Mutex<Refuses>>,
    /// What it does not even take.
    rejects: Refuses,
    /// What it never answers.
    silent: Refuses,
    /// How many sessions are lost with everything on its way.
    lost: usize,
    sessions: Arc<AtomicUsize>,
    sent: Arc<Mutex<Vec<u64>>>,
}

impl Picky {
    fn new(refuses: Refuses) -> Self {
        Self {
            doubts: false,
            ends: false,
            refuses: Arc::new(Mutex::new(refuses)),
            rejects: none,
            silent: none,
            lost: 0,
            sessions: Arc::default(),
            sent: Arc::default(),
        }
    }
}

fn every_fifth(number: u64) -> bool {
    number % 5 == 3
}

fn all(_: u64) -> bool {
    true
}

/// Three take turns, and then one goes on alone.
fn vehicle(number: u64) -> u64 {
    if of_one(number) { 9 } else { number % 3 }
}

fn of_one(number: u64) -> bool {
    (40..60).contains(&number)
}

/// And one of another's before it.
fn of_one_and_another(number: u64) -> bool {
    (39..60).contains(&number)
}

fn none(_: u64) -> bool {
    false
}

struct Answering {
    picky: Picky,
    waiting: Vec<u64>,
}

impl Destination for Picky {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, SessionError>> {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        let session: Box<dyn Session> = Box::new(Answering {
            picky: self.clone(),
            waiting: Vec::new(),
        });
        Box::pin(std::future::ready(Ok(session)))
    }
}

impl Session for Answering {
    fn is_up(&self) -> bool {
        true
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < WINDOW
    }

    fn send(&mut self, queued: &Queued, _: &[u8]) -> Result<Sent, Rejected> {
        if (self.picky.rejects)(queued.id.number) {
            return Err(Rejected::ForGood("too large".to_owned()));
        }
        self.waiting.push(queued.id.number);
        self.picky.sent.lock().unwrap().push(queued.id.number);
        Ok(Sent::default())
    }

    fn news(&mut self) -> BoxFuture<'_, Result<News, SessionError>> {
        Box::pin(async {
            let silent = self.picky.silent;
            if self.waiting.iter().all(|number| silent(*number)) {
                return std::future::pending().await;
            }
            if self.picky.sessions.load(Ordering::Relaxed) <= self.picky.lost {
                return Err(SessionError("lost".to_owned()));
            }
            let refuses = *self.picky.refuses.lock().unwrap();
            let outcome = |number: u64| match (refuses(number), self.picky.doubts) {
                (false, _) => Outcome::Delivered,
                (true, false) => Outcome::Refused("no".to_owned()),
                (true, true) => Outcome::Doubted("one of them, no".to_owned()),
            };
            let answered = self.waiting.extract_if(.., |number| !silent(*number));
            let answered = answered.map(|number| Confirmation {
                number,
                outcome: outcome(number),
            });
            let answered: Vec<_> = answered.collect();
            let refused = answered.iter().find(|one| one.outcome != Outcome::Delivered);
            Ok(match refused.filter(|_| self.picky.ends) {
                Some(refused) => News {
                    confirmations: vec![refused.clone()],
                    over: true,
                    ..News::default()
                },
                None => answered.into(),
            })
        })
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// A pump that runs, with so many records behind it.
struct Running {
    picky: Picky,
    queue: Queue,
    status: Arc<Status>,
    stop: CancellationToken,
    pump: JoinHandle<()>,
    _writer: WriterThread,
    _dir: tempfile::TempDir,
}

impl Running {
    async fn new(records: u64, picky: Picky) -> Self {
        let text = "[listener]\ncertificate = \"a\"\nprivate_key = \"b\"\nvehicle_ca = \"c\"\n[records]\n\"*\" = \"home\"\n\
            [destinations.home]\ntype = \"log\"";
        let config = config::parse(text, Path::new("config.toml")).unwrap();
        let rules = Rules::new(&config.routes, &config.destinations[0]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            max_bytes: 64 << 20,
            segment_size: 1 << 20,
            commit_delay: Duration::ZERO,
            dead_letter_bytes: 8 << 20,
            keep_free: 0,
            when_full: WhenFull::Refuse,
            max_age: None,
            duplicate_window: 0,
        };
        let (queue, writer) = Queue::open(dir.path(), settings).unwrap();
        queue.register("home", true);
        let mut submitter = queue.submitter();
        for number in 0..records {
            let record = Record {
                vin: format!("5YJ3E1EA7KF00000{}", vehicle(number)).into(),
                record_type: "raw".into(),
                txid: Bytes::from(number.to_string()),
                received_at: 0,
                client_version: "".into(),
                payload: Bytes::new(),
                origin: None,
                only: None,
            };
            submitter.store(Item::Record(record)).await.unwrap();
        }
        let (_, rules) = watch::channel(Arc::new(rules));
        let pump = Pump::new(queue.clone(), "home", "log", rules, Box::new(picky.clone()));
        let (status, stop) = (pump.status(), CancellationToken::new());
        Self {
            picky,
            queue,
            status,
            stop: stop.clone(),
            pump: tokio::spawn(pump.run(stop, CancellationToken::new())),
            _writer: writer,
            _dir: dir,
        }
    }

    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        let looking = async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), looking).await.unwrap();
    }

    async fn passed(&self, number: u64) {
        self.until(|running| running.queue.cursor("home") >= number).await;
    }

    fn refused(&self) -> u64 {
        self.status.snapshot().refused
    }

    fn sent(&self) -> Vec<u64> {
        self.picky.sent.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn a_record_that_is_refused_itself_costs_neither_the_session_nor_what_is_beside_it() {
    let running = Running::new(30, Picky::new(every_fifth)).await;
    running.passed(30).await;
    assert_eq!(running.refused(), 6);
    assert_eq!(running.sent(), (0..30).collect::<Vec<_>>(), "each once and in order");
    assert_eq!(running.status.snapshot().last_error, None, "it takes the others");
    assert_eq!(running.picky.sessions.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_record_that_is_refused_itself_and_ends_the_session_is_given_up_once_and_singles_out_nothing() {
    let ending = Picky {
        ends: true,
        ..Picky::new(every_fifth)
    };
    let running = Running::new(10, ending).await;
    running.passed(10).await;
    assert_eq!(running.refused(), 2);
    let sessions: [&[u64]; 3] = [
        &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        &[0, 1, 2, 4, 5, 6, 7, 8, 9],
        &[0, 1, 2, 4, 5, 6, 7, 9],
    ];
    assert_eq!(running.sent(), sessions.concat());
    assert_eq!(running.picky.sessions.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn what_is_not_even_taken_is_given_up_once_whatever_becomes_of_sessions() {
    let picky = Picky {
        rejects: every_fifth,
        lost: 3,
        ..Picky::new(none)
    };
    let running = Running::new(10, picky).await;
    running.passed(10).await;
    assert_eq!(running.refused(), 2);
    assert_eq!(running.picky.sessions.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn what_is_refused_in_company_is_tried_alone_before_it_is_given_up() {
    let doubting = Picky {
        doubts: true,
        ..Picky::new(every_fifth)
    };
    let running = Running::new(10, doubting).await;
    running.passed(10).await;
    assert_eq!(running.refused(), 2);
    // What was taken of other vehicles does not come again.
    assert_eq!(running.sent(), (0..10).chain([3, 6, 8, 9]).collect::<Vec<_>>());
}

fn the_first(number: u64) -> bool {
    number == 0
}

/// As a partition without a leader does, while the others go on.
#[tokio::test]
async fn what_is_never_answered_keeps_nobody_from_being_tried_alone() {
    let picky = Picky {
        doubts: true,
        silent: the_first,
        ..Picky::new(every_fifth)
    };
    let running = Running::new(10, picky).await;
    running
        .until(|running| running.refused() == 2 && running.sent().ends_with(&[9]))
        .await;
    assert_eq!(running.queue.cursor("home"), 0);
    let mut had: Vec<_> = running.sent().into_iter().filter(|number| *number != 0).collect();
    assert!(had.len() < 20, "each once, or with its vehicle's again: {had:?}");
    had.sort_unstable();
    had.dedup();
    assert_eq!(had, (1..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_vehicle_whose_records_are_all_refused_delays_nobody() {
    for (doubts, ends) in [(false, false), (false, true), (true, false)] {
        let picky = Picky {
            doubts,
            ends,
            ..Picky::new(of_one_and_another)
        };
        let running = Running::new(62, picky).await;
        // Waits after each of twenty would take a quarter of an hour.
        running.passed(62).await;
        assert_eq!(running.refused(), 21);
    }
}

#[tokio::test]
async fn a_destination_that_refuses_everything_is_sent_ever_less_until_it_takes_something() {
    for doubts in [false, true] {
        let picky = Picky {
            doubts,
            ..Picky::new(all)
        };
        let running = Running::new(30, picky).await;
        tokio::time::sleep(BAD).await;
        let refused = running.refused();
        let said = running.status.snapshot().last_error.unwrap_or_default();
        assert!(said.starts_with("it takes nothing of what it is sent: "), "{said}");
        // What was on its way, and one after each wait.
        assert!(
            (2..=WINDOW as u64 + 5).contains(&refused),
            "{refused} of 30, doubts: {doubts}"
        );
        *running.picky.refuses.lock().unwrap() = none;
        running.passed(30).await;
        assert_eq!(running.status.snapshot().last_error, None);
        let sent = running.sent();
        assert!(sent.is_sorted() || doubts, "{sent:?}");
    }
}

#[tokio::test]
async fn a_stop_does_not_wait_for_the_end_of_a_wait() {
    for doubts in [false, true] {
        let picky = Picky {
            doubts,
            ..Picky::new(all)
        };
        let running = Running::new(30, picky).await;
        // Until the next wait takes longer than a stop may.
        let enough = if doubts { 3 } else { WINDOW as u64 + 2 };
        running.until(|running| running.refused() >= enough).await;
        running.stop.cancel();
        let stopped = tokio::time::timeout(Duration::from_millis(450), running.pump).await;
        assert!(stopped.is_ok(), "doubts: {doubts}");
    }
}

fn broken(_: u64) -> bool {
    panic!("out of order")
}

#[tokio::test]
async fn a_panic_is_an_outage_that_is_told() {
    let picky = Picky {
        rejects: broken,
        ..Picky::new(none)
    };
    let running = Running::new(3, picky).await;
    running.until(|running| running.status.snapshot().failures > 1).await;
    let status = running.status.snapshot();
    assert_eq!(
        (status.connected, status.in_flight, running.queue.cursor("home")),
        (false, 0, 0)
    );
    assert_eq!(
        status.last_error.as_deref(),
        Some("the forwarder panicked: out of order")
    );
    running.stop.cancel();
    running.pump.await.unwrap();
}
