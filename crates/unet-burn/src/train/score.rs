//! The score of the validation set at its best threshold, from counts of pixels by probability.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorReadError};
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};

use super::{Criterion, history::History};
use crate::IGNORE_INDEX;

/// Thresholds lie 1 / this apart.
pub(super) const STEPS: usize = 1000;

/// Valid pixels by probability and truth.
///
/// A pixel is predicted if `probability >= threshold`, compared as `f32`. The thresholds are 0.000, 0.001, …
/// 1.000, and the counts at each are exact: the same as from comparing every pixel. Only a threshold between
/// two of them, where the score might be higher by what 1/1000 of probability holds, is not seen.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    /// By truth, then by the highest threshold that the probability reaches.
    pixels: [Vec<u64>; 2],
    thresholds: Vec<f32>,
}

impl Counts {
    pub(super) fn new() -> Self {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "0 to 1000, rounded to f32"
        )]
        let thresholds = (0..=STEPS).map(|step| (step as f64 / STEPS as f64) as f32).collect();
        Self { pixels: [vec![0; STEPS + 1], vec![0; STEPS + 1]], thresholds }
    }

    pub(super) fn clear(&mut self) {
        self.pixels.iter_mut().for_each(|bins| bins.fill(0));
    }

    /// Counts probabilities in 0 to 1 with their labels; those to ignore and NaN are left out.
    pub(super) fn add(&mut self, probabilities: &[f32], labels: &[u8]) {
        for (&probability, &label) in probabilities.iter().zip(labels) {
            if label != IGNORE_INDEX && !probability.is_nan() {
                let step = self.step(probability);
                self.pixels[usize::from(label == 1)][step] += 1;
            }
        }
    }

    /// The highest threshold that a probability reaches: the product may be rounded past one of them.
    fn step(&self, probability: f32) -> usize {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "as saturates at 0"
        )]
        let guess = ((probability * STEPS as f32) as usize).min(STEPS);
        if probability < self.thresholds[guess] {
            guess.saturating_sub(1)
        } else if guess < STEPS && probability >= self.thresholds[guess + 1] {
            guess + 1
        } else {
            guess
        }
    }

    /// The score and its threshold; of several best thresholds the one nearest to 0.5, of two as near the lower.
    pub(super) fn best(&self, criterion: Criterion) -> Option<(f64, f64)> {
        let total = self.pixels.each_ref().map(|bins| bins.iter().sum::<u64>());
        let mut best: Option<(f64, usize)> = None;
        let [mut fp, mut tp] = [0, 0];
        for step in (0..=STEPS).rev() {
            fp += self.pixels[0][step];
            tp += self.pixels[1][step];
            if criterion.fixed_threshold().is_some_and(|fixed| fixed != step) {
                continue;
            }
            let Some(score) = criterion.score(tp, fp, total[1] - tp, total[0] - fp) else { continue };
            let from_middle = |step: usize| step.abs_diff(STEPS / 2);
            if best.is_none_or(|(high, at)| {
                score > high || (score == high && from_middle(step) <= from_middle(at))
            }) {
                best = Some((score, step));
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "0 to 1000")]
        best.map(|(score, step)| (score, step as f64 / STEPS as f64))
    }
}

/// Probabilities of a validation batch on the device, its labels in host memory.
pub(super) struct ScoreInput {
    pub(super) probabilities: Tensor<4>,
    pub(super) labels: Arc<Vec<u8>>,
}

/// The criterion as a metric of burn's loop; at the end of the split it tells the history.
#[derive(Clone)]
pub(super) struct ScoreMetric {
    criterion: Criterion,
    counts: Counts,
    last: Option<f64>,
    history: Arc<History>,
}

impl ScoreMetric {
    pub(super) fn new(criterion: Criterion, history: Arc<History>) -> Self {
        Self { criterion, counts: Counts::new(), last: None, history }
    }

    fn entry(&mut self) -> (Option<(f64, f64)>, SerializedEntry) {
        let best = self.counts.best(self.criterion);
        self.last = best.map(|(score, _)| score);
        let text = best.map_or_else(
            || "no positive pixel".into(),
            |(score, threshold)| format!("{score:.4} at threshold {threshold}"),
        );
        (best, SerializedEntry::new(text, self.last.unwrap_or(f64::NAN).to_string()))
    }
}

impl Metric for ScoreMetric {
    type Input = ScoreInput;

    fn name(&self) -> MetricName {
        Arc::new(self.criterion.to_string())
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes { unit: None, higher_is_better: true }.into()
    }

