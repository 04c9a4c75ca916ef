//! `waystation check`: everything that would keep the gateway from running, before it does. Changes nothing.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use super::run::ConfigArgs;
use crate::config::{self, Config, ConfigError, DestinationKind};
use crate::gateway::{StartError, check_destination};
use crate::listener::tls;
use crate::queue::Queue;
use crate::system::{access, logging};

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The configuration cannot be used; nothing else was looked at.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Something else; each was printed.
    #[error("{0} of these would keep the gateway from running")]
    Faults(usize),
}

#[derive(Default)]
struct Findings {
    faults: usize,
}

impl Findings {
    fn good(&self, what: &str) {
        say!("✓ {what}");
    }

    fn note(&self, what: &str) {
        say!("· {what}");
    }

    fn warn(&self, what: &str) {
        say!("! {what}");
    }

    fn bad(&mut self, what: &str) {
        say!("✗ {what}");
        self.faults += 1;
    }
}

/// Prints a line for each thing that was looked at.
pub fn run(args: &ConfigArgs) -> Result<(), CheckError> {
    let config = config::load(&args.config)?;
    let mut findings = Findings::default();
    findings.good(&format!("configuration {}", args.config.display()));
    for warning in &config.warnings {
        findings.warn(warning);
    }
    if let Err(error) = logging::check(&config.log_level) {
        findings.bad(&error.to_string());
    }
    certificates(&config, &mut findings);
    let running = queue(&config.queue.path, &mut findings);
    log_files(&config, &mut findings);
    port("listener.bind", config.listener.bind, running, &mut findings);
    if let Some(address) = config.admin {
        port("admin.bind", address, running, &mut findings);
    }
    for configured in &config.destinations {
        match check_destination(&config.routes, configured) {
            Ok(()) => findings.good(&format!("destination {:?}: its settings can be used", configured.name)),
            Err(error) => findings.bad(&error.to_string()),
        }
    }
    match findings.faults {
        0 => Ok(()),
        faults => Err(CheckError::Faults(faults)),
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

/// Whether a running gateway has the queue.
fn queue(path: &Path, findings: &mut Findings) -> bool {
    let in_use = Queue::in_use(path).unwrap_or_else(|error| {
        findings.bad(&format!(
            "queue.path: {error}; make all of {} the service user's",
            path.display()
        ));
        false
    });
    match in_use {
        true => findings.note(&format!(
            "queue.path: {} is in use by a running gateway",
            path.display()
        )),
        false => directory("queue.path", path, findings),
    }
    in_use
}

fn log_files(config: &Config, findings: &mut Findings) {
    for destination in &config.destinations {
        if let DestinationKind::Log(config::Log { path: Some(path) }) = &destination.kind {
            let folder = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            let key = format!("destinations.{}.path", destination.name);
            match folder.exists() {
                true if path.is_dir() => {
                    findings.bad(&format!("{key}: {} is a directory; name a file in it", path.display()))
                }
                true => directory(&key, folder, findings),
                false => findings.bad(&format!(
                    "{key}: the directory {} does not exist; make it",
                    folder.display()
                )),
            }
        }
    }
}

fn directory(key: &str, path: &Path, findings: &mut Findings) {
    match access::writable(path) {
        Ok(()) => findings.good(&format!("{key}: {} can be written", path.display())),
        Err(why) => findings.bad(&format!("{key}: {why}")),
    }
}

fn port(key: &'static str, address: SocketAddr, running: bool, findings: &mut Findings) {
    match TcpListener::bind(address) {
        Ok(_) => findings.good(&format!("{key}: {address} is free")),
        Err(error) if running && error.kind() == ErrorKind::AddrInUse => findings.note(&format!(
            "{key}: {address} is in use, by the running gateway if it has this configuration"
        )),
        Err(source) => findings.bad(&StartError::Bind { key, address, source }.to_string()),
    }
}
