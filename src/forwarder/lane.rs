//! A thread of its own for the pump of a broker, with a low priority: where processors are few, vehicles and live feeds
//! go before a backlog.
//!
//! Invariant: whatever such a pump does, and whatever the client library under it does, it holds up those that have no
//! thread of their own only while both want the same lock. It gets a processor's time when nothing else wants it, and a
//! tenth of it otherwise, so that a backlog drains whatever comes in.

use std::future::Future;
use std::io;
use std::sync::mpsc;
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
    /// Runs like [`Pump::run`], in a thread that has begun when this returns. The future ends with it; dropped, it ends the
    /// pump.
    pub fn run_apart(
        self,
        stop: CancellationToken,
        abort: CancellationToken,
    ) -> io::Result<impl Future<Output = ()> + Send + 'static> {
        let mut name = format!("to {}", self.name);
        name.truncate(NAME_LENGTH);
        let dropped = CancellationToken::new();
        let drop_guard = dropped.clone().drop_guard();
        let (begins, begun) = mpsc::sync_channel(1);
        let (ends, ended) = oneshot::channel::<()>();
        let work = {
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
                    tracing::debug!(destination = %self.name, %error, "its thread does not give way to others");
                }
                runtime.block_on(async {
                    tokio::select! {
                        () = self.run(stop, abort) => {}
                        () = dropped.cancelled() => {}
                    }
                });
                runtime.shutdown_timeout(LEFTOVERS);
            }
        };
        let thread = std::thread::Builder::new().name(name).spawn(work)?;
        begun
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("its thread has panicked")))?;
        Ok(async move {
            let _ends_it = drop_guard;
            // Nothing is ever sent: the thread lets go of its half when it ends.
            ended.await.unwrap_or_default();
            if thread.join().is_err() {
                tracing::error!("a destination's thread has panicked");
            }
        })
    }
}
