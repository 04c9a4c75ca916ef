//! The vehicles, in a process of their own: they send as fast as acks allow, or so many records a second, or nothing.
//!
//! Lean, because they share the machine with what is measured: each message is made once and only numbered anew, so that
//! no two are the same record.

use std::collections::{HashMap, VecDeque};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use omq_tokio::{Options, Socket, SocketType};
use prost::Message as _;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use waystation::cli::sample::Sampler;
use waystation::cli::simulate::{self, Vehicle};
use waystation::record::envelope::{self, Stream};
use waystation::record::proto::vehicle_data::{Datum, Field, Payload, Value, value::Value as Member};

/// Where the number is put.
pub(crate) const MARK: [u8; 16] = *b"@@@@@@@@@@@@@@@@";

/// What the vehicles do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) pki: PathBuf,
    pub(crate) port: u16,
    pub(crate) vehicles: usize,
    /// Records without an ack that a vehicle may have.
    pub(crate) window: usize,
    /// Records a second of all together; none: as fast as acks allow. 0: connect, and say nothing.
    pub(crate) rate: Option<f64>,
    /// Seconds that are not counted, first.
    pub(crate) warm_up: f64,
    pub(crate) seconds: f64,
    /// Bytes of a payload.
    pub(crate) payload: usize,
    /// The port of the gateway's ZMQ feed, on which the records are waited for.
    pub(crate) feed: Option<u16>,
}

/// What they saw.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Loaded {
    pub(crate) acked: u64,
    pub(crate) seconds: f64,
    /// Milliseconds from a record's sending to its ack.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Milliseconds from a record's sending to its arrival at the feed.
    pub(crate) delivered_p50: f64,
    pub(crate) delivered_p99: f64,
}

impl Loaded {
    pub(crate) fn rate(&self) -> f64 {
        self.acked as f64 / self.seconds
    }
}

/// Said on standard output when every vehicle is connected.
pub(crate) const CONNECTED: &str = "connected";

/// The process's whole life.
pub(crate) fn run(load: &Load) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let loaded = runtime.block_on(drive(load));
    println!("{}", serde_json::to_string(&loaded).expect("plain numbers"));
}

struct Clock {
    from: Instant,
    until: Instant,
    number: AtomicU64,
    /// When records were sent that are waited for.
    awaited: Option<Mutex<HashMap<u64, Instant>>>,
}

impl Clock {
    /// The number of the next record.
    fn next(&self) -> u64 {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        if let Some(awaited) = &self.awaited {
            let mut awaited = awaited.lock().expect("nobody panics with it");
            awaited.insert(number, Instant::now());
        }
        number
    }
}

async fn drive(load: &Load) -> Loaded {
    let vehicles = simulate::load_vehicles(&load.pki, load.vehicles).expect("the PKI was made for this");
    let mut sockets = Vec::new();
    for vehicle in &vehicles {
        sockets.push(connect(vehicle, load.port).await);
    }
    println!("{CONNECTED}");
    std::io::stdout().flush().expect("the parent reads");
    let begun = Instant::now();
    let from = begun + Duration::from_secs_f64(load.warm_up);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let clock = Arc::new(Clock {
        from,
        until: from + Duration::from_secs_f64(load.seconds),
        // Another start has other numbers: a record is never one that was sent before.
        number: AtomicU64::new(now.as_nanos() as u64),
        awaited: load.feed.map(|_| Mutex::default()),
    });
    let delivered = load.feed.map(|port| tokio::spawn(listen(port, Arc::clone(&clock))));
    let tasks = sockets
        .into_iter()
        .zip(vehicles)
        .enumerate()
        .map(|(index, (socket, vehicle))| {
            let template = Template::new(&vehicle.vin, load.payload);
            let clock = Arc::clone(&clock);
            match load.rate {
                None => tokio::spawn(pipelined(socket, template, clock, load.window)),
                Some(rate) => {
                    let every = Duration::from_secs_f64(load.vehicles as f64 / rate.max(1e-6));
                    let first = begun + every.mul_f64(index as f64 / load.vehicles as f64);
                    tokio::spawn(paced(socket, template, clock, first, every))
                }
            }
        });
    let tasks: Vec<_> = tasks.collect();
    let (mut acked, mut latencies) = (0, Vec::new());
    for task in tasks {
        let seen = task.await.expect("no vehicle fails");
        acked += seen.acked;
        latencies.extend(seen.latencies);
    }
    let mut delivered = match delivered {
        Some(delivered) => delivered.await.expect("it does not fail"),
        None => Vec::new(),
    };
    Loaded {
        acked,
        seconds: load.seconds,
        p50: quantile(&mut latencies, 0.5),
        p99: quantile(&mut latencies, 0.99),
        delivered_p50: load.feed.map_or(0.0, |_| quantile(&mut delivered, 0.5)),
        delivered_p99: load.feed.map_or(0.0, |_| quantile(&mut delivered, 0.99)),
    }
}

