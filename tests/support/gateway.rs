//! A whole gateway in the test's own process: throwaway certificates, a queue in a directory of its own, and a file
//! that its records arrive in.
#![allow(dead_code)]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use waystation::admin::{Published, Report};
use waystation::cli::pki::{Pki, vins};
use waystation::config::{self, Config};
use waystation::gateway::{Gateway, RunError};
use waystation::record::proto::store::StoredDeadLetter;

/// How long a test waits for what has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a test wants otherwise than usual: lines of the configuration, by section.
pub(crate) struct Options<'a> {
    pub(crate) listener: &'a str,
    pub(crate) queue: &'a str,
    pub(crate) records: &'a str,
    pub(crate) destinations: &'a str,
    /// Authorities that vehicles may have besides the throwaway one, in PEM form.
    pub(crate) vehicle_ca: &'a str,
    /// For values that a configuration file may not have.
    pub(crate) adjust: fn(&mut Config),
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            listener: "",
            queue: "commit_delay = \"5ms\"",
            records: "V = \"lines\"\nalerts = \"lines\"\nerrors = \"lines\"",
            destinations: "[destinations.lines]\ntype = \"log\"\npath = \"records.jsonl\"",
            vehicle_ca: "",
            adjust: |_| {},
        }
    }
}

/// A gateway that runs until it is stopped.
pub(crate) struct Running {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) pki: Pki,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    published: Arc<Published>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

/// What a gateway left.
pub(crate) struct Stopped {
    pub(crate) lines: Vec<Value>,
    pub(crate) dead_letters: Vec<StoredDeadLetter>,
}

/// The VINs of the tests' vehicles.
pub(crate) fn vin(number: usize) -> String {
    vins(number).pop().unwrap()
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options<'_>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::new(&[]).unwrap();
        pki.write(dir.path(), &[]).unwrap();
        let mut authorities = vec!["vehicle-ca.pem"];
        if !options.vehicle_ca.is_empty() {
            fs::write(dir.path().join("other-ca.pem"), options.vehicle_ca).unwrap();
            authorities.push("other-ca.pem");
        }
        let text = format!(
            r#"
            [listener]
            bind = "127.0.0.1:0"
            certificate = "server.pem"
            private_key = "server.key"
            vehicle_ca = {authorities:?}
            {}
            [queue]
            path = "queue"
            {}
            [records]
            {}
            {}
            [admin]
            bind = "127.0.0.1:0"
            "#,
            options.listener, options.queue, options.records, options.destinations
        );
        let mut config = config::parse(&text, &dir.path().join("config.toml")).unwrap();
        (options.adjust)(&mut config);
        let gateway = Gateway::start(config).await.unwrap();
        let (address, admin, published) = (gateway.address(), gateway.admin_address().unwrap(), gateway.published());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(gateway.run(async move { stopped.cancelled().await }));
        Self {
            dir,
            pki,
            address,
            admin,
            published,
            stop,
            task,
        }
    }

    pub(crate) fn report(&self) -> Report {
        self.published.report()
    }

    /// Waits until the report is as it should be.
    pub(crate) async fn reports(&self, what: &str, is_so: impl Fn(&Report) -> bool) -> Report {
        eventually(what, || Some(self.report()).filter(|report| is_so(report))).await
    }

    /// The records that have arrived at the log destination.
    pub(crate) fn lines(&self) -> Vec<Value> {
        lines(self.dir.path())
    }

    /// Waits until so many records have arrived.
    pub(crate) async fn delivers(&self, count: usize) -> Vec<Value> {
        let what = format!("{count} records at the destination");
        eventually(&what, || Some(self.lines()).filter(|lines| lines.len() >= count)).await
    }

    /// Ends it in order, with everything that is queued delivered before.
    pub(crate) async fn stop(self) -> Stopped {
        let delivered = |report: &Report| report.destinations.iter().all(|destination| destination.backlog == 0);
        self.reports("everything is delivered", delivered).await;
        self.end().await
    }

    /// Ends it in order, whatever is still queued.
    pub(crate) async fn end(self) -> Stopped {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.task).await;
        ended.expect("the gateway ends in time").unwrap().unwrap();
        Stopped {
            lines: lines(self.dir.path()),
            dead_letters: dead_letters(&self.dir.path().join("queue/dead-letters")),
        }
    }
}

/// Waits for a value.
pub(crate) async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn lines(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("records.jsonl")).unwrap_or_default();
    // What comes after the last line feed is still being written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The dead letters in a directory of segments, as frames in rows: length, checksum, message.
fn dead_letters(dir: &Path) -> Vec<StoredDeadLetter> {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut letters = Vec::new();
    for path in paths {
        let database = Database::open(&path).unwrap();
        let chunks: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("chunks");
        let table = database.begin_read().unwrap().open_table(chunks).unwrap();
        for row in table.iter().unwrap() {
            let (_, row) = row.unwrap();
            let mut frames = row.value();
            while let Some((header, rest)) = frames.split_at_checked(12) {
                let length = u32::from_le_bytes(header[..4].try_into().unwrap()) as usize;
                letters.push(StoredDeadLetter::decode(&rest[..length]).unwrap());
                frames = &rest[length..];
            }
        }
    }
    letters
}
