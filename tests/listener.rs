//! Who comes in at the vehicles' port, what everybody else is told there, and that noise does it no harm.
#![allow(clippy::unwrap_used)]

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/vehicle.rs"]
mod vehicle;

use std::fs;

use certificates::{authority, authority_params, authority_with};
use gateway::{Options, Running, vin};
use rcgen::PKCS_ECDSA_P256_SHA256;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use vehicle::{PAYLOAD, ack, record};

const PUBLIC_KEY_PATH: &str = "/.well-known/appspecific/com.tesla.3p.public-key.pem";
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn a_vehicle_comes_in_on_any_path_but_status() {
    let gateway = Running::start().await;
    for path in [
        "/",
        "/status/",
        "/statuses",
        "/telemetry/v1?vin=OTHER",
        "/%2e%2e/a",
        PUBLIC_KEY_PATH,
    ] {
        let mut dial = gateway.dial(1);
        dial.path = path;
        dial.connect().await.unwrap().delivers(1, path).await;
    }
    for path in ["/status", "/status?"] {
        let mut dial = gateway.dial(1);
        dial.path = path;
        assert_eq!(dial.refused().await, (200, "mtls ok".to_owned()), "{path}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_vehicle_comes_in_over_both_versions_of_tls() {
    let gateway = Running::start().await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (chain, key) = gateway.pki.vehicle(&vin(1)).unwrap();
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
            .map(Result::unwrap)
            .collect();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let mut vehicle = gateway
            .dial_with(vehicle::tls(&gateway.pki, Some((chain, key)), &[version]))
            .connect()
            .await
            .unwrap();
        let spoken = vehicle.0.get_ref().get_ref().1.protocol_version();
        assert_eq!(spoken, Some(version.version));
        vehicle.delivers(1, "both").await;
    }
    gateway.stop().await;
}

#[tokio::test]
async fn without_a_certificate_there_is_a_sentence_and_no_websocket() {
    let gateway = Running::start().await;
    let refused = gateway.dial_anonymously().refused().await;
    assert_eq!(
        refused,
        (
            403,
            "a vehicle's client certificate is needed: none was sent\n".to_owned()
        )
    );
    assert_eq!(gateway.report().listener.upgrades_refused, 1);
    gateway.stop().await;
}

#[tokio::test]
async fn a_certificate_that_no_identity_comes_from_is_told_its_issuer() {
    let other = authority("Some CA");
    let oid = authority("Tesla Motors Product Issuing CA");
    let bundle = [other.certificate.pem(), oid.certificate.pem()].concat();
    let gateway = Running::with(Options {
        vehicle_ca: &bundle,
        ..Options::default()
    })
    .await;
    for (authority, issuer) in [(&other, "Some CA"), (&oid, "Tesla Motors Product Issuing CA")] {
        let shown = authority.vehicle();
        let tls = vehicle::tls(
            &gateway.pki,
            Some((shown.chain, shown.key)),
            &[&rustls::version::TLS13, &rustls::version::TLS12],
        );
        let dial = gateway.dial_with(tls);
        let (status, sentence) = dial.refused().await;
        assert_eq!(status, 403);
        assert!(sentence.contains(&format!("{issuer:?}")), "{sentence}");
        // The certificate is good all the same.
        assert_eq!(dial.get("/status").await.body, "mtls ok");
    }
    assert_eq!(gateway.report().listener.upgrades_refused, 2);
    gateway.stop().await;
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_ends_in_the_handshake() {
    let gateway = Running::start().await;
    // The name is right; the key is somebody else's.
    let shown = authority_with(authority_params("TeslaMotors"), &PKCS_ECDSA_P256_SHA256).vehicle();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let shown = Some((shown.chain.clone(), shown.key.clone_key()));
        let refused = gateway
            .dial_with(vehicle::tls(&gateway.pki, shown, &[version]))
            .connect()
            .await;
        assert!(matches!(refused.map(drop), Err(WsError::Io(_))), "{version:?}");
    }
    gateway
        .reports("both are counted", |report| report.listener.handshake_errors == 2)
        .await;
    gateway.stop().await;
}

#[tokio::test]
async fn only_vehicles_in_allow_vins_come_in() {
    let allowed = format!("allow_vins = [{:?}]", vin(2));
    let gateway = Running::with(Options {
        listener: &allowed,
        ..Options::default()
    })
    .await;
    let sentence = format!("vehicle {} is not in listener.allow_vins\n", vin(1));
    assert_eq!(gateway.dial(1).refused().await, (403, sentence));
    assert_eq!(gateway.dial(1).get("/status").await.body, "mtls ok");
    gateway.connect(2).await.delivers(2, "allowed").await;
    assert_eq!(gateway.report().listener.upgrades_refused, 1);
    gateway.stop().await;
}

#[tokio::test]
async fn status_says_whether_a_certificate_was_shown() {
    let gateway = Running::start().await;
    for (dial, says) in [(gateway.dial(1), "mtls ok"), (gateway.dial_anonymously(), "ok")] {
        let response = dial.get("/status").await;
        assert_eq!((response.status, response.body.as_str()), (200, says));
        assert!(response.head.contains("content-type: text/plain"), "{}", response.head);
    }
    assert_eq!(gateway.report().listener.upgrades_refused, 0, "a status is no upgrade");
    gateway.stop().await;
}

#[tokio::test]
async fn the_public_key_is_served_to_everybody_where_there_is_one() {
    let key = "-----BEGIN PUBLIC KEY-----\nthe key\n-----END PUBLIC KEY-----\n";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("public-key.pem");
    fs::write(&path, key).unwrap();
    let configured = format!("public_key = {path:?}");
    let gateway = Running::with(Options {
        listener: &configured,
        ..Options::default()
    })
    .await;
    for dial in [gateway.dial_anonymously(), gateway.dial(1)] {
        let response = dial.get(PUBLIC_KEY_PATH).await;
        assert_eq!((response.status, response.body.as_str()), (200, key));
    }
    assert_eq!(gateway.report().listener.upgrades_refused, 0);
    gateway.stop().await;
    let gateway = Running::start().await;
    for dial in [gateway.dial_anonymously(), gateway.dial(1)] {
        assert_eq!(dial.get(PUBLIC_KEY_PATH).await.status, 404);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn any_other_request_is_not_found_and_an_upgrade_that_lacks_something_is_told_what() {
    let gateway = Running::start().await;
    let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: gateway\r\n{more}\r\n");
    let not_found = [
        get("/", ""),
        get("/metrics", ""),
        get("/status/..", ""),
        get("/", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
        get("/", "Upgrade: websocket\r\n"),
        format!("POST / HTTP/1.1\r\nHost: gateway\r\n{UPGRADE}Content-Length: 0\r\n\r\n"),
        "DELETE /records HTTP/1.1\r\nHost: gateway\r\n\r\n".to_owned(),
    ];
    for request in &not_found {
        for dial in [gateway.dial(1), gateway.dial_anonymously()] {
            let response = dial.request(request).await;
            assert_eq!(response.status, 404, "{request}");
            assert!(response.head.contains("connection: close") && response.body.contains("WebSocket upgrade"));
        }
    }
    let incomplete = [
        ("Sec-WebSocket-Key", "Sec-WebSocket-Key"),
        ("Sec-WebSocket-Version: 13", "Version: 13"),
    ];
    for (header, named) in incomplete {
        let without: String = UPGRADE
            .split_inclusive("\r\n")
            .filter(|line| !line.trim_start().starts_with(header))
            .map(str::trim_start)
            .collect();
        let response = gateway.dial(1).request(&get("/", &without)).await;
        assert_eq!(response.status, 400, "{header}");
        assert!(response.body.contains(named), "{}", response.body);
    }
    assert_eq!(
        gateway.report().listener.upgrades_refused,
        0,
        "none of them was refused for its certificate"
    );
    gateway.stop().await;
}

#[tokio::test]
async fn a_text_message_ends_the_connection() {
    let gateway = Running::start().await;
    let mut vehicle = gateway.connect(1).await;
    vehicle.delivers(1, "before").await;
    vehicle.try_send(Message::text("D4,test,1234")).await.unwrap();
    assert_eq!(vehicle.closed().await, Some(1003));
    gateway
        .reports("it has left", |report| report.listener.connections == 0)
        .await;
    assert_eq!(gateway.stop().await.lines.len(), 1);
}

#[tokio::test]
async fn pings_are_answered_and_a_record_in_fragments_is_a_record() {
    let gateway = Running::start().await;
    let mut vehicle = gateway.connect(1).await;
    let message = record(1, "V", "in three parts", PAYLOAD);
    let part = |from: usize, to: usize, code, last| {
        Message::Frame(Frame::message(message.slice(from..to), OpCode::Data(code), last))
    };
    vehicle.try_send(part(0, 10, Data::Binary, false)).await.unwrap();
    vehicle.try_send(Message::Ping("between".into())).await.unwrap();
    vehicle.try_send(part(10, 10, Data::Continue, false)).await.unwrap();
    vehicle
        .try_send(part(10, message.len(), Data::Continue, true))
        .await
        .unwrap();
    let pong = futures_util::StreamExt::next(&mut vehicle.0).await.unwrap().unwrap();
    assert_eq!(pong, Message::Pong("between".into()));
    assert_eq!(vehicle.reply().await, ack("V", "in three parts"));
    gateway.stop().await;
}

#[tokio::test]
async fn noise_on_the_port_harms_nobody() {
    let gateway = Running::start().await;
    let mut vehicle = gateway.connect(1).await;
    vehicle.delivers(1, "before").await;
    let random: Vec<u8> = (0_u32..4096)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let noise: [&[u8]; 5] = [
        b"GET /status HTTP/1.1\r\nHost: gateway\r\n\r\n",
        &random,
        b"",
        // The beginning of a ClientHello, and one that claims more than TLS allows.
        b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03",
        b"\x16\x03\x01\xff\xff",
    ];
    for bytes in noise {
        let mut stream = gateway.dial_anonymously().tcp().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        // An end of whatever kind.
        drop(stream.read_to_end(&mut Vec::new()).await);
    }
    gateway
        .reports("all are counted", |report| report.listener.handshake_errors == 5)
        .await;
    // Behind TLS, where HTTP should be, and behind that, where WebSocket frames should be.
    let mut stream = gateway.dial(2).tls().await.unwrap();
    stream.write_all(&random).await.unwrap();
    drop(stream.read_to_end(&mut Vec::new()).await);
    let mut stream = gateway.dial(2).tls().await.unwrap();
    let headers = "x-filling: 0123456789\r\n".repeat(100_000);
    // The end may come while it is still being sent.
    drop(
        stream
            .write_all(format!("GET / HTTP/1.1\r\n{headers}").as_bytes())
            .await,
    );
    drop(stream.read_to_end(&mut Vec::new()).await);
    let mut stream = gateway.dial(2).tls().await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: gateway\r\n{UPGRADE}\r\n");
    stream.write_all(&[request.as_bytes(), &random].concat()).await.unwrap();
    drop(stream.read_to_end(&mut Vec::new()).await);
    let report = gateway
        .reports("the last is gone", |report| report.listener.socket_errors == 1)
        .await;
    assert_eq!(
        (report.listener.handshake_errors, report.listener.upgrades_refused),
        (7, 0)
    );
    vehicle.delivers(1, "after").await;
    assert_eq!(gateway.stop().await.lines.len(), 2);
}
