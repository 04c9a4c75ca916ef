//! Keeps one noisy cause from flooding the log: what repeats itself is told a few times and then summed up.
//!
//! Invariant: the first events of a kind are always told at once, nothing that is left out goes uncounted, and memory is
//! bounded whoever makes the noise.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Events of one kind and one cause that are told within a window.
const TOLD: u32 = 10;
/// Events of one kind, whatever their cause: many vehicles at once are no noise, but a flood of strangers is.
const TOLD_OF_KIND: u32 = 1_000;
const WINDOW: Duration = Duration::from_secs(60);
/// Causes that are told apart within a window.
const CAUSES: usize = 4_096;
/// Fields that say who or what an event is about.
const CAUSE: [&str; 5] = ["vin", "device", "destination", "peer", "subject"];

/// The layer that lets an event through or counts it.
#[derive(Debug, Default)]
pub(super) struct Burst(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    begun: Option<Instant>,
    causes: HashMap<(Identifier, u64), u32>,
    kinds: HashMap<Identifier, Kind>,
}

#[derive(Debug)]
struct Kind {
    metadata: &'static Metadata<'static>,
    told: u32,
    left_out: u64,
    message: String,
}

/// What was left out of one kind of event within a window.
#[derive(Debug, PartialEq, Eq)]
struct LeftOut {
    level: Level,
    times: u64,
    message: String,
}

impl LeftOut {
    fn tell(self) {
        let Self { level, times, message } = self;
        match level {
            Level::WARN => tracing::warn!(times, "said more often than is told: {message}"),
            _ => tracing::info!(times, "said more often than is told: {message}"),
        }
    }
}

impl Burst {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Counts that a panic left half changed are still counts.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_told(&self, event: &Event<'_>, now: Instant) -> bool {
        let metadata = event.metadata();
        // Losses are always told, each of them; and who asks for debugging wants all of it.
        if *metadata.level() == Level::ERROR || *metadata.level() > Level::INFO {
            return true;
        }
        let mut about = About::default();
        event.record(&mut about);
        let mut seen = self.lock();
        seen.begun.get_or_insert(now);
        // Without one, whatever is told differs.
        let cause = match about.has_cause {
            true => about.cause.finish(),
            false => about.all.finish(),
        };
        let cause = (metadata.callsite(), cause);
        let many = seen.causes.len() >= CAUSES && !seen.causes.contains_key(&cause);
        let times = match many {
            // Those that there is no room for share what the kind may say.
            true => 0,
            false => {
                let times = seen.causes.entry(cause).or_default();
                *times += 1;
                *times
            }
        };
        let kind = seen.kinds.entry(metadata.callsite()).or_insert_with(|| Kind {
            metadata,
            told: 0,
            left_out: 0,
            message: String::new(),
        });
        let told = times <= TOLD && kind.told < TOLD_OF_KIND;
        match told {
            true => kind.told += 1,
            false => {
                kind.left_out += 1;
                if kind.message.is_empty() {
                    kind.message = about.message;
                }
            }
        }
        told
    }

    /// What was left out, when the window is over; the next one begins.
    fn sum_up(&self, now: Instant) -> Vec<LeftOut> {
        let over = self.lock().begun.is_some_and(|begun| now >= begun + WINDOW);
        if over { self.left_out() } else { Vec::new() }
    }

    fn left_out(&self) -> Vec<LeftOut> {
        let mut seen = self.lock();
        seen.begun = None;
        seen.causes.clear();
        let kinds = std::mem::take(&mut seen.kinds).into_values();
        let noisy = kinds.filter(|kind| kind.left_out > 0).map(|kind| LeftOut {
            level: *kind.metadata.level(),
            times: kind.left_out,
            message: kind.message,
        });
        noisy.collect()
    }

    /// Tells what was left out, for ever.
    pub(super) async fn tell(&self) {
        loop {
            tokio::time::sleep(WINDOW / 6).await;
            self.sum_up(Instant::now()).into_iter().for_each(LeftOut::tell);
        }
    }

