#![doc = include_str!("../README.md")]

mod error;
mod histogram;
mod radiometry;
mod resample;
mod scale;
mod statistics;

pub use error::{Error, Result};
pub use histogram::Histogram;
pub use ndarray;
pub use radiometry::Radiometry;
pub use resample::upsample_bilinear;
pub use statistics::{BandStatistics, Definition, Method, Statistics};
