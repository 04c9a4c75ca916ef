//! `waystation check`: everything that would keep the gateway from doing its work, before it has to. Changes nothing.

mod files;
mod findings;
mod outputs;
mod ports;
mod queue;
mod server;
mod storage;
mod upstream;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use findings::Findings;

use super::run::ConfigArgs;
use crate::config::{self, Config, ConfigError, DestinationKind};
use crate::gateway::{check_destination, connections};
use crate::listener::tls;
use crate::system::{access, descriptors, logging};

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The configuration cannot be used; nothing else was looked at.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No asynchronous runtime.
    #[error("cannot start the runtime: {0}")]
    Runtime(std::io::Error),
    /// Something else; each was printed.
    #[error("faults: {0}; each is above, with ✗ and what to do")]
    Faults(usize),
}

/// Arguments of `check`.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The name that vehicles are configured with: whether the server's certificate is for it
    #[arg(long)]
    name: Option<String>,
    /// Try no destination that is on another machine
    #[arg(long)]
    offline: bool,
    /// Look at a gateway from outside instead, as a vehicle meets it
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["config", "name", "offline"])]
    server: Option<String>,
    /// With --server: the authorities that vehicles are told to trust, in PEM form [default: the system's]
    #[arg(long, value_name = "FILE", requires = "server")]
    ca: Option<PathBuf>,
    /// One JSON document instead of lines
    #[arg(long)]
    json: bool,
}

/// A clock before this has not been set since the machine was switched on: 2026-01-01, seconds since the epoch.
const OLDEST_NOW: u64 = 1_767_225_600;

/// Prints a line for each thing that was looked at.
pub fn run(args: &CheckArgs) -> Result<(), CheckError> {
    let mut findings = Findings::new(args.json);
    match &args.server {
        Some(server) => server::check(server, args.ca.as_deref(), &mut findings),
        None => {
            if let Err(error) = machine(args, &mut findings) {
                if args.json {
                    error.to_string().lines().for_each(|line| findings.bad(line));
                    findings.finish();
                }
                return Err(error);
            }
        }
    }
    match findings.finish() {
        0 => Ok(()),
        faults => Err(CheckError::Faults(faults)),
    }
}

fn machine(args: &CheckArgs, findings: &mut Findings) -> Result<(), CheckError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CheckError::Runtime)?;
    let config = config::load(&args.config.config)?;
    findings.good(format!("configuration {}", args.config.config.display()));
    for warning in &config.warnings {
        findings.warn(warning);
    }
    if let Err(error) = logging::check(&config.log_level) {
        findings.bad(error);
    }
    clock(SystemTime::now(), findings);
    certificates(&config, findings);
    files::name(&config, args.name.as_deref(), findings);
    files::authorities(&config, findings);
    files::readable(&args.config.config, &config, findings);
    let running = queue::check(&config.queue.path, findings);
    if access::writable(&config.queue.path).is_ok() {
        storage::check(&config.queue, findings);
    }
    outputs::check(&config, findings);
    match connections(&config, descriptors::highest_limit()) {
        (fit, None) => findings.good(format!("listener.max_connections: there are descriptors for all {fit}")),
        (_, Some(too_few)) => findings.warn(too_few),
    }
    ports::check("listener.bind", config.listener.bind, running, findings);
    if let Some(address) = config.admin {
        ports::check("admin.bind", address, running, findings);
    }
    for configured in &config.destinations {
        if let DestinationKind::Zmq(zmq) = &configured.kind
            && let Some(address) = zmq.tcp()
        {
            ports::check(
                &format!("destinations.{}.bind", configured.name),
                address,
                running,
                findings,
            );
        }
        let good = || format!("destination {:?}: its settings can be used", configured.name);
        findings.either(check_destination(&config.routes, configured).map(|()| good()));
    }
    if !args.offline {
        upstream::check(&config, &runtime, findings);
    }
    Ok(())
}

fn clock(now: SystemTime, findings: &mut Findings) {
    let since = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let shown = humantime::format_rfc3339_seconds(now);
    match since {
        0..OLDEST_NOW => findings.bad(format!(
            "the clock says {shown}: no certificate can be verified and every record has a wrong time; set it, for example with `timedatectl set-ntp true`"
        )),
        _ => findings.good(format!("the clock says {shown}")),
    }
}

fn certificates(config: &Config, findings: &mut Findings) {
    match tls::load(&config.listener) {
        Ok(loaded) => {
            loaded.outdated.iter().for_each(|outdated| findings.bad(outdated));
            loaded.good.iter().for_each(|good| findings.good(good));
            loaded.warnings.iter().for_each(|warning| findings.warn(warning));
        }
        Err(error) => error.to_string().lines().for_each(|fault| findings.bad(fault)),
    }
}

fn directory(key: &str, path: &Path, findings: &mut Findings) {
    match access::writable(path) {
        Ok(()) => findings.good(format!("{key}: {} can be written", path.display())),
        Err(why) => findings.bad(format!("{key}: {why}")),
    }
}
