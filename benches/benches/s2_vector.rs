//! A mask to polygons, and back.

use std::hint::black_box;

use benches::{SIDE, TRANSFORM, mask, pixels};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use s2_vector::{polygonize, rasterize};

fn vector(c: &mut Criterion) {
    let mask = mask(SIDE, 1);
    let polygons = polygonize(mask.view(), &TRANSFORM);

    let mut group = c.benchmark_group("s2_vector/polygonize");
    group.throughput(Throughput::Elements(pixels(&mask))).sample_size(20);
    group.bench_function(BenchmarkId::new("s2-vector", SIDE), |b| {
        b.iter(|| polygonize(black_box(mask.view()), &TRANSFORM));
    });
    group.finish();

    let mut group = c.benchmark_group("s2_vector/rasterize");
    group.throughput(Throughput::Elements(pixels(&mask))).sample_size(20);
    group.bench_function(BenchmarkId::new("s2-vector", SIDE), |b| {
        b.iter(|| rasterize(black_box(&polygons), &TRANSFORM, SIDE, SIDE).expect("finite polygons"));
    });
    let again = rasterize(&polygons, &TRANSFORM, SIDE, SIDE).expect("finite polygons");
    assert!(again == mask && polygons.len() > 100, "the polygons of the mask are another mask");
    group.finish();
}

criterion_group!(benches, vector);
criterion_main!(benches);
