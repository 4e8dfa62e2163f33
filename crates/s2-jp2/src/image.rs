//! An image: its headers, and the decoding of its tiles in threads.

use std::fmt;

use rayon::prelude::*;

use crate::boxes::Boxes;
use crate::codestream::Codestream;
use crate::{Error, Limits, Result, Sample, Window, tile};

/// What the samples of a component are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Component {
    /// Bits of a sample: 15 for bands of Sentinel-2, 8 for its scene classification.
    pub bits: u8,
    /// Whether samples have a sign. Such components cannot be decoded.
    pub signed: bool,
}

/// The parsed headers of a JP2 file or raw codestream.
pub struct Image<'a> {
    codestream: Codestream<'a>,
    gml: Option<&'a str>,
    geojp2: Option<&'a [u8]>,
}

impl fmt::Debug for Image<'_> {
    /// Sizes only: the data have megabytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").field("size", &self.codestream.size).finish_non_exhaustive()
    }
}

impl<'a> Image<'a> {
    /// Reads the headers of a JP2 file or raw codestream, with the default [`Limits`].
    ///
    /// All headers up to the end of the data are checked, so a truncated file is found here and not in the middle
    /// of decoding. No sample is decoded.
    ///
    /// # Errors
    ///
    /// When the data are not JPEG 2000, truncated, damaged, too large or use something unsupported.
    pub fn parse(data: &'a [u8]) -> Result<Self> {
        Self::parse_with_limits(data, &Limits::default())
    }

    /// Reads the headers of a JP2 file or raw codestream, refusing images beyond `limits`.
    ///
    /// # Errors
    ///
    /// As [`Image::parse`].
    pub fn parse_with_limits(data: &'a [u8], limits: &Limits) -> Result<Self> {
        let boxes = Boxes::parse(data)?;
        let codestream = Codestream::parse(data, boxes.codestream, limits)?;
        Ok(Self { codestream, gml: boxes.gml, geojp2: boxes.geojp2 })
    }

    /// Number of rows.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.codestream.size.height()
    }

    /// Number of columns.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.codestream.size.width()
    }

    /// The components, in the order of the codestream: no palette, channel definition or colour space is applied.
    #[must_use]
    pub fn components(&self) -> &[Component] {
        &self.codestream.size.components
    }

    /// Rows of a tile; tiles at the edge may have fewer.
    #[must_use]
    pub fn tile_height(&self) -> u32 {
        self.codestream.size.tile_height
    }

    /// Columns of a tile; tiles at the edge may have fewer.
    #[must_use]
    pub fn tile_width(&self) -> u32 {
        self.codestream.size.tile_width
    }

    /// The XML of the GMLJP2 box, or `None` where there is none.
    #[must_use]
    pub fn gml(&self) -> Option<&'a str> {
        self.gml
    }

    /// The `GeoTIFF` of one pixel in the `GeoJP2` box, or `None` where there is none. Files of ESA have none, copies
    /// made with other software do.
    #[must_use]
    pub fn geojp2(&self) -> Option<&'a [u8]> {
        self.geojp2
    }

    /// Decodes the whole image, tiles in parallel in the current rayon pool.
    ///
    /// # Shapes
    ///
    /// - `out`: `[component, row, column]`
    ///
    /// # Errors
    ///
    /// When samples do not fit `T`, `out` has another length, or a tile is damaged. Then `out` is partly written.
    pub fn decode<T: Sample>(&self, out: &mut [T]) -> Result<()> {
        let window = Window { row: 0, col: 0, height: self.height() as usize, width: self.width() as usize };
        self.decode_window(window, out)
    }

    /// Decodes a window of the image; only the tiles that it touches are decoded, in parallel in the current rayon
    /// pool.
    ///
    /// # Shapes
    ///
    /// - `out`: `[component, row, column]`, rows and columns of the window
    ///
    /// # Errors
    ///
    /// When the window leaves the image, samples do not fit `T`, `out` has another length, or a tile is damaged.
    /// Then `out` is partly written.
    pub fn decode_window<T: Sample>(&self, window: Window, out: &mut [T]) -> Result<()> {
        let size = &self.codestream.size;
        if !window.fits(self.height() as usize, self.width() as usize) {
            return Err(Error::WindowOutside { window, height: self.height(), width: self.width() });
        }
        if let Some(&Component { bits, signed }) =
            size.components.iter().find(|c| c.signed || c.bits > T::BITS)
        {
            return Err(Error::SampleType { bits, signed, wanted: T::NAME });
        }
        let expected = size.components.len() * window.height * window.width;
        if out.len() != expected {
            return Err(Error::OutputLength { expected, found: out.len() });
        }
        if expected == 0 {
            return Ok(());
        }
        self.touched(window, out).into_par_iter().try_for_each(|part| {
            let mut rows = part.rows.into_iter();
            tile::decode(&self.codestream, part.tile, |component, samples| {
                let max = f32::from(u16::MAX >> (16 - size.components[component].bits));
                for (line, row) in
                    samples.chunks_exact(part.tile_width).skip(part.row).zip(rows.by_ref().take(part.height))
                {
                    for (sample, &value) in row.iter_mut().zip(&line[part.col..]) {
                        *sample = T::from_decoded(value, max);
                    }
                }
            })
        })
    }

    /// Cuts `out` into the pieces of rows that each tile fills.
    fn touched<'o, T>(&self, window: Window, out: &'o mut [T]) -> Vec<Part<'o, T>> {
        let size = &self.codestream.size;
        // The window on the reference grid, relative to the first tile.
        let row0 = window.row + (size.y.start - size.tile_y0) as usize;
        let col0 = window.col + (size.x.start - size.tile_x0) as usize;
        let (height, width) = (size.tile_height as usize, size.tile_width as usize);
        let tile_rows = row0 / height..(row0 + window.height).div_ceil(height);
        let tile_cols = col0 / width..(col0 + window.width).div_ceil(width);
        let mut parts = Vec::with_capacity(tile_rows.len() * tile_cols.len());
        for tile_row in tile_rows.clone() {
            for tile_col in tile_cols.clone() {
                let tile = tile_row * size.tile_cols() + tile_col;
                let (x, y) = size.tile(tile);
                // The tile's first row and column in the same coordinates: tiles at the edge are clipped.
                let first_row = (y.start - size.tile_y0) as usize;
                let first_col = (x.start - size.tile_x0) as usize;
                let top = row0.max(first_row);
                let bottom = (row0 + window.height).min(first_row + y.len());
                parts.push(Part {
                    tile,
                    tile_width: x.len(),
                    row: top - first_row,
                    col: col0.max(first_col) - first_col,
                    height: bottom - top,
                    rows: Vec::with_capacity(size.components.len() * (bottom - top)),
                });
            }
        }
        for (index, mut row) in out.chunks_exact_mut(window.width).enumerate() {
            let tile_row = (row0 + index % window.height) / height - tile_rows.start;
            for (nth, tile_col) in tile_cols.clone().enumerate() {
                let end = ((tile_col + 1) * width).min(col0 + window.width);
                let start = (tile_col * width).max(col0);
                let (piece, rest) = row.split_at_mut(end - start);
                parts[tile_row * tile_cols.len() + nth].rows.push(piece);
                row = rest;
            }
        }
        parts
    }
}

/// What a window takes from one tile.
struct Part<'o, T> {
    tile: usize,
    tile_width: usize,
    /// First row and column of the window in the tile.
    row: usize,
    col: usize,
    /// Rows of the window in the tile.
    height: usize,
    /// Where its rows go, component by component.
    rows: Vec<&'o mut [T]>,
}