    fn update(&mut self, item: &ScoreInput, _: &MetricMetadata) -> Result<SerializedEntry, TensorReadError> {
        self.counts.add(&item.probabilities.clone().try_into_vec_as::<f32>()?, &item.labels);
        Ok(self.entry().1)
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        let (best, entry) = self.entry();
        self.history.set_score(best);
        Ok(entry)
    }

    fn clear(&mut self) {
        self.counts.clear();
    }
}

impl Numeric for ScoreMetric {
    fn value(&self) -> Option<NumericEntry> {
        self.last.map(NumericEntry::Value)
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.value()
    }

    fn final_value(&self) -> NumericEntry {
        NumericEntry::Final(self.last.unwrap_or(f64::NAN))
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "rounds to the nearest f32")]
mod tests {
    use super::*;

    /// Probabilities on, below and above the thresholds, some with the wrong label.
    fn pixels() -> (Vec<f32>, Vec<u8>) {
        let hash = |x: u32| x.wrapping_mul(2_654_435_761).rotate_left(11).wrapping_mul(0x85eb_ca6b) >> 8;
        (0..5000_u32)
            .map(|index| {
                let on = f64::from(hash(index) % 1001) / 1000.0;
                let probability = match index % 4 {
                    0 => on as f32,
                    1 => (on as f32).next_down().max(0.0),
                    2 => (on as f32).next_up().min(1.0),
                    _ => f64::from(hash(index + 77)) as f32 / 2_f32.powi(24),
                };
                let label = match hash(index + 9) % 10 {
                    0 => IGNORE_INDEX,
                    1 => 1,
                    _ => u8::from(f64::from(probability) > 0.7 + f64::from(hash(index + 5) % 300) / 1000.0),
                };
                (probability, label)
            })
            .unzip()
    }

    #[test]
    fn the_best_score_equals_that_of_comparing_every_pixel_with_every_threshold() {
        let (probabilities, labels) = pixels();
        let mut counts = Counts::new();
        counts.add(&probabilities[..1234], &labels[..1234]);
        counts.add(&probabilities[1234..], &labels[1234..]);
        for criterion in ["f0.5", "f1", "f2", "iou", "mcc"].map(|name| name.parse::<Criterion>().unwrap()) {
            let mut best = (f64::MIN, 0.0);
            for step in 0..=1000 {
                let threshold = f64::from(step) / 1000.0;
                let count = |predicted: bool, truth: u8| {
                    let fits = |(p, l): (&f32, &u8)| (*p >= threshold as f32) == predicted && *l == truth;
                    probabilities.iter().zip(&labels).filter(|pixel| fits(*pixel)).count() as u64
                };
                let score = criterion.score(count(true, 1), count(true, 0), count(false, 1), count(false, 0));
                let nearer = |at: f64| (threshold - 0.5).abs() < (at - 0.5_f64).abs();
                if let Some(score) = score
                    && (score > best.0 || (score == best.0 && nearer(best.1)))
                {
                    best = (score, threshold);
                }
            }
            assert_eq!(counts.best(criterion), Some(best), "{criterion}");
        }
        // Of all thresholds, those between the steps too, none is much better: sort the scores and try each.
        let mut sorted: Vec<_> =
            probabilities.iter().zip(&labels).filter(|(_, label)| **label != IGNORE_INDEX).collect();
        sorted.sort_by(|a, b| b.0.total_cmp(a.0));
        let positives = sorted.iter().filter(|(_, label)| **label == 1).count() as f64;
        let (mut tp, mut highest) = (0.0, 0.0_f64);
        for (index, (_, label)) in sorted.iter().enumerate() {
            tp += f64::from(**label);
            highest = highest.max(1.25 * tp / (0.25 * positives + (index + 1) as f64));
        }
        let (score, _) = counts.best(Criterion::FBeta(0.5)).unwrap();
        assert!(score <= highest + 1e-12 && score > highest - 0.01, "{score} of {highest}");
    }

    #[test]
    fn precision_and_recall_are_taken_at_one_half() {
        let mut counts = Counts::new();
        counts.add(&[0.1, 0.5, 0.6, 0.4, 0.9], &[0, 1, 0, 1, IGNORE_INDEX]);
        assert_eq!(counts.best(Criterion::Precision), Some((0.5, 0.5)), "one of two");
        assert_eq!(counts.best(Criterion::Recall), Some((0.5, 0.5)), "one of two");
        counts.clear();
        assert_eq!(counts.best(Criterion::Recall), None, "no positive");
    }
}
