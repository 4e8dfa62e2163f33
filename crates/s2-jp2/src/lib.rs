#![doc = include_str!("../README.md")]
mod boxes;
mod codestream;
mod error;
mod image;
mod limits;
mod sample;
mod tile;
mod window;

pub use error::{Error, Result};
pub use image::{Component, Image};
pub use limits::Limits;
pub use sample::Sample;
pub use window::Window;
