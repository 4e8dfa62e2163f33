//! Writing a cloud optimized GeoTIFF: directories first, then overviews, then the raster, in tiles.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use libdeflater::CompressionLvl;
use ndarray::{Array3, ArrayView3, Axis};
use rayon::prelude::*;

use super::block::{Packing, Predictor};
use super::geokeys::GeoTags;
use super::metadata::Metadata;
use super::overview::Overviews;
use super::sample::Sample;
use crate::{Error, Grid, Result, write_atomic};

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
enum Packer {
    Deflate(libdeflater::Compressor),
    Zstd(io::Result<zstd::bulk::Compressor<'static>>),
}

impl CogCompression {
    fn check(self) -> Result<(), String> {
        let (name, level, most) = match self {
            Self::Deflate(level) => ("deflate", level, 12),
            Self::Zstd(level) => ("zstd", level, 22),
        };
        if level == 0 || level > most {
            return Err(format!("{name} level {level} is not between 1 and {most}"));
        }
        Ok(())
    }

    fn packer(self) -> Packer {
        match self {
            Self::Deflate(level) => {
                let level = CompressionLvl::new(i32::from(level)).unwrap_or_default();
                Packer::Deflate(libdeflater::Compressor::new(level))
            }
            Self::Zstd(level) => Packer::Zstd(zstd::bulk::Compressor::new(i32::from(level))),
        }
    }

    /// Its number in tag 259.
    fn code(self) -> u16 {
        match self {
            Self::Deflate(_) => 8,
            Self::Zstd(_) => 50000,
        }
    }
}

impl Packer {
    fn pack(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
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

/// Writes a raster, `[band, row, column]`, as cloud optimized GeoTIFF.
///
/// Tiled, compressed with the predictor of the sample type (differences for integers, byte planes for floats).
/// The bands of a tile are stored pixel by pixel, as GDAL's COG driver does: who reads a patch of a stack wants
/// all of its bands, and gets them with one tile. Three `u8` bands are declared red, green, blue. The file is
/// BigTIFF when it might grow to 4 GiB. It appears at `path` when it is whole (see [`write_atomic`]). Tiles are
/// compressed in the caller's thread pool; beside `data` the overviews (a third of it) are held in memory.
///
/// EPSG codes from 4000 to 4999 of a raster that lies within ±360 and ±90 are written as geographic, all others
/// as projected.
///
/// # Errors
///
/// The file cannot be written; or data, grid and options do not fit together: another shape than the grid's,
/// no pixels, a nodata value that `T` cannot hold, as many names or scales as there are bands, colours for other
/// than one `u8` band, a block size that is no multiple of 16, an EPSG code above 32766.
///
/// # Examples
///
/// See the start page of this crate.
pub fn write_cog<T: Sample>(
    path: impl AsRef<Path>,
    data: ArrayView3<'_, T>,
    grid: &Grid,
    options: &CogOptions,
) -> Result<()> {
    let path = path.as_ref();
    let writer = CogWriter::try_new(data, grid, options)
        .map_err(|problem| Error::InvalidCog { path: path.to_path_buf(), problem })?;
    write_atomic(path, |out| writer.write(out))
}

/// What is written, checked.
struct CogWriter<'a, T> {
    data: ArrayView3<'a, T>,
    options: &'a CogOptions,
    nodata: Option<T>,
    geo: GeoTags,
    xml: Option<String>,
}

/// Tiles, bound for one level of the pyramid.
struct Tiles {
    offsets: Vec<u64>,
    lengths: Vec<u64>,
}

impl<'a, T: Sample> CogWriter<'a, T> {
    fn try_new(data: ArrayView3<'a, T>, grid: &Grid, options: &'a CogOptions) -> Result<Self, String> {
        let (bands, height, width) = data.dim();
        if (height, width) != (grid.height, grid.width) {
            return Err(format!(
                "the data has {height} rows and {width} columns, the grid {} and {}",
                grid.height, grid.width
            ));
        }
        if data.is_empty() {
            return Err(format!("there are no pixels in {bands} bands of {height} rows and {width} columns"));
        }
        if u16::try_from(bands).is_err() || u32::try_from(height).is_err() || u32::try_from(width).is_err() {
            return Err(format!(
                "{bands} bands of {height} rows and {width} columns exceed what a tiff can hold"
            ));
        }
        if options.block_size == 0 || !options.block_size.is_multiple_of(16) || options.block_size > 1 << 14 {
            return Err(format!("block size {} is no multiple of 16 up to 16384", options.block_size));
        }
        for (name, count) in
            [("band names", options.band_names.len()), ("scales", options.scale_offset.len())]
        {
            if count != 0 && count != bands {
                return Err(format!("{count} {name} for {bands} bands"));
            }
        }
        if let Some(colors) = &options.colors
            && (bands != 1 || size_of::<T>() != 1 || colors.len() > 256)
        {
            return Err(format!(
                "{} colours for {bands} bands of {} samples; a palette needs one u8 band and has up to 256 colours",
                colors.len(),
                T::TYPE
            ));
        }
        let nodata = options.nodata.map(T::from_f64);
        if let (Some(asked), Some(stored)) = (options.nodata, nodata)
            && !(if T::IS_FLOAT {
                stored.to_f64().is_finite() == asked.is_finite()
            } else {
                stored.to_f64() == asked
            })
        {
            return Err(format!("nodata {asked} is no {} value", T::TYPE));
        }
        options.compression.check()?;
        let mut metadata = Metadata::new(bands);
        metadata.items.extend(options.metadata.iter().cloned());
        if !options.band_names.is_empty() {
            metadata.band_names.clone_from(&options.band_names);
        }
        if !options.scale_offset.is_empty() {
            metadata.scale_offset.clone_from(&options.scale_offset);
        }
        Ok(Self { data, options, nodata, geo: GeoTags::of(grid)?, xml: metadata.to_xml() })
    }

