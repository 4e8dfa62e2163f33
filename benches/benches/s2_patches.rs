//! Cutting the network's input out of a scene of 24 channels, and putting its outputs together.

use std::hint::black_box;

use benches::{part, random};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Array3;
use s2_patches::{Geometry, WindowPlan, extract, mirror, stitch};

const CHANNELS: usize = 24;
const SCENE: usize = 1200;
const INPUT: usize = 572;

#[expect(clippy::cast_possible_truncation, reason = "0 to 1")]
fn patches(c: &mut Criterion) {
    let scene = Array3::from_shape_fn((CHANNELS, SCENE, SCENE), |(channel, row, col)| {
        random(row, col, channel as u64) as f32
    });

    let mut group = c.benchmark_group("s2_patches/extract");
    group.throughput(Throughput::Bytes((CHANNELS * INPUT * INPUT * size_of::<f32>()) as u64));
    for (place, start) in [("inside", 300_isize), ("corner", -92)] {
        group.bench_function(BenchmarkId::new(format!("s2-patches-{place}"), INPUT), |b| {
            b.iter(|| extract(black_box(scene.view()), start, start, INPUT, INPUT));
        });
    }
    // Without mirroring, a copy of a slice is the floor.
    let slice = || part(black_box(&scene), [300, 300], [INPUT, INPUT]);
    group.bench_function(BenchmarkId::new("ndarray-slice", INPUT), |b| {
        b.iter(|| slice().to_owned());
    });
    assert_eq!(extract(scene.view(), 300, 300, INPUT, INPUT), slice(), "inside");
    let corner = extract(scene.view(), -92, -92, INPUT, INPUT);
    assert_eq!(corner[[5, 0, 91]], scene[[5, mirror(-92, SCENE), 1]], "mirrored");
    group.finish();

    let geometry = Geometry::try_new(4, 3).expect("the paper's network");
    let plan = WindowPlan::try_new(SCENE, SCENE, geometry, INPUT).expect("a valid input size");
    let output = geometry.output_size(INPUT).expect("a valid input size");
    let patch = Array3::from_elem((1, output, output), 1.0_f32);
    let mut map = Array3::<f32>::zeros((1, SCENE, SCENE));
    let mut group = c.benchmark_group("s2_patches/stitch");
    group.throughput(Throughput::Elements((SCENE * SCENE) as u64));
    group.bench_function(BenchmarkId::new("s2-patches", SCENE), |b| {
        b.iter(|| {
            for window in plan.iter() {
                stitch(map.view_mut(), black_box(patch.view()), &window).expect("the plan's own windows");
            }
        });
    });
    for window in plan.iter() {
        stitch(map.view_mut(), patch.view(), &window).expect("the plan's own windows");
    }
    assert!(map.iter().all(|&v| v == 1.0), "a pixel was left out");
    group.finish();
}

criterion_group!(benches, patches);
criterion_main!(benches);
