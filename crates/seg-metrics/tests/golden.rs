//! Values of scikit-learn and of exact arithmetic, made by `data/make_golden.py`.

use ndarray::{Array2, ArrayView2};
use seg_metrics::{Confusion, ScoreHistogram};
use serde_json::Value;

fn golden() -> Value {
    serde_json::from_str(include_str!("data/golden.json")).expect("valid JSON")
}

/// A map of one row.
fn mask(text: &Value) -> Array2<bool> {
    let text = text.as_str().expect("text").as_bytes();
    Array2::from_shape_fn((1, text.len()), |(_, col)| text[col] == b'#')
}

fn confusion([tp, fp, fn_, tn]: [u64; 4]) -> Confusion {
    Confusion { true_positives: tp, false_positives: fp, false_negatives: fn_, true_negatives: tn }
}

/// Counts are exact, and each score takes fewer than ten roundings of 1.1e-16 on either side.
const TOLERANCE: f64 = 2e-15;

#[test]
fn scores_equal_scikit_learn_and_are_none_where_the_denominator_is_zero() {
    let golden = golden();
    let cases = golden["masks"].as_array().expect("cases");
    assert_eq!(cases.len(), 17);
    for case in cases {
        let mut found = Confusion::new();
        found.add(mask(&case["predicted"]).view(), mask(&case["truth"]).view(), None).expect("same shapes");
        let expected = serde_json::from_value(case["counts"].clone()).expect("four counts");
        assert_eq!(found, confusion(expected), "{}", case["name"]);
        for (name, score) in [
            ("precision", found.precision()),
            ("recall", found.recall()),
            ("specificity", found.specificity()),
            ("f1", found.f_beta(1.0)),
            ("f05", found.f_beta(0.5)),
            ("f2", found.f_beta(2.0)),
            ("iou", found.iou()),
            ("accuracy", found.accuracy()),
            ("mcc", found.mcc()),
            ("prevalence", found.prevalence()),
        ] {
            let expected: Option<f64> =
                serde_json::from_value(case["scores"][name].clone()).expect("a score");
            let equal = match (score, expected) {
                (Some(score), Some(expected)) => (score - expected).abs() <= TOLERANCE,
                (score, expected) => score == expected,
            };
            assert!(equal, "{}: {name} is {score:?}, not {expected:?}", case["name"]);
        }
    }
}

#[test]
fn the_correlation_of_large_counts_does_not_overflow_or_cancel() {
    let golden = golden();
    for case in golden["large"].as_array().expect("cases") {
        let counts: [String; 4] = serde_json::from_value(case["counts"].clone()).expect("four counts");
        let found = confusion(counts.map(|count| count.parse().expect("a count"))).mcc().expect("a score");
        let expected = case["mcc"].as_f64().expect("a score");
        // Relative: the numerator is exact before its one rounding.
        assert!((found / expected - 1.0).abs() <= TOLERANCE, "{case}: {found}");
    }
}

fn histogram() -> (ScoreHistogram, Value) {
    let thresholds = golden()["thresholds"].take();
    let bits: Vec<u32> = serde_json::from_value(thresholds["probability_bits"].clone()).expect("bits");
    let probabilities: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
    let view = ArrayView2::from_shape((1, probabilities.len()), &probabilities).expect("one row");
    let mut histogram = ScoreHistogram::new();
    histogram.add(view, mask(&thresholds["truth"]).view(), None).expect("probabilities");
    (histogram, thresholds)
}

#[test]
fn counts_at_all_thresholds_equal_scikit_learn() {
    let (histogram, thresholds) = histogram();
    let expected: Vec<[u64; 4]> = serde_json::from_value(thresholds["counts"].clone()).expect("counts");
    assert_eq!(expected.len(), 1001);
    for (step, expected) in (0..=1000_u32).zip(expected) {
        let threshold = f64::from(step) / 1000.0;
        assert_eq!(histogram.confusion_at(threshold), Ok(confusion(expected)), "at {threshold}");
    }
}

#[test]
fn best_thresholds_equal_a_loop_over_scikit_learns_counts() {
    let (histogram, thresholds) = histogram();
    type Metric = fn(&Confusion) -> Option<f64>;
    let metrics: [(&str, Metric); 5] = [
        ("f1", |c| c.f_beta(1.0)),
        ("f05", |c| c.f_beta(0.5)),
        ("iou", Confusion::iou),
        ("mcc", Confusion::mcc),
        ("precision", Confusion::precision),
    ];
    for (name, metric) in metrics {
        let (threshold, confusion) = histogram.best_threshold(metric).expect("a score");
        assert_eq!(Some(threshold), thresholds["best"][name].as_f64(), "{name}");
        assert_eq!(histogram.confusion_at(threshold), Ok(confusion), "{name}");
    }
}
