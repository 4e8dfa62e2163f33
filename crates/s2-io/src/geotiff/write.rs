//! Writing a cloud optimized GeoTIFF: directories first, then overviews, then the raster, in tiles.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use ndarray::{Array3, ArrayView3, Axis};
use rayon::prelude::*;

use super::block::{Packing, Predictor};
use super::directory::{TagValue, push_directory};
use super::geokeys::GeoTags;
use super::metadata::Metadata;
use super::options::{CogOptions, Packer};
use super::overview::Overviews;
use super::sample::Sample;
use crate::store::{folder_of, write_atomic};
use crate::{Error, Grid, Result};

/// Writes a raster, `[band, row, column]`, as cloud optimized GeoTIFF. Where the raster is not in memory as a whole,
/// [`CogWriter`] takes its rows one after the other, and says what the file is like.
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
    let (bands, height, width) = data.dim();
    if (height, width) != (grid.height, grid.width) {
        let problem = format!(
            "the data has {height} rows and {width} columns, the grid {} and {}",
            grid.height, grid.width
        );
        return Err(Error::InvalidCog { path: path.as_ref().to_owned(), problem });
    }
    let mut writer = CogWriter::create(path, bands, grid, options)?;
    writer.write_rows(data)?;
    writer.finish()
}

/// Writes a cloud optimized GeoTIFF from rows that come one after the other, so that the raster need never be in memory.
///
/// Tiled, compressed with the predictor of the sample type (differences for integers, byte planes for floats).
/// The bands of a tile are stored pixel by pixel, as GDAL's COG driver does: who reads a patch of a stack wants
/// all of its bands, and gets them with one tile. Three `u8` bands are declared red, green, blue. The file is
/// BigTIFF when it is larger than 4 GiB. Tiles are compressed in the caller's thread pool.
///
/// In memory are, at each level of the overviews, the rows that do not fill a row of tiles yet: twice `block_size` rows
/// of the raster in all. The file's directories and small overviews come first, and nobody knows their size before the
/// end. So the compressed tiles lie in unnamed files in the target's folder, which vanish with the writer, until
/// [`finish`](Self::finish) puts the file together: for that time it takes its size twice on disk. The file appears at
/// its path when it is whole (see [`write_atomic`]).
///
/// EPSG codes from 4000 to 4999 of a raster that lies within ±360 and ±90 are written as geographic, all others
/// as projected.
///
/// # Examples
///
/// ```
/// use s2_io::ndarray::Array3;
/// use s2_io::{CogOptions, CogWriter, GeoTiff, Grid};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("rows.tif");
/// let transform = [199_980.0, 10.0, 0.0, 3_400_020.0, 0.0, -10.0];
/// let grid = Grid { height: 600, width: 800, transform, epsg: Some(32629) };
/// let mut writer = CogWriter::<u16>::create(&path, 1, &grid, &CogOptions::default())?;
/// for row in 0..600 {
///     writer.write_rows(Array3::from_elem((1, 1, 800), row).view())?;
/// }
/// writer.finish()?;
/// assert_eq!(GeoTiff::open(&path)?.read::<u16>()?.data[(0, 431, 7)], 431);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct CogWriter<T> {
    path: PathBuf,
    num_bands: usize,
    options: CogOptions,
    nodata: Option<T>,
    geo: GeoTags,
    xml: Option<String>,
    /// The raster, then its overviews.
    levels: Vec<Level<T>>,
}

/// The raster or one of its overviews while it is written.
#[derive(Debug)]
struct Level<T> {
    height: usize,
    width: usize,
    /// Rows whose tiles are packed.
    packed: usize,
    /// The rows behind them, `[band, row, column]`: so many of them have come.
    rows: Array3<T>,
    waiting: usize,
    /// The packed tiles, one behind the other, and the length of each.
    tiles: BufWriter<File>,
    lengths: Vec<u64>,
}

impl<T> Level<T> {
    /// Rows of the row of tiles that comes next.
    fn due(&self, block_size: usize) -> usize {
        block_size.min(self.height - self.packed)
    }
}

