//! The network and its loss, as burn's loop wants them.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::activation::sigmoid;
use burn::tensor::{ExecutionError, FloatDType, Tensor};
use burn::train::metric::{Adaptor, LossInput};
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};

use super::mixed;
use super::score::ScoreInput;
use crate::{Loss, PatchBatch, UNet};

#[derive(Module, Debug)]
pub(super) struct Trainee {
    pub(super) unet: UNet,
    #[module(skip)]
    pub(super) loss: Loss,
    #[module(skip)]
    pub(super) mixed_precision: bool,
}

impl Trainee {
    /// Logits by maps of a type.
    fn logits(&self, batch: &PatchBatch, maps: FloatDType) -> Tensor<4> {
        let images = batch.images.clone().cast(maps);
        self.unet.forward(images).expect("the loader gives patches that fit").cast(FloatDType::F32)
    }

    /// One loss for each patch.
    fn losses(&self, batch: &PatchBatch, logits: Tensor<4>) -> Tensor<1> {
        self.loss.forward(logits, batch.truth.clone(), batch.valid.clone())
    }
}

impl TrainStep for Trainee {
    type Input = PatchBatch;
    type Output = Losses;

    fn step(&self, batch: PatchBatch) -> TrainOutput<Losses> {
        let backward = |losses: Tensor<1>| (losses.mean() * batch.share).backward();
        if !self.mixed_precision {
            let losses = self.losses(&batch, self.logits(&batch, FloatDType::F32));
            return TrainOutput::new(self, backward(losses.clone()), Losses(losses));
        }
        let mut losses = None;
        let grads = mixed::gradients(
            self,
            || self.logits(&batch, FloatDType::F16),
            |logits| {
                let logits = logits.detach().require_grad();
                let found = self.losses(&batch, logits.clone());
                let gradient = logits.grad(&backward(found.clone()));
                losses = Some(found);
                gradient.expect("the loss is one of the logits")
            },
        );
        TrainOutput { grads, item: Losses(losses.expect("computed above")) }
    }
}

impl InferenceStep for Trainee {
    type Input = PatchBatch;
    type Output = Validation;

    fn step(&self, batch: PatchBatch) -> Validation {
        let logits = self.logits(&batch, FloatDType::F32);
        let losses = Losses(self.losses(&batch, logits.clone()));
        Validation { losses, probabilities: sigmoid(logits), labels: batch.labels }
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
