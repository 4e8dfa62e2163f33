//! Percentiles against ndarray-stats, 20 m to 10 m, and scaling to [-1, 1].

use std::hint::black_box;

use benches::{SIDE, dn, mask, pixels};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::{Array1, Array2, Axis};
use ndarray_stats::{Quantile1dExt, interpolate::Linear};
use noisy_float::types::{N64, n64};
use s2_normalize::{BandStatistics, Definition, Histogram, Radiometry, upsample_bilinear};

fn normalize(c: &mut Criterion) {
    let band = dn(SIDE, 1);
    let excluded = mask(SIDE, 2);
    let counted = || {
        let mut histogram = Histogram::new();
        histogram.add(black_box(band.view()), excluded.view()).expect("equal shapes");
        histogram
    };

    let mut group = c.benchmark_group("s2_normalize/percentiles");
    group.throughput(Throughput::Elements(pixels(&band))).sample_size(10);
    group.bench_function(BenchmarkId::new("s2-normalize", SIDE), |b| {
        b.iter(|| [2.0, 98.0].map(|q| counted().percentile(q)));
    });
    // By selection. It reorders its input, so the clock leaves out gathering the valid pixels.
    let fractions = Array1::from(vec![n64(0.02), n64(0.98)]);
    let gather = || -> Array1<N64> {
        let valid = band.iter().zip(&excluded).filter(|&(&dn, &excluded)| dn != 0 && !excluded);
        valid.map(|(&dn, _)| n64(dn.into())).collect()
    };
    let select = |mut valid: Array1<N64>| valid.quantiles_mut(&fractions, &Linear).expect("pixels");
    group.bench_function(BenchmarkId::new("ndarray-stats", SIDE), |b| {
        b.iter_batched(gather, select, BatchSize::LargeInput);
    });
    for (ours, theirs) in [2.0, 98.0].into_iter().zip(select(gather())) {
        let ours = counted().percentile(ours).expect("pixels");
        assert!((ours - theirs.raw()).abs() < 1e-9, "percentile {ours}, by selection {theirs}");
    }
    group.finish();

    let mut group = c.benchmark_group("s2_normalize/upsample_bilinear");
    group.throughput(Throughput::Elements(4 * pixels(&band)));
    group.bench_function(BenchmarkId::new("s2-normalize", SIDE), |b| {
        b.iter(|| upsample_bilinear(black_box(band.view())));
    });
    let fine = upsample_bilinear(band.view());
    let (own, side, below, diagonal) =
        (band[[900, 900]], band[[900, 901]], band[[901, 900]], band[[901, 901]]);
    let expected =
        (9 * u32::from(own) + 3 * u32::from(side) + 3 * u32::from(below) + u32::from(diagonal) + 8) / 16;
    assert_eq!(u32::from(fine[[1801, 1801]]), expected, "weights 9, 3, 3, 1");
    group.finish();

    let radiometry = Radiometry { offset: -1000, quantification: 10_000 };
    let statistics = BandStatistics::from_histogram("B04", &counted(), radiometry, &Definition::default())
        .expect("the band is not constant");
    let mut out = Array2::<f32>::zeros(band.dim());
    let mut group = c.benchmark_group("s2_normalize/normalize");
    group.throughput(Throughput::Elements(pixels(&band)));
    group.bench_function(BenchmarkId::new("s2-normalize", SIDE), |b| {
        b.iter(|| statistics.normalize_into(black_box(band.view()), out.view_mut()).expect("equal shapes"));
    });
    statistics.normalize_into(band.view(), out.view_mut()).expect("equal shapes");
    assert!(
        out.iter().zip(&band).all(|(&out, &dn)| out == statistics.normalize(dn)),
        "not the scalar function"
    );
    let low = out.axis_iter(Axis(0)).flatten().filter(|&&v| v <= -1.0).count();
    assert!(low > 0 && low < out.len(), "nothing, or everything, is clipped");
    group.finish();
}

criterion_group!(benches, normalize);
criterion_main!(benches);
