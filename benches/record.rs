//! What one record costs on its way through: read, checked, transformed, and put into the forms that consumers want.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use waystation::{
    cli::sample::Sampler,
    destination::mqtt_fields,
    record::{
        envelope::{self, Stream},
        json,
        payload::{Kind, transform, validate},
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
    let transformed = transform("V", "5YJ3E1EA7KF000001", &payload).expect("a sample is good");

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
        bencher.iter(|| transform("V", "5YJ3E1EA7KF000001", black_box(&payload)));
    });
    group.bench_function("decoded", |bencher| {
        bencher.iter(|| json::decoded("V", black_box(&transformed)));
    });
    group.bench_function("fields", |bencher| {
        bencher.iter(|| mqtt_fields::expand("5YJ3E1EA7KF000001", "V", black_box(&transformed)));
    });
    group.finish();
}

criterion_group!(benches, record);
criterion_main!(benches);
