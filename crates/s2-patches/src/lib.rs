#![doc = include_str!("../README.md")]

mod augment;
mod error;
mod extract;
mod geometry;
mod plan;
mod split;
mod stitch;
mod window;

pub use augment::Dihedral;
pub use error::{Error, Result};
pub use extract::{extract, footprint, mirror};
pub use geometry::Geometry;
pub use ndarray;
pub use plan::{PatchWindow, WindowPlan};
pub use split::{Split, check_split};
pub use stitch::stitch;
pub use window::Window;
