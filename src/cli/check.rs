//! `waystation check`: everything that would keep the gateway from running, before it does. Changes nothing.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use super::run::ConfigArgs;
use crate::config::{self, Config, ConfigError, DestinationKind};
use crate::destination;
use crate::listener::tls;
use crate::system::logging;

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
        println!("✓ {what}");
    }

    fn warn(&self, what: &str) {
        println!("! {what}");
    }

    fn bad(&mut self, what: &str) {
        println!("✗ {what}");
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
    directories(&config, &mut findings);
    port("listener.bind", config.listener.bind, &mut findings);
    if let Some(address) = config.admin {
        match address == config.listener.bind {
            true => findings.bad(&format!(
                "admin.bind: {address} is listener.bind too; choose another port"
            )),
            false => port("admin.bind", address, &mut findings),
        }
    }
    for configured in &config.destinations {
        match destination::build(configured, "check") {
            Ok(_) => findings.good(&format!("destination {:?}: its settings can be used", configured.name)),
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
            for warning in loaded
                .warnings
                .iter()
                .filter(|warning| !loaded.outdated.contains(warning))
            {
                findings.warn(warning);
            }
            loaded.outdated.iter().for_each(|outdated| findings.bad(outdated));
            findings.good("certificate, private key and vehicle authorities fit together");
        }
        Err(error) => findings.bad(&error.to_string()),
    }
    if let Some(path) = &config.listener.public_key {
        match fs::read_to_string(path) {
            Ok(text) if text.contains("-----BEGIN PUBLIC KEY-----") => findings.good("public key"),
            Ok(_) => findings.bad(&format!(
                "listener.public_key: {} has no \"-----BEGIN PUBLIC KEY-----\"; `openssl ec -in private.pem -pubout` writes one",
                path.display()
            )),
            Err(error) => findings.bad(&format!("listener.public_key: cannot read {}: {error}", path.display())),
        }
    }
}

fn directories(config: &Config, findings: &mut Findings) {
    writable("queue.path", &config.queue.path, findings);
    for destination in &config.destinations {
        if let DestinationKind::Log(config::Log { path: Some(path) }) = &destination.kind {
            let folder = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            let key = format!("destinations.{}.path", destination.name);
            match folder.is_dir() {
                true => writable(&key, folder, findings),
                false => findings.bad(&format!(
                    "{key}: the directory {} does not exist; make it",
                    folder.display()
                )),
            }
        }
    }
}

/// Whether files can be made in a directory, or in the nearest one above it that exists.
fn writable(key: &str, path: &Path, findings: &mut Findings) {
    let existing = path
        .ancestors()
        .find(|ancestor| ancestor.exists())
        .unwrap_or(Path::new("/"));
    if !existing.is_dir() {
        findings.bad(&format!("{key}: {} is not a directory", existing.display()));
        return;
    }
    match tempfile::tempfile_in(existing) {
        Ok(_) => findings.good(&format!("{key}: {} can be written", path.display())),
        Err(error) => findings.bad(&format!(
            "{key}: cannot write in {}: {error}; make it the service user's, or choose another",
            existing.display()
        )),
    }
}

fn port(key: &str, address: SocketAddr, findings: &mut Findings) {
    match TcpListener::bind(address) {
        Ok(_) => findings.good(&format!("{key}: {address} is free")),
        Err(error) => {
            let advice = match error.kind() {
                ErrorKind::AddrInUse => "another process has it; is waystation running already?",
                ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE",
                ErrorKind::AddrNotAvailable => "no interface of this machine has this address",
                _ => "choose another address",
            };
            findings.bad(&format!("{key}: cannot listen on {address}: {error}; {advice}"));
        }
    }
}
