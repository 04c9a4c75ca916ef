//! The gateway as it is used: its own process over loopback, held against limits that are measured beside it.
//!
//! `cargo bench --bench gateway` measures everything (three quarters of an hour; three rounds take twenty-six minutes),
//! `cargo bench --bench gateway -- speed latency` those two. `--rounds N`, and `--docs` to put the table into
//! docs/performance.md; target/gateway.json keeps the rows of the figures that are not measured.
//!
//! Every figure is measured several times, in turns with its limit, so that a machine that is slower for a while is slower
//! for both.
#![allow(missing_docs, clippy::unwrap_used)]

mod backlog;
mod commits;
mod disk;
mod drain;
mod echo;
mod feed;
mod isolation;
mod kafka;
mod latency;
mod load;
mod mqtt;
mod needs;
mod place;
mod process;
mod report;
mod results;
mod size;
mod speed;
mod wear;

#[path = "../../tests/support/certificates.rs"]
mod certificates;
#[path = "../../tests/support/daemon.rs"]
mod daemon;
#[path = "../../tests/support/kafka_broker.rs"]
mod kafka_broker;
#[path = "../../tests/support/mosquitto.rs"]
mod mosquitto;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use place::Place;
use report::Row;
use results::{Results, Run};

/// What all figures share.
pub(crate) struct Bench {
    /// Vehicles' certificates.
    pub(crate) pki: PathBuf,
    pub(crate) place: Place,
    pub(crate) rounds: usize,
}

impl Bench {
    /// An empty folder on the disk.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        emptied(&self.place.disk.join(name))
    }
}

/// This folder, with nothing in it.
pub(crate) fn emptied(path: &Path) -> PathBuf {
    if path.exists() {
        std::fs::remove_dir_all(path).expect("it is ours");
    }
    std::fs::create_dir_all(path).expect("it is in a folder of ours");
    path.to_owned()
}

type Figure = fn(&Bench) -> Vec<Row>;

const FIGURES: [(&str, Figure); 10] = [
    // What gigabytes on the way to the disk would disturb comes first.
    ("latency", latency::measure),
    ("wear", wear::measure),
    ("speed", speed::measure),
    ("commits", commits::measure),
    ("backlog", backlog::measure),
    ("kafka", kafka::measure),
    ("mqtt", mqtt::measure),
    ("feed", feed::measure),
    ("isolation", isolation::measure),
    ("size", size::measure),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let Ok(role) = std::env::var(process::ROLE) {
        play(&role, &words);
        return ExitCode::SUCCESS;
    }
    let (names, options) = parse(&words);
    let place = Place::claim().unwrap_or_else(|why| refuse(&why));
    let json = place.disk.with_file_name("gateway.json");
    let mut results = Results::load(&json, FIGURES.map(|(name, _)| name).to_vec()).unwrap_or_else(|why| refuse(&why));
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    let figures: Vec<_> = FIGURES.into_iter().filter(|(name, _)| wanted(name)).collect();
    let lacking: Vec<_> = results.lacking().into_iter().filter(|name| !wanted(name)).collect();
    if options.docs && !lacking.is_empty() {
        let lacking = lacking.join(" ");
        refuse(&format!(
            "--docs: {} has no {lacking} yet; measure these too",
            json.display()
        ));
    }
    let chosen: Vec<_> = figures.iter().map(|(name, _)| *name).collect();
    let missing = needs::missing(&chosen, options.rounds, &place);
    if !missing.is_empty() {
        refuse(&format!("nothing was measured:\n  {}", missing.join("\n  ")));
    }
    let bench = Bench {
        pki: place.pki(),
        place,
        rounds: options.rounds,
    };
    let run = Run::now();
    let mut failed = Vec::new();
    for (name, figure) in figures {
        eprintln!("measuring {name}, {} rounds", bench.rounds);
        // What it has started and made ends with it, and the next one begins with folders of its own.
        let Ok(measured) = catch_unwind(AssertUnwindSafe(|| figure(&bench))) else {
            eprintln!("gateway: {name} failed, see above");
            failed.push(name);
            continue;
        };
        println!("{}", report::table(&measured));
        // Each time, so that what ends in the middle leaves what it has measured.
        let kept = results.replace(name, measured, &run);
        kept.expect("the target folder can be written to");
    }
    if !failed.is_empty() {
        eprintln!("gateway: measure these again: {}", failed.join(" "));
        return ExitCode::FAILURE;
    }
    if options.docs {
        let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md");
        report::put_between(&document, "figures", &results.table()).expect("it has a place for the table");
    }
    println!("{}: {} rows", json.display(), results.len());
    ExitCode::SUCCESS
}

struct Options {
    rounds: usize,
    docs: bool,
}

fn parse(words: &[String]) -> (Vec<String>, Options) {
    let mut options = Options { rounds: 5, docs: false };
    let mut names = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--help" | "-h" => {
                println!("{}", usage());
                std::process::exit(0)
            }
            "--docs" => options.docs = true,
            "--rounds" => {
                let rounds = words.next().and_then(|rounds| rounds.parse().ok());
                options.rounds = rounds
                    .filter(|rounds| *rounds > 0)
                    .unwrap_or_else(|| refuse("--rounds: a number"));
            }
            name if FIGURES.iter().any(|(known, _)| *known == name) => names.push(name.to_owned()),
            other => refuse(&format!("{other} is no figure and no option\n{}", usage())),
        }
    }
    (names, options)
}

fn usage() -> String {
    format!(
        "cargo bench --bench gateway -- [FIGURE…] [--rounds N] [--docs]\n\
         Measures these figures, or all, N times each (5), and keeps them in target/gateway.json.\n\
         --docs writes what is kept there, of all figures, into docs/performance.md.\n\
         Figures: {}",
        FIGURES.map(|(name, _)| name).join(" ")
    )
}

fn refuse(why: &str) -> ! {
    eprintln!("gateway: {why}");
    std::process::exit(2)
}

/// This executable as one of the processes of a measurement.
fn play(role: &str, words: &[String]) {
    match (role, words) {
        ("load", [load]) => load::run(&serde_json::from_str(load).expect("it was written by the parent")),
        ("fill", [dir, until]) => backlog::run_fill(Path::new(dir), until.parse().expect("a number")),
        ("echo", [kind, pki, port]) => echo::run(Path::new(pki), port.parse().expect("a port"), kind == "lean"),
        ("mock", []) => kafka::run_mock(),
        ("kafka", [address]) => kafka::run_bare(address),
        ("mqtt", [port]) => mqtt::run_bare(port),
        ("publish", [port]) => feed::run_publish(port),
        ("subscribe", [port]) => feed::run_subscribe(port),
        _ => panic!("no such role: {role} {words:?}"),
    }
}
