//! What can go wrong.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Why statistics could not be made, read or written, or a scene could not be scaled.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Two arrays that belong together differ in shape.
    #[error("{what} has shape {found:?}, expected {expected:?} (row, column) as the band")]
    Shape {
        /// The array that does not fit.
        what: &'static str,
        /// The shape that is needed.
        expected: (usize, usize),
        /// The shape that was given.
        found: (usize, usize),
    },
    /// A band has no pixel to take percentiles from.
    #[error("band {band} has no valid pixel, all are nodata or excluded (cloud): choose another image")]
    NoValidPixel {
        /// The band.
        band: String,
    },
    /// Low and high percentile of a band are equal, so it cannot be scaled.
    #[error(
        "band {band} is constant: the percentiles {low_percent} and {high_percent} of its {count} valid pixels are both {value} (DN plus offset); leave the band out or choose another image"
    )]
    Constant {
        /// The band.
        band: String,
        /// The lower percent.
        low_percent: f64,
        /// The upper percent.
        high_percent: f64,
        /// Pixels used.
        count: u64,
        /// The value of both percentiles, DN plus offset.
        value: f64,
    },
    /// The quantification value of a band is zero.
    #[error(
        "the quantification value of band {band} is 0: read it from the product metadata (usually 10000)"
    )]
    Quantification {
        /// The band.
        band: String,
    },
    /// The percents of a definition are not `0 <= low < high <= 100`.
    #[error("percents {low_percent} and {high_percent} are not in order between 0 and 100")]
    Percents {
        /// The lower percent.
        low_percent: f64,
        /// The upper percent.
        high_percent: f64,
    },
    /// A statistics file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why the operating system refused.
        source: std::io::Error,
    },
    /// A statistics file could not be written. No part of it is left.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why the operating system refused.
        source: std::io::Error,
    },
    /// A file is not a statistics file.
    #[error("{} is not a statistics file", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A statistics file has a format version that this crate does not know.
    #[error(
        "{} has format version {found}, this program knows version {supported}: make the file again or use a newer program",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u64,
        /// The version that is known.
        supported: u32,
    },
    /// The values in a statistics file cannot be used.
    #[error("{} holds values that cannot be used: make the file again", path.display())]
    Values {
        /// The file.
        path: PathBuf,
        /// Which value and why.
        source: Box<Self>,
    },
    /// The scaling bounds of a band are not two finite numbers in order.
    #[error("bounds of band {band} are not in order: low {low}, high {high}")]
    Bounds {
        /// The band.
        band: String,
        /// The lower bound, reflectance.
        low: f64,
        /// The upper bound, reflectance.
        high: f64,
    },
    /// A statistics file names another value than 0 for nodata.
    #[error("nodata is {nodata}, but in Sentinel-2 products it is 0")]
    Nodata {
        /// The value.
        nodata: u16,
    },
}