/// Milliseconds, of microseconds; of none, more than any.
fn quantile(latencies: &mut [u32], share: f64) -> f64 {
    latencies.sort_unstable();
    let at = (latencies.len() as f64 * share) as usize;
    let at = at.min(latencies.len().saturating_sub(1));
    latencies.get(at).map_or(f64::MAX, |us| f64::from(*us) / 1e3)
}

/// So long after the last one was sent records are waited for.
const LATE: Duration = Duration::from_millis(300);

/// How long records took to the feed.
async fn listen(port: u16, clock: Arc<Clock>) -> Vec<u32> {
    let socket = Socket::try_new(SocketType::Sub, Options::default()).expect("a socket");
    socket.subscribe("").await.expect("a subscription");
    let endpoint = format!("tcp://127.0.0.1:{port}");
    socket.connect(endpoint.as_str()).await.expect("an endpoint");
    let mut latencies = Vec::new();
    let filler = [b'x'; 16];
    let last = clock.until + LATE;
    while let Ok(Ok(message)) = tokio::time::timeout_at(last.into(), socket.recv()).await {
        let now = Instant::now();
        let Some(payload) = message.part_bytes(1) else {
            continue;
        };
        let behind = payload.windows(filler.len()).position(|window| window == filler);
        let digits = behind.and_then(|at| payload.get(at.checked_sub(MARK.len())?..at));
        let number = digits.and_then(|digits| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        let awaited = clock.awaited.as_ref().expect("it listens because records are awaited");
        let sent = number.and_then(|number| awaited.lock().expect("nobody panics with it").remove(&number));
        // Others are of the backlog.
        if let Some(sent) = sent.filter(|sent| *sent >= clock.from) {
            latencies.push((now - sent).as_micros() as u32);
        }
    }
    // What did not come counts as well.
    let awaited = clock.awaited.as_ref().expect("it listens because records are awaited");
    let awaited = awaited.lock().expect("nobody panics with it");
    let missing = awaited.values().filter(|sent| **sent >= clock.from);
    latencies.extend(missing.map(|sent| sent.elapsed().as_micros() as u32));
    latencies
}

type Connection = WebSocketStream<TlsStream<TcpStream>>;

async fn connect(vehicle: &Vehicle, port: u16) -> Connection {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    let name = ServerName::try_from("localhost").expect("a name");
    let tls = TlsConnector::from(Arc::clone(&vehicle.tls));
    let stream = tls.connect(name, stream).await.expect("its certificate is good");
    let request = format!("wss://localhost:{port}/").into_client_request().expect("a URL");
    let config = WebSocketConfig::default()
        .read_buffer_size(8 << 10)
        .write_buffer_size(16 << 10);
    let connected = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
    connected.expect("it is let in").0
}

/// What one vehicle saw.
#[derive(Default)]
struct Seen {
    sent: VecDeque<Instant>,
    /// Acks that came while it counted.
    acked: u64,
    /// Of records that were sent while it counted, in microseconds.
    latencies: Vec<u32>,
}

impl Seen {
    /// Acks come in the order of the records.
    fn take(&mut self, message: Result<Message, WsError>, clock: &Clock) {
        match message.expect("the connection is good") {
            Message::Binary(_) => {
                let at = self
                    .sent
                    .pop_front()
                    .expect("nothing is acknowledged that was not sent");
                let now = Instant::now();
                if now >= clock.from && now < clock.until {
                    self.acked += 1;
                    if at >= clock.from {
                        self.latencies.push((now - at).as_micros() as u32);
                    }
                }
            }
            Message::Close(frame) => panic!("the gateway ends the connection: {frame:?}"),
            _ => {}
        }
    }
}

/// The payload of a `V` record of about this size, with [`MARK`] in it.
pub(crate) fn payload(size: usize) -> Vec<u8> {
    let sample = Sampler::new(1).vehicle(1_700_000_000_000);
    let mut payload = Payload::decode(sample.as_slice()).expect("a sample is good");
    // A name as long as it takes to reach the size.
    payload.data.retain(|datum| datum.key() != Field::VehicleName);
    let bare = payload.encoded_len();
    let overhead = 12;
    let filler = size.saturating_sub(bare + MARK.len() + overhead);
    let name = String::from_utf8_lossy(&MARK).into_owned() + &"x".repeat(filler);
    payload.data.push(Datum {
        key: Field::VehicleName.into(),
        value: Some(Value {
            value: Some(Member::StringValue(name)),
        }),
    });
    let payload = payload.encode_to_vec();
    assert!(
        payload.len().abs_diff(size) <= 8,
        "{} bytes instead of {size}",
        payload.len()
    );
    payload
}

/// As long as vehicles' own.
pub(crate) fn txid(number: u64) -> String {
    format!("6e8f1a52-9b1d-4c7e-8a54-{number:012}")
}

/// A message with a place for its number.
struct Template {
    bytes: Vec<u8>,
    at: usize,
}

impl Template {
    fn new(vin: &str, size: usize) -> Self {
        let payload = payload(size);
        let bytes = envelope::stream(&Stream {
            txid: txid(1).into(),
            topic: "V".into(),
            sender_id: format!("vehicle_device.{vin}").into(),
            payload: payload.into(),
            device_type: "vehicle_device".into(),
            device_id: vin.to_owned().into(),
            created_at: 1_700_000_000,
            delivered_at_epoch_ms: 0,
        })
        .to_vec();
        let at = bytes
            .windows(MARK.len())
            .position(|window| window == MARK)
            .expect("it is in the payload");
        Self { bytes, at }
    }

    fn message(&self, number: u64) -> Message {
        let mut bytes = self.bytes.clone();
        bytes[self.at..self.at + MARK.len()].copy_from_slice(format!("{number:016x}").as_bytes());
        Message::Binary(Bytes::from(bytes))
    }
}

async fn pipelined(mut socket: Connection, template: Template, clock: Arc<Clock>, window: usize) -> Seen {
    let mut seen = Seen::default();
    while Instant::now() < clock.until {
        while seen.sent.len() < window {
            let message = template.message(clock.next());
            socket.feed(message).await.expect("the connection is good");
            seen.sent.push_back(Instant::now());
        }
        socket.flush().await.expect("the connection is good");
        let mut reply = socket.next().await;
        while let Some(message) = reply {
            seen.take(message, &clock);
            reply = socket.next().now_or_never().flatten();
        }
    }
    seen
}

async fn paced(mut socket: Connection, template: Template, clock: Arc<Clock>, first: Instant, every: Duration) -> Seen {
    let mut seen = Seen::default();
    let mut due = first;
    loop {
        let next = due.min(clock.until);
        tokio::select! {
            biased;
            reply = socket.next() => seen.take(reply.expect("the connection stays"), &clock),
            () = tokio::time::sleep_until(next.into()) => {
                if Instant::now() >= clock.until {
                    // What has no ack by then counts as well, with the time that it has waited.
                    let waited = seen.sent.iter().filter(|at| **at >= clock.from).map(|at| at.elapsed().as_micros() as u32);
                    seen.latencies.extend(waited);
                    return seen;
                }
                let message = template.message(clock.next());
                seen.sent.push_back(Instant::now());
                socket.send(message).await.expect("the connection is good");
                due += every;
            }
        }
    }
}
