//! How a cloud optimized GeoTIFF is written: tiles, overviews, what goes with them, and how they are compressed.

use std::io;

use libdeflater::CompressionLvl;

use super::overview::Overviews;

/// How the tiles of a COG are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CogCompression {
    /// Deflate, level 1 (fast) to 12 (small): every program reads it. On the noise of satellite bands 1 is even smaller
    /// than 6; masks, classes and probabilities shrink by a few percent with 6.
    Deflate(u8),
    /// Zstandard, level 1 (fast) to 22 (small): several times as fast as deflate, for programs with GDAL 2.3 or later.
    Zstd(u8),
}

impl Default for CogCompression {
    fn default() -> Self {
        Self::Deflate(1)
    }
}

/// What a thread keeps for packing.
pub(super) enum Packer {
    Deflate(libdeflater::Compressor),
    Zstd(io::Result<zstd::bulk::Compressor<'static>>),
}

impl CogCompression {
    pub(super) fn check(self) -> Result<(), String> {
        let (name, level, most) = match self {
            Self::Deflate(level) => ("deflate", level, 12),
            Self::Zstd(level) => ("zstd", level, 22),
        };
        if level == 0 || level > most {
            return Err(format!("{name} level {level} is not between 1 and {most}"));
        }
        Ok(())
    }

    pub(super) fn packer(self) -> Packer {
        match self {
            Self::Deflate(level) => {
                let level = CompressionLvl::new(i32::from(level)).unwrap_or_default();
                Packer::Deflate(libdeflater::Compressor::new(level))
            }
            Self::Zstd(level) => Packer::Zstd(zstd::bulk::Compressor::new(i32::from(level))),
        }
    }

    /// Its number in tag 259.
    pub(super) fn code(self) -> u16 {
        match self {
            Self::Deflate(_) => 8,
            Self::Zstd(_) => 50000,
        }
    }
}

impl Packer {
    pub(super) fn pack(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Deflate(deflate) => {
                let mut packed = vec![0; deflate.zlib_compress_bound(bytes.len())];
                let length = deflate.zlib_compress(bytes, &mut packed).map_err(io::Error::other)?;
                packed.truncate(length);
                Ok(packed)
            }
            Self::Zstd(Ok(zstd)) => zstd.compress(bytes),
            Self::Zstd(Err(error)) => Err(io::Error::other(error.to_string())),
        }
    }
}

/// How to write a cloud optimized GeoTIFF.
///
/// # Examples
///
/// ```
/// use s2_io::{CogOptions, Overviews};
///
/// let options = CogOptions { overviews: Overviews::Mode, nodata: Some(255.0), ..CogOptions::default() };
/// assert_eq!(options.block_size, 512);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct CogOptions {
    /// Rows and columns of a tile, a multiple of 16. 512 is what GDAL's COG driver takes.
    pub block_size: usize,
    /// How overviews are made; they halve the raster until it fits into one tile.
    pub overviews: Overviews,
    /// The sample value that means "no data".
    pub nodata: Option<f64>,
    /// A name for each band; empty for none at all.
    pub band_names: Vec<String>,
    /// Scale and offset of each band (`physical = sample * scale + offset`); empty for none at all.
    pub scale_offset: Vec<(f64, f64)>,
    /// Metadata items of the dataset.
    pub metadata: Vec<(String, String)>,
    /// Red, green and blue of the samples 0, 1, … of a raster with one `u8` band. Samples beyond the list are
    /// black; programs show nodata as transparent.
    pub colors: Option<Vec<[u8; 3]>>,
    /// Deflate, level 1, if not said otherwise.
    pub compression: CogCompression,
}

impl Default for CogOptions {
    fn default() -> Self {
        Self {
            block_size: 512,
            overviews: Overviews::default(),
            nodata: None,
            band_names: Vec::new(),
            scale_offset: Vec::new(),
            metadata: Vec::new(),
            colors: None,
            compression: CogCompression::default(),
        }
    }
}
