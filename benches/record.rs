//! What one record costs on its way through: read, checked, transformed, and put into the forms that consumers want.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use waystation::{
    cli::pki::{self, Pki},
    cli::sample::Sampler,
    destination::mqtt_fields,
    record::{
        Record,
        envelope::{self, Stream},
        identity::{IssuerTable, identify},
        json,
        payload::{Kind, transform, validate},
        stored::{QueueId, append_frame, next_frame, read_record},
    },
};

fn record(criterion: &mut Criterion) {
    let payload = Bytes::from(Sampler::new(1).vehicle(1_700_000_000_000));
    let message = envelope::stream(&Stream {
        txid: "6e8f1a52-4c1e-4a83-9d7e-0f4b1f1c2d3e".into(),
        topic: "V".into(),
        sender_id: "vehicle_device.5YJ3E1EA7KF000001".into(),
        payload: payload.clone(),
        ..Stream::default()
    });
    let (mut room, mut again) = (Vec::new(), Vec::new());
    let transformed = transform("V", "5YJ3E1EA7KF000001", &payload, &mut room).expect("a sample is good");

    let mut group = criterion.benchmark_group("record");
    group.throughput(Throughput::Bytes(payload.len() as u64));
    group.bench_function("read", |bencher| {
        bencher.iter(|| envelope::read(black_box(&message)));
    });
    group.bench_function("ack", |bencher| {
        bencher.iter(|| envelope::ack(black_box(b"6e8f1a52-4c1e-4a83-9d7e-0f4b1f1c2d3e"), b"V"));
    });
    group.bench_function("validate", |bencher| {
        bencher.iter(|| validate(Kind::Vehicle, black_box(&payload)));
    });
    group.bench_function("transform", |bencher| {
        bencher.iter(|| transform("V", "5YJ3E1EA7KF000001", black_box(&payload), &mut again).map(<[u8]>::len));
    });
    group.bench_function("decoded", |bencher| {
        bencher.iter(|| json::decoded("V", black_box(transformed)));
    });
    group.bench_function("fields", |bencher| {
        bencher.iter(|| mqtt_fields::expand("5YJ3E1EA7KF000001", "V", black_box(transformed)));
    });
    let stored = Record {
        vin: "5YJ3E1EA7KF000001".into(),
        record_type: "V".into(),
        txid: Bytes::from_static(b"6e8f1a52-4c1e-4a83-9d7e-0f4b1f1c2d3e"),
        received_at: 1_700_000_000_000,
        client_version: "1.2.0".into(),
        payload: payload.clone(),
        origin: None,
        only: None,
    };
    let queue = QueueId::random();
    let mut frame = Vec::new();
    group.bench_function("store", |bencher| {
        bencher.iter(|| {
            frame.clear();
            append_frame(&mut frame, queue, 7, black_box(&stored))
        });
    });
    let frame = Bytes::from(frame);
    group.bench_function("read back", |bencher| {
        bencher.iter(|| {
            let message = next_frame(&mut black_box(&frame).clone(), queue, 7).expect("it is intact");
            read_record(message, 7)
        });
    });
    group.finish();
}

/// Once a connection, and not for each record.
fn identity(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    let vins = pki::vins(1);
    Pki::new(&[])
        .and_then(|pki| pki.write(dir.path(), &vins))
        .expect("a PKI");
    let certificate = dir.path().join(format!("vehicles/{}.pem", vins[0]));
    let certificate = CertificateDer::from_pem_file(certificate).expect("a certificate");
    let table = IssuerTable::default();
    identify(&certificate, &table).expect("it is a vehicle's");
    criterion.bench_function("identity", |bencher| {
        bencher.iter(|| identify(black_box(&certificate), &table));
    });
}

criterion_group!(benches, record, identity);
criterion_main!(benches);
