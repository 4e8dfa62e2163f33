//! What makes one epoch better than another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The quantity on the validation set by which the best epoch is chosen.
///
/// F-beta, IoU and MCC are taken at the threshold where they are highest, as they will be used; precision and
/// recall, which some threshold always makes perfect, at 0.5. All pixels of the set count together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Criterion {
    /// The loss, the lower the better.
    Loss,
    /// `(1 + β²) TP / ((1 + β²) TP + β² FN + FP)`; β below 1 weighs precision more.
    FBeta(f64),
    /// Intersection over union, `TP / (TP + FP + FN)`.
    Iou,
    /// Matthews' correlation coefficient.
    Mcc,
    /// `TP / (TP + FP)` at the threshold 0.5.
    Precision,
    /// `TP / (TP + FN)` at the threshold 0.5.
    Recall,
}

impl Default for Criterion {
    /// F0.5, the paper's.
    fn default() -> Self {
        Self::FBeta(0.5)
    }
}

impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loss => f.write_str("loss"),
            Self::FBeta(beta) => write!(f, "F{beta}"),
            Self::Iou => f.write_str("IoU"),
            Self::Mcc => f.write_str("MCC"),
            Self::Precision => f.write_str("precision"),
            Self::Recall => f.write_str("recall"),
        }
    }
}

impl FromStr for Criterion {
    type Err = String;

    /// Reads the names as [`Display`](fmt::Display) writes them, in either case: `loss`, `f0.5`, `iou`, …
    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let lower = name.to_ascii_lowercase();
        let unknown =
            || format!("{name} is no criterion: name loss, f0.5, f1, f2, iou, mcc, precision or recall");
        let criterion = match lower.as_str() {
            "loss" => Self::Loss,
            "iou" => Self::Iou,
            "mcc" => Self::Mcc,
            "precision" => Self::Precision,
            "recall" => Self::Recall,
            other => {
                Self::FBeta(other.strip_prefix('f').and_then(|beta| beta.parse().ok()).ok_or_else(unknown)?)
            }
        };
        criterion.check().map_err(|error| error.to_string())?;
        Ok(criterion)
    }
}

impl Criterion {
    pub(super) fn check(&self) -> Result<()> {
        match *self {
            Self::FBeta(beta) if !(beta > 0.0 && beta.is_finite()) => {
                let requirement = "it has to be positive";
                Err(Error::InvalidConfig { field: "beta", value: beta.to_string(), requirement })
            }
            _ => Ok(()),
        }
    }

    /// The criterion that a threshold is chosen by: this one, if some threshold is its best, and else F0.5, the paper's.
    #[must_use]
    pub fn of_threshold(self) -> Self {
        match self {
            Self::FBeta(_) | Self::Iou | Self::Mcc => self,
            Self::Loss | Self::Precision | Self::Recall => Self::default(),
        }
    }

    /// The score by counts of pixels, by the formulas above; `None` where the denominator is zero, and for the loss. Ignored
    /// pixels are in none of the counts.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of pixels are far below 2^52")]
    pub fn score(
        &self,
        true_positives: u64,
        false_positives: u64,
        false_negatives: u64,
        true_negatives: u64,
    ) -> Option<f64> {
        let counts = [true_positives, false_positives, false_negatives, true_negatives];
        let [tp, fp, fn_, tn] = counts.map(|count| count as f64);
        let (score, whole) = match *self {
            Self::Loss => return None,
            Self::FBeta(beta) => {
                let square = beta * beta;
                ((1.0 + square) * tp, (1.0 + square) * tp + square * fn_ + fp)
            }
            Self::Iou => (tp, tp + fp + fn_),
            Self::Mcc => {
                let root = ((tp + fp) * (tp + fn_)).sqrt() * ((tn + fp) * (tn + fn_)).sqrt();
                (tp * tn - fp * fn_, root)
            }
            Self::Precision => (tp, tp + fp),
            Self::Recall => (tp, tp + fn_),
        };
        (whole > 0.0).then(|| score / whole)
    }

    /// The threshold that the score is taken at, if it is not the best one.
    pub(super) fn fixed_threshold(&self) -> Option<usize> {
        matches!(self, Self::Precision | Self::Recall).then_some(super::score::STEPS / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["loss", "F0.5", "F1", "F2", "IoU", "MCC", "precision", "recall"] {
            assert_eq!(name.parse::<Criterion>().unwrap().to_string(), name);
            assert_eq!(name.to_lowercase().parse::<Criterion>().unwrap().to_string(), name);
        }
        for name in ["", "f", "f0", "f-1", "fnan", "accuracy"] {
            assert!(name.parse::<Criterion>().is_err(), "{name}");
        }
    }

    #[test]
    fn scores_equal_their_formulas_by_hand() {
        // 30 TP, 10 FP, 20 FN, 940 TN: 37.5/52.5, 60/90, 150/240, 30/60, 28000/√(40·50·950·960), 30/40, 30/50.
        let golden = [
            (Criterion::FBeta(0.5), 0.714_285_714_285_714_3),
            (Criterion::FBeta(1.0), 0.666_666_666_666_666_6),
            (Criterion::FBeta(2.0), 0.625),
            (Criterion::Iou, 0.5),
            (Criterion::Mcc, 0.655_610_068_107_185_8),
            (Criterion::Precision, 0.75),
            (Criterion::Recall, 0.6),
        ];
        for (criterion, golden) in golden {
            let score = criterion.score(30, 10, 20, 940).unwrap();
            assert!((score - golden).abs() < 1e-14, "{criterion}: {score} {golden}");
        }
        assert_eq!(Criterion::default().score(0, 0, 0, 5), None, "no positive at all");
        assert_eq!(Criterion::Loss.score(30, 10, 20, 940), None, "no score by counts");
    }

    #[test]
    fn a_threshold_is_chosen_by_what_has_a_best_one() {
        for name in ["F0.5", "F2", "IoU", "MCC"] {
            assert_eq!(name.parse::<Criterion>().unwrap().of_threshold().to_string(), name);
        }
        for name in ["loss", "precision", "recall"] {
            assert_eq!(name.parse::<Criterion>().unwrap().of_threshold().to_string(), "F0.5", "{name}");
        }
    }
}
