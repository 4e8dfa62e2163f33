#![doc = include_str!("../README.md")]
mod band;
mod checksum;
mod error;
mod geotiff;
mod grid;
mod jp2;
#[cfg(feature = "net")]
pub mod net;
mod product;
mod raster;
#[cfg(feature = "net")]
mod remote;
mod safe;
#[cfg(any(target_os = "linux", target_os = "macos"))]
pub mod sen2cor;
pub mod stage;
mod store;
mod xml;

pub use band::Band;
pub use checksum::{Algorithm, Checksum, Hasher};
pub use error::{Error, Result};
pub use geotiff::{CogCompression, CogOptions, CogWriter, GeoTiff, Overviews, Sample, SampleType, write_cog};
pub use grid::Grid;
pub use jp2::{read_jp2, read_jp2_window};
pub use ndarray;
pub use product::{Baseline, Level, ProductName};
pub use raster::Raster;
#[cfg(feature = "net")]
pub use remote::RemoteFile;
pub use s2_jp2::{Source, Window};
pub use safe::{Layer, Product, UnpackLimits, Verified, unpack, unpack_with_limits, unpacked_bytes, verify};
pub use store::write_atomic;
