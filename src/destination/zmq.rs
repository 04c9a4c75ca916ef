//! A ZMQ PUB socket: a live feed for subscribers on this machine, or beyond it with CURVE.
//!
//! PUB has no acknowledgements. A record is confirmed when it has been handed to those that are subscribed; who is not
//! there, or is too slow for its high-water mark, misses it. Nothing waits for a subscriber.

use std::future::pending;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;
use omq_tokio::{
    CurvePublicKey, CurveServerOptions, MessagePool, MonitorRecvError, MonitorStream, OnMute, Options, Payload, Socket,
    SocketType, TrySendError,
};
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use super::{Confirmation, Destination, News, Outcome, Rejected, Sent, Session, SessionError, zmq_keys};
use crate::config;
use crate::queue::Queued;

/// A PUB socket as configured.
pub struct Zmq {
    config: config::Zmq,
    options: Options,
}

/// What is still in a subscriber's queue at the end has so long to leave.
const LINGER: Duration = Duration::from_millis(500);
/// Records that are handed over before the pump looks at anything else.
const WINDOW: usize = 1000;
/// Topic, payload, metadata.
const MOST_FRAMES: usize = 3;
/// Lists of frames that are kept for the next messages: as many as are handed over before they leave.
const FRAME_TABLES: usize = 128;

impl Zmq {
    /// A socket as configured. The keys are read here.
    pub fn new(config: &config::Zmq) -> Result<Self, String> {
        let mut options = Options::default()
            .send_hwm(config.high_water_mark)
            .on_mute(OnMute::DropNewest)
            .linger(LINGER);
        if let Some(curve) = &config.curve {
            let (keys, allowed) = zmq_keys::load(curve)?;
            let server = CurveServerOptions::new().authenticator(move |peer| {
                let is_allowed = |keys: &Vec<CurvePublicKey>| keys.iter().any(|key| *key.as_bytes() == peer.public_key);
                allowed.as_ref().is_none_or(is_allowed)
            });
            options = options.curve_server_with_options(keys, server);
        }
        Ok(Self {
            config: config.clone(),
            options,
        })
    }
}

impl Destination for Zmq {
    fn keeps_open(&self) -> bool {
        true
    }

    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, SessionError>> {
        Box::pin(async move {
            let endpoint = &self.config.bind;
            let failed = |why: String| SessionError(format!("cannot bind {endpoint}: {why}"));
            // The library would remove whatever is there.
            if let Some(path) = endpoint.strip_prefix("ipc://").map(Path::new)
                && std::fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket())
            {
                return Err(failed(
                    "a file that is no socket has this name; name another".to_owned(),
                ));
            }
            let socket =
                Socket::try_new(SocketType::Pub, self.options.clone()).map_err(|error| failed(error.to_string()))?;
            let events = AbortOnDropHandle::new(tokio::spawn(tell(socket.monitor())));
            socket
                .bind(endpoint.as_str())
                .await
                .map_err(|error| failed(error.to_string()))?;
            let session: Box<dyn Session> = Box::new(Publishing {
                socket,
                namespace: self.config.namespace.clone(),
                topic: String::new(),
                metadata: self.config.metadata,
                messages: MessagePool::new(FRAME_TABLES, MOST_FRAMES),
                sent: Vec::new(),
                _events: events,
            });
            Ok(session)
        })
    }
}

/// Puts what happens on the socket into the log.
async fn tell(mut events: MonitorStream) {
    loop {
        match events.recv().await {
            Ok(event) => tracing::debug!(?event, "zmq"),
            Err(MonitorRecvError::Lagged(missed)) => tracing::debug!(missed, "zmq: events missed"),
            Err(_) => return,
        }
    }
}

struct Publishing {
    socket: Socket,
    namespace: String,
    /// The first frame of the record before: hardly ever another one.
    topic: String,
    metadata: bool,
    messages: MessagePool,
    /// Numbers of the records that were handed over and not yet confirmed.
    sent: Vec<u64>,
    _events: AbortOnDropHandle<()>,
}

impl Session for Publishing {
    fn is_up(&self) -> bool {
        true
    }

    fn has_room(&self) -> bool {
        self.sent.len() < WINDOW
    }

    fn send(&mut self, queued: &Queued, payload: &[u8]) -> Result<Sent, Rejected> {
        let record = &queued.record;
        if self.topic.get(self.namespace.len() + 1..) != Some(&*record.record_type) {
            self.topic = format!("{}_{}", self.namespace, record.record_type);
        }
        let metadata = self.metadata.then(|| {
            let metadata = json!({
                "vin": &*record.vin,
                "txid": String::from_utf8_lossy(&record.txid),
                "record": queued.stable_id().to_string(),
                "received_at": record.received_at,
            });
            metadata.to_string()
        });
        let frames = [
            Some(self.topic.as_bytes()),
            Some(payload),
            metadata.as_ref().map(String::as_bytes),
        ];
        let frames = frames.into_iter().flatten().map(Payload::from_slice);
        let message = self.messages.multipart_payloads(frames);
        match self.socket.try_send(message) {
            // Full: of everybody who is subscribed.
            Ok(()) | Err(TrySendError::Full(_)) => {
                self.sent.push(queued.id.number);
                Ok(Sent {
                    bytes: payload.len(),
                    inexpressible: 0,
                })
            }
            Err(TrySendError::Error(error)) => Err(Rejected::SessionLost(error.to_string())),
            Err(_) => Err(Rejected::SessionLost("the socket has closed".to_owned())),
        }
    }

    fn news(&mut self) -> BoxFuture<'_, Result<News, SessionError>> {
        Box::pin(async move {
            if self.sent.is_empty() {
                return pending().await;
            }
            let delivered = |number| Confirmation {
                number,
                outcome: Outcome::Delivered,
            };
            Ok(self.sent.drain(..).map(delivered).collect::<Vec<_>>().into())
        })
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if let Err(error) = self.socket.close().await {
                tracing::debug!(%error, "zmq socket closed");
            }
        })
    }
}
