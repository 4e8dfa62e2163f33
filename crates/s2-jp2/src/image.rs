//! An image: its headers, and the decoding of its tiles in threads.

use std::borrow::Cow;
use std::fmt;

use rayon::prelude::*;

use crate::boxes::Boxes;
use crate::codestream::Codestream;
#[cfg(feature = "hayro")]
use crate::fallback;
use crate::rect::Rect;
use crate::source::{Data, Source};
use crate::tile::{self, Samples, Scratch};
use crate::{Error, Limits, Result, Sample, Window};

/// What the samples of a component are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Component {
    /// Bits of a sample: 15 for bands of Sentinel-2, 8 for its scene classification.
    pub bits: u8,
    /// Whether samples have a sign.
    pub signed: bool,
}

impl Component {
    /// What is added to samples without a sign (G.1).
    pub(crate) fn level_shift(self) -> i32 {
        if self.signed { 0 } else { 1 << (self.bits - 1) }
    }

    fn range(self) -> (i32, i32) {
        let half = 1 << (self.bits - 1);
        if self.signed { (-half, half - 1) } else { (0, 2 * half - 1) }
    }
}

/// The parsed headers of a JP2 file or raw codestream.
pub struct Image<'a> {
    codestream: Codestream<'a>,
    gml: Option<Cow<'a, str>>,
    geojp2: Option<Cow<'a, [u8]>>,
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
        Self::new(Data::Slice(data), limits, None)
    }

    /// Reads the headers of a JP2 file or raw codestream from a file, say. Then decoding reads the tiles that it needs,
    /// and only these.
    ///
    /// # Errors
    ///
    /// As [`Image::parse`], and when reading fails.
    pub fn open(source: &'a dyn Source, limits: &Limits) -> Result<Self> {
        Self::new(Data::open(source)?, limits, None)
    }

    /// Reads the headers of a file that may be incomplete or damaged after its main header: a band that is half
    /// downloaded, say. Gives what is wrong as well; [`Image::decode_damaged`] decodes the rest.
    ///
    /// # Errors
    ///
    /// As [`Image::parse`], though only when the main header itself is incomplete, damaged or refused.
    pub fn parse_damaged(data: &'a [u8], limits: &Limits) -> Result<(Self, Vec<Error>)> {
        let mut damage = Vec::new();
        let image = Self::new(Data::Slice(data), limits, Some(&mut damage))?;
        Ok((image, damage))
    }

    fn new(data: Data<'a>, limits: &Limits, damage: Option<&mut Vec<Error>>) -> Result<Self> {
        let boxes = Boxes::parse(data)?;
        let codestream = Codestream::parse(data, boxes.codestream, limits, damage)?;
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
    pub fn gml(&self) -> Option<&str> {
        self.gml.as_deref()
    }

    /// The `GeoTIFF` of one pixel in the `GeoJP2` box, or `None` where there is none. Files of ESA have none, copies
    /// made with other software do.
    #[must_use]
    pub fn geojp2(&self) -> Option<&[u8]> {
        self.geojp2.as_deref()
    }

    /// How often width and height can be halved by [`Image::decode_reduced`].
    #[must_use]
    pub fn levels(&self) -> u32 {
        self.codestream.levels
    }

    /// Rows and columns of the image when it is reduced: half as many, rounded up or down as the image lies on the
    /// reference grid, as often as `reduce` says.
    #[must_use]
    pub fn reduced_shape(&self, reduce: u32) -> (usize, usize) {
        let rect = self.codestream.size.rect().reduce(reduce);
        (rect.height(), rect.width())
    }

    /// Decodes the whole image, in parallel in the current rayon pool.
    ///
    /// # Shapes
    ///
    /// - `out`: `[component, row, column]`
    ///
    /// # Errors
    ///
    /// When samples do not fit `T`, `out` has another length, or a tile is damaged. Then `out` is partly written.
    pub fn decode<T: Sample>(&self, out: &mut [T]) -> Result<()> {
        self.decode_reduced(0, out)
    }

    /// Decodes a smaller resolution of the whole image: width and height are halved `reduce` times. These are the
    /// resolutions of the wavelet transform, as GDAL gives them for overviews.
    ///
    /// # Shapes
    ///
    /// - `out`: `[component, row, column]`, rows and columns as [`Image::reduced_shape`] says
    ///
    /// # Errors
    ///
    /// As [`Image::decode`], and when the image has no such resolution.
    pub fn decode_reduced<T: Sample>(&self, reduce: u32, out: &mut [T]) -> Result<()> {
        let (height, width) = self.reduced_shape(reduce);
        self.decode_region(
            &Region { reduce, window: Window { row: 0, col: 0, height, width }, stride: width },
            out,
        )
    }

    /// Decodes a window of the image, in parallel in the current rayon pool; only the code-blocks that it needs are
    /// decoded.
    ///
    /// # Shapes
    ///
    /// - `out`: `[component, row, column]`, rows and columns of the window
    ///
    /// # Errors
    ///
    /// As [`Image::decode`], and when the window leaves the image.
    pub fn decode_window<T: Sample>(&self, window: Window, out: &mut [T]) -> Result<()> {
        self.decode_region(&Region { reduce: 0, window, stride: window.width }, out)
    }

    /// Decodes a window of a resolution into rows that may lie apart.
    ///
    /// # Shapes
    ///
    /// - `out`: row `r` of component `c` begins at `(c * window.height + r) * stride`; what lies between the rows is
    ///   left as it is
    ///
    /// # Errors
    ///
    /// As [`Image::decode_window`], and when the image has no such resolution.
    pub fn decode_region<T: Sample>(&self, region: &Region, out: &mut [T]) -> Result<()> {
        let parts = self.parts(region, out)?;
        let parallel = share_code_blocks(parts.len());
        parts.into_par_iter().try_for_each_init(Scratch::default, |scratch, part| {
            self.decode_part(part, region.reduce, parallel, scratch, None)
        })
    }

    /// Decodes what can be decoded of a region, and tells what cannot. Tiles without data are left as they are in `out`;
    /// of a tile whose data end early or are damaged, everything before that is decoded, which may be a picture with
    /// less detail.
    ///
    /// # Shapes
    ///
    /// As [`Image::decode_region`].
    ///
    /// # Errors
    ///
    /// As [`Image::decode_region`], but not when a tile is damaged.
    pub fn decode_damaged<T: Sample>(&self, region: &Region, out: &mut [T]) -> Result<Vec<Error>> {
        let parts = self.parts(region, out)?;
        let parallel = share_code_blocks(parts.len());
        let decode = |scratch: &mut Scratch, part| {
            let mut damage = Vec::new();
            let result = self.decode_part(part, region.reduce, parallel, scratch, Some(&mut damage));
            damage.extend(result.err());
            damage
        };
        Ok(parts.into_par_iter().map_init(Scratch::default, decode).flatten_iter().collect())
    }

    /// Checks a region and cuts `out` into what each tile fills.
    fn parts<'o, T: Sample>(&self, region: &Region, out: &'o mut [T]) -> Result<Vec<Part<'o, T>>> {
        let &Region { reduce, window, stride } = region;
        let size = &self.codestream.size;
        let levels = self.levels();
        if reduce > levels {
            return Err(Error::Reduction { wanted: reduce, levels });
        }
        let (height, width) = self.reduced_shape(reduce);
        if !window.fits(height, width) {
            return Err(Error::WindowOutside { window, height, width });
        }
        let fits = |c: &Component| c.bits <= if c.signed { T::BITS.1 } else { T::BITS.0 };
        if let Some(&Component { bits, signed }) = size.components.iter().find(|c| !fits(c)) {
            return Err(Error::SampleType { bits, signed, wanted: T::NAME });
        }
        let rows = size.components.len() * window.height;
        if rows == 0 || window.width == 0 {
            return Ok(Vec::new());
        }
        let expected = (rows - 1).saturating_mul(stride).saturating_add(window.width);
        if stride < window.width || out.len() < expected || (stride == window.width && out.len() > expected) {
            return Err(Error::OutputLength { expected, found: out.len() });
        }
        Ok(self.touched(region, &mut out[..expected]))
    }

    fn decode_part<T: Sample>(
        &self,
        part: Part<'_, T>,
        reduce: u32,
        parallel: bool,
        scratch: &mut Scratch,
        damage: Option<&mut Vec<Error>>,
    ) -> Result<()> {
        let request = tile::Request { tile: part.tile, reduce, need: part.need, parallel };
        let mut rows = part.rows.into_iter();
        let (width, height) = (part.need.width(), part.need.height());
        let samples = match tile::decode(&self.codestream, &request, scratch, damage) {
            #[cfg(feature = "hayro")]
            Err(Error::Unsupported { .. }) if reduce == 0 => fallback::decode(&self.codestream, &request)?,
            other => other?,
        };
        for (component, samples) in self.codestream.size.components.iter().zip(&samples) {
            let shift = component.level_shift();
            let (min, max) = component.range();
            match samples {
                Samples::Reversible(samples) => {
                    for (row, line) in rows.by_ref().take(height).zip(samples.chunks_exact(width)) {
                        for (out, &value) in row.iter_mut().zip(line) {
                            *out = T::from_clamped(value.wrapping_add(shift).clamp(min, max));
                        }
                    }
                }
                Samples::Irreversible(samples) => {
                    for (row, line) in rows.by_ref().take(height).zip(samples.chunks_exact(width)) {
                        for (out, &value) in row.iter_mut().zip(line) {
                            *out = T::from_clamped(round(value).saturating_add(shift).clamp(min, max));
                        }
                    }
                }
            }
        }
        scratch.recycle(samples);
        Ok(())
    }

    /// Cuts `out` into the pieces of rows that each tile fills.
    fn touched<'o, T>(&self, region: &Region, out: &'o mut [T]) -> Vec<Part<'o, T>> {
        let (size, window) = (&self.codestream.size, region.window);
        let image = size.rect().reduce(region.reduce);
        // The lengths have been checked.
        let offset = |start: u32, by: usize| start + u32::try_from(by).unwrap_or(u32::MAX - start);
        let wanted = Rect {
            x0: offset(image.x0, window.col),
            y0: offset(image.y0, window.row),
            x1: offset(image.x0, window.col + window.width),
            y1: offset(image.y0, window.row + window.height),
        };
        let need = |tile: usize| size.tile_rect(tile).reduce(region.reduce).intersect(&wanted);
        let cols: Vec<_> = (0..size.tile_cols()).filter(|&col| need(col).width() > 0).collect();
        let mut parts = Vec::new();
        let mut out = out.chunks_mut(region.stride);
        let rows = (0..size.tile_rows()).map(|row| row * size.tile_cols());
        let rows: Vec<_> = rows.filter(|&tile| need(tile).height() > 0).collect();
        for &row in &rows {
            parts.extend(cols.iter().map(|&col| {
                let need = need(row + col);
                let rows = Vec::with_capacity(size.components.len() * need.height());
                Part { tile: row + col, need, rows }
            }));
        }
        for _ in &size.components {
            for parts in parts.chunks_exact_mut(cols.len()) {
                for row in out.by_ref().take(parts[0].need.height()) {
                    let mut rest = row;
                    for part in &mut *parts {
                        let (piece, others) = rest.split_at_mut(part.need.width());
                        part.rows.push(piece);
                        rest = others;
                    }
                }
            }
        }
        parts
    }
}

/// The nearest integer, ties to even as in `OpenJPEG`.
#[expect(
    clippy::cast_possible_truncation,
    reason = "saturating, and far from the limits but for damaged data"
)]
fn round(value: f32) -> i32 {
    value.round_ties_even() as i32
}

/// What to decode, and how far apart to put its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// How often width and height are halved.
    pub reduce: u32,
    /// The window, counted in pixels of the reduced image.
    pub window: Window,
    /// Samples from the start of one row to that of the next: the window's width, or more.
    pub stride: usize,
}

/// Many tiles are one thread's work each; where there are few, threads share their code-blocks as well.
fn share_code_blocks(tiles: usize) -> bool {
    let threads = rayon::current_num_threads();
    threads > 1 && tiles < 2 * threads
}

/// What a window takes from one tile.
struct Part<'o, T> {
    tile: usize,
    need: Rect,
    /// Where its rows go, component by component.
    rows: Vec<&'o mut [T]>,
}
