//! The ZMQ feed: what a subscriber gets a second, against a bare PUB socket of the same crate that sends the same.

use std::time::{Duration, Instant};

use bytes::Bytes;
use omq_tokio::{Message, OnMute, Options, Socket, SocketType};

use crate::Bench;
use crate::backlog::fill;
use crate::commits::Records;
use crate::daemon::free_port;
use crate::process::{Gateway, Process, Setup, Side, role};
use crate::report::{Row, Target};

/// Enough for the second in which it is counted.
const RECORDS: u64 = 1_500_000;
/// Before it is counted, from the first record on.
const WARM_UP: Duration = Duration::from_millis(200);
const COUNTED: Duration = Duration::from_secs(1);

pub(crate) fn measure(bench: &Bench) -> Vec<Row> {
    let (mut fed, mut bare) = (vec![], vec![]);
    for _ in 0..bench.rounds {
        let port = free_port();
        let subscriber = Subscriber::start(port);
        let dir = bench.folder("feed");
        fill(&dir, RECORDS);
        let rest = format!(
            "[records]\nV = [\"cloud\"]\n[destinations.cloud]\ntype = \"zmq\"\nnamespace = \"bench\"\n\
             bind = \"tcp://127.0.0.1:{port}\""
        );
        let gateway = Gateway::start(&Setup {
            pki: &bench.pki,
            dir: &dir,
            queue: "",
            rest: &rest,
        });
        fed.push(subscriber.rate());
        gateway.process.end();

        let port = free_port();
        let subscriber = Subscriber::start(port);
        let publisher = Process::start(role(Side::Gateway, "publish", &[&port.to_string()]));
        bare.push(subscriber.rate());
        drop(publisher);
        eprintln!(
            "  {:.0} records/s, bare {:.0}",
            fed[fed.len() - 1],
            bare[bare.len() - 1]
        );
    }
    let limit = ("a bare PUB socket of the same crate", bare.as_slice());
    vec![Row::ratio(
        "feed.bare",
        "ZMQ feed, as one subscriber gets it",
        "records/s",
        &fed,
        limit,
        Target::AtLeast(0.80),
    )]
}

/// A process that subscribes, and says how fast records came.
struct Subscriber(Process);

impl Subscriber {
    fn start(port: u16) -> Self {
        let (process, ready) = Process::saying(role(Side::Load, "subscribe", &[&port.to_string()]));
        assert_eq!(ready, "ready");
        Self(process)
    }

    fn rate(mut self) -> f64 {
        let line = self.0.line();
        line.parse().unwrap_or_else(|_| panic!("the subscriber says {line:?}"))
    }
}

pub(crate) fn run_subscribe(port: &str) {
    let runtime = alone();
    let rate = runtime.block_on(async {
        let options = Options::default().recv_hwm(100_000);
        let socket = Socket::try_new(SocketType::Sub, options).expect("a socket");
        socket.subscribe("").await.expect("a subscription");
        socket
            .connect(format!("tcp://127.0.0.1:{port}").as_str())
            .await
            .expect("an endpoint");
        println!("ready");
        socket.recv().await.expect("a record");
        let begun = Instant::now();
        let mut counted = 0_u64;
        while begun.elapsed() < WARM_UP + COUNTED {
            socket.recv().await.expect("a record");
            counted += u64::from(begun.elapsed() >= WARM_UP);
        }
        counted as f64 / COUNTED.as_secs_f64()
    });
    println!("{rate}");
}

/// A runtime that does not share its one processor with another thread.
fn alone() -> tokio::runtime::Runtime {
    let made = tokio::runtime::Builder::new_current_thread().enable_all().build();
    made.expect("a runtime")
}

/// Sends for as long as it lives, with the gateway's settings and as many in a row.
pub(crate) fn run_publish(port: &str) {
    let runtime = alone();
    runtime.block_on(async {
        let options = Options::default().send_hwm(1_000).on_mute(OnMute::DropNewest);
        let socket = Socket::try_new(SocketType::Pub, options).expect("a socket");
        socket
            .bind(format!("tcp://127.0.0.1:{port}").as_str())
            .await
            .expect("a free port");
        let mut records = Records::new();
        for number in 0_u64.. {
            let record = records.record(number);
            let frames = [Bytes::from(format!("bench_{}", record.record_type)), record.payload];
            // Full: this one is dropped.
            drop(socket.try_send(Message::multipart(frames)));
            if number % 128 == 127 {
                tokio::task::yield_now().await;
            }
        }
    });
}
