#![doc = include_str!("../README.md")]

mod confusion;
mod error;
mod histogram;
mod scores;

pub use confusion::Confusion;
pub use error::{Error, Result};
pub use histogram::ScoreHistogram;
pub use ndarray;
pub use scores::Scores;
