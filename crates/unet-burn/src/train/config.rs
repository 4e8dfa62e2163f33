//! The settings of a training run.

use burn::grad_clipping::GradientClippingConfig;
use burn::optim::{AdamConfig, ModuleOptimizer};
use serde::{Deserialize, Serialize};

use super::{Criterion, Schedule};
use crate::{Error, Loss, Result};

/// Settings of a training run. What an older file does not name has its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainingConfig {
    /// Passes over the training set.
    pub epochs: usize,
    /// Patches that are on the device at once.
    pub batch_size: usize,
    /// Batches of a step of the optimizer; their gradients are averaged over all patches of the step.
    pub accumulation: usize,
    /// Adam's step size (paper: 1e-3).
    pub learning_rate: f64,
    /// How the step size changes from epoch to epoch.
    pub schedule: Schedule,
    /// The loss.
    pub loss: Loss,
    /// Limit of the gradients, if any.
    pub clipping: Option<Clipping>,
    /// What makes an epoch the best.
    pub criterion: Criterion,
    /// Epochs without a better one after which the run stops; `None` runs all epochs.
    pub patience: Option<usize>,
    /// Seed of the order of the patches and of dropout.
    pub seed: u64,
    /// Threads that fetch patches ahead of the device; 0 fetches in the training thread.
    pub workers: usize,
    /// Mixed precision: training computes the convolutions, and keeps the maps between them, in half precision, 16 bits: less
    /// memory and, on devices with units for it, less time. Weights, norms and the loss stay in single precision, and
    /// validation does. Each step waits for one number from the device: whether all gradients are numbers. The CPU has no units
    /// for halves: there it takes more memory and time.
    pub mixed_precision: bool,
}

impl Default for TrainingConfig {
    fn default() -> Self {
        Self {
            epochs: 30,
            batch_size: 4,
            accumulation: 1,
            learning_rate: 1e-3,
            schedule: Schedule::default(),
            loss: Loss::default(),
            clipping: None,
            criterion: Criterion::default(),
            patience: None,
            seed: 0,
            workers: 1,
            mixed_precision: false,
        }
    }
}

/// A limit of the gradients, applied to the weights and biases of each layer by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clipping {
    /// A longer gradient is shortened to this Euclidean norm.
    Norm(f64),
    /// Each component is cut off at plus and minus this value.
    Value(f64),
}

impl TrainingConfig {
    /// Refuses impossible settings, as [`train`](crate::train) does before anything else.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] with the first that is impossible.
    pub fn check(&self) -> Result<()> {
        let clipping = self.clipping.map_or(1.0, |(Clipping::Norm(limit) | Clipping::Value(limit))| limit);
        let positive = |value: f64| value > 0.0 && value.is_finite();
        let (one, more) = ("it has to be 1 or more", "it has to be positive");
        let rules = [
            ("epochs", self.epochs.to_string(), self.epochs > 0, one),
            ("batch_size", self.batch_size.to_string(), self.batch_size > 0, one),
            ("accumulation", self.accumulation.to_string(), self.accumulation > 0, one),
            ("patience", self.patience.unwrap_or(1).to_string(), self.patience != Some(0), one),
            ("learning_rate", self.learning_rate.to_string(), positive(self.learning_rate), more),
            ("clipping", clipping.to_string(), positive(clipping), more),
        ];
        for (field, value, holds, requirement) in rules {
            if !holds {
                return Err(Error::InvalidConfig { field, value, requirement });
            }
        }
        self.loss.check()?;
        self.schedule.check()?;
        self.criterion.check()
    }

    /// Adam with Keras' ε of 1e-7.
    pub(super) fn optimizer(&self) -> ModuleOptimizer {
        #[expect(clippy::cast_possible_truncation, reason = "burn limits gradients in f32")]
        let clipping = self.clipping.map(|clipping| match clipping {
            Clipping::Norm(limit) => GradientClippingConfig::Norm(limit as f32),
            Clipping::Value(limit) => GradientClippingConfig::Value(limit as f32),
        });
        AdamConfig::new().with_epsilon(1e-7).with_grad_clipping(clipping).init()
    }
}
