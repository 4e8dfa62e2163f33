//! Counting a predicted map against the truth, and all thresholds at once.

use std::hint::black_box;

use benches::{SIDE, mask, pixels, probabilities};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Zip;
use seg_metrics::{Confusion, ScoreHistogram};

fn metrics(c: &mut Criterion) {
    let truth = mask(SIDE, 1);
    let probabilities = probabilities(SIDE, 1);
    let predicted = probabilities.mapv(|p| p >= 0.5);
    let confusion = || {
        let mut confusion = Confusion::new();
        confusion.add(black_box(predicted.view()), black_box(truth.view()), None).expect("equal shapes");
        confusion
    };

    let mut group = c.benchmark_group("seg_metrics/confusion");
    group.throughput(Throughput::Elements(pixels(&truth)));
    group.bench_function(BenchmarkId::new("seg-metrics", SIDE), |b| b.iter(confusion));
    let looped = || {
        let mut counts = [0_u64; 4];
        Zip::from(black_box(&predicted)).and(black_box(&truth)).for_each(|&predicted, &truth| {
            counts[usize::from(predicted) * 2 + usize::from(truth)] += 1;
        });
        counts
    };
    group.bench_function(BenchmarkId::new("loop", SIDE), |b| b.iter(looped));
    let counts = confusion();
    let expected =
        [counts.true_negatives, counts.false_negatives, counts.false_positives, counts.true_positives];
    assert_eq!(
        looped(),
        expected,
        "counts of true negatives, false negatives, false positives, true positives"
    );
    group.finish();

    let mut group = c.benchmark_group("seg_metrics/score_histogram");
    group.throughput(Throughput::Elements(pixels(&truth))).sample_size(20);
    let histogram = || {
        let mut histogram = ScoreHistogram::new();
        histogram.add(black_box(probabilities.view()), truth.view(), None).expect("equal shapes");
        histogram
    };
    group.bench_function(BenchmarkId::new("seg-metrics", SIDE), |b| b.iter(histogram));
    assert_eq!(histogram().confusion_at(0.5).expect("a threshold in steps"), confusion(), "counts at 0.5");
    group.finish();
}

criterion_group!(benches, metrics);
criterion_main!(benches);
