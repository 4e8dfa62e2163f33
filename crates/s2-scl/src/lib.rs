#![doc = include_str!("../README.md")]

mod class;
mod error;
mod mask;
mod one_hot;
mod resample;
mod set;

pub use class::SceneClass;
pub use error::{Error, Result};
pub use mask::{counts, mask};
pub use ndarray;
pub use one_hot::{one_hot, one_hot_into};
pub use resample::upsample_nearest;
pub use set::ClassSet;
