//! One simulated vehicle: it connects, sends, keeps what is not acknowledged, and connects again.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription as Alert, CertificateError, ClientConfig, Error as TlsError};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_util::sync::CancellationToken;

use super::Plan;
use super::memory::numbered;
use super::tally::{Live, VehicleTally};
use crate::cli::sample::Sampler;
use crate::record::envelope::{self, Reply, Stream};

/// A vehicle that can connect.
#[derive(Debug, Clone)]
pub struct Vehicle {
    /// Its VIN.
    pub vin: String,
    /// Its side of TLS, with its certificate.
    pub tls: Arc<ClientConfig>,
    /// The folder that its certificate is from.
    pub pki: PathBuf,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

type Socket = WebSocketStream<TlsStream<TcpStream>>;

struct Unacknowledged {
    number: u64,
    message: Bytes,
    first_sent: Instant,
}

struct Drive {
    vehicle: Vehicle,
    plan: Arc<Plan>,
    started: Instant,
    live: Arc<Live>,
    sampler: Sampler,
    tally: VehicleTally,
    /// The number of the first record.
    first: u64,
    unacknowledged: VecDeque<Unacknowledged>,
    /// Set when no more records are made.
    finished: Option<Instant>,
}

pub(super) async fn drive(
    vehicle: Vehicle,
    seed: u64,
    plan: Arc<Plan>,
    started: Instant,
    live: Arc<Live>,
    stop: CancellationToken,
) -> VehicleTally {
    let tally = VehicleTally {
        vin: vehicle.vin.clone(),
        ..VehicleTally::default()
    };
    let first = plan.memory.as_ref().map_or(0, |memory| memory.next(&vehicle.vin));
    let mut drive = Drive {
        vehicle,
        plan,
        started,
        live,
        sampler: Sampler::new(seed),
        tally,
        first,
        unacknowledged: VecDeque::new(),
        finished: None,
    };
    let mut wait = FIRST_WAIT;
    while !drive.is_over() {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, drive.connect()).await;
        match connected.unwrap_or_else(|_| Err(WsError::Io(std::io::ErrorKind::TimedOut.into()))) {
            Ok(socket) => {
                wait = FIRST_WAIT;
                drive.tally.connections += 1;
                drive.live.connected(true);
                let ended = drive.talk(socket, &stop).await;
                drive.live.connected(false);
                if let Err(error) = ended {
                    tracing::debug!(vin = %drive.vehicle.vin, %error, "connection lost");
                }
            }
            Err(error) => {
                let reason = explain(&error, &drive.vehicle.pki);
                if drive.live.is_news(&reason) {
                    tracing::warn!(vin = %drive.vehicle.vin, "cannot connect to {}, trying again: {reason}", drive.plan.connect);
                }
            }
        }
        if stop.is_cancelled() || drive.next_at().is_none() {
            drive.finish();
        }
        if drive.is_over() {
            break;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
    drive.tally
}

/// What went wrong, with what the gateway says in the body of a refusal, or with what to do.
fn explain(error: &WsError, pki: &Path) -> String {
    let error = match error {
        WsError::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            return format!("{error}: {}", String::from_utf8_lossy(body).trim_end());
        }
        WsError::Io(error) => error,
        _ => return error.to_string(),
    };
    let pki = pki.display();
    let advice = match error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
        Some(
            TlsError::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)
            | TlsError::AlertReceived(Alert::UnknownCA | Alert::BadCertificate | Alert::DecryptError),
        ) => format!(
            "--pki {pki} does not belong to this gateway; name the folder that its listener.certificate and \
             listener.vehicle_ca are from, or configure it with server.pem, server.key and vehicle-ca.pem of this one"
        ),
        Some(TlsError::InvalidCertificate(CertificateError::NotValidForNameContext { .. })) => {
            "name the gateway so in --connect, or make a PKI for this name with `waystation pki --name`".to_owned()
        }
        Some(TlsError::InvalidMessage(_)) => "no TLS is spoken there; name listener.bind of the gateway".to_owned(),
        _ if error.kind() == ErrorKind::ConnectionRefused => {
            "nothing listens there; start the gateway, or name its listener.bind".to_owned()
        }
        _ => return error.to_string(),
    };
    format!("{error}; {advice}")
}

impl Drive {
    fn finish(&mut self) {
        self.finished.get_or_insert_with(Instant::now);
    }

    fn is_over(&self) -> bool {
        self.finished
            .is_some_and(|at| self.unacknowledged.is_empty() || at.elapsed() >= self.plan.linger)
    }

    async fn connect(&self) -> Result<Socket, WsError> {
        let host = self
            .plan
            .connect
            .rsplit_once(':')
            .map_or(self.plan.connect.as_str(), |(host, _)| host);
        let host = host.trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| WsError::Io(std::io::Error::new(std::io::ErrorKind::InvalidInput, error)))?;
        let stream = TcpStream::connect(&self.plan.connect).await?;
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(Arc::clone(&self.vehicle.tls))
            .connect(name, stream)
            .await?;
        let mut request = format!("wss://{}/", self.plan.connect).into_client_request()?;
        for (name, value) in [("Version", "1.2.0"), ("X-Network-Interface", "cellular")] {
            request.headers_mut().insert(name, value.parse()?);
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(4 << 10)
            .write_buffer_size(4 << 10);
        let (socket, _) = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?;
        Ok(socket)
    }

