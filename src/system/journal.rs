//! Carries log events to the journal on a thread of its own.
//!
//! Invariant: whoever logs never waits for journald. Events that it does not take in time are counted, and the count is in
//! the journal as soon as it takes events again.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tracing::field::{Field, Value, Visit};
use tracing::{Dispatch, Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Events that wait for journald: far more than a start says, and at most a few hundred kilobytes.
const WAITING: usize = 1_024;
/// How long the end of the process waits for a journal that does not read.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Fields of one event: more than any has.
const FIELDS: usize = 32;

/// One event, with its values as they were when it happened.
struct Line {
    metadata: &'static Metadata<'static>,
    values: Vec<(Field, Text)>,
}

/// A value as the journal holds it: as text, and without the quotes that `Debug` would put around it.
struct Text(String);

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

enum Order {
    Tell(Line),
    /// To be answered when everything before it is told.
    Flush(SyncSender<()>),
}

/// The layer that hands events over.
pub(super) struct Journal {
    orders: SyncSender<Order>,
    missing: Arc<AtomicU64>,
}

/// Waits, but not for ever, until what was logged is in the journal.
#[derive(Debug)]
pub(super) struct Flush(SyncSender<Order>);

impl Journal {
    /// Starts the thread, which ends with the process. `sink` gets every event that was enabled; that it is another
    /// subscriber and not a layer keeps the system call out of the thread that logs.
    pub(super) fn start(sink: Dispatch) -> io::Result<(Self, Flush)> {
        let (orders, received) = sync_channel(WAITING);
        let missing = Arc::new(AtomicU64::new(0));
        let missed = Arc::clone(&missing);
        std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || carry(&received, &missed, &sink))?;
        let flush = Flush(orders.clone());
        Ok((Self { orders, missing }, flush))
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut values = Values(Vec::new());
        event.record(&mut values);
        let line = Line {
            metadata: event.metadata(),
            values: values.0,
        };
        match self.orders.try_send(Order::Tell(line)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.missing.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Flush {
    pub(super) fn wait(&self) {
        let (done, told) = sync_channel(1);
        // A full channel is a journal that does not read.
        if self.0.try_send(Order::Flush(done)).is_ok() {
            // Either way the process ends now.
            told.recv_timeout(LAST_WORDS).ok();
        }
    }
}

fn carry(orders: &Receiver<Order>, missing: &AtomicU64, sink: &Dispatch) {
    for order in orders {
        match order {
            Order::Tell(line) => line.tell(sink),
            // Nobody may be waiting any more.
            Order::Flush(done) => done.try_send(()).unwrap_or(()),
        }
        match missing.swap(0, Ordering::Relaxed) {
            0 => {}
            lines => tracing::dispatcher::with_default(sink, || {
                tracing::warn!(
                    lines,
                    "the journal did not take what was logged: {lines} lines are missing here"
                );
            }),
        }
    }
}

impl Line {
    fn tell(&self, sink: &Dispatch) {
        let Some((first, _)) = self.values.first() else {
            return;
        };
        // An array, because that is what the library takes; what is `None` it leaves out.
        let texts: Vec<_> = self
            .values
            .iter()
            .map(|(_, text)| tracing::field::debug(text))
            .collect();
        let values: [(&Field, Option<&dyn Value>); FIELDS] =
            std::array::from_fn(|index| match (self.values.get(index), texts.get(index)) {
                (Some((field, _)), Some(text)) => (field, Some(text as &dyn Value)),
                _ => (first, None),
            });
        sink.event(&Event::new(self.metadata, &self.metadata.fields().value_set(&values)));
    }
}

struct Values(Vec<(Field, Text)>);

impl Visit for Values {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.clone(), Text(value.to_owned())));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push((field.clone(), Text(format!("{value:?}"))));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Stands in for journald: tells what it got, and reads nothing while `gate` is locked.
    struct Sink {
        gate: Arc<Mutex<()>>,
        told: mpsc::Sender<String>,
    }

    impl<S: Subscriber> Layer<S> for Sink {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            drop(self.gate.lock().expect("no test panics with it"));
            let mut values = Values(Vec::new());
            event.record(&mut values);
            let fields = values
                .0
                .iter()
                .map(|(field, text)| format!("{}={}", field.name(), text.0));
            let line = format!("{} {}", event.metadata().level(), fields.collect::<Vec<_>>().join(" "));
            self.told.send(line).expect("the test reads");
        }
    }

    fn sink() -> (Dispatch, Arc<Mutex<()>>, mpsc::Receiver<String>) {
        let (told, lines) = mpsc::channel();
        let gate = Arc::new(Mutex::new(()));
        let sink = Sink {
            gate: Arc::clone(&gate),
            told,
        };
        (Dispatch::new(tracing_subscriber::registry().with(sink)), gate, lines)
    }

    #[test]
    fn an_event_arrives_with_its_level_and_every_field() {
        let (sink, _, lines) = sink();
        let (journal, flush) = Journal::start(sink).expect("a thread");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), || {
            let vin = "5YJ3E1EA7KF000001";
            tracing::warn!(vin, number = 7_u64, share = 0.5, of = ?Some("x"), "a {} line", "formatted");
        });
        flush.wait();
        let line = lines.try_recv().expect("it was flushed");
        assert!(line.starts_with("WARN message=a formatted line"), "{line}");
        for field in ["vin=5YJ3E1EA7KF000001", "number=7", "share=0.5", "of=Some(\"x\")"] {
            assert!(line.contains(field), "{field} in {line}");
        }
    }

    #[test]
    fn a_journal_that_does_not_read_holds_up_nobody_and_what_is_missing_is_counted() {
        let (sink, gate, lines) = sink();
        let (journal, flush) = Journal::start(sink).expect("a thread");
        let stopped = gate.lock().expect("no test panics with it");
        let many = WAITING as u64 * 3;
        // On this thread, which holds the gate: it would hang for ever if it had to wait.
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), || {
            (0..many).for_each(|number| tracing::info!(number, "said"));
        });
        flush.wait();
        drop(stopped);
        let (mut said, mut missing) = (0, 0);
        while said + missing < many {
            let line = lines
                .recv_timeout(Duration::from_secs(30))
                .expect("all are accounted for");
            match line.split_once("lines=") {
                Some((_, count)) => missing += count.parse::<u64>().expect("a number"),
                None => said += 1,
            }
        }
        assert_eq!(said + missing, many);
        assert!(missing >= many - WAITING as u64 - 2, "{missing}");
    }
}
