//! `waystation demo`: gateway, vehicles and upstream in one process, with an outage in the middle and an account of
//! every record at the end.
//!
//! Everything is real but the upstream, which is librdkafka's own mock cluster: a throwaway PKI, TLS over loopback, the
//! queue on the disk, the Kafka destination, and a consumer that reads back what arrived.

mod account;
mod screen;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use account::{Account, Consumer};
use screen::{Phase, Row, Screen};

use super::pki::{self, Pki, PkiError};
use super::simulate::{self, Live, Mix, Plan, SimulateError, VehicleTally};
use super::values;
use crate::admin::Published;
use crate::config::{self, ConfigError};
use crate::gateway::{Gateway, RunError, StartError};

/// Arguments of `demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// How long vehicles send, such as 30s
    #[arg(long = "for", default_value = "30s", value_parser = values::some_time)]
    time: Duration,
    /// How long the upstream is away in the middle
    #[arg(long, default_value = "10s", value_parser = values::duration)]
    outage: Duration,
    /// Print only the account, as JSON
    #[arg(long)]
    json: bool,
}

/// Why the demo failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The arguments do not go together.
    #[error("--outage {outage:?} has to be shorter than --for {time:?}")]
    TooShort {
        /// Of the vehicles.
        time: Duration,
        /// Of the upstream.
        outage: Duration,
    },
    /// No temporary directory or runtime.
    #[error("cannot prepare: {0}")]
    Prepare(#[from] std::io::Error),
    /// The certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The configuration, which the demo writes itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The mock cluster or the consumer.
    #[error("the upstream: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// The gateway did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The gateway stopped by itself.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The vehicles.
    #[error(transparent)]
    Simulate(#[from] SimulateError),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// The point of it all.
    #[error("records were lost, are out of order, or were never acknowledged")]
    NotGood,
}

const VEHICLES: usize = 3;
const RATE: f64 = 20.0;
const NAMESPACE: &str = "demo";
const TYPES: [&str; 4] = ["V", "alerts", "errors", "connectivity"];
const PARTITIONS: i32 = 4;
/// For the backlog to drain at the end.
const DRAIN: Duration = Duration::from_secs(60);

/// Runs the demo. `Ok` only if nothing was lost or out of order.
pub fn run(args: DemoArgs) -> Result<(), DemoError> {
    if args.outage >= args.time {
        return Err(DemoError::TooShort {
            time: args.time,
            outage: args.outage,
        });
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let account = runtime.block_on(async {
        tokio::select! {
            account = demonstrate(&args) => account,
            // What is in the temporary directory goes with it.
            interrupted = tokio::signal::ctrl_c() => Err(interrupted.map_or_else(DemoError::from, |()| DemoError::Interrupted)),
        }
    })?;
    match args.json {
        true => say!("{}", serde_json::json!(account)),
        false => say!("\n{account}"),
    }
    match account.is_good() {
        true => Ok(()),
        false => Err(DemoError::NotGood),
    }
}

async fn demonstrate(args: &DemoArgs) -> Result<Account, DemoError> {
    let dir = tempfile::Builder::new().prefix("waystation-demo-").tempdir()?;
    let vins = pki::vins(VEHICLES);
    let written = Pki::new(&["localhost".to_owned()])?.write(dir.path(), &vins)?;
    tracing::debug!(files = written.len(), "throwaway PKI made");
    let upstream = MockCluster::new(1)?;
    for record_type in TYPES {
        upstream.create_topic(&format!("{NAMESPACE}_{record_type}"), PARTITIONS, 1)?;
    }
    let topics = TYPES.map(|name| format!("{NAMESPACE}_{name}"));
    let consumer = Consumer::start(&upstream.bootstrap_servers(), &topics, PARTITIONS)?;
    let config = config::parse(
        &configuration(dir.path(), &upstream.bootstrap_servers()),
        Path::new("demo.toml"),
    )?;
    let gateway = Gateway::start(config).await?;
    let published = gateway.published();
    let plan = Plan {
        connect: format!("localhost:{}", gateway.address().port()),
        rate: RATE,
        records: None,
        duration: Some(args.time),
        window: 64,
        mix: Mix([90, 5, 5]),
        linger: DRAIN,
        memory: None,
    };
    let vehicles = simulate::load_vehicles(dir.path(), VEHICLES)?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let running = tokio::spawn(gateway.run(async move { stopped.cancelled().await }));
    let live = Arc::new(Live::default());
    let driving = tokio::spawn(simulate::run_fleet(
        vehicles,
        plan,
        Arc::clone(&live),
        CancellationToken::new(),
    ));
    let stage = Stage {
        args,
        upstream: &upstream,
        published: &published,
        live: &live,
        consumer: &consumer,
    };
    let mut screen = Screen::new(args.json);
    let started = Instant::now();
    let (tallies, last) = stage.play(driving, &mut screen, started).await?;
    stop.cancel();
    running
        .await
        .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
    let delivered = consumer.finish();
    // The consumer is a little behind the confirmations that the play ends with.
    screen.show(&Row {
        at: started.elapsed(),
        delivered: delivered.values().map(|numbers| numbers.len() as u64).sum(),
        ..last
    });
    Ok(Account::settle(&tallies, delivered))
}

/// What the play needs to see and to do.
struct Stage<'a> {
    args: &'a DemoArgs,
    upstream: &'a MockCluster<'static, rdkafka::producer::DefaultProducerContext>,
    published: &'a Published,
    live: &'a Live,
    consumer: &'a Consumer,
}

impl Stage<'_> {
    /// Shows the vehicles driving, takes the upstream away in the middle, and waits until everything is confirmed.
    /// Gives the last row too.
    async fn play(
        &self,
        mut driving: JoinHandle<Vec<VehicleTally>>,
        screen: &mut Screen,
        started: Instant,
    ) -> Result<(Vec<VehicleTally>, Row), DemoError> {
        let away = (self.args.time - self.args.outage) / 2;
        let back = away + self.args.outage;
        let mut phase = Phase::Online;
        let mut tallies = None;
        let mut ticks = tokio::time::interval(Duration::from_millis(250));
        let mut drained_by = None;
        loop {
            tokio::select! {
                ended = &mut driving, if tallies.is_none() => {
                    tallies = Some(ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())));
                    drained_by = Some(Instant::now() + DRAIN);
                }
                _ = ticks.tick() => {}
            }
            let at = started.elapsed();
            if phase == Phase::Online && at >= away && at < back {
                self.upstream.broker_down(1)?;
                phase = Phase::Outage;
            } else if phase == Phase::Outage && at >= back {
                self.upstream.broker_up(1)?;
                phase = Phase::Draining;
            }
            let backlog = self
                .published
                .report()
                .destinations
                .iter()
                .map(|one| one.backlog)
                .sum::<u64>();
            if phase == Phase::Draining && backlog == 0 {
                phase = Phase::Drained;
            }
            let (vehicles, sent, acked) = self.live.totals();
            let row = Row {
                at,
                phase,
                vehicles,
                sent,
                acked,
                backlog,
                delivered: self.consumer.delivered(),
            };
            screen.show(&row);
            let overdue = drained_by.is_some_and(|by| Instant::now() >= by);
            if let Some(tallies) = tallies.take_if(|_| backlog == 0 || overdue) {
                return Ok((tallies, row));
            }
        }
    }
}

fn configuration(dir: &Path, upstream: &str) -> String {
    let dir = dir.display();
    format!(
        r#"
        [listener]
        bind = "127.0.0.1:0"
        certificate = "{dir}/server.pem"
        private_key = "{dir}/server.key"
        vehicle_ca = ["{dir}/vehicle-ca.pem"]
        [queue]
        path = "{dir}/queue"
        [records]
        V = ["upstream"]
        alerts = ["upstream"]
        errors = ["upstream"]
        connectivity = ["upstream"]
        [destinations.upstream]
        type = "kafka"
        namespace = "{NAMESPACE}"
        [destinations.upstream.properties]
        "bootstrap.servers" = "{upstream}"
        # An embedded cluster is back as soon as it is up.
        "reconnect.backoff.max.ms" = 1000
        "log_level" = 2
        [admin]
        bind = "off"
        "#
    )
}
