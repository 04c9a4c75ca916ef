//! Where duplicates may be: for each destination the numbers that can have been on their way when a session ended.
//!
//! A session begins at the cursor, so what comes twice was handed over by a session that has ended since, and lies at or
//! above the cursor with which the next one began. In a running daemon that is the cursor of the last look before the
//! count of failed sessions grew; for a daemon that was killed or stopped it is the saved one, as `queue show` reads it
//! before the next start. Above, what was committed at the first look after is the bound, and the destination's window.
//!
//! What this cannot see: which of these numbers the destination had confirmed. After a kill that is up to a second of
//! them, since cursors are saved once a second; while it runs, what was confirmed between three looks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::daemon::status_at;

const BETWEEN_LOOKS: Duration = Duration::from_millis(25);

/// Numbers from `from` to before `to` may come once more for each of the sessions that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// The cursor was here at most: a destination with a window was handed no more than that from here on.
    pub(crate) cursor: u64,
    pub(crate) ends: usize,
}

/// One destination's.
#[derive(Debug, Default)]
struct Place {
    /// Its cursor at the last look but one, and at the last: within one look the cursor is read after the failures.
    cursors: [u64; 2],
    failures: u64,
    /// An interval whose end a later look will tell.
    open: Option<Interval>,
    /// Not before the cursor has passed this.
    until: Option<u64>,
    intervals: Vec<Interval>,
}

impl Place {
    fn open(&mut self, cursor: u64, ends: usize) {
        let before = self.open.take();
        self.open = Some(Interval {
            from: before.as_ref().map_or(self.cursors[0], |before| before.from),
            to: u64::MAX,
            cursor: before.as_ref().map_or(cursor, |before| before.cursor.max(cursor)),
            ends: before.map_or(0, |before| before.ends) + ends,
        });
    }

    fn close(&mut self, to: u64) {
        self.until = None;
        let open = self.open.take();
        self.intervals.extend(open.map(|interval| Interval { to, ..interval }));
    }
}

/// What was noted so far. Whoever holds it keeps the watch from looking.
#[derive(Default)]
pub(crate) struct Noted {
    places: BTreeMap<String, Place>,
    committed: u64,
}

impl Noted {
    fn look(&mut self, status: &Value) {
        self.committed = number(&status["queue"]["committed"]);
        for destination in status["destinations"].as_array().unwrap() {
            let name = destination["name"].as_str().unwrap();
            let place = self.places.entry(name.to_owned()).or_default();
            let (failures, cursor) = (number(&destination["failures"]), number(&destination["cursor"]));
            if place.until.is_none_or(|until| cursor > until) {
                place.close(self.committed);
            }
            if failures > place.failures {
                place.open(cursor, (failures - place.failures) as usize);
                place.failures = failures;
            }
            place.cursors = [place.cursors[1], cursor];
        }
    }

    /// The daemon has ended, and this is what `queue show` says.
    pub(crate) fn ended(&mut self, show: &Value) {
        let places = show["destinations"].as_object().unwrap();
        let saved = |name: &str| number(&places[name]["cursor"]);
        // A queue that was consumed to its end has no segment that would tell it.
        let highest = places.keys().map(|name| saved(name)).max().unwrap_or_default();
        let end = number(&show["end"]).max(highest);
        for name in places.keys() {
            let place = self.places.entry(name.clone()).or_default();
            place.close(end);
            // And perhaps, since the last look, one that ended by itself.
            let from = saved(name).min(place.cursors[0]);
            place.intervals.push(Interval {
                from,
                to: end,
                cursor: end,
                ends: 2,
            });
            place.cursors = [saved(name); 2];
            place.failures = 0;
        }
    }

    /// A destination is disturbed in a way that its session survives, but not without sending again.
    pub(crate) fn disturbed(&mut self, destination: &str) {
        let place = self.places.entry(destination.to_owned()).or_default();
        place.open(u64::MAX, 1);
        place.until = Some(u64::MAX);
    }

    /// It is not any more. That is over when something has been confirmed that was committed after it.
    pub(crate) fn undisturbed(&mut self, destination: &str) {
        let place = self.places.entry(destination.to_owned()).or_default();
        place.until = place.until.map(|_| self.committed);
    }

    pub(crate) fn intervals(&self, destination: &str) -> Vec<Interval> {
        let place = &self.places[destination];
        place.intervals.iter().chain(&place.open).cloned().collect()
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("a number is due, not {value}"))
}

/// Looks at a daemon's status again and again.
pub(crate) struct Watch {
    noted: Arc<Mutex<Noted>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn new(admin: u16) -> Self {
        let (noted, stop) = (Arc::new(Mutex::new(Noted::default())), Arc::new(AtomicBool::new(false)));
        let (looking, stopped) = (Arc::clone(&noted), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                let mut noted = looking.lock().unwrap();
                if let Some(status) = status_at(admin) {
                    noted.look(&status);
                }
                drop(noted);
                std::thread::sleep(BETWEEN_LOOKS);
            }
        });
        Self {
            noted,
            stop,
            thread: Some(thread),
        }
    }

    /// While this is held nobody looks: for what ends the daemon and starts it again.
    pub(crate) fn hold(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A panic in there has been told.
            drop(thread.join());
        }
    }
}

#[test]
fn what_was_on_its_way_when_sessions_ended_is_noted() {
    let status = |cursor: u64, failures: u64, committed: u64| {
        let destination = serde_json::json!({ "name": "a", "cursor": cursor, "failures": failures });
        serde_json::json!({ "queue": { "committed": committed }, "destinations": [destination] })
    };
    let mut noted = Noted::default();
    noted.look(&status(10, 0, 20));
    noted.look(&status(15, 0, 25));
    noted.look(&status(18, 1, 30));
    noted.look(&status(20, 1, 35));
    let failed = Interval {
        from: 10,
        to: 35,
        cursor: 18,
        ends: 1,
    };
    assert_eq!(noted.intervals("a"), std::slice::from_ref(&failed));
    noted.ended(&serde_json::json!({ "end": 40, "destinations": { "a": { "cursor": 17 } } }));
    let killed = Interval {
        from: 17,
        to: 40,
        cursor: 40,
        ends: 2,
    };
    assert_eq!(noted.intervals("a"), [failed, killed]);
    noted.look(&status(17, 0, 40));
    assert_eq!(noted.intervals("a").len(), 2, "counting begins again with the process");
    noted.disturbed("a");
    noted.undisturbed("a");
    noted.look(&status(40, 0, 50));
    noted.look(&status(41, 0, 60));
    noted.look(&status(60, 0, 60));
    let disturbed = Interval {
        from: 17,
        to: 60,
        cursor: u64::MAX,
        ends: 1,
    };
    assert_eq!(noted.intervals("a")[2], disturbed);
}
