//! Focal loss for binary maps (Lin et al. 2017, arXiv:1708.02002, equation 5).

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;
use serde::{Deserialize, Serialize};

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
        let [batch, _, height, width] = logits.dims();
        let z = logits * (truth.clone() * 2.0 - 1.0); // [batch, 1, height, width]
        let log_p = log_sigmoid(z.clone());
        let discount = (log_sigmoid(-z) * self.gamma).exp();
        let alpha = truth * (2.0 * self.alpha - 1.0) + (1.0 - self.alpha);
        let losses = -(alpha * discount * log_p) * valid.clone();
        let sums = losses.reshape([batch, height * width]).sum_dim(1); // [batch, 1]
        let counts = valid.reshape([batch, height * width]).sum_dim(1).clamp_min(1.0);
        (sums / counts).reshape([batch])
    }
}
