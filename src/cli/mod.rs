//! The commands, one file each.

// Both panic when nobody reads any more.
#![warn(clippy::print_stderr, clippy::print_stdout)]

/// A line on standard output. When nobody reads it any more (`… | head -1`) the process ends, as any command does.
macro_rules! say {
    () => { $crate::cli::say_line("") };
    ($($part:tt)*) => { $crate::cli::say_line(&format!($($part)*)) };
}

/// A line on standard error. Nobody may read that: the command goes on, and its exit code says how it ends.
macro_rules! tell {
    () => { $crate::cli::tell("\n") };
    ($($part:tt)*) => { $crate::cli::tell(&(format!($($part)*) + "\n")) };
}

pub mod check;
pub mod control;
pub mod demo;
pub mod import_config;
pub mod pki;
pub mod queue;
mod reload;
pub mod run;
pub mod sample;
pub mod simulate;
mod values;
pub mod vehicle_tls;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::system::logging::LoggingError;

/// Edge gateway for vehicle telemetry: commits every record to disk, then acknowledges it, then forwards it.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration or files."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Run(run::ConfigArgs),
    /// Say everything that would keep the gateway from running, before it does
    Check(check::CheckArgs),
    /// See it work: gateway, vehicles and upstream in one process, with an outage in the middle
    Demo(demo::DemoArgs),
    /// Vehicles, for trying and for load
    Simulate(simulate::SimulateArgs),
    /// What lies in the queue, and whether all of it can be read
    Queue(queue::QueueArgs),
    /// Make a configuration of the one of Tesla's server, and say what could not be carried over
    ImportConfig(import_config::ImportArgs),
    /// A throwaway certificate authority, server certificate and vehicle certificates
    Pki(pki::PkiArgs),
}

/// sysexits' EX_CONFIG; systemd's `RestartPreventExitStatus=` can name it.
const EXIT_CONFIG: u8 = 78;
/// As clap's, for arguments that do not go together.
const EXIT_USAGE: u8 = 2;

fn say_line(line: &str) {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            tell!("waystation: cannot write to standard output: {error}");
        }
        std::process::exit(1);
    }
}

fn tell(text: &str) {
    use std::io::Write;
    let mut stderr = std::io::stderr().lock();
    let told = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    told.unwrap_or_default();
}

/// All commands and their arguments, for the man page and the shells' completions.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let failed = |error: &dyn std::fmt::Display, code: u8| {
        error.to_string().lines().for_each(|line| tell!("waystation: {line}"));
        ExitCode::from(code)
    };
    match Arguments::parse().command {
        Command::Run(args) => match run::run(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error @ (run::DaemonError::Config(_) | run::DaemonError::Logging(LoggingError::Filter(_)))) => {
                failed(&error, EXIT_CONFIG)
            }
            Err(run::DaemonError::Start(error)) if error.is_configuration() => failed(&error, EXIT_CONFIG),
            Err(error) => failed(&error, 1),
        },
        Command::Check(args) => match check::run(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(check::CheckError::Config(error)) => failed(&error, EXIT_CONFIG),
            Err(error) => failed(&error, 1),
        },
        Command::Demo(args) => match demo::run(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error @ demo::DemoError::TooShort { .. }) => failed(&error, EXIT_USAGE),
            Err(error) => failed(&error, 1),
        },
        Command::Simulate(args) => simulate::run(args).map_or_else(|error| failed(&error, 1), |()| ExitCode::SUCCESS),
        Command::Queue(args) => match queue::run(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(queue::QueueError::Config(error)) => failed(&error, EXIT_CONFIG),
            Err(error) if error.is_of_another_user() => {
                failed(&format!("{error}; run it with sudo, or as the gateway's user"), 1)
            }
            Err(error) => failed(&error, 1),
        },
        Command::ImportConfig(args) => {
            import_config::run(&args).map_or_else(|error| failed(&error, 1), |()| ExitCode::SUCCESS)
        }
        Command::Pki(args) => pki::run(&args).map_or_else(|error| failed(&error, 1), |()| ExitCode::SUCCESS),
    }
}