    /// Tells what was left out so far: the last word of a process.
    pub(super) fn tell_now(&self) {
        self.left_out().into_iter().for_each(LeftOut::tell);
    }
}

impl<S: Subscriber> Layer<S> for &'static Burst {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.is_told(event, Instant::now())
    }
}

/// Who or what an event is about, and its message.
#[derive(Default)]
struct About {
    cause: DefaultHasher,
    has_cause: bool,
    all: DefaultHasher,
    message: String,
}

impl Visit for About {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        text.hash(&mut self.all);
        // Of an address, the host: each connection has another port.
        let host = || text.rsplit_once(':').map_or(text.as_str(), |(host, _)| host);
        match field.name() {
            "peer" => host().hash(&mut self.cause),
            name if CAUSE.contains(&name) => text.hash(&mut self.cause),
            "message" => {
                self.message = text;
                return;
            }
            _ => return,
        }
        self.has_cause = true;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, LazyLock};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Counts what comes through, by level.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<Level>>>);

    impl<S: Subscriber> Layer<S> for Told {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0
                .lock()
                .expect("no test panics with it")
                .push(*event.metadata().level());
        }
    }

    impl Told {
        fn count(&self, level: Level) -> usize {
            let told = self.0.lock().expect("no test panics with it");
            told.iter().filter(|one| **one == level).count()
        }
    }

    fn with(burst: &'static Burst, make_noise: impl FnOnce()) -> Told {
        let told = Told::default();
        let subscriber = tracing_subscriber::registry().with(burst).with(told.clone());
        tracing::subscriber::with_default(subscriber, make_noise);
        told
    }

    #[test]
    fn one_cause_is_told_ten_times_and_then_summed_up_and_others_are_told() {
        static BURST: LazyLock<Burst> = LazyLock::new(Burst::default);
        let say = |vin: &str| tracing::info!(vin, number = 1, "vehicle connected");
        let told = with(&BURST, || {
            (0..50).for_each(|_| say("A"));
            (0..3).for_each(|_| say("B"));
        });
        assert_eq!(told.count(Level::INFO), 13);
        assert_eq!(BURST.sum_up(Instant::now()), []);
        let left_out = LeftOut {
            level: Level::INFO,
            times: 40,
            message: "vehicle connected".to_owned(),
        };
        let later = Instant::now() + WINDOW;
        assert_eq!(BURST.sum_up(later), [left_out]);
        assert_eq!(BURST.sum_up(later + WINDOW), []);
        assert_eq!(with(&BURST, || say("A")).count(Level::INFO), 1, "a new window");
    }

    #[test]
    fn ports_do_not_make_a_host_another_one_and_many_hosts_are_bounded() {
        static BURST: LazyLock<Burst> = LazyLock::new(Burst::default);
        let say = |peer: String| tracing::warn!(%peer, "no vehicle");
        let told = with(&BURST, || (0..50).for_each(|port| say(format!("[::1]:{port}"))));
        assert_eq!(told.count(Level::WARN), 10);
        let told = with(&BURST, || (0..20_000).for_each(|host| say(format!("10.0.{host}:1"))));
        assert_eq!(told.count(Level::WARN), TOLD_OF_KIND as usize - 10);
        assert!(BURST.lock().causes.len() <= CAUSES);
    }

    #[test]
    fn what_is_about_nobody_is_told_apart_by_what_it_says() {
        static BURST: LazyLock<Burst> = LazyLock::new(Burst::default);
        let told = with(&BURST, || {
            (0..30).for_each(|number| tracing::warn!(number, "set aside"));
            (0..30).for_each(|_| tracing::warn!(number = 1, "set aside"));
        });
        assert_eq!(told.count(Level::WARN), 30 + 10);
    }

    #[test]
    fn errors_and_debugging_are_always_told() {
        static BURST: LazyLock<Burst> = LazyLock::new(Burst::default);
        let told = with(&BURST, || {
            for _ in 0..50 {
                tracing::error!(from = 1, "records lost");
                tracing::debug!("all of it");
            }
        });
        assert_eq!((told.count(Level::ERROR), told.count(Level::DEBUG)), (50, 50));
    }
}
