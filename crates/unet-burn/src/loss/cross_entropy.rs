//! Binary cross-entropy, the likelihood's own loss.

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;
use serde::{Deserialize, Serialize};

use super::{mean_of_valid, require, towards};
use crate::Result;

/// Binary cross-entropy on logits, `−w ln σ(s)` where the truth is 1 and `−ln σ(−s)` where it is 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CrossEntropyLoss {
    /// Weight of the positive class, above 0 (PyTorch: `pos_weight`).
    pub positive_weight: f64,
}

impl Default for CrossEntropyLoss {
    /// Both classes weigh the same.
    fn default() -> Self {
        Self { positive_weight: 1.0 }
    }
}

impl CrossEntropyLoss {
    /// Mean loss of each image over its valid pixels; arguments as in [`Loss::forward`](super::Loss::forward).
    #[must_use]
    pub fn forward(&self, logits: Tensor<4>, truth: Tensor<4>, valid: Tensor<4>) -> Tensor<1> {
        let log_p = log_sigmoid(towards(logits, &truth)); // [batch, 1, height, width]
        let weight = truth * (self.positive_weight - 1.0) + 1.0;
        mean_of_valid(-(weight * log_p), valid)
    }

    pub(super) fn check(&self) -> Result<()> {
        let weight = self.positive_weight;
        require("positive_weight", weight, weight > 0.0 && weight.is_finite(), "it has to be above 0")
    }
}
