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

pub(crate) fn measure(bench: &Bench) -> Vec<Row> {
    let (_mock, address) = drain::serving("mock");
    let quick = slowest_sync(&bench.folder("rest"));
    let (mut with, mut without) = (vec![], vec![]);
    // What the slowest of a hundred meet is the disk's chance and the scheduler's.
    for _ in 0..3 * bench.rounds {
        without.push(delivered(bench, &address, 0, quick));
        with.push(delivered(bench, &address, BACKLOG, quick));
        eprintln!(
            "  p99 {:.1} ms, without a backlog {:.1} ms",
            with[with.len() - 1],
            without[without.len() - 1]
        );
    }
    let figure = "delivery latency p99 of live records to a second destination, while 1 million drain to the first";
    vec![Row::ratio(
        "isolation.p99",
        figure,
        "ms",
        &with,
        ("without the backlog", &without),
        Target::AtMost(1.2),
    )]
}

fn delivered(bench: &Bench, kafka: &str, backlog: u64, quick: f64) -> f64 {
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
        rate: Some(1_000.0),
        warm_up: 1.0,
        seconds: 3.0,
        payload: 600,
        feed: Some(feed),
    })
    .arrive();
    let left = gateway.backlog("cloud");
    gateway.process.end();
    assert!(backlog == 0 || left > 0.0, "the backlog had drained before the end");
    eprintln!(
        "  {left:.0} of {backlog} still queued at the end; delivered p50 {:.1} p99 {:.1} ms, acknowledged p50 {:.1} p99 {:.1} ms",
        loaded.delivered_p50, loaded.delivered_p99, loaded.p50, loaded.p99
    );
    loaded.delivered_p99
}
