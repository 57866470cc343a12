//! Time of each part of the path, by criterion: `cargo bench --package harborseal-bench --bench parts`.
//!
//! Figures are per element: a packet, a chunk, or a byte.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use harborseal_bench::parts::{Admit, Append, Pack, Parse, Seal, Shape};
use harborseal_segment::cipher::Backend;

const SHAPES: [(&str, Shape); 2] = [("video 1200 B", Shape::VIDEO), ("audio 172 B", Shape::AUDIO)];

fn packets(criterion: &mut Criterion) {
    for (name, shape) in SHAPES {
        let packets = Throughput::Elements(u64::from(shape.burst));
        let mut group = criterion.benchmark_group("parse");
        group.throughput(packets.clone());
        let mut parse = Parse::new(shape);
        group.bench_function(name, |bencher| bencher.iter(|| parse.run()));
        group.finish();

        let mut group = criterion.benchmark_group("admit");
        group.throughput(packets.clone());
        let mut admit = Admit::new(shape);
        group.bench_function(name, |bencher| bencher.iter(|| admit.run()));
        group.finish();

        let mut group = criterion.benchmark_group("pack");
        group.throughput(packets);
        let mut pack = Pack::new(shape).expect("memory for the pool");
        group.bench_function(name, |bencher| bencher.iter(|| pack.run()));
        group.finish();
    }
}

fn chunks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal");
    for &backend in Backend::ALL {
        let mut seal = Seal::new(Shape::VIDEO.streams, backend);
        group.throughput(Throughput::Bytes(seal.bytes() as u64));
        group.bench_function(backend.name(), |bencher| bencher.iter(|| seal.run()));
    }
    group.finish();

    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(u64::from(Append::CHUNKS)));
    let mut append = Append::new().expect("memory for the pool");
    group.bench_function("64 chunks", |bencher| {
        bencher.iter_custom(|runs| {
            let mut sum = Duration::ZERO;
            for _ in 0..runs {
                append.feed();
                let began = Instant::now();
                append.run();
                sum += began.elapsed();
            }
            sum
        });
    });
    group.finish();
}

criterion_group!(parts, packets, chunks);
criterion_main!(parts);
