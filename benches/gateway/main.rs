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

use std::path::{Path, PathBuf};
use std::process::Command;

use report::Row;
use results::{Results, Run};

/// What all figures share.
pub(crate) struct Bench {
    /// Vehicles' certificates.
    pub(crate) pki: PathBuf,
    /// On the disk that is measured.
    pub(crate) work: PathBuf,
    pub(crate) rounds: usize,
}

impl Bench {
    /// An empty folder on the disk.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.work.join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).expect("it is ours");
        }
        std::fs::create_dir_all(&path).expect("the target folder can be written to");
        path
    }
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
/// Vehicles that there are certificates for.
const VEHICLES: usize = 1_000;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let Ok(role) = std::env::var(process::ROLE) {
        return play(&role, &words);
    }
    let (names, options) = parse(&words);
    let work = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    let pki = work.join("pki");
    if !pki.join("server.pem").exists() {
        std::fs::create_dir_all(&work).expect("the target folder can be written to");
        let made = Command::new(process::WAYSTATION)
            .args(["pki", "--vehicles", &VEHICLES.to_string(), "--out"])
            .arg(&pki)
            .output()
            .expect("it was built");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    let bench = Bench {
        pki,
        work,
        rounds: options.rounds,
    };
    let json = bench.work.with_file_name("gateway.json");
    let mut results = Results::load(&json, FIGURES.map(|(name, _)| name).to_vec()).unwrap_or_else(|why| refuse(&why));
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    let lacking: Vec<_> = results.lacking().into_iter().filter(|name| !wanted(name)).collect();
    if options.docs && !lacking.is_empty() {
        let lacking = lacking.join(" ");
        refuse(&format!(
            "--docs: {} has no {lacking} yet; measure these too",
            json.display()
        ));
    }
    let run = Run::now();
    for (name, figure) in FIGURES {
        if wanted(name) {
            eprintln!("measuring {name}, {} rounds", bench.rounds);
            let measured = figure(&bench);
            println!("{}", report::table(&measured));
            // Each time, so that what ends in the middle leaves what it has measured.
            let kept = results.replace(name, measured, &run);
            kept.expect("the target folder can be written to");
        }
    }
    if options.docs {
        let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md");
        report::put_between(&document, "figures", &results.table()).expect("it has a place for the table");
    }
    println!("{}: {} rows", json.display(), results.len());
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
            "--docs" => options.docs = true,
            "--rounds" => {
                let rounds = words.next().and_then(|rounds| rounds.parse().ok());
                options.rounds = rounds
                    .filter(|rounds| *rounds > 0)
                    .unwrap_or_else(|| refuse("--rounds: a number"));
            }
            name if FIGURES.iter().any(|(known, _)| *known == name) => names.push(name.to_owned()),
            other => {
                let known = FIGURES.map(|(name, _)| name).join(", ");
                refuse(&format!(
                    "{other} is no figure; there are {known}, and --rounds N, --docs"
                ));
            }
        }
    }
    (names, options)
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
