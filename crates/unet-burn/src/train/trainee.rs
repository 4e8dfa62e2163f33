//! The network and its loss, as burn's loop wants them.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::activation::sigmoid;
use burn::tensor::{ExecutionError, Tensor};
use burn::train::metric::{Adaptor, LossInput};
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};

use super::score::ScoreInput;
use crate::{Loss, PatchBatch, UNet};

#[derive(Module, Debug)]
pub(super) struct Trainee {
    pub(super) unet: UNet,
    #[module(skip)]
    pub(super) loss: Loss,
}

impl Trainee {
    /// Logits and one loss for each patch.
    fn forward(&self, batch: PatchBatch) -> (Tensor<4>, Tensor<1>) {
        let logits = self.unet.forward(batch.images).expect("the loader gives patches that fit");
        let losses = self.loss.forward(logits.clone(), batch.truth, batch.valid);
        (logits, losses)
    }
}

impl TrainStep for Trainee {
    type Input = PatchBatch;
    type Output = Losses;

    fn step(&self, batch: PatchBatch) -> TrainOutput<Losses> {
        let share = batch.share;
        let (_, losses) = self.forward(batch);
        let gradients = (losses.clone().mean() * share).backward();
        TrainOutput::new(self, gradients, Losses(losses))
    }
}

impl InferenceStep for Trainee {
    type Input = PatchBatch;
    type Output = Validation;

    fn step(&self, batch: PatchBatch) -> Validation {
        let labels = batch.labels.clone();
        let (logits, losses) = self.forward(batch);
        Validation { losses: Losses(losses), probabilities: sigmoid(logits), labels }
    }
}

/// One loss for each patch of a batch.
pub(super) struct Losses(Tensor<1>);

impl Adaptor<LossInput> for Losses {
    fn adapt(&self) -> LossInput {
        LossInput::new(self.0.clone())
    }
}

impl ItemLazy for Losses {
    fn sync(self) -> Result<Self, ExecutionError> {
        self.0.device().flush()?;
        Ok(Self(self.0.without_autodiff()))
    }
}

/// What a validation batch gave.
pub(super) struct Validation {
    losses: Losses,
    probabilities: Tensor<4>,
    labels: Arc<Vec<u8>>,
}

impl Adaptor<LossInput> for Validation {
    fn adapt(&self) -> LossInput {
        self.losses.adapt()
    }
}

impl Adaptor<ScoreInput> for Validation {
    fn adapt(&self) -> ScoreInput {
        ScoreInput { probabilities: self.probabilities.clone(), labels: self.labels.clone() }
    }
}

impl ItemLazy for Validation {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(Self { losses: self.losses.sync()?, ..self })
    }
}