impl<T: Sample> CogWriter<T> {
    /// Starts a file for `grid.height` rows of `num_bands` bands.
    ///
    /// # Errors
    ///
    /// As [`write_cog`].
    pub fn create(
        path: impl AsRef<Path>,
        num_bands: usize,
        grid: &Grid,
        options: &CogOptions,
    ) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let mut writer = match Self::new(path.clone(), num_bands, grid, options) {
            Ok(writer) => writer,
            Err(problem) => return Err(Error::InvalidCog { path, problem }),
        };
        let levels = writer.create_levels(grid);
        writer.levels = levels.map_err(|source| Error::Write { path, source })?;
        Ok(writer)
    }

    /// Writes the next rows, `[band, row, column]`, from the north to the south; as many as are at hand.
    ///
    /// # Errors
    ///
    /// They have other bands or columns than the file, are more than its grid has, or the disk is full.
    pub fn write_rows(&mut self, rows: ArrayView3<'_, T>) -> Result<()> {
        let Level { height, width, packed, waiting, .. } = self.levels[0];
        let (bands, more, cols) = rows.dim();
        if (bands, cols) != (self.num_bands, width) {
            let expected = self.num_bands;
            return Err(self.invalid(format!(
                "rows of {bands} bands and {cols} columns came, {expected} and {width} are needed"
            )));
        }
        if more > height - packed - waiting {
            return Err(self.invalid(format!("{} rows came, the grid has {height}", packed + waiting + more)));
        }
        self.push(0, rows).map_err(|source| Error::Write { path: self.path.clone(), source })
    }

    /// Puts the file together.
    ///
    /// # Errors
    ///
    /// Rows are missing, or the disk is full.
    pub fn finish(self) -> Result<()> {
        let Level { height, packed, waiting, .. } = self.levels[0];
        if packed < height {
            return Err(self.invalid(format!("{} of {height} rows came", packed + waiting)));
        }
        self.store(false)
    }

    fn invalid(&self, problem: String) -> Error {
        Error::InvalidCog { path: self.path.clone(), problem }
    }

    fn new(
        path: PathBuf,
        bands: usize,
        grid: &Grid,
        options: &CogOptions,
    ) -> std::result::Result<Self, String> {
        let Grid { height, width, .. } = *grid;
        if bands == 0 || height == 0 || width == 0 {
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
        Ok(Self {
            path,
            num_bands: bands,
            options: options.clone(),
            nodata,
            geo: GeoTags::of(grid)?,
            xml: metadata.to_xml(),
            levels: Vec::new(),
        })
    }

    fn create_levels(&self, grid: &Grid) -> io::Result<Vec<Level<T>>> {
        let folder = folder_of(&self.path);
        let (mut height, mut width) = (grid.height, grid.width);
        let mut levels = Vec::new();
        loop {
            let tiles = BufWriter::new(tempfile::tempfile_in(folder)?);
            let rows = Array3::default((0, 0, 0));
            levels.push(Level { height, width, packed: 0, rows, waiting: 0, tiles, lengths: Vec::new() });
            if self.options.overviews == Overviews::None || height.max(width) <= self.options.block_size {
                return Ok(levels);
            }
            (height, width) = (height.div_ceil(2), width.div_ceil(2));
        }
    }

    /// Takes the next rows of a level; whole rows of tiles are packed, the rest waits.
    fn push(&mut self, index: usize, mut rows: ArrayView3<'_, T>) -> io::Result<()> {
        while !rows.is_empty() {
            let level = &mut self.levels[index];
            let due = level.due(self.options.block_size);
            let count = (due - level.waiting).min(rows.dim().1);
            let (next, rest) = rows.split_at(Axis(1), count);
            rows = rest;
            if count == due {
                self.pack(index, next)?;
                continue;
            }
            if level.rows.is_empty() {
                level.rows = Array3::default((self.num_bands, self.options.block_size, level.width));
            }
            let place = (level.waiting..level.waiting + count).into();
            level.rows.slice_axis_mut(Axis(1), place).assign(&next);
            level.waiting += count;
            if level.waiting == due {
                let waiting = std::mem::take(&mut level.rows);
                level.waiting = 0;
                self.pack(index, waiting.slice_axis(Axis(1), (..due).into()))?;
                self.levels[index].rows = waiting;
            }
        }
        Ok(())
    }

    /// Packs a row of tiles, and hands its overview to the next level.
    fn pack(&mut self, index: usize, rows: ArrayView3<'_, T>) -> io::Result<()> {
        let columns: Vec<_> = (0..rows.dim().2).step_by(self.options.block_size).collect();
        let mut lengths = Vec::with_capacity(columns.len());
        // A few tiles per thread at a time bound the memory and keep the threads busy.
        for batch in columns.chunks(8 * rayon::current_num_threads()) {
            let packed: Vec<_> = batch
                .par_iter()
                .map_init(|| self.options.compression.packer(), |packer, col| self.tile(rows, *col, packer))
                .collect();
            for packed in packed {
                let packed = packed?;
                self.levels[index].tiles.write_all(&packed)?;
                lengths.push(packed.len() as u64);
            }
        }
        let level = &mut self.levels[index];
        level.lengths.append(&mut lengths);
        level.packed += rows.dim().1;
        if index + 1 < self.levels.len() {
            let half = self.options.overviews.halve(rows, self.nodata);
            self.push(index + 1, half.view())?;
        }
        Ok(())
    }

    /// The compressed tile that begins at a column. Beyond the raster's edge its last row and column go on, which costs
    /// least.
    fn tile(&self, rows: ArrayView3<'_, T>, first_col: usize, packer: &mut Packer) -> io::Result<Vec<u8>> {
        let size = self.options.block_size;
        let (bands, height, width) = rows.dim();
        let packing = Packing { width: size, samples: bands, predictor: self.predictor(), big_endian: false };
        let mut bytes = vec![0; size * size * bands * size_of::<T>()];
        let mut samples = vec![T::default(); size * bands];
        for (row, bytes) in bytes.chunks_exact_mut(size * bands * size_of::<T>()).enumerate() {
            let row = row.min(height - 1);
            for band in 0..bands {
                let inside = rows.index_axis(Axis(0), band).index_axis_move(Axis(0), row);
                let inside = inside.slice_axis(Axis(0), (first_col..width.min(first_col + size)).into());
                let edge = inside[inside.len() - 1];
                let all = inside.iter().copied().chain(std::iter::repeat(edge));
                samples[band..].iter_mut().step_by(bands).zip(all).for_each(|(to, from)| *to = from);
            }
            packing.pack_row(&mut samples, bytes);
        }
        packer.pack(&bytes)
    }

    fn predictor(&self) -> Predictor {
        if T::IS_FLOAT { Predictor::Float } else { Predictor::Horizontal }
    }

    /// Writes head and tiles; as BigTIFF where they need it, or when told so.
    fn store(mut self, is_big: bool) -> Result<()> {
        let path = std::mem::take(&mut self.path);
        write_atomic(&path, |out| {
            // The size of the head does not depend on where the tiles lie, nor on their sizes.
            let nowhere: Vec<_> = self.levels.iter().map(|level| vec![0; level.lengths.len()]).collect();
            let bytes: u64 = self.levels.iter().flat_map(|level| &level.lengths).sum();
            let size = bytes.saturating_add(self.head(&nowhere, true)?.len() as u64);
            let is_big = is_big || size > u64::from(u32::MAX);
            let mut offset = self.head(&nowhere, is_big)?.len() as u64;
            let mut offsets = nowhere;
            // Small overviews first: a reader that starts with the file's head has the overall view next.
            for (level, offsets) in self.levels.iter().zip(&mut offsets).rev() {
                for (place, length) in offsets.iter_mut().zip(&level.lengths) {
                    *place = offset;
                    offset += length;
                }
            }
            out.write_all(&self.head(&offsets, is_big)?)?;
            for level in self.levels.iter_mut().rev() {
                level.tiles.rewind()?;
                io::copy(level.tiles.get_mut(), out)?;
            }
            Ok(())
        })
    }

    /// The file's header and all of its directories.
    fn head(&self, offsets: &[Vec<u64>], is_big: bool) -> io::Result<Vec<u8>> {
        let mut head = if is_big {
            [&b"II"[..], &43_u16.to_le_bytes(), &8_u16.to_le_bytes(), &[0; 2], &16_u64.to_le_bytes()].concat()
        } else {
            [&b"II"[..], &42_u16.to_le_bytes(), &8_u32.to_le_bytes()].concat()
        };
        for (i, (level, offsets)) in self.levels.iter().zip(offsets).enumerate() {
            let tags = self.tags(level, offsets, i > 0, is_big)?;
            push_directory(&mut head, &tags, i + 1 == self.levels.len(), is_big)?;
        }
        Ok(head)
    }

    /// The tags of one level, in ascending order.
    fn tags(
        &self,
        level: &Level<T>,
        offsets: &[u64],
        is_overview: bool,
        is_big: bool,
    ) -> io::Result<Vec<TagValue>> {
        let too_large = |_| io::Error::other("a size exceeds 32 bits");
        let (bands, height, width) = (self.num_bands, level.height, level.width);
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
            TagValue::offset(324, offsets, is_big)?,
            TagValue::offset(325, &level.lengths, is_big)?,
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
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("big.tif");
        let mut writer = CogWriter::create(&path, 2, &grid, &options).unwrap();
        writer.write_rows(data.view()).unwrap();
        writer.store(true).unwrap();
        assert_eq!(std::fs::read(&path).unwrap()[..8], *b"II\x2B\0\x08\0\0\0", "header of a BigTIFF");
        let raster = GeoTiff::open(&path).unwrap().read::<f32>().unwrap();
        assert_eq!((raster.data, raster.grid, raster.nodata), (data, grid, Some(0.0)));
    }
}