    async fn talk(&mut self, mut socket: Socket, stop: &CancellationToken) -> Result<(), WsError> {
        for waiting in &self.unacknowledged {
            socket.feed(Message::Binary(waiting.message.clone())).await?;
            self.tally.resent += 1;
        }
        socket.flush().await?;
        loop {
            let next = self.next_at();
            if next.is_none() || stop.is_cancelled() {
                self.finish();
            }
            if self.is_over() {
                return socket.close(None).await;
            }
            let may_send = self.finished.is_none() && self.unacknowledged.len() < self.plan.window;
            let over = self.plan.duration.map(|duration| self.started + duration);
            let wake = match (next, self.finished, over) {
                (_, Some(at), _) => Some(at + self.plan.linger),
                (Some(next), None, _) if may_send => Some(next),
                (_, None, over) => over,
            };
            tokio::select! {
                biased;
                message = socket.next() => match message {
                    Some(Ok(Message::Binary(reply))) => self.take(&reply),
                    Some(Ok(Message::Close(_))) | None => return Ok(()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error),
                },
                () = stop.cancelled(), if self.finished.is_none() => {}
                () = tokio::time::sleep_until(wake.unwrap_or(self.started).into()), if wake.is_some() => {
                    if may_send {
                        let message = self.make();
                        socket.send(Message::Binary(message)).await?;
                    }
                }
            }
        }
    }

    /// When the next record is due; `None`: there are no more.
    fn next_at(&self) -> Option<Instant> {
        if self.plan.records.is_some_and(|records| self.tally.sent >= records) {
            return None;
        }
        let due = match self.plan.rate > 0.0 {
            true => self.started + Duration::from_secs_f64(self.tally.sent as f64 / self.plan.rate),
            false => Instant::now(),
        };
        let over = self
            .plan
            .duration
            .is_some_and(|duration| due.max(Instant::now()) >= self.started + duration);
        (!over).then_some(due)
    }

    fn make(&mut self) -> Bytes {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let number = self.first + self.tally.sent;
        let (topic, payload) = self.payload(number, now.as_millis() as u64);
        let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let message = envelope::stream(&Stream {
            txid: format!("{}-{number}", self.vehicle.vin).into(),
            topic: text(topic),
            sender_id: format!("vehicle_device.{}", self.vehicle.vin).into(),
            payload: payload.into(),
            device_type: text("vehicle_device"),
            device_id: text(&self.vehicle.vin),
            created_at: u32::try_from(now.as_secs()).unwrap_or_default(),
            delivered_at_epoch_ms: 0,
        });
        self.tally.sent += 1;
        self.live.sent();
        let first_sent = Instant::now();
        self.unacknowledged.push_back(Unacknowledged {
            number,
            message: message.clone(),
            first_sent,
        });
        message
    }

    fn payload(&mut self, number: u64, at: u64) -> (&'static str, Vec<u8>) {
        let [vehicle, alerts, errors] = self.plan.mix.0.map(u64::from);
        // Spread over the cycle, not in a row: 37 has no factor in common with a sum that is a round number.
        match (number * 37) % (vehicle + alerts + errors) {
            part if part < vehicle => ("V", self.sampler.vehicle(at)),
            part if part < vehicle + alerts => ("alerts", self.sampler.alerts(at)),
            _ => ("errors", self.sampler.errors(at)),
        }
    }

    fn take(&mut self, reply: &Bytes) {
        let (txid, good) = match envelope::read_reply(reply) {
            Ok(Reply::Ack { txid, .. }) => (txid, true),
            Ok(Reply::Error { txid }) => (txid, false),
            Ok(Reply::Other) | Err(_) => return,
        };
        let txid = String::from_utf8_lossy(&txid);
        let number = numbered(&txid).map(|(_, number)| number);
        let at = number.and_then(|number| self.unacknowledged.binary_search_by_key(&number, |one| one.number).ok());
        let Some(answered) = at.and_then(|at| self.unacknowledged.remove(at)) else {
            self.tally.repeated_acks += 1;
            return;
        };
        if good {
            if let Some(Err(error)) = self.plan.memory.as_ref().map(|memory| memory.note(&txid)) {
                let reason = format!("what is acknowledged cannot be remembered, and will be sent again: {error}");
                if self.live.is_news(&reason) {
                    tracing::warn!(vin = %self.vehicle.vin, "{reason}");
                }
            }
            self.tally.acked.push(answered.number);
            self.tally.latencies.add(answered.first_sent.elapsed());
            self.live.acked();
        } else {
            self.tally.refused += 1;
        }
    }
}
