//! A thread of its own for the pump of a broker, with a low priority: where processors are few, vehicles and live feeds
//! go before a backlog.
//!
//! Invariant: no task of the others waits in a queue behind such a pump, or behind the client library under it. It gets a
//! tenth of a processor's time while others want it too, so that a backlog drains whatever comes in; what the others wait
//! for is a lock that both want, the allocator's above all, and the moment until the scheduler takes the processor away.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::setpriority_process;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::pump::Pump;

/// How much it gives way. The client libraries' own threads inherit it.
const NICENESS: i32 = 10;
/// What still hangs in a resolver, for instance, does not hold up the end.
const LEFTOVERS: Duration = Duration::from_millis(200);
/// What Linux shows of a thread's name.
const NAME_LENGTH: usize = 15;

impl Pump {
    /// Runs like [`Pump::run`], a broker's in a thread of its own. The future ends with it; dropped, it ends the pump. Where
    /// there can be no thread, the pump runs in the future itself.
    pub fn run_in_lane(
        self,
        stop: CancellationToken,
        abort: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let lane = self.destination.has_broker().then(|| Lane::begin(&self.name));
        let lane = lane.transpose().unwrap_or_else(|error| {
            tracing::warn!(destination = %self.name, %error, "it gets no thread of its own, and its backlog does not give way to others");
            None
        });
        async move {
            match lane {
                Some(lane) => lane.run(self.run(stop, abort)).await,
                None => self.run(stop, abort).await,
            }
        }
    }
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A thread with a runtime, which waits for its work.
struct Lane {
    work: mpsc::SyncSender<Work>,
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

impl Lane {
    fn begin(destination: &str) -> io::Result<Self> {
        let mut name = format!("to {destination}");
        name.truncate(NAME_LENGTH);
        let (begins, begun) = mpsc::sync_channel(1);
        let (work, given) = mpsc::sync_channel::<Work>(1);
        let (ends, ended) = oneshot::channel::<()>();
        let main = {
            let name = name.clone();
            move || {
                let _ends = ends;
                // Made here, because one that is let go of in another's task panics.
                let made = Builder::new_current_thread().enable_all().thread_name(name).build();
                let runtime = match made {
                    Ok(runtime) => runtime,
                    Err(error) => return begins.send(Err(error)).unwrap_or_default(),
                };
                begins.send(Ok(())).unwrap_or_default();
                if let Err(error) = setpriority_process(None, NICENESS) {
                    tracing::debug!(%error, "a destination's thread does not give way to others");
                }
                if let Ok(work) = given.recv() {
                    runtime.block_on(work);
                }
                runtime.shutdown_timeout(LEFTOVERS);
            }
        };
        let thread = std::thread::Builder::new().name(name).spawn(main)?;
        begun
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the thread has panicked")))?;
        Ok(Self { work, ended, thread })
    }

    /// Ends with the work, after which there is no thread; dropped, it ends the work.
    async fn run(self, work: impl Future<Output = ()> + Send + 'static) {
        let dropped = CancellationToken::new();
        let _ends_it = dropped.clone().drop_guard();
        let work = Box::pin(async move {
            tokio::select! {
                () = work => {}
                () = dropped.cancelled() => {}
            }
        });
        // A thread that is gone has said why.
        self.work.send(work).unwrap_or_default();
        // Nothing is ever sent: the thread lets go of its half when it ends.
        self.ended.await.unwrap_or_default();
        if self.thread.join().is_err() {
            tracing::error!("a destination's thread has panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[tokio::test]
    async fn work_has_a_thread_of_a_lower_priority_by_its_name() {
        let before = getpriority_process(None).expect("Linux says");
        let (says, said) = oneshot::channel();
        let lane = Lane::begin("a-destination-with-a-long-name").expect("a thread");
        lane.run(async move {
            let name = std::thread::current().name().map(str::to_owned);
            says.send((name, getpriority_process(None))).expect("it is waited for");
        })
        .await;
        let (name, niceness) = said.await.expect("it ran");
        assert_eq!(name.as_deref(), Some("to a-destinatio"));
        assert_eq!(niceness.expect("Linux says"), NICENESS);
        assert_eq!(getpriority_process(None).expect("Linux says"), before);
    }

    #[tokio::test]
    async fn work_ends_when_nobody_waits_for_it_any_more() {
        let (held, let_go) = oneshot::channel::<()>();
        let (says, said) = oneshot::channel();
        let lane = Lane::begin("cloud").expect("a thread");
        let running = tokio::spawn(lane.run(async move {
            let _held = held;
            says.send(()).expect("it is waited for");
            std::future::pending::<()>().await;
        }));
        said.await.expect("it began");
        running.abort();
        let_go.await.expect_err("nothing is sent");
    }
}
