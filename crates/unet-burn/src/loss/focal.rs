//! Focal loss for binary maps (Lin et al. 2017, arXiv:1708.02002, equation 5).

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;
use serde::{Deserialize, Serialize};

use super::{mean_of_valid, require, towards};
use crate::Result;

/// Focal loss on logits, `−α_t (1 − p_t)^γ ln p_t`.
///
/// `p_t` is the probability given to the true class, `α_t` is `alpha` where the truth is 1 and `1 − alpha`
/// where it is 0. `gamma = 0` and `alpha = 0.5` is half the binary cross-entropy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FocalLoss {
    /// Weight of the positive class, in `[0, 1]`.
    pub alpha: f64,
    /// How much well classified pixels are discounted, 0 or more.
    pub gamma: f64,
}

impl Default for FocalLoss {
    /// The paper's values: α = 0.25, γ = 2.
    fn default() -> Self {
        Self { alpha: 0.25, gamma: 2.0 }
    }
}

impl FocalLoss {
    /// Mean loss of each image over its valid pixels.
    ///
    /// With `z = (2·truth − 1)·logit`, `ln p_t = ln σ(z)` and `1 − p_t = σ(−z)`: all of it is made from
    /// `ln σ`, which neither overflows nor loses digits for any logit.
    ///
    /// # Shapes
    ///
    /// - `logits`, `truth` (0 or 1), `valid` (1, or 0 for pixels to ignore): `[batch, 1, height, width]`
    /// - output: `[batch]`; 0 for an image without any valid pixel
    #[must_use]
    pub fn forward(&self, logits: Tensor<4>, truth: Tensor<4>, valid: Tensor<4>) -> Tensor<1> {
        let z = towards(logits, &truth); // [batch, 1, height, width]
        let log_p = log_sigmoid(z.clone());
        let discount = (log_sigmoid(-z) * self.gamma).exp();
        let alpha = truth * (2.0 * self.alpha - 1.0) + (1.0 - self.alpha);
        mean_of_valid(-(alpha * discount * log_p), valid)
    }

    pub(super) fn check(&self) -> Result<()> {
        require("alpha", self.alpha, (0.0..=1.0).contains(&self.alpha), "it has to be in [0, 1]")?;
        require("gamma", self.gamma, self.gamma >= 0.0 && self.gamma.is_finite(), "it has to be 0 or more")
    }
}
