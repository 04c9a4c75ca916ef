//! What one destination's backlog costs another one: the time of live records to a second destination, while a million of
//! older ones drain to the first.

use crate::Bench;
use crate::backlog::fill;
use crate::daemon::free_port;
use crate::disk::{come_to_rest, slowest_sync};
use crate::drain;
use crate::load::Load;
use crate::process::{Gateway, Setup, Vehicles};
use crate::report::{Row, Target};

const BACKLOG: u64 = 1_000_000;
/// Live records a second.
const RATE: f64 = 1_000.0;
/// Seconds of them that are not counted, first.
const WARM_UP: f64 = 1.0;
/// Seconds that are counted, where the backlog lasts for that; and how few of them still have a p99.
const WINDOW: f64 = 3.0;
const SHORTEST: f64 = 0.5;

pub(crate) fn measure(bench: &Bench) -> Vec<Row> {
    let (_mock, address) = drain::serving("mock");
    let quick = slowest_sync(&bench.folder("rest"));
    let (mut with, mut without) = (vec![], vec![]);
    let mut window = WINDOW;
    // What the slowest of a hundred meet is the disk's chance and the scheduler's.
    while with.len() < 3 * bench.rounds {
        let bare = delivered(bench, &address, 0, quick, window);
        let beside = delivered(bench, &address, BACKLOG, quick, window);
        if beside.ended_early {
            // A p99 of records that had the machine to themselves again is another figure.
            window /= 2.0;
            assert!(window >= SHORTEST, "the backlog drains too fast for a p99 beside it");
            eprintln!("  the backlog had drained before the end: from now on {window} s are counted, this time not");
            continue;
        }
        eprintln!("  p99 {:.1} ms, without a backlog {:.1} ms", beside.p99, bare.p99);
        without.push(bare);
        with.push(beside);
    }
    let row = |quantile: &str, of: fn(&Delivered) -> f64| {
        let [with, without] = [&with, &without].map(|all| all.iter().map(of).collect::<Vec<_>>());
        Row::ratio(
            &format!("isolation.{quantile}"),
            format!(
                "delivery latency of live records to a second destination, while 1 million drain to the first, {quantile}"
            ),
            "ms",
            &with,
            ("without the backlog", &without),
            Target::AtMost(1.2),
        )
    };
    vec![row("p50", |one| one.p50), row("p99", |one| one.p99)]
}

struct Delivered {
    p50: f64,
    p99: f64,
    /// The backlog had drained before the window's end.
    ended_early: bool,
}

fn delivered(bench: &Bench, kafka: &str, backlog: u64, quick: f64, window: f64) -> Delivered {
    let dir = bench.folder("isolation");
    fill(&dir, backlog);
    // What the disk still has to do for the backlog is not what is measured.
    come_to_rest(&bench.folder("rest"), quick);
    let feed = free_port();
    let rest = format!(
        "[records]\nV = [\"cloud\", \"live\"]\n\
         [destinations.cloud]\ntype = \"kafka\"\nnamespace = \"bench\"\n\
         properties = {{ \"bootstrap.servers\" = \"{kafka}\" }}\n\
         [destinations.live]\ntype = \"zmq\"\nnamespace = \"bench\"\nstart = \"now\"\nbind = \"tcp://127.0.0.1:{feed}\""
    );
    let gateway = Gateway::start(&Setup {
        pki: &bench.pki,
        dir: &dir,
        queue: "",
        rest: &rest,
    });
    let loaded = Vehicles::connect(&Load {
        pki: bench.pki.clone(),
        port: gateway.port,
        vehicles: 100,
        window: 64,
        rate: Some(RATE),
        warm_up: WARM_UP,
        seconds: window,
        payload: 600,
        feed: Some(feed),
    })
    .arrive();
    let left = gateway.backlog("cloud");
    gateway.process.end();
    eprintln!(
        "  {left:.0} of {backlog} still queued at the end; delivered p50 {:.1} p99 {:.1} ms, acknowledged p50 {:.1} p99 {:.1} ms",
        loaded.delivered_p50, loaded.delivered_p99, loaded.p50, loaded.p99
    );
    Delivered {
        p50: loaded.delivered_p50,
        p99: loaded.delivered_p99,
        // What is live goes there too, behind the backlog.
        ended_early: backlog > 0 && left <= RATE * (WARM_UP + window),
    }
}
