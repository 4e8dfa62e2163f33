//! What holds for any maps, with a slow loop as judge.

use ndarray::{Array2, array};
use proptest::{prelude::*, test_runner::RngSeed};
use seg_metrics::{Confusion, Error, ScoreHistogram, Scores};

/// Probabilities (some on thresholds, some next to them, some NaN), truth and valid pixels of one map.
type Map = (Array2<f32>, Array2<bool>, Array2<bool>);

/// The next larger number, of one that is not negative.
fn next_up(value: f32) -> f32 {
    f32::from_bits(value.to_bits() + 1)
}

/// The next smaller number, or 0, of one that is not negative.
fn next_down(value: f32) -> f32 {
    f32::from_bits(value.to_bits().saturating_sub(1))
}

fn maps() -> impl Strategy<Value = Map> {
    let on_threshold = (0..=1000_u16).prop_map(|step| f32::from(step) / 1000.0);
    let probability = prop_oneof![
        4 => 0.0..=1.0_f32,
        2 => on_threshold.clone(),
        1 => on_threshold.clone().prop_map(|p| next_up(p).min(1.0)),
        1 => on_threshold.prop_map(next_down),
        1 => Just(f32::NAN),
    ];
    (0..12_usize, 0..12_usize).prop_flat_map(move |(height, width)| {
        let pixel = (probability.clone(), any::<bool>(), prop::bool::weighted(0.8));
        prop::collection::vec(pixel, height * width).prop_map(move |pixels| {
            let at = |(row, col): (usize, usize)| pixels[row * width + col];
            let shape = (height, width);
            (
                Array2::from_shape_fn(shape, |index| at(index).0),
                Array2::from_shape_fn(shape, |index| at(index).1),
                Array2::from_shape_fn(shape, |index| at(index).2),
            )
        })
    })
}

/// One pixel after the other.
fn count(pixels: impl IntoIterator<Item = (bool, bool)>) -> Confusion {
    let mut counts = Confusion::new();
    for (predicted, truth) in pixels {
        match (predicted, truth) {
            (true, true) => counts.true_positives += 1,
            (true, false) => counts.false_positives += 1,
            (false, true) => counts.false_negatives += 1,
            (false, false) => counts.true_negatives += 1,
        }
    }
    counts
}

