#![doc = include_str!("../README.md")]
mod block;
mod bundle;
mod config;
mod error;
mod loss;
mod patch;
mod predict;
mod train;
mod unet;
mod weights;

pub use bundle::{Bundle, Recipe, TrainingRecord};
pub use burn;
pub use config::UNetConfig;
pub use error::{Error, Result};
pub use loss::FocalLoss;
pub use ndarray;
pub use patch::{IGNORE_INDEX, Patch, PatchBatch, PatchBatcher};
pub use predict::predict;
pub use train::{Epoch, Progress, Trained, TrainingConfig, train};
pub use unet::UNet;
