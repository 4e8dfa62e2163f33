#![doc = include_str!("../README.md")]
mod boxes;
mod codestream;
mod coding;
mod context;
mod error;
#[cfg(feature = "hayro")]
mod fallback;
mod image;
mod limits;
mod mq;
mod packet;
mod rect;
mod sample;
mod source;
mod tier1;
mod tile;
mod wavelet;
mod window;

pub use error::{Error, Result};
pub use image::{Component, Image, Region};
pub use limits::Limits;
pub use sample::Sample;
pub use source::Source;
pub use window::Window;