fn counts() -> impl Strategy<Value = Confusion> {
    prop::array::uniform4(prop_oneof![Just(0), 0..100_u64, 0..1_u64 << 40]).prop_map(|[tp, fp, fn_, tn]| {
        Confusion { true_positives: tp, false_positives: fp, false_negatives: fn_, true_negatives: tn }
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(2022),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn counts_equal_a_loop((probabilities, truth, valid) in maps(), threshold in 0.0..1.0_f32) {
        let predicted = probabilities.mapv(|p| p >= threshold);
        let mut found = Confusion::new();
        found.add(predicted.view(), truth.view(), Some(valid.view())).expect("same shapes");
        let pixels = || predicted.iter().copied().zip(truth.iter().copied());
        let expected = count(pixels().zip(&valid).filter(|&(_, &valid)| valid).map(|(pixel, _)| pixel));
        prop_assert_eq!(found, expected);
        found.add(predicted.view(), truth.view(), None).expect("same shapes");
        prop_assert_eq!(found, [expected, count(pixels())].into_iter().sum::<Confusion>());
    }

    #[test]
    fn the_sum_over_parts_equals_the_whole((probabilities, truth, valid) in maps(), at in 0.0..=1.0_f64) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of the rows")]
        let row = (truth.nrows() as f64 * at) as usize;
        let axis = ndarray::Axis(0);
        let (p, t, v) = (probabilities.view(), truth.view(), valid.view());
        let parts = std::iter::zip([p.split_at(axis, row).0, p.split_at(axis, row).1], [
            (t.split_at(axis, row).0, v.split_at(axis, row).0),
            (t.split_at(axis, row).1, v.split_at(axis, row).1),
        ]);
        let mut histograms = Vec::new();
        let mut confusions = Vec::new();
        for (p, (t, v)) in parts {
            let mut histogram = ScoreHistogram::new();
            histogram.add(p, t, Some(v)).expect("probabilities");
            histograms.push(histogram);
            let mut confusion = Confusion::new();
            confusion.add(p.mapv(|p| p >= 0.5).view(), t, Some(v)).expect("same shapes");
            confusions.push(confusion);
        }
        let mut histogram = ScoreHistogram::new();
        histogram.add(p, t, Some(v)).expect("probabilities");
        prop_assert_eq!(histograms.into_iter().sum::<ScoreHistogram>(), histogram);
        let mut confusion = Confusion::new();
        confusion.add(p.mapv(|p| p >= 0.5).view(), t, Some(v)).expect("same shapes");
        prop_assert_eq!(confusions.into_iter().sum::<Confusion>(), confusion);
    }

    #[test]
    fn a_histogram_counts_like_a_comparison_of_every_pixel(
        (probabilities, truth, valid) in maps(), step in 0..=1000_u16,
    ) {
        let mut histogram = ScoreHistogram::new();
        histogram.add(probabilities.view(), truth.view(), Some(valid.view())).expect("probabilities");
        let threshold = f32::from(step) / 1000.0;
        let pixels = || probabilities.iter().zip(&truth).zip(&valid).filter(|&(_, &valid)| valid).map(|(pixel, _)| pixel);
        let predicted = pixels().filter(|(p, _)| !p.is_nan()).map(|(&p, &truth)| (p >= threshold, truth));
        prop_assert_eq!(histogram.confusion_at(f64::from(step) / 1000.0), Ok(count(predicted)));
        // The same threshold, come by way of f32.
        prop_assert_eq!(histogram.confusion_at(f64::from(threshold)), histogram.confusion_at(f64::from(step) / 1000.0));
        prop_assert_eq!(histogram.not_predicted(), pixels().filter(|(p, _)| p.is_nan()).count() as u64);
    }

    #[test]
    fn no_threshold_is_better_than_the_best((probabilities, truth, valid) in maps()) {
        let mut histogram = ScoreHistogram::new();
        histogram.add(probabilities.view(), truth.view(), Some(valid.view())).expect("probabilities");
        let metric = |c: &Confusion| c.f_beta(0.5);
        let at = |step: u16| histogram.confusion_at(f64::from(step) / 1000.0).expect("on the grid");
        let scores: Vec<_> = (0..=1000).map(|step| metric(&at(step))).collect();
        match histogram.best_threshold(metric) {
            None => prop_assert!(scores.iter().all(Option::is_none)),
            Some((threshold, confusion)) => {
                let best = metric(&confusion);
                prop_assert!(best.is_some() && scores.iter().all(|&score| score <= best));
                for (step, &score) in (0..=1000_u16).zip(&scores) {
                    let tie = f64::from(step) / 1000.0;
                    let nearer = (tie - 0.5).abs() < (threshold - 0.5).abs() - 1e-9;
                    prop_assert!(!(nearer && score == best), "{tie} is as good as {threshold}");
                }
            }
        }
    }

    #[test]
    fn scores_lie_in_their_range_and_keep_their_relations(c in counts()) {
        for score in [c.precision(), c.recall(), c.specificity(), c.f_beta(0.5), c.iou(), c.accuracy(), c.prevalence()] {
            prop_assert!(score.is_none_or(|score| (0.0..=1.0).contains(&score)), "{score:?}");
        }
        prop_assert!(c.mcc().is_none_or(|mcc| mcc.abs() <= 1.0 + 1e-15), "{:?}", c.mcc());
        prop_assert_eq!(c.f_beta(0.0), c.precision());
        if let (Some(precision), Some(recall), Some(f1)) = (c.precision(), c.recall(), c.f_beta(1.0)) {
            if precision + recall > 0.0 {
                prop_assert!((f1 - 2.0 * precision * recall / (precision + recall)).abs() < 1e-14);
            }
        }
        if let (Some(iou), Some(f1)) = (c.iou(), c.f_beta(1.0)) {
            prop_assert!((iou - f1 / (2.0 - f1)).abs() < 1e-14);
        }
    }

    #[test]
    fn the_correlation_is_symmetric_in_the_maps_and_in_the_classes(c in counts()) {
        let maps_swapped = Confusion { false_positives: c.false_negatives, false_negatives: c.false_positives, ..c };
        prop_assert_eq!(maps_swapped.mcc(), c.mcc());
        prop_assert_eq!(maps_swapped.iou(), c.iou());
        prop_assert_eq!(maps_swapped.precision(), c.recall());
        let classes_swapped = Confusion {
            true_positives: c.true_negatives,
            true_negatives: c.true_positives,
            false_positives: c.false_negatives,
            false_negatives: c.false_positives,
        };
        prop_assert_eq!(classes_swapped.mcc(), c.mcc());
        prop_assert_eq!(classes_swapped.accuracy(), c.accuracy());
        prop_assert_eq!(classes_swapped.recall(), c.specificity());
        let opposite = Confusion {
            true_positives: c.false_negatives,
            false_negatives: c.true_positives,
            false_positives: c.true_negatives,
            true_negatives: c.false_positives,
        };
        prop_assert_eq!(opposite.mcc(), c.mcc().map(|mcc| -mcc));
    }
}

#[test]
fn every_threshold_counts_its_own_probability_and_not_the_next_lower_one() {
    for step in 0..=1000_u16 {
        let threshold = f32::from(step) / 1000.0;
        // The same number by division in f64, as a user writes it down.
        #[expect(clippy::cast_possible_truncation, reason = "the comparison is in f32")]
        let written = (f64::from(step) / 1000.0) as f32;
        assert_eq!(written.to_bits(), threshold.to_bits());
        let below = next_down(threshold);
        let mut histogram = ScoreHistogram::new();
        histogram
            .add(array![[threshold, below]].view(), array![[true, false]].view(), None)
            .expect("probabilities");
        let confusion = histogram.confusion_at(f64::from(step) / 1000.0).expect("on the grid");
        assert_eq!(confusion.true_positives, 1, "at {threshold}");
        assert_eq!(confusion.false_positives, u64::from(step == 0), "at {threshold}");
    }
}

#[test]
fn of_equal_thresholds_the_one_nearest_to_a_half_is_the_best() {
    // All thresholds above 0.2 and up to 0.3 part the pixels without error.
    let mut histogram = ScoreHistogram::new();
    histogram.add(array![[0.2, 0.3]].view(), array![[false, true]].view(), None).expect("probabilities");
    assert_eq!(histogram.best_threshold(Confusion::iou).map(|(threshold, _)| threshold), Some(0.3));
    // A constant score: all thresholds are equal.
    assert_eq!(histogram.best_threshold(|_| Some(1.0)).map(|(threshold, _)| threshold), Some(0.5));
    // Equally near: the lower.
    let none_at_a_half = |c: &Confusion| (c.false_positives + c.true_positives != 1).then_some(0.0);
    let mut histogram = ScoreHistogram::new();
    histogram.add(array![[0.5, 0.499]].view(), array![[false, true]].view(), None).expect("probabilities");
    assert_eq!(histogram.best_threshold(none_at_a_half).map(|(threshold, _)| threshold), Some(0.499));
    assert_eq!(histogram.best_threshold(|_| Some(f64::NAN)), None);
    assert_eq!(ScoreHistogram::new().best_threshold(Confusion::iou), None);
}

#[test]
fn maps_of_different_shapes_are_refused_and_change_nothing() {
    let (two, three) = (Array2::from_elem((1, 2), true), Array2::from_elem((1, 3), true));
    let probabilities = Array2::from_elem((1, 2), 0.5_f32);
    let mut confusion = Confusion::new();
    let mut histogram = ScoreHistogram::new();
    for (truth, valid, name) in [(&three, None, "truth"), (&two, Some(&three), "valid")] {
        let valid = valid.map(|valid: &Array2<bool>| valid.view());
        let expected = Err(Error::ShapeMismatch { name, found: (1, 3), expected: (1, 2) });
        assert_eq!(confusion.add(two.view(), truth.view(), valid), expected);
        assert_eq!(histogram.add(probabilities.view(), truth.view(), valid), expected);
    }
    assert_eq!((confusion, histogram), (Confusion::new(), ScoreHistogram::new()));
}

#[test]
fn values_that_are_no_probabilities_are_refused_and_change_nothing() {
    for value in [-0.001, 1.001, f32::INFINITY, f32::NEG_INFINITY, 255.0] {
        let probabilities = array![[0.5, 0.5], [value, 0.5]];
        let truth = Array2::from_elem((2, 2), true);
        let mut histogram = ScoreHistogram::new();
        let result = histogram.add(probabilities.view(), truth.view(), None);
        assert_eq!(result, Err(Error::NotAProbability { value, row: 1, col: 0 }));
        assert_eq!(histogram, ScoreHistogram::new());
        let valid = array![[true, true], [false, true]];
        assert_eq!(histogram.add(probabilities.view(), truth.view(), Some(valid.view())), Ok(()));
    }
}

#[test]
fn thresholds_off_the_grid_are_refused() {
    let histogram = ScoreHistogram::new();
    for threshold in [-0.001, 0.000_5, 0.350_1, 1.001, f64::INFINITY] {
        assert_eq!(histogram.confusion_at(threshold), Err(Error::ThresholdOffGrid { threshold }));
    }
    assert!(histogram.confusion_at(f64::NAN).is_err(), "NaN is no threshold");
}

#[test]
fn sums_stay_at_the_limit_of_u64() {
    let full =
        Confusion { true_positives: u64::MAX, false_positives: 1, false_negatives: 0, true_negatives: 0 };
    let mut sum = full;
    sum += full;
    assert_eq!((sum.true_positives, sum.false_positives, sum.pixels()), (u64::MAX, 2, u64::MAX));
}

#[test]
fn scores_without_a_denominator_are_null_in_json() {
    let expected = r#"{"iou":null,"precision":null,"recall":null,"f1":null,"f05":null,"mcc":null,"accuracy":null,"pixels":0,"prevalence":null,"threshold":null}"#;
    let scores = Confusion::new().scores(None);
    assert_eq!(serde_json::to_string(&scores).expect("JSON"), expected);
    assert_eq!(serde_json::from_str::<Scores>(expected).expect("scores"), scores);
    let confusion =
        Confusion { true_positives: 3, false_positives: 1, false_negatives: 1, true_negatives: 3 };
    let scores = confusion.scores(Some(0.35));
    let expected = r#"{"iou":0.6,"precision":0.75,"recall":0.75,"f1":0.75,"f05":0.75,"mcc":0.5,"accuracy":0.75,"pixels":8,"prevalence":0.5,"threshold":0.35}"#;
    assert_eq!(serde_json::to_string(&scores).expect("JSON"), expected);
}

#[test]
#[should_panic(expected = "beta must be a finite number of 0 or more, not -1")]
fn a_negative_beta_breaks_the_contract() {
    let _ = Confusion::new().f_beta(-1.0);
}
