//! `waystation simulate`: vehicles for trying and for load, each with its own certificate and connection.
//!
//! They behave as real ones do: what is not acknowledged is kept and sent again, in order, after a reconnect.

mod memory;
mod tally;
mod vehicle;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use memory::Memory;
pub use tally::{Latencies, Live, Tally, VehicleTally};
pub use vehicle::Vehicle;

use super::values;
use super::vehicle_tls::client_config;
use crate::config::secret::pem_fault;
use crate::system::logging;

/// Arguments of `simulate`.
#[derive(Debug, Clone, clap::Args)]
pub struct SimulateArgs {
    /// Folder that `waystation pki` wrote: server-ca.pem and vehicles/
    #[arg(long)]
    pki: PathBuf,
    /// Gateway to connect to, host:port
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:443", value_parser = values::address)]
    connect: String,
    /// How many vehicles; the folder holds a certificate for each
    #[arg(long, default_value_t = 3, value_parser = values::at_least_one)]
    vehicles: usize,
    /// Records a second of each vehicle; 0: as fast as acks come
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true, value_parser = values::rate)]
    rate: f64,
    /// Stop after this long, such as 30s or 5m; what is not acknowledged is still waited for
    #[arg(long, value_parser = values::some_time)]
    duration: Option<Duration>,
    /// Stop after this many records of each vehicle
    #[arg(long)]
    records: Option<u64>,
    /// Records that a vehicle may have unacknowledged
    #[arg(long, default_value_t = 64, value_parser = values::at_least_one)]
    window: usize,
    /// Parts of V, alerts and errors records
    #[arg(long, default_value = "90,5,5", value_parser = mix)]
    mix: Mix,
    /// How long to wait for the last acks
    #[arg(long, default_value = "30s", value_parser = values::duration)]
    linger: Duration,
    /// Keep in this file what was acknowledged; the next run with it goes on behind that
    #[arg(long, value_name = "FILE")]
    remember: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Parts of V, alerts and errors records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix(pub [u32; 3]);

fn mix(text: &str) -> Result<Mix, String> {
    let parts: Vec<u32> = text
        .split(',')
        .map(|part| {
            part.trim()
                .parse()
                .map_err(|_| format!("{part:?} is not a number; write three, such as 90,5,5"))
        })
        .collect::<Result<_, _>>()?;
    let parts: [u32; 3] = parts
        .try_into()
        .map_err(|_| "three numbers are needed, such as 90,5,5".to_owned())?;
    match parts {
        [0, 0, 0] => Err("one of the three numbers has to be above 0".to_owned()),
        _ => Ok(Mix(parts)),
    }
}

/// Why vehicles could not be simulated.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// A certificate or key.
    #[error("{}: {reason}; `waystation pki --out {} --vehicles N` makes it", path.display(), dir.display())]
    Pki {
        /// The file.
        path: PathBuf,
        /// The folder it belongs to.
        dir: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Fewer certificates than vehicles.
    #[error("{} has certificates for {found} vehicles, {wanted} are asked for; `waystation pki --out {} --vehicles {wanted}` adds more", dir.display(), dir.display())]
    TooFew {
        /// The folder.
        dir: PathBuf,
        /// How many there are.
        found: usize,
        /// How many are asked for.
        wanted: usize,
    },
    /// The file of what was acknowledged.
    #[error("cannot open {}, which --remember names: {source}", path.display())]
    Memory {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Logging.
    #[error(transparent)]
    Logging(#[from] logging::LoggingError),
    /// No asynchronous runtime.
    #[error("cannot start the runtime: {0}")]
    Runtime(std::io::Error),
    /// Nobody let any vehicle in.
    #[error("no vehicle could connect; the warnings above say why")]
    NeverConnected,
    /// Records that nobody acknowledged.
    #[error("{0} records were not acknowledged")]
    NotAcknowledged(u64),
}

/// What a fleet of vehicles is to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// `host:port` of the gateway.
    pub connect: String,
    /// Records a second of each vehicle; 0: as fast as acks come.
    pub rate: f64,
    /// Records of each vehicle, if there is an end to them.
    pub records: Option<u64>,
    /// No new records after this long.
    pub duration: Option<Duration>,
    /// Records that a vehicle may have unacknowledged.
    pub window: usize,
    /// Parts of V, alerts and errors records.
    pub mix: Mix,
    /// How long to wait for the last acks.
    pub linger: Duration,
    /// What was acknowledged in earlier runs, and is in this one.
    pub memory: Option<Arc<Memory>>,
}

/// Reads the vehicles' certificates from a folder that `waystation pki` wrote.
pub fn load_vehicles(dir: &Path, wanted: usize) -> Result<Vec<Vehicle>, SimulateError> {
    let failed = |path: &Path, reason: String| SimulateError::Pki {
        path: path.to_owned(),
        dir: dir.to_owned(),
        reason,
    };
    let chain = |path: &Path| -> Result<Vec<CertificateDer<'static>>, SimulateError> {
        let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
        certificates.map_err(|error| failed(path, pem_fault(&error)))
    };
    let ca = chain(&dir.join("server-ca.pem"))?;
    let folder = dir.join("vehicles");
    let entries = std::fs::read_dir(&folder).map_err(|error| failed(&folder, error.to_string()))?;
    let mut paths: Vec<_> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "pem"))
        .collect();
    paths.sort();
    if paths.len() < wanted {
        return Err(SimulateError::TooFew {
            dir: dir.to_owned(),
            found: paths.len(),
            wanted,
        });
    }
    let load = |path: &PathBuf| {
        let vin = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let key_path = path.with_extension("key");
        let key = PrivateKeyDer::from_pem_file(&key_path).map_err(|error| failed(&key_path, pem_fault(&error)))?;
        let tls = client_config(&ca, chain(path)?, key).map_err(|error| failed(path, error.to_string()))?;
        let pki = dir.to_owned();
        Ok(Vehicle { vin, tls, pki })
    };
    paths.iter().take(wanted).map(load).collect()
}

