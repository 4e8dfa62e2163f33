//! Losses of regions: Tversky, focal Tversky, Dice.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use serde::{Deserialize, Serialize};

use super::{require, sum_of_pixels, towards};
use crate::Result;

/// Sums below this count as no pixel at all; its square is still a normal number in `f32`.
const NOTHING: f64 = 1e-18;
/// Lowest base of a power: below it the gradient is 0 rather than beyond `f32`.
const LOWEST_BASE: f64 = 1e-30;

/// Tversky loss on logits, `(1 − TI)^exponent`.
///
/// The Tversky index compares the predicted region with the true one by sums of probabilities `p` over the valid
/// pixels of an image:
///
/// `TI = (TP + smooth) / (TP + fp_weight·FP + fn_weight·FN + smooth)`,
/// `TP = Σ p` where the truth is 1, `FN = Σ (1 − p)` there, `FP = Σ p` where it is 0.
///
/// The papers give their weights opposite letters: Salehi's α and Abraham's β weigh false positives. Each image has
/// its own sums, unlike in Abraham's program, which adds up the batch: so the loss of an image does not depend
/// on its company, and accumulated gradients equal those of a large batch.
///
/// Without smoothing, an image without any positive pixel has TI = 0, whatever is predicted, and teaches nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TverskyLoss {
    /// Weight of false positives, 0 or more.
    pub fp_weight: f64,
    /// Weight of false negatives, 0 or more.
    pub fn_weight: f64,
    /// Power of the loss, above 0: 1 is the plain Tversky loss, other values the focal one.
    pub exponent: f64,
    /// Pixels added to the overlap and to the union, 0 or more.
    pub smooth: f64,
}

impl TverskyLoss {
    /// The best of Salehi et al. 2017 (arXiv:1706.05721): 0.3 and 0.7, no power, no smoothing.
    #[must_use]
    pub fn salehi2017() -> Self {
        Self { fp_weight: 0.3, fn_weight: 0.7, exponent: 1.0, smooth: 0.0 }
    }

    /// The focal Tversky loss of Abraham and Khan 2018 (arXiv:1810.07842), as their program has it: 0.3 and 0.7,
    /// power 3/4 (their 1/γ), one pixel of smoothing.
    #[must_use]
    pub fn abraham2018() -> Self {
        Self { exponent: 0.75, smooth: 1.0, ..Self::salehi2017() }
    }

    /// The Dice loss, `1 − (2·TP + 1) / (Σ p + Σ truth + 1)` (Milletari et al. 2016, arXiv:1606.04797, without
    /// their squares): both weights a half.
    #[must_use]
    pub fn dice() -> Self {
        Self { fp_weight: 0.5, fn_weight: 0.5, exponent: 1.0, smooth: 0.5 }
    }

    /// Loss of each image; arguments as in [`Loss::forward`](super::Loss::forward).
    ///
    /// `1 − TI` comes from the wrong pixels directly, `W/(TP + W + smooth)` with
    /// `W = fp_weight·FP + fn_weight·FN`, and `1 − p` from `σ(−s)`: no digits are lost in a difference, and
    /// the gradient of a power below 1 stays finite where the prediction is perfect.
    #[must_use]
    pub fn forward(&self, logits: Tensor<4>, truth: Tensor<4>, valid: Tensor<4>) -> Tensor<1> {
        let z = towards(logits, &truth); // [batch, 1, height, width]
        let weight = truth.clone() * (self.fn_weight - self.fp_weight) + self.fp_weight;
        let wrong = sum_of_pixels(sigmoid(-z.clone()) * weight * valid.clone()); // [batch]
        let hit = sum_of_pixels(sigmoid(z) * truth * valid.clone());
        let union = hit + wrong.clone() + self.smooth;
        let nothing = union.clone().lower_elem(NOTHING);
        let loss = wrong / union.mask_fill(nothing, 1.0);
        if self.exponent == 1.0 {
            return loss;
        }
        let any_valid = sum_of_pixels(valid).clamp_max(1.0);
        loss.clamp_min(LOWEST_BASE).powf_scalar(self.exponent) * any_valid
    }

    pub(super) fn check(&self) -> Result<()> {
        let or_more = [("fp_weight", self.fp_weight), ("fn_weight", self.fn_weight), ("smooth", self.smooth)];
        for (field, value) in or_more {
            require(field, value, value >= 0.0 && value.is_finite(), "it has to be 0 or more")?;
        }
        let weights = self.fp_weight + self.fn_weight;
        require("fp_weight + fn_weight", weights, weights > 0.0, "one of them has to be above 0")?;
        let exponent = self.exponent;
        require("exponent", exponent, exponent > 0.0 && exponent.is_finite(), "it has to be above 0")
    }
}
