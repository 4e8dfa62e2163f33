//! The four counts of a binary comparison, and the scores that follow from them.

use crate::{Error, Result, Scores};
use ndarray::{ArrayView2, Zip};
use serde::{Deserialize, Serialize};
use std::{iter::Sum, ops::AddAssign};

/// Counts of pixels by prediction and truth, from which all scores follow.
///
/// Counts add up: over patches, scenes, threads and machines, in any order, with the same result as over all
/// pixels at once. The score over several scenes is the score of their sum, not the mean of their scores.
///
/// A score is `None` exactly where its denominator is zero, which each method states. (scikit-learn warns and
/// returns 0 there, or NaN.)
///
/// # Examples
///
/// ```
/// use ndarray::array;
/// use seg_metrics::Confusion;
///
/// let mut confusion = Confusion::new();
/// confusion.add(array![[true, true, false]].view(), array![[true, false, false]].view(), None)?;
/// assert_eq!(confusion.precision(), Some(0.5));
/// assert_eq!(confusion.recall(), Some(1.0));
/// # Ok::<(), seg_metrics::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Confusion {
    /// Predicted, and true.
    pub true_positives: u64,
    /// Predicted, but not true.
    pub false_positives: u64,
    /// True, but not predicted.
    pub false_negatives: u64,
    /// Neither.
    pub true_negatives: u64,
}

impl Confusion {
    /// No pixel yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts the pixels of one map; those with `valid == false` are left out.
    ///
    /// # Shapes
    ///
    /// - `predicted`, `truth`, `valid`: `[height, width]`
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if the shapes differ; nothing is counted then.
    pub fn add(
        &mut self,
        predicted: ArrayView2<'_, bool>,
        truth: ArrayView2<'_, bool>,
        valid: Option<ArrayView2<'_, bool>>,
    ) -> Result<()> {
        check_shapes(predicted.dim(), truth, valid)?;
        let mut counts = Self::new();
        let pairs = Zip::from(predicted).and(truth);
        match valid {
            None => pairs.for_each(|&p, &t| counts.count(p, t, true)),
            Some(valid) => pairs.and(valid).for_each(|&p, &t, &v| counts.count(p, t, v)),
        }
        *self += counts;
        Ok(())
    }

    /// Without branches, so that the compiler can vectorise the loop.
    fn count(&mut self, predicted: bool, truth: bool, valid: bool) {
        self.true_positives += u64::from(valid & predicted & truth);
        self.false_positives += u64::from(valid & predicted & !truth);
        self.false_negatives += u64::from(valid & !predicted & truth);
        self.true_negatives += u64::from(valid & !predicted & !truth);
    }

    /// The number of pixels counted.
    pub fn pixels(&self) -> u64 {
        let positives = self.true_positives.saturating_add(self.false_negatives);
        positives.saturating_add(self.false_positives).saturating_add(self.true_negatives)
    }

    /// The share of pixels that are true: (TP + FN) / all. `None` without pixels.
    pub fn prevalence(&self) -> Option<f64> {
        let [tp, fp, fn_, tn] = self.as_f64();
        ratio(tp + fn_, tp + fp + fn_ + tn)
    }

    /// The share of predicted pixels that are true: TP / (TP + FP). `None` if nothing is predicted.
    pub fn precision(&self) -> Option<f64> {
        let [tp, fp, _, _] = self.as_f64();
        ratio(tp, tp + fp)
    }

    /// The share of true pixels that are predicted (sensitivity): TP / (TP + FN). `None` if nothing is true.
    pub fn recall(&self) -> Option<f64> {
        let [tp, _, fn_, _] = self.as_f64();
        ratio(tp, tp + fn_)
    }

    /// The share of pixels not true that are not predicted: TN / (TN + FP). `None` if all pixels are true.
    pub fn specificity(&self) -> Option<f64> {
        let [_, fp, _, tn] = self.as_f64();
        ratio(tn, tn + fp)
    }

