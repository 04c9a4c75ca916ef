//! From a record's sending to its ack at an ordinary load, against the disk's own fdatasync of an append, and beside one over
//! blocks that are there already and the same load on an echo, which has everything of that way but the disk.

use std::time::Duration;

use crate::Bench;
use crate::disk::{paced_appends, paced_overwrites, quantile};
use crate::load::Load;
use crate::process::{Gateway, Setup, TO_NOBODY, Vehicles};
use crate::report::{Row, Target};
use crate::speed::start_echo;

const REST: Duration = Duration::from_secs(30);

pub(crate) fn measure(bench: &Bench) -> Vec<Row> {
    // For a while after it was given gigabytes, by a build for instance, a disk stands still now and then.
    rustix::fs::sync();
    std::thread::sleep(REST);
    let (mut p50, mut p99, mut sync50, mut sync99) = (vec![], vec![], vec![], vec![]);
    let (mut echo50, mut echo99, mut over50, mut over99) = (vec![], vec![], vec![], vec![]);
    let mut cost = Vec::new();
    for _ in 0..bench.rounds {
        let dir = bench.folder("latency");
        let (mut appended, mut overwritten) = (paced_appends(&dir), paced_overwrites(&dir));
        let gateway = Gateway::start(&Setup {
            pki: &bench.pki,
            dir: &dir,
            queue: "",
            rest: TO_NOBODY,
        });
        let load = |port| Load {
            pki: bench.pki.clone(),
            port,
            vehicles: 100,
            window: 64,
            rate: Some(1_000.0),
            warm_up: 1.0,
            seconds: 8.0,
            payload: 600,
            feed: None,
        };
        let vehicles = Vehicles::connect(&load(gateway.port));
        let before = gateway.process.cpu();
        let loaded = vehicles.arrive();
        let spent = gateway.process.cpu() - before;
        let commits = gateway.metric("waystation_commits_total");
        let records = gateway.metric("waystation_committed_records_total");
        gateway.process.end();
        let (echo, port) = start_echo(bench, "lean");
        let echoed = Vehicles::connect(&load(port)).arrive();
        echo.end();
        // Before and after, because the disk's neighbours come and go.
        appended.extend(paced_appends(&dir));
        appended.sort_by(f64::total_cmp);
        overwritten.extend(paced_overwrites(&dir));
        overwritten.sort_by(f64::total_cmp);
        eprintln!(
            "  p50 {:.2} p99 {:.2} ms at {:.0}/s, {commits} commits; an echo {:.2} {:.2}; fdatasync {:.2} {:.2}, overwriting {:.2} {:.2}",
            loaded.p50,
            loaded.p99,
            loaded.rate(),
            echoed.p50,
            echoed.p99,
            quantile(&appended, 0.5),
            quantile(&appended, 0.99),
            quantile(&overwritten, 0.5),
            quantile(&overwritten, 0.99)
        );
        cost.push(spent / records * 1e6);
        p50.push(loaded.p50);
        p99.push(loaded.p99);
        echo50.push(echoed.p50);
        echo99.push(echoed.p99);
        sync50.push(quantile(&appended, 0.5));
        sync99.push(quantile(&appended, 0.99));
        over50.push(quantile(&overwritten, 0.5));
        over99.push(quantile(&overwritten, 0.99));
    }
    let row = |name: &str, values: &[f64], beside: &[f64]| {
        let figure = format!("ack latency at 1,000 records/s of 100 vehicles, {name}");
        let limit = (format!("one fdatasync, {name}"), beside);
        let id = format!("latency.{name}.append");
        Row::ratio(&id, figure, "ms", values, limit, Target::AtMost(2.5))
    };
    let same = |id: &str, values: &[f64], limit: &str, beside: &[f64]| {
        Row::ratio(id, "the same", "ms", values, (limit, beside), Target::None)
    };
    let over = "one fdatasync over blocks that are there already";
    let echo = "an echo of a few bytes, and no disk";
    let at = "at 1,000 records/s of 100 vehicles";
    vec![
        row("p50", &p50, &sync50),
        same("latency.p50.overwrite", &p50, &format!("{over}, p50"), &over50),
        same("latency.p50.echo", &p50, &format!("{echo}, p50"), &echo50),
        row("p99", &p99, &sync99),
        same("latency.p99.overwrite", &p99, &format!("{over}, p99"), &over99),
        same("latency.p99.echo", &p99, &format!("{echo}, p99"), &echo99),
        Row::plain(
            "latency.cost",
            format!("processor time {at}"),
            "µs a record",
            &cost,
            Target::None,
        ),
    ]
}
