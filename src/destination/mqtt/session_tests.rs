//! What a session does with a broker that no real one is when it is asked to be.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Mutex;

use bytes::Bytes;
use prost::Message as _;

use super::*;
use crate::config::DestinationKind;
use crate::record::Record;
use crate::record::proto::vehicle_data::{Datum, Payload, Value, value::Value as Member};
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

/// A broker that answers at once; what it was sent is kept.
#[derive(Clone)]
struct Prompt {
    sent: Arc<Mutex<Vec<String>>>,
    answer: fn(&Message) -> Outcome,
}

impl Prompt {
    fn new(answer: fn(&Message) -> Outcome) -> Self {
        let sent = Arc::default();
        Self { sent, answer }
    }

    fn sent(&self) -> usize {
        self.sent.lock().unwrap().len()
    }
}

impl Client for Prompt {
    fn publish(&self, message: Message) -> Result<Option<Acknowledged>, String> {
        self.sent.lock().unwrap().push(message.topic.clone());
        Ok(Some(Box::pin(std::future::ready(Ok((self.answer)(&message))))))
    }

    fn disconnect(&self) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(true))
    }
}

/// A broker that refuses the first message and answers no other.
#[derive(Default)]
struct Curt(Mutex<bool>);

impl Client for Curt {
    fn publish(&self, _: Message) -> Result<Option<Acknowledged>, String> {
        Ok(Some(match std::mem::replace(&mut *self.0.lock().unwrap(), true) {
            false => Box::pin(std::future::ready(Ok(Outcome::Refused("no".to_owned())))),
            true => Box::pin(std::future::pending()),
        }))
    }

    fn disconnect(&self) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(true))
    }
}