    fn write(&self, out: &mut BufWriter<File>) -> io::Result<()> {
        let overviews = self.overviews();
        let levels: Vec<_> =
            std::iter::once(self.data.view()).chain(overviews.iter().map(|level| level.view())).collect();
        // Deflate adds five bytes to each 16 KiB that do not compress; a percent covers directories as well.
        let bytes: u64 = levels.iter().map(|level| (self.num_tiles(level) * self.tile_bytes()) as u64).sum();
        let is_big = bytes + bytes / 100 + (1 << 20) > u64::from(u32::MAX);
        self.write_levels(out, &levels, is_big)
    }

    fn overviews(&self) -> Vec<Array3<T>> {
        let mut overviews: Vec<Array3<T>> = Vec::new();
        if self.options.overviews != Overviews::None {
            loop {
                let last = overviews.last().map_or(self.data.view(), |level| level.view());
                let (_, height, width) = last.dim();
                if height.max(width) <= self.options.block_size {
                    break;
                }
                let half = self.options.overviews.halve(last, self.nodata);
                overviews.push(half);
            }
        }
        overviews
    }

    fn write_levels(
        &self,
        out: &mut BufWriter<File>,
        levels: &[ArrayView3<'_, T>],
        is_big: bool,
    ) -> io::Result<()> {
        // The size of a directory does not depend on where the tiles will lie.
        let mut tiles: Vec<_> = levels
            .iter()
            .map(|level| {
                let count = self.num_tiles(level);
                Tiles { offsets: vec![0; count], lengths: vec![0; count] }
            })
            .collect();
        let head = self.head(levels, &tiles, is_big)?;
        out.write_all(&head)?;
        let mut offset = head.len() as u64;
        // Small overviews first: a reader that starts with the file's head has the overall view next.
        for (level, tiles) in levels.iter().zip(&mut tiles).rev() {
            let indices: Vec<_> = (0..tiles.offsets.len()).collect();
            // A few tiles per thread at a time bound the memory and keep the threads busy.
            for batch in indices.chunks(8 * rayon::current_num_threads()) {
                let packed: Vec<_> = batch
                    .par_iter()
                    .map_init(|| self.options.compression.packer(), |packer, i| self.tile(level, *i, packer))
                    .collect();
                for (i, packed) in batch.iter().zip(packed) {
                    let packed = packed?;
                    out.write_all(&packed)?;
                    (tiles.offsets[*i], tiles.lengths[*i]) = (offset, packed.len() as u64);
                    offset += packed.len() as u64;
                }
            }
        }
        out.seek(SeekFrom::Start(0))?;
        out.write_all(&self.head(levels, &tiles, is_big)?)
    }

    fn tiles_across(&self, level: &ArrayView3<'_, T>) -> usize {
        level.dim().2.div_ceil(self.options.block_size)
    }

    fn num_tiles(&self, level: &ArrayView3<'_, T>) -> usize {
        level.dim().1.div_ceil(self.options.block_size) * self.tiles_across(level)
    }

    fn tile_bytes(&self) -> usize {
        self.options.block_size.pow(2) * self.data.dim().0 * size_of::<T>()
    }

    fn predictor(&self) -> Predictor {
        if T::IS_FLOAT { Predictor::Float } else { Predictor::Horizontal }
    }

    /// A compressed tile. Beyond the raster's edge its last row and column go on, which costs least.
    fn tile(&self, level: &ArrayView3<'_, T>, index: usize, packer: &mut Packer) -> io::Result<Vec<u8>> {
        let size = self.options.block_size;
        let (bands, height, width) = level.dim();
        let (first_row, first_col) =
            (index / self.tiles_across(level) * size, index % self.tiles_across(level) * size);
        let packing = Packing { width: size, samples: bands, predictor: self.predictor(), big_endian: false };
        let mut bytes = vec![0; self.tile_bytes()];
        let mut samples = vec![T::default(); size * bands];
        for (row, bytes) in bytes.chunks_exact_mut(size * bands * size_of::<T>()).enumerate() {
            let row = (first_row + row).min(height - 1);
            for band in 0..bands {
                let inside = level.index_axis(Axis(0), band).index_axis_move(Axis(0), row);
                let inside = inside.slice_axis(Axis(0), (first_col..width.min(first_col + size)).into());
                let edge = inside[inside.len() - 1];
                let all = inside.iter().copied().chain(std::iter::repeat(edge));
                samples[band..].iter_mut().step_by(bands).zip(all).for_each(|(to, from)| *to = from);
            }
            packing.pack_row(&mut samples, bytes);
        }
        packer.pack(&bytes)
    }

    /// The file's header and all of its directories.
    fn head(&self, levels: &[ArrayView3<'_, T>], tiles: &[Tiles], is_big: bool) -> io::Result<Vec<u8>> {
        let mut head = if is_big {
            [&b"II"[..], &43_u16.to_le_bytes(), &8_u16.to_le_bytes(), &[0; 2], &16_u64.to_le_bytes()].concat()
        } else {
            [&b"II"[..], &42_u16.to_le_bytes(), &8_u32.to_le_bytes()].concat()
        };
        for (i, (level, tiles)) in levels.iter().zip(tiles).enumerate() {
            let tags = self.tags(level, tiles, i > 0, is_big)?;
            push_directory(&mut head, &tags, i + 1 == levels.len(), is_big)?;
        }
        Ok(head)
    }

    /// The tags of one level, in ascending order.
    fn tags(
        &self,
        level: &ArrayView3<'_, T>,
        tiles: &Tiles,
        is_overview: bool,
        is_big: bool,
    ) -> io::Result<Vec<TagValue>> {
        let too_large = |_| io::Error::other("a size exceeds 32 bits");
        let (bands, height, width) = level.dim();
        let bits = 8 * u16::try_from(size_of::<T>()).map_err(too_large)?;
        let is_rgb = bands == 3 && bits == 8;
        let photometric = match (&self.options.colors, is_rgb) {
            (Some(_), _) => 3, // palette
            (None, true) => 2,
            (None, false) => 1, // 0 is black
        };
        let format = match T::TYPE {
            _ if T::IS_FLOAT => 3,
            super::SampleType::I16 | super::SampleType::I32 => 2,
            _ => 1,
        };
        let size = u32::try_from(self.options.block_size).map_err(too_large)?;
        let mut tags = vec![
            TagValue::long(256, &[u32::try_from(width).map_err(too_large)?]),
            TagValue::long(257, &[u32::try_from(height).map_err(too_large)?]),
            TagValue::short(258, &vec![bits; bands]),
            TagValue::short(259, &[self.options.compression.code()]),
            TagValue::short(262, &[photometric]),
            TagValue::short(277, &[u16::try_from(bands).map_err(too_large)?]),
            TagValue::short(284, &[1]), // bands side by side
            TagValue::short(317, &[if self.predictor() == Predictor::Float { 3 } else { 2 }]),
            TagValue::long(322, &[size]),
            TagValue::long(323, &[size]),
            TagValue::offset(324, &tiles.offsets, is_big)?,
            TagValue::offset(325, &tiles.lengths, is_big)?,
            TagValue::short(339, &vec![format; bands]),
        ];
        if is_overview {
            tags.push(TagValue::long(254, &[1])); // reduced resolution
        }
        if let Some(colors) = &self.options.colors {
            // All reds, all greens, all blues, in 16 bits.
            let channel = |channel: usize| {
                (0..256).map(move |i| colors.get(i).map_or(0, |color| 257 * u16::from(color[channel])))
            };
            tags.push(TagValue::short(320, &(0..3).flat_map(channel).collect::<Vec<_>>()));
        }
        let extra = if is_rgb { 0 } else { bands - 1 };
        if extra > 0 {
            tags.push(TagValue::short(338, &vec![0; extra])); // of unspecified meaning
        }
        if let Some(nodata) = self.options.nodata {
            let text = if nodata.is_nan() { "nan".to_owned() } else { nodata.to_string() };
            tags.push(TagValue::ascii(42113, &text));
        }
        if !is_overview {
            let geo = &self.geo;
            let doubles = [(33550, &geo.pixel_scale), (33922, &geo.tiepoints), (34264, &geo.transformation)];
            for (tag, values) in doubles {
                if !values.is_empty() {
                    tags.push(TagValue::double(tag, values));
                }
            }
            if !geo.key_directory.is_empty() {
                tags.push(TagValue::short(34735, &geo.key_directory));
            }
            if let Some(xml) = &self.xml {
                tags.push(TagValue::ascii(42112, xml));
            }
        }
        tags.sort_by_key(|value| value.tag);
        Ok(tags)
    }
}

/// A tag with its values, little-endian.
struct TagValue {
    tag: u16,
    /// TIFF 6.0 §2 "Types": 2 ASCII, 3 SHORT, 4 LONG, 12 DOUBLE, 16 LONG8 (BigTIFF).
    kind: u16,
    count: usize,
    bytes: Vec<u8>,
}

impl TagValue {
    fn short(tag: u16, values: &[u16]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { tag, kind: 3, count: values.len(), bytes }
    }

    fn long(tag: u16, values: &[u32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { tag, kind: 4, count: values.len(), bytes }
    }

    fn double(tag: u16, values: &[f64]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { tag, kind: 12, count: values.len(), bytes }
    }

    /// Positions or lengths in the file: LONG, in a BigTIFF LONG8.
    fn offset(tag: u16, values: &[u64], is_big: bool) -> io::Result<Self> {
        if is_big {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            return Ok(Self { tag, kind: 16, count: values.len(), bytes });
        }
        let values: std::result::Result<Vec<_>, _> =
            values.iter().map(|value| u32::try_from(*value)).collect();
        Ok(Self::long(tag, &values.map_err(|_| io::Error::other("the file grows beyond 4 GiB"))?))
    }

    fn ascii(tag: u16, text: &str) -> Self {
        let bytes = [text.as_bytes(), &[0]].concat();
        Self { tag, kind: 2, count: bytes.len(), bytes }
    }
}

/// Appends a directory and, behind it, the values that do not fit into its entries.
fn push_directory(head: &mut Vec<u8>, tags: &[TagValue], is_last: bool, is_big: bool) -> io::Result<()> {
    // An offset has four bytes, in a BigTIFF eight; so has the count of an entry.
    let word = if is_big { 8 } else { 4 };
    let push_word = |to: &mut Vec<u8>, value: usize| {
        let bytes = (value as u64).to_le_bytes();
        to.extend_from_slice(&bytes[..word]);
        if bytes[word..].iter().any(|byte| *byte != 0) {
            return Err(io::Error::other("the directories grow beyond 4 GiB"));
        }
        Ok(())
    };
    let count_bytes = if is_big { 8 } else { 2 };
    let mut values_at = head.len() + count_bytes + tags.len() * (4 + 2 * word) + word;
    let mut values = Vec::new();
    head.extend_from_slice(&(tags.len() as u64).to_le_bytes()[..count_bytes]);
    for value in tags {
        head.extend_from_slice(&value.tag.to_le_bytes());
        head.extend_from_slice(&value.kind.to_le_bytes());
        push_word(head, value.count)?;
        if value.bytes.len() <= word {
            head.extend_from_slice(&value.bytes);
            head.resize(head.len() + word - value.bytes.len(), 0);
        } else {
            push_word(head, values_at)?;
            values.extend_from_slice(&value.bytes);
            // TIFF 6.0 §2: values begin on a word boundary.
            values.resize(values.len().next_multiple_of(8), 0);
            values_at += value.bytes.len().next_multiple_of(8);
        }
    }
    let next = if is_last { 0 } else { values_at };
    push_word(head, next)?;
    head.append(&mut values);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GeoTiff;

    #[test]
    fn a_big_tiff_reads_as_the_classic_one() {
        let data =
            Array3::from_shape_fn((2, 100, 70), |(band, row, col)| (band * 7000 + row * 70 + col) as f32);
        let transform = [300_000.0, 10.0, 0.0, 9_000_000.0, 0.0, -10.0];
        let grid = Grid { height: 100, width: 70, transform, epsg: Some(32721) };
        let options = CogOptions { block_size: 32, nodata: Some(0.0), ..CogOptions::default() };
        let writer = CogWriter::try_new(data.view(), &grid, &options).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("big.tif");
        let overviews = writer.overviews();
        let levels = [data.view(), overviews[0].view(), overviews[1].view()];
        write_atomic(&path, |out| writer.write_levels(out, &levels, true)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap()[..8], *b"II\x2B\0\x08\0\0\0", "header of a BigTIFF");
        let raster = GeoTiff::open(&path).unwrap().read::<f32>().unwrap();
        assert_eq!((raster.data, raster.grid, raster.nodata), (data, grid, Some(0.0)));
    }

    #[test]
    fn offsets_beyond_four_gigabytes_need_a_big_tiff() {
        let offsets = [1 << 32];
        assert!(TagValue::offset(324, &offsets, false).is_err());
        assert_eq!(TagValue::offset(324, &offsets, true).unwrap().bytes, [0, 0, 0, 0, 1, 0, 0, 0]);
    }
}
