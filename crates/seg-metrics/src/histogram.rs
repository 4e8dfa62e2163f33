//! Probabilities counted in thousandths, so that every threshold can be scored after one pass.

use crate::{Confusion, Error, Result, confusion::check_shapes};
use ndarray::{ArrayView2, Zip};
use std::{iter::Sum, ops::AddAssign};

/// Thresholds lie 1 / this apart.
const STEPS: u16 = 1000;
/// One bin for each threshold: the probabilities from it up to, but without, the next one.
const NUM_BINS: usize = STEPS as usize + 1;

/// Counts of pixels by probability and truth, to score thresholds with.
///
/// A pixel counts as predicted if `probability >= threshold`, compared as `f32`. The thresholds are 0.000,
/// 0.001, … 1.000, and the counts at each are exact: the same as from comparing every pixel. The histogram
/// takes 16 KB, however many pixels it holds, and histograms add up like [`Confusion`]s.
///
/// A pixel with the probability NaN counts as not predicted upon: it is left out of every score, but
/// [counted](Self::not_predicted).
///
/// # Examples
///
/// ```
/// use ndarray::array;
/// use seg_metrics::ScoreHistogram;
///
/// let mut histogram = ScoreHistogram::new();
/// histogram.add(array![[0.1, 0.6, 0.8]].view(), array![[false, false, true]].view(), None)?;
/// assert_eq!(histogram.confusion_at(0.5)?.precision(), Some(0.5));
/// let (threshold, confusion) = histogram.best_threshold(|c| c.f_beta(0.5)).ok_or("no positive")?;
/// assert_eq!((threshold, confusion.precision()), (0.601, Some(1.0)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoreHistogram {
    /// By bin: pixels that are true.
    positives: Vec<u64>,
    /// By bin: pixels that are not.
    negatives: Vec<u64>,
    not_predicted: u64,
}

impl ScoreHistogram {
    /// No pixel yet.
    pub fn new() -> Self {
        Self { positives: vec![0; NUM_BINS], negatives: vec![0; NUM_BINS], not_predicted: 0 }
    }

    /// Counts the pixels of one map; those with `valid == false` are left out, whatever their probability.
    ///
    /// # Shapes
    ///
    /// - `probabilities` (0 to 1, or NaN), `truth`, `valid`: `[height, width]`
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if the shapes differ, [`Error::NotAProbability`] for a valid pixel outside 0
    /// to 1; nothing is counted then.
    pub fn add(
        &mut self,
        probabilities: ArrayView2<'_, f32>,
        truth: ArrayView2<'_, bool>,
        valid: Option<ArrayView2<'_, bool>>,
    ) -> Result<()> {
        check_shapes(probabilities.dim(), truth, valid)?;
        let thresholds: Vec<f32> = (0..=STEPS).map(threshold_f32).collect();
        let mut counts = Self::new();
        let mut first_bad = None;
        Zip::indexed(probabilities).and(truth).for_each(|(row, col), &value, &truth| {
            if valid.is_some_and(|valid| !valid[(row, col)]) {
                return;
            }
            if value.is_nan() {
                counts.not_predicted += 1;
            } else if (0.0..=1.0).contains(&value) {
                let bins = if truth { &mut counts.positives } else { &mut counts.negatives };
                bins[bin(value, &thresholds)] += 1;
            } else if first_bad.is_none() {
                first_bad = Some(Error::NotAProbability { value, row, col });
            }
        });
        first_bad.map_or(Ok(()), Err)?;
        *self += counts;
        Ok(())
    }

    /// The number of valid pixels with the probability NaN.
    pub fn not_predicted(&self) -> u64 {
        self.not_predicted
    }

    /// The counts if the pixels with `probability >= threshold` are predicted.
    ///
    /// # Errors
    ///
    /// [`Error::ThresholdOffGrid`] unless the threshold, as `f32`, is one of 0.000, 0.001, … 1.000.
    pub fn confusion_at(&self, threshold: f64) -> Result<Confusion> {
        #[expect(clippy::cast_possible_truncation, reason = "probabilities are compared as f32")]
        let compared = threshold as f32;
        let step = (0..=STEPS).find(|&step| threshold_f32(step) == compared);
        let step = step.ok_or(Error::ThresholdOffGrid { threshold })?;
        Ok(self.confusions()[usize::from(step)])
    }

    /// The threshold with the highest score, and the counts there; `None` if no threshold has a score.
    ///
    /// `metric` is a score of [`Confusion`], such as `Confusion::iou` or `|c| c.f_beta(0.5)`; thresholds for
    /// which it gives `None` or NaN are passed over. Of several best thresholds the one nearest to 0.5 is
    /// taken, of two as near the lower.
    pub fn best_threshold(&self, metric: impl Fn(&Confusion) -> Option<f64>) -> Option<(f64, Confusion)> {
        let mut best: Option<(f64, u16, Confusion)> = None;
        for (step, confusion) in (0..=STEPS).zip(self.confusions()) {
            let Some(score) = metric(&confusion).filter(|score| !score.is_nan()) else { continue };
            let from_middle = |step: u16| step.abs_diff(STEPS / 2);
            let better = best.is_none_or(|(best_score, best_step, _)| {
                score > best_score || (score == best_score && from_middle(step) < from_middle(best_step))
            });
            if better {
                best = Some((score, step, confusion));
            }
        }
        best.map(|(_, step, confusion)| (f64::from(step) / f64::from(STEPS), confusion))
    }

    /// The counts at every threshold.
    fn confusions(&self) -> Vec<Confusion> {
        let mut at_least = Confusion {
            true_positives: 0,
            false_positives: 0,
            false_negatives: self.positives.iter().sum(),
            true_negatives: self.negatives.iter().sum(),
        };
        // From the highest threshold downwards, each bin moves from not predicted to predicted.
        let mut confusions: Vec<Confusion> = std::iter::zip(&self.positives, &self.negatives)
            .rev()
            .map(|(positives, negatives)| {
                at_least.true_positives += positives;
                at_least.false_negatives -= positives;
                at_least.false_positives += negatives;
                at_least.true_negatives -= negatives;
                at_least
            })
            .collect();
        confusions.reverse();
        confusions
    }
}

impl Default for ScoreHistogram {
    fn default() -> Self {
        Self::new()
    }
}

impl AddAssign for ScoreHistogram {
    fn add_assign(&mut self, other: Self) {
        self.positives.iter_mut().zip(other.positives).for_each(|(sum, count)| *sum += count);
        self.negatives.iter_mut().zip(other.negatives).for_each(|(sum, count)| *sum += count);
        self.not_predicted += other.not_predicted;
    }
}

impl Sum for ScoreHistogram {
    fn sum<I: Iterator<Item = Self>>(histograms: I) -> Self {
        histograms.fold(Self::new(), |mut sum, histogram| {
            sum += histogram;
            sum
        })
    }
}

/// The `f32` nearest to `step` thousandths.
fn threshold_f32(step: u16) -> f32 {
    f32::from(step) / f32::from(STEPS)
}

/// The position of the highest threshold that a probability (0 to 1) reaches.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a probability lies in 0 to 1")]
fn bin(probability: f32, thresholds: &[f32]) -> usize {
    // Off by one at most, from rounding; the comparison decides.
    let guess = (probability * f32::from(STEPS)) as usize;
    if thresholds.get(guess + 1).is_some_and(|&next| probability >= next) {
        guess + 1
    } else if probability < thresholds[guess] {
        guess - 1
    } else {
        guess
    }
}