    /// The weighted harmonic mean of precision and recall, recall weighing `beta` times as much:
    /// (1 + β²) TP / ((1 + β²) TP + β² FN + FP).
    ///
    /// β = 1 is the Dice coefficient; β = 0.5 favours precision. `None` if nothing is predicted or true (for
    /// β = 0, the precision: if nothing is predicted). Where only one of precision and recall is `None`, this
    /// is 0.
    ///
    /// # Panics
    ///
    /// If `beta` is negative, infinite or NaN.
    pub fn f_beta(&self, beta: f64) -> Option<f64> {
        assert!(beta >= 0.0 && beta.is_finite(), "beta must be a finite number of 0 or more, not {beta}");
        let [tp, fp, fn_, _] = self.as_f64();
        let hits = (1.0 + beta * beta) * tp;
        ratio(hits, hits + beta * beta * fn_ + fp)
    }

    /// Intersection over union of predicted and true pixels (Jaccard index): TP / (TP + FP + FN). `None` if
    /// nothing is predicted or true.
    pub fn iou(&self) -> Option<f64> {
        let [tp, fp, fn_, _] = self.as_f64();
        ratio(tp, tp + fp + fn_)
    }

    /// The share of pixels predicted as they are: (TP + TN) / all. `None` without pixels. Says little where
    /// few pixels are true: compare with 1 − prevalence.
    pub fn accuracy(&self) -> Option<f64> {
        let [tp, fp, fn_, tn] = self.as_f64();
        ratio(tp + tn, tp + fp + fn_ + tn)
    }

    /// Matthews' correlation coefficient of prediction and truth, from −1 to 1:
    /// (TP·TN − FP·FN) / √((TP+FP)(TP+FN)(TN+FP)(TN+FN)).
    ///
    /// `None` if either map is all positive or all negative. The numerator is exact, so the result is good to
    /// a few units in the last place for counts of any size.
    pub fn mcc(&self) -> Option<f64> {
        let [tp, fp, fn_, tn] =
            [self.true_positives, self.false_positives, self.false_negatives, self.true_negatives]
                .map(u128::from);
        // Products of two u64 fit u128; the product of the four sums, below 2^260, fits f64.
        let (agreement, disagreement) = (tp * tn, fp * fn_);
        let numerator = agreement.abs_diff(disagreement) as f64;
        // In this order, swapping the maps or the classes gives the same bits.
        let predicted = (tp + fp) as f64 * (tn + fn_) as f64;
        let truth = (tp + fn_) as f64 * (tn + fp) as f64;
        let denominator = (predicted * truth).sqrt();
        ratio(if agreement < disagreement { -numerator } else { numerator }, denominator)
    }

    /// The usual scores together, for a report.
    pub fn scores(&self, threshold: Option<f64>) -> Scores {
        Scores::new(self, threshold)
    }

    fn as_f64(&self) -> [f64; 4] {
        [self.true_positives, self.false_positives, self.false_negatives, self.true_negatives]
            .map(|count| count as f64)
    }
}

impl AddAssign for Confusion {
    /// Adds the counts; at the limit of `u64` (150 billion tiles of 10 m pixels) they stay there.
    fn add_assign(&mut self, other: Self) {
        self.true_positives = self.true_positives.saturating_add(other.true_positives);
        self.false_positives = self.false_positives.saturating_add(other.false_positives);
        self.false_negatives = self.false_negatives.saturating_add(other.false_negatives);
        self.true_negatives = self.true_negatives.saturating_add(other.true_negatives);
    }
}

impl Sum for Confusion {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::new(), |mut sum, counts| {
            sum += counts;
            sum
        })
    }
}

pub(crate) fn check_shapes(
    expected: (usize, usize),
    truth: ArrayView2<'_, bool>,
    valid: Option<ArrayView2<'_, bool>>,
) -> Result<()> {
    let mut others = vec![("truth", truth.dim())];
    others.extend(valid.map(|valid| ("valid", valid.dim())));
    match others.into_iter().find(|&(_, found)| found != expected) {
        Some((name, found)) => Err(Error::ShapeMismatch { name, found, expected }),
        None => Ok(()),
    }
}

fn ratio(numerator: f64, denominator: f64) -> Option<f64> {
    (denominator != 0.0).then(|| numerator / denominator)
}