fn session(client: impl Client + 'static, layout: &str, end: oneshot::Receiver<Ended>) -> Publishing {
    let text = "[listener]\ncertificate = \"a\"\nprivate_key = \"b\"\nvehicle_ca = \"c\"\n[records]\nV = \"home\"\n\
        [destinations.home]\ntype = \"mqtt\"\nurl = \"mqtt://localhost\"\ntopic_base = \"t\"\nlayout = ";
    let config = config::parse(&format!("{text}\"{layout}\""), Path::new("config.toml")).unwrap();
    let DestinationKind::Mqtt(config) = &config.destinations[0].kind else {
        panic!("{config:?}")
    };
    let events = AbortOnDropHandle::new(tokio::spawn(std::future::pending()));
    Publishing {
        window: 10,
        has_taken: true,
        ..Publishing::new("home", config.clone(), Box::new(client), events, end)
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
    let mut session = session(Mute, "records", end);
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

/// A V record of so many fields, each of so many bytes.
fn fields(count: i32, bytes: usize) -> Vec<u8> {
    let datum = |key| Datum {
        key,
        value: Some(Value {
            value: Some(Member::StringValue("x".repeat(bytes))),
        }),
    };
    let payload = Payload {
        data: (1..=count).map(datum).collect(),
        ..Payload::default()
    };
    payload.encode_to_vec()
}

#[tokio::test]
async fn what_is_in_flight_is_bounded_in_bytes_and_a_record_of_any_size_passes() {
    let (_open, end) = oneshot::channel();
    let mut waiting = session(Mute, "records", end);
    waiting.send(&queued(1), &[7; WINDOW_BYTES / 2]).unwrap();
    assert!(waiting.has_room());
    waiting.send(&queued(2), &[7; 3 * WINDOW_BYTES]).unwrap();
    assert!(!waiting.has_room(), "{} in flight", waiting.in_flight.len());
}

#[tokio::test]
async fn nothing_goes_beside_a_sessions_first_record_before_the_broker_has_taken_it() {
    let (_open, end) = oneshot::channel();
    let broker = Prompt::new(|message| match message.payload.first() {
        Some(b'!') => Outcome::Refused("no".to_owned()),
        _ => Outcome::Delivered,
    });
    let mut session = Publishing {
        has_taken: false,
        ..session(broker.clone(), "records", end)
    };
    for (number, payload) in [(1, b"!"), (2, b"a")] {
        assert!(session.has_room());
        session.send(&queued(number), payload).unwrap();
        assert!(!session.has_room(), "one at a time");
        assert_eq!(session.news().await.unwrap().confirmations.len(), 1);
    }
    session.send(&queued(3), b"b").unwrap();
    assert!(session.has_room(), "it takes what it is sent");
}

#[tokio::test]
async fn a_record_of_many_large_messages_is_sent_little_by_little_to_its_end() {
    let (_open, end) = oneshot::channel();
    let broker = Prompt::new(|_| Outcome::Delivered);
    let mut session = session(broker.clone(), "fields", end);
    session.send(&queued(1), &fields(8, WINDOW_BYTES / 2)).unwrap();
    assert!(broker.sent() == 2 && !session.has_room(), "{}", broker.sent());
    let told = session.news().await.unwrap().confirmations;
    assert!(matches!(
        &told[..],
        [Confirmation {
            number: 1,
            outcome: Outcome::Delivered
        }]
    ));
    assert_eq!((broker.sent(), session.bytes), (8, 0));
    session.send(&queued(2), &fields(2, 2 * WINDOW_BYTES)).unwrap();
    assert_eq!(broker.sent(), 9, "one of any size goes when nothing else is in flight");
    assert_eq!(session.news().await.unwrap().confirmations.len(), 1);
    assert_eq!((broker.sent(), session.has_room()), (10, true));
}

#[tokio::test]
async fn a_refused_message_is_told_once_at_its_records_last_and_the_session_goes_on() {
    let (_open, end) = oneshot::channel();
    let broker = Prompt::new(|message| match message.topic.rsplit('/').next() {
        Some("VehicleSpeed" | "Odometer") => Outcome::Refused(message.topic.clone()),
        _ => Outcome::Delivered,
    });
    let mut session = session(broker.clone(), "fields", end);
    session.send(&queued(1), &fields(8, 1)).unwrap();
    session.send(&queued(2), &fields(3, 1)).unwrap();
    let told = session.news().await.unwrap().confirmations;
    let of = |number, outcome| Confirmation { number, outcome };
    let reason = "t/5YJ3E1EA7KF000001/v/VehicleSpeed".to_owned();
    assert_eq!(told, [of(1, Outcome::Refused(reason)), of(2, Outcome::Delivered)]);
    assert_eq!((broker.sent(), session.has_room()), (11, true));
}

#[tokio::test]
async fn what_was_refused_stays_refused_when_the_session_ends_before_the_records_last_message() {
    for word in [Ended::Lost("gone".to_owned()), Ended::Answered("0x95".to_owned())] {
        let (gone, end) = oneshot::channel();
        let mut session = session(Curt::default(), "fields", end);
        session.send(&queued(1), &fields(3, 1)).unwrap();
        gone.send(word).unwrap();
        let news = session.news().await.unwrap();
        let outcome = Outcome::Refused("no".to_owned());
        assert_eq!(
            (news.confirmations, news.over),
            (vec![Confirmation { number: 1, outcome }], true)
        );
    }
    let (_open, end) = oneshot::channel();
    let broker = Prompt::new(|message| match message.topic.rsplit('/').next() {
        Some("VehicleSpeed") => Outcome::Refused("no".to_owned()),
        Some("Odometer") => Outcome::Failed("not now".to_owned()),
        _ => Outcome::Delivered,
    });
    let mut session = session(broker, "fields", end);
    session.send(&queued(1), &fields(8, 1)).unwrap();
    let news = session.news().await.unwrap();
    let outcome = Outcome::Refused("no".to_owned());
    assert_eq!(
        (news.confirmations, news.over),
        (vec![Confirmation { number: 1, outcome }], true)
    );
}
