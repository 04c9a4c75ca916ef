//! Durable acknowledged records a second, against the same gateway on a disk of memory and against a bare echo.

use std::time::Duration;

use crate::daemon::{free_port, wait_for};
use crate::load::{Load, Loaded};
use crate::process::{Gateway, Process, Setup, Side, TO_NOBODY, Vehicles, role};
use crate::report::{Row, Target};
use crate::{Bench, emptied};

const LEAN: &str = "an echo of a few bytes that writes what is ready at once";
const PAYLOAD: usize = 600;

#[derive(Clone, Copy, PartialEq)]
enum Server {
    Disk,
    Memory,
    Echo,
    LeanEcho,
}

const SERVERS: [Server; 4] = [Server::Disk, Server::Memory, Server::Echo, Server::LeanEcho];

pub(crate) fn measure(bench: &Bench) -> Vec<Row> {
    let mut rates = [const { Vec::new() }; 4];
    let mut costs = [const { Vec::new() }; 4];
    for round in 0..bench.rounds {
        // Each one is the first in its turn.
        for offset in 0..SERVERS.len() {
            let index = (round + offset) % SERVERS.len();
            let (loaded, cpu) = run(bench, SERVERS[index]);
            eprintln!(
                "  {index}: {:.0} records/s, {:.1} us of its processor each, p50 {:.1} ms, p99 {:.1} ms",
                loaded.rate(),
                cpu * 1e6,
                loaded.p50,
                loaded.p99
            );
            rates[index].push(loaded.rate());
            costs[index].push(cpu * 1e6);
        }
    }
    let [disk, memory, echo, lean] = rates;
    let name = "durable acknowledged records, 100 vehicles, 600-byte V records, pipelined";
    let [cost, _, of_echo, of_lean] = costs;
    vec![
        Row::ratio(
            "speed.memory",
            name,
            "records/s",
            &disk,
            ("the same gateway, its queue in memory (tmpfs)", &memory),
            Target::AtLeast(0.90),
        ),
        Row::ratio(
            "speed.echo",
            "the same",
            "records/s",
            &disk,
            ("a bare mTLS WebSocket echo", &echo),
            Target::AtLeast(0.60),
        ),
        Row::ratio(
            "speed.echo.cost",
            "processor time of it",
            "µs a record",
            &cost,
            ("a bare mTLS WebSocket echo", &of_echo),
            Target::None,
        ),
        Row::ratio(
            "speed.lean",
            "the same",
            "records/s",
            &disk,
            (LEAN, &lean),
            Target::None,
        ),
        Row::ratio(
            "speed.lean.cost",
            "processor time of it",
            "µs a record",
            &cost,
            (LEAN, &of_lean),
            Target::None,
        ),
    ]
}

/// What the vehicles saw, and the server's processor time for a record.
fn run(bench: &Bench, server: Server) -> (Loaded, f64) {
    let dir = bench.folder("speed");
    let memory = emptied(&bench.place.memory.join("speed"));
    let queue = match server {
        Server::Memory => format!("path = \"{}\"", memory.join("queue").display()),
        _ => String::new(),
    };
    let setup = Setup {
        pki: &bench.pki,
        dir: &dir,
        queue: &queue,
        rest: TO_NOBODY,
    };
    let (process, port) = match server {
        Server::Echo | Server::LeanEcho => {
            let kind = if server == Server::LeanEcho { "lean" } else { "plain" };
            start_echo(bench, kind)
        }
        Server::Disk | Server::Memory => {
            let gateway = Gateway::start(&setup);
            (gateway.process, gateway.port)
        }
    };
    let load = Load {
        pki: bench.pki.clone(),
        port,
        vehicles: 100,
        window: 64,
        rate: None,
        warm_up: 1.0,
        seconds: 4.0,
        payload: PAYLOAD,
        feed: None,
    };
    let vehicles = Vehicles::connect(&load);
    std::thread::sleep(Duration::from_secs_f64(load.warm_up));
    let before = process.cpu();
    let loaded = vehicles.arrive();
    let cpu = (process.cpu() - before) / loaded.acked as f64;
    process.end();
    std::fs::remove_dir_all(memory).expect("it is ours");
    (loaded, cpu)
}

/// An echo that listens, and its port.
pub(crate) fn start_echo(bench: &Bench, kind: &str) -> (Process, u16) {
    let port = free_port();
    let pki = bench.pki.to_str().expect("a path that is text");
    let process = Process::start(role(Side::Gateway, "echo", &[kind, pki, &port.to_string()]));
    wait_for("the echo listens", Duration::from_secs(10), || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    (process, port)
}
