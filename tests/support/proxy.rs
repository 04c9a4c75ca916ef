//! A TCP proxy that the test opens, closes, and can make hold back what the broker says, or pass little at a time to it.
#![allow(dead_code)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    open: AtomicBool,
    /// Answers of the server are not passed on.
    mute: AtomicBool,
    /// Bytes a second towards the server on each connection; 0: as many as come.
    rate: AtomicU64,
    /// Connections of an earlier epoch end.
    epoch: AtomicU64,
    ended: AtomicBool,
}

const STEP: Duration = Duration::from_millis(5);

impl Proxy {
    /// A closed one in front of this port.
    pub(crate) fn new(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            while !shared.ended.load(Ordering::SeqCst) {
                let Ok((client, _)) = listener.accept() else {
                    std::thread::sleep(STEP);
                    continue;
                };
                let server = TcpStream::connect(("127.0.0.1", target));
                let (true, Ok(server)) = (shared.open.load(Ordering::SeqCst), server) else {
                    continue;
                };
                let epoch = shared.epoch.load(Ordering::SeqCst);
                for (from, to, answers) in [
                    (client.try_clone().unwrap(), server.try_clone().unwrap(), false),
                    (server, client, true),
                ] {
                    let shared = Arc::clone(&shared);
                    std::thread::spawn(move || pass(from, to, answers, epoch, &shared));
                }
            }
        });
        Self { port, state }
    }

    pub(crate) fn open(&self) {
        self.state.mute.store(false, Ordering::SeqCst);
        self.state.open.store(true, Ordering::SeqCst);
    }

    /// Ends all connections and takes no new ones.
    pub(crate) fn close(&self) {
        self.state.open.store(false, Ordering::SeqCst);
        self.state.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Passes so many bytes a second to the server, on each connection.
    pub(crate) fn narrow(&self, rate: u64) {
        self.state.rate.store(rate, Ordering::SeqCst);
    }

    /// What the server says from now on is not heard on the open connections.
    pub(crate) fn mute(&self) {
        self.state.mute.store(true, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.close();
        self.state.ended.store(true, Ordering::SeqCst);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, answers: bool, epoch: u64, state: &State) {
    from.set_nonblocking(false).unwrap();
    from.set_read_timeout(Some(STEP)).unwrap();
    let mut buffer = vec![0; 64 << 10];
    while state.epoch.load(Ordering::SeqCst) == epoch {
        let rate = state.rate.load(Ordering::SeqCst);
        let narrow = rate > 0 && !answers;
        let most = if narrow { 4 << 10 } else { buffer.len() };
        match from.read(&mut buffer[..most]) {
            Ok(0) => break,
            Ok(_) if answers && state.mute.load(Ordering::SeqCst) => {}
            Ok(length) => {
                if to.write_all(&buffer[..length]).is_err() {
                    break;
                }
                if narrow {
                    std::thread::sleep(Duration::from_secs_f64(length as f64 / rate as f64));
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    // The other direction may have closed it already.
    drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
}
