//! What training makes small: losses of binary maps, on logits, with pixels to ignore.

mod cross_entropy;
mod focal;
mod tversky;

use burn::tensor::Tensor;
pub use cross_entropy::CrossEntropyLoss;
pub use focal::FocalLoss;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
pub use tversky::TverskyLoss;

use crate::{Error, Result};

/// A loss of binary maps (one logit a pixel), as a setting: `{"focal": {"alpha": 0.25, "gamma": 2.0}}` in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all = "snake_case")]
pub enum Loss {
    /// Lin et al. 2017.
    Focal(FocalLoss),
    /// Binary cross-entropy, weighted.
    CrossEntropy(CrossEntropyLoss),
    /// Tversky, focal Tversky and Dice.
    Tversky(TverskyLoss),
    /// A sum of losses, each with its weight.
    Sum(Vec<(f64, Self)>),
}

impl Default for Loss {
    /// The focal loss of the paper.
    fn default() -> Self {
        Self::Focal(FocalLoss::default())
    }
}

impl Loss {
    /// Loss of each image.
    ///
    /// Finite, with a finite gradient, for any finite logits. The loss of a batch is the mean of its images.
    ///
    /// # Shapes
    ///
    /// - `logits`, `truth` (0 or 1), `valid` (1, or 0 for pixels to ignore): `[batch, 1, height, width]`
    /// - output: `[batch]`; 0, and without gradient, for an image without any valid pixel
    #[must_use]
    pub fn forward(&self, logits: Tensor<4>, truth: Tensor<4>, valid: Tensor<4>) -> Tensor<1> {
        match self {
            Self::Focal(loss) => loss.forward(logits, truth, valid),
            Self::CrossEntropy(loss) => loss.forward(logits, truth, valid),
            Self::Tversky(loss) => loss.forward(logits, truth, valid),
            Self::Sum(losses) => {
                let zero = Tensor::zeros([logits.dims()[0]], &logits.device());
                losses.iter().fold(zero, |sum, (weight, loss)| {
                    sum + loss.forward(logits.clone(), truth.clone(), valid.clone()) * *weight
                })
            }
        }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a number outside the range that its field states, and for a sum of nothing.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Focal(loss) => loss.check(),
            Self::CrossEntropy(loss) => loss.check(),
            Self::Tversky(loss) => loss.check(),
            Self::Sum(losses) => {
                let terms = losses.len();
                require("number of losses in a sum", terms as f64, terms > 0, "it has to be 1 or more")?;
                losses.iter().try_for_each(|(weight, loss)| {
                    let holds = *weight >= 0.0 && weight.is_finite();
                    require("weight of a loss in a sum", *weight, holds, "it has to be 0 or more")?;
                    loss.check()
                })
            }
        }
    }
}

impl From<FocalLoss> for Loss {
    fn from(loss: FocalLoss) -> Self {
        Self::Focal(loss)
    }
}

impl From<CrossEntropyLoss> for Loss {
    fn from(loss: CrossEntropyLoss) -> Self {
        Self::CrossEntropy(loss)
    }
}

impl From<TverskyLoss> for Loss {
    fn from(loss: TverskyLoss) -> Self {
        Self::Tversky(loss)
    }
}

impl Serialize for Loss {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Loss {
    /// A bare `{"alpha": …, "gamma": …}` is a focal loss: the only one that the first bundles knew.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut value = serde_json::Value::deserialize(deserializer)?;
        if value.get("alpha").is_some() {
            value = serde_json::json!({ "focal": value });
        }
        Self::deserialize(value).map_err(serde::de::Error::custom)
    }
}

/// The logit of the true class, `(2·truth − 1)·logit`: `σ` of it is the probability given to the truth, `σ` of its
/// negative the probability missed. Neither comes from a difference.
fn towards(logits: Tensor<4>, truth: &Tensor<4>) -> Tensor<4> {
    logits * (truth.clone() * 2.0 - 1.0)
}

/// `[batch, 1, height, width]` → `[batch]`.
fn sum_of_pixels(map: Tensor<4>) -> Tensor<1> {
    let [batch, channels, height, width] = map.dims();
    map.reshape([batch, channels * height * width]).sum_dim(1).reshape([batch])
}

/// Mean of each image over its valid pixels; 0 if it has none. `[batch, 1, height, width]` → `[batch]`.
fn mean_of_valid(losses: Tensor<4>, valid: Tensor<4>) -> Tensor<1> {
    let counts = sum_of_pixels(valid.clone()).clamp_min(1.0);
    sum_of_pixels(losses * valid) / counts
}

fn require(field: &'static str, value: f64, holds: bool, requirement: &'static str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::InvalidConfig { field, value: value.to_string(), requirement }) }
}
