//! One channel per class, the mask of a set of classes, and 20 m to 10 m.

use std::hint::black_box;

use benches::{SIDE, pixels, scl};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::{Array2, Array3};
use s2_scl::{ClassSet, mask, one_hot_into, upsample_nearest};

fn classes(c: &mut Criterion) {
    let classes = scl(SIDE, 1);

    let mut group = c.benchmark_group("s2_scl/one_hot");
    group.throughput(Throughput::Elements(pixels(&classes))).sample_size(10);
    let mut channels = Array3::<f32>::zeros((12, SIDE, SIDE));
    group.bench_function(BenchmarkId::new("s2-scl", SIDE), |b| {
        b.iter(|| one_hot_into(black_box(classes.view()), channels.view_mut()).expect("classes only"));
    });
    let mut looped = Array3::<f32>::zeros((12, SIDE, SIDE));
    group.bench_function(BenchmarkId::new("loop", SIDE), |b| {
        b.iter(|| {
            looped.fill(0.0);
            for ((row, col), &class) in black_box(&classes).indexed_iter() {
                looped[[usize::from(class), row, col]] = 1.0;
            }
        });
    });
    one_hot_into(classes.view(), channels.view_mut()).expect("classes only");
    let one_everywhere =
        classes.indexed_iter().all(|((row, col), &class)| channels[[class.into(), row, col]] == 1.0);
    assert!(one_everywhere, "a pixel's own class is not 1");
    assert_eq!(f64::from(channels.sum()), (SIDE * SIDE) as f64, "another class than a pixel's own is not 0");
    group.finish();

    let mut group = c.benchmark_group("s2_scl/mask");
    group.throughput(Throughput::Elements(pixels(&classes)));
    group.bench_function(BenchmarkId::new("s2-scl", SIDE), |b| {
        b.iter(|| mask(black_box(classes.view()), ClassSet::PERCENTILE_EXCLUDED));
    });
    let masked = mask(classes.view(), ClassSet::PERCENTILE_EXCLUDED);
    assert_eq!(masked, classes.mapv(|class| matches!(class, 0 | 1 | 8 | 9)), "the mask is another");
    group.finish();

    let mut group = c.benchmark_group("s2_scl/upsample_nearest");
    group.throughput(Throughput::Elements(4 * pixels(&classes)));
    group.bench_function(BenchmarkId::new("s2-scl", SIDE), |b| {
        b.iter(|| upsample_nearest(black_box(classes.view()), 2));
    });
    group.bench_function(BenchmarkId::new("loop", SIDE), |b| {
        b.iter(|| {
            Array2::from_shape_fn((2 * SIDE, 2 * SIDE), |(row, col)| black_box(&classes)[[row / 2, col / 2]])
        });
    });
    let fine = upsample_nearest(classes.view(), 2);
    assert!(
        fine.indexed_iter().all(|((row, col), &class)| class == classes[[row / 2, col / 2]]),
        "pixels moved"
    );
    group.finish();
}

criterion_group!(benches, classes);
criterion_main!(benches);
