#![doc = include_str!("../README.md")]
mod block;
mod bundle;
mod config;
#[cfg(feature = "flex")]
mod cpu;
mod error;
mod estimate;
mod fold;
mod loss;
mod ops;
mod patch;
mod predict;
#[cfg(feature = "flex")]
mod rows;
mod train;
mod unet;
mod weights;

pub use bundle::{Bundle, Recipe, TrainingRecord};
pub use burn;
pub use config::{Layout, Padding, UNetConfig, UpConvolution};
#[cfg(feature = "flex")]
pub use cpu::instructions as cpu_instructions;
pub use error::{Error, Result};
pub use estimate::{prediction_bytes, training_bytes};
pub use loss::{CrossEntropyLoss, FocalLoss, Loss, TverskyLoss};
pub use ndarray;
pub use patch::{Classes, IGNORE_INDEX, Image, PackedBatch, Patch, PatchBatch, Photometric, RawImage, Scale};
pub use predict::{Predictor, PredictorConfig, predict};
#[cfg(feature = "flex")]
pub use rows::RowPredictor;
pub use train::{
    Checkpoints, Clipping, Criterion, Epoch, Execution, PatchSet, Progress, Schedule, Trained,
    TrainingConfig, history_csv, train,
};
pub use unet::UNet;
