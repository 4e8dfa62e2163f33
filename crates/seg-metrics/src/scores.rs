//! The scores of one evaluation, as they are written to reports.

use crate::Confusion;
use serde::{Deserialize, Serialize};

/// The usual scores of a binary map together with what they were measured on.
///
/// Each score is defined by the method of [`Confusion`] of the same name, `f1` and `f05` by
/// [`f_beta`](Confusion::f_beta). `None`, in JSON `null`, stands where the denominator is zero.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Intersection over union.
    pub iou: Option<f64>,
    /// Precision.
    pub precision: Option<f64>,
    /// Recall.
    pub recall: Option<f64>,
    /// F-score with β = 1.
    pub f1: Option<f64>,
    /// F-score with β = 0.5.
    pub f05: Option<f64>,
    /// Matthews' correlation coefficient.
    pub mcc: Option<f64>,
    /// Share of pixels predicted as they are.
    pub accuracy: Option<f64>,
    /// The number of pixels counted.
    pub pixels: u64,
    /// The share of these that are true.
    pub prevalence: Option<f64>,
    /// The probability from which on a pixel counts as predicted; `None` if there was none.
    pub threshold: Option<f64>,
}

impl Scores {
    pub(crate) fn new(confusion: &Confusion, threshold: Option<f64>) -> Self {
        Self {
            iou: confusion.iou(),
            precision: confusion.precision(),
            recall: confusion.recall(),
            f1: confusion.f_beta(1.0),
            f05: confusion.f_beta(0.5),
            mcc: confusion.mcc(),
            accuracy: confusion.accuracy(),
            pixels: confusion.pixels(),
            prevalence: confusion.prevalence(),
            threshold,
        }
    }
}
