//! What a session does with a broker that no real one is when it is asked to be.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use bytes::Bytes;

use super::*;
use crate::config::DestinationKind;
use crate::record::Record;
use crate::record::stored::{QueueId, RecordId};

/// A broker that takes everything, answers pings, and says nothing else: no real one does that when it is asked to.
struct Mute;

impl Client for Mute {
    fn publish(&self, _: Message) -> Result<Option<Acknowledged>, String> {
        Ok(Some(Box::pin(std::future::pending())))
    }

    fn disconnect(&self) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(true))
    }
}

fn session(end: oneshot::Receiver<Ended>) -> Publishing {
    let text = "[listener]\ncertificate = \"a\"\nprivate_key = \"b\"\nvehicle_ca = \"c\"\n[records]\nV = \"home\"\n\
        [destinations.home]\ntype = \"mqtt\"\nurl = \"mqtt://localhost\"\ntopic_base = \"t\"\nlayout = \"records\"";
    let config = config::parse(text, Path::new("config.toml")).unwrap();
    let DestinationKind::Mqtt(config) = &config.destinations[0].kind else {
        panic!("{config:?}")
    };
    Publishing {
        name: "home".to_owned(),
        config: config.clone(),
        status_topic: None,
        status_refused: Arc::default(),
        client: Box::new(Mute),
        _events: AbortOnDropHandle::new(tokio::spawn(std::future::pending())),
        end: End(Some(end)),
        window: 10,
        max_packet: usize::MAX,
        unsent: VecDeque::new(),
        in_flight: VecDeque::new(),
        heard_at: Instant::now(),
        overdue: Box::pin(tokio::time::sleep(UNANSWERED)),
        broken: None,
    }
}

fn queued(number: u64) -> Queued {
    Queued {
        id: RecordId {
            queue: QueueId([1; 16]),
            number,
        },
        record: Record {
            vin: "5YJ3E1EA7KF000001".into(),
            record_type: "V".into(),
            txid: Bytes::new(),
            received_at: 0,
            client_version: "".into(),
            payload: Bytes::new(),
            origin: None,
            only: None,
        },
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_keeps_the_connection_and_answers_nothing_is_left() {
    let (_open, end) = oneshot::channel();
    let mut session = session(end);
    // Nothing is in flight, and nothing has to be answered.
    let nothing = tokio::time::timeout(4 * UNANSWERED, session.news()).await;
    assert!(nothing.is_err());
    let began = Instant::now();
    session.send(&queued(1), b"").unwrap();
    tokio::time::sleep(UNANSWERED / 2).await;
    session.send(&queued(2), b"").unwrap();
    let Err(error) = session.news().await else {
        panic!("nobody has answered")
    };
    assert!(error.to_string().contains("confirmed nothing for 180 s"), "{error}");
    assert_eq!(began.elapsed(), UNANSWERED, "since the first, not since the last");
}