/// Lets vehicles drive until the plan ends or `stop`. Their tallies come in the order of the vehicles.
pub async fn run_fleet(
    vehicles: Vec<Vehicle>,
    plan: Plan,
    live: Arc<Live>,
    stop: CancellationToken,
) -> Vec<VehicleTally> {
    let plan = Arc::new(plan);
    let started = Instant::now();
    let mut driving = JoinSet::new();
    for (at, vehicle) in vehicles.into_iter().enumerate() {
        let (plan, live, stop) = (Arc::clone(&plan), Arc::clone(&live), stop.clone());
        driving.spawn(async move { (at, vehicle::drive(vehicle, at as u64, plan, started, live, stop).await) });
    }
    let mut tallies = Vec::new();
    while let Some(ended) = driving.join_next().await {
        match ended {
            Ok(tally) => tallies.push(tally),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    tallies.sort_by_key(|(at, _)| *at);
    tallies.into_iter().map(|(_, tally)| tally).collect()
}

/// Runs the command.
pub fn run(args: SimulateArgs) -> Result<(), SimulateError> {
    logging::start("warn")?;
    let vehicles = load_vehicles(&args.pki, args.vehicles)?;
    let memory = args.remember.map(|path| match Memory::open(&path) {
        Ok(memory) => Ok(Arc::new(memory)),
        Err(source) => Err(SimulateError::Memory { path, source }),
    });
    let plan = Plan {
        connect: args.connect,
        rate: args.rate,
        records: args.records,
        duration: args.duration,
        window: args.window,
        mix: args.mix,
        linger: args.linger,
        memory: memory.transpose()?,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(SimulateError::Runtime)?;
    let tally = runtime.block_on(async {
        let live = Arc::new(Live::default());
        let stop = CancellationToken::new();
        let started = Instant::now();
        let fleet = run_fleet(vehicles, plan, live, stop.clone());
        tokio::pin!(fleet);
        let tallies = tokio::select! {
            tallies = &mut fleet => tallies,
            interrupted = tokio::signal::ctrl_c() => {
                if let Err(error) = interrupted {
                    tracing::warn!(%error, "cannot listen for Ctrl-C");
                }
                stop.cancel();
                fleet.await
            }
        };
        Tally::new(&tallies, started.elapsed())
    });
    match args.json {
        true => say!("{}", serde_json::json!(tally)),
        false => say!("{tally}"),
    }
    if tally.connections == 0 {
        return Err(SimulateError::NeverConnected);
    }
    match tally.unacknowledged {
        0 => Ok(()),
        open => Err(SimulateError::NotAcknowledged(open)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_are_read_or_explained() {
        assert_eq!(mix("1, 2,3"), Ok(Mix([1, 2, 3])));
        assert!(mix("0,0,0").is_err() && mix("1,2").is_err() && mix("a,b,c").is_err());
        assert_eq!(mix("4294967295,1,0"), Ok(Mix([u32::MAX, 1, 0])));
    }
}
