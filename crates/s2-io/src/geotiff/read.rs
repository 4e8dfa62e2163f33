//! Reading a GeoTIFF: an image of the file, whole or by window, its blocks in threads.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::{Array3, ArrayViewMut3, Axis};
use rayon::prelude::*;
use s2_jp2::Source;
use tiff::TiffError;
use tiff::decoder::{ChunkType, Decoder};
use tiff::tags::Tag;

use super::block::{Compression, Packing, Predictor, Unpacker};
use super::geokeys::GeoTags;
use super::metadata::Metadata;
use super::sample::{Encoding, Sample, SampleType};
use crate::{Error, Grid, Raster, Result, Window};

/// One read takes at most this many bytes, if the caller does not say otherwise.
const MAX_BYTES: u64 = 4 << 30;

/// Tag 42112, not named by the `tiff` crate.
const GDAL_METADATA: Tag = Tag::Unknown(42112);

/// An open GeoTIFF: its grid, bands and metadata; pixels are read on demand.
///
/// Reads classic and BigTIFF of either byte order, tiles and strips, bands side by side or apart, samples of
/// [`SampleType`], uncompressed or with deflate, Zstandard, LZW or PackBits, with predictors 1 to 3. Its pixels are those
/// of the file's first image; [`overviews`](Self::overviews) gives the smaller ones. Masks and further images are not
/// looked at. A shared reference can be used from several threads.
#[derive(Clone)]
pub struct GeoTiff {
    path: PathBuf,
    source: Arc<dyn Source>,
    /// Bytes of the source.
    length: u64,
    grid: Grid,
    layout: Layout,
    nodata: Option<f64>,
    metadata: Metadata,
    max_bytes: u64,
}

/// How the samples lie in the file.
#[derive(Clone, Debug)]
struct Layout {
    num_bands: usize,
    sample_type: SampleType,
    compression: Compression,
    packing: Packing,
    /// Whether blocks are tiles, which are whole at the edges, or strips, of which the last ends with the image.
    is_tiled: bool,
    /// Rows of a block.
    block_height: usize,
    blocks_across: usize,
    blocks_down: usize,
    /// `(offset, length)` of each block, by band (where bands are apart), row and column; `(0, 0)` for a block
    /// that was left out because it is all nodata.
    blocks: Vec<(u64, u64)>,
}

/// A block that a window touches: its index, the first row and column in it, and where its pixels go.
type Part<'a, T> = (usize, usize, usize, ArrayViewMut3<'a, T>);

impl GeoTiff {
    /// Opens a file and reads its first directory.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is no TIFF, is damaged or cut off (every block must lie inside the file), or
    /// uses a feature that is not supported.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::from_source(path, Arc::new(file))
    }

    /// Opens what lies in a source of bytes, such as a file in an object store; `name` is what errors call it.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn from_source(name: impl Into<PathBuf>, source: Arc<dyn Source>) -> Result<Self> {
        let path = name.into();
        let read_error = |source| Error::Read { path: path.clone(), source };
        let length = source.length().map_err(read_error)?;
        let mut head = Vec::new();
        Reader::new(&source, length).take(16).read_to_end(&mut head).map_err(read_error)?;
        if !matches!(&*head, [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..]) {
            return Err(Error::NotTiff { path, looks_like: looks_like(&head) });
        }
        let directory =
            first_directory(&source, length).and_then(|mut tiff| read_directory(&mut tiff, length));
        let (grid, layout, nodata, metadata) = directory.map_err(|problem| problem.in_file(&path))?;
        Ok(Self { path, source, length, grid, layout, nodata, metadata, max_bytes: MAX_BYTES })
    }

    /// The overviews of the file, the largest first: each is a raster of its own with larger pixels on the same ground,
    /// and reads as this one does. Empty where the file has none.
    ///
    /// # Errors
    ///
    /// The directories behind the first one are damaged or cannot be read, or an overview has other bands or samples than
    /// this raster.
    pub fn overviews(&self) -> Result<Vec<Self>> {
        let mut overviews = self.read_overviews().map_err(|problem| problem.in_file(&self.path))?;
        overviews.sort_by_key(|overview| std::cmp::Reverse(overview.grid.width));
        Ok(overviews)
    }

    fn read_overviews(&self) -> Result<Vec<Self>, Problem> {
        let mut tiff = first_directory(&self.source, self.length)?;
        let mut overviews = Vec::new();
        while tiff.more_images() {
            careful(|| tiff.next_image())?;
            // NewSubfileType (TIFF 6.0 §8): bit 0 is a reduced image, bit 2 a mask.
            let kind = tiff.find_tag_unsigned::<u32>(Tag::NewSubfileType)?.unwrap_or(0);
            if kind & 5 != 1 {
                continue;
            }
            let (Grid { height, width, .. }, layout, ..) = read_directory(&mut tiff, self.length)?;
            let Layout { num_bands, sample_type, .. } = layout;
            if (num_bands, sample_type) != (self.layout.num_bands, self.layout.sample_type) {
                return Err(Problem::Damaged(format!(
                    "an overview has {num_bands} bands of {sample_type}, the raster {} of {}",
                    self.layout.num_bands, self.layout.sample_type
                )));
            }
            let grid = self.grid.resized(height, width);
            overviews.push(Self { grid, layout, ..self.clone() });
        }
        Ok(overviews)
    }

    /// Sets how many bytes of samples one read may return, and how many a block may unpack to (4 GiB when not
    /// set). It keeps a small file with a huge claimed size from taking the machine's memory.
    #[must_use]
    pub fn with_max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// The pixel grid. Without georeferencing the transform is `[0, 1, 0, 0, 0, 1]`; a user-defined CRS has no
    /// EPSG code.
    #[must_use]
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// The number of bands (samples of a pixel).
    #[must_use]
    pub fn num_bands(&self) -> usize {
        self.layout.num_bands
    }

    /// The type of the samples, which is the type to read them as.
    #[must_use]
    pub fn sample_type(&self) -> SampleType {
        self.layout.sample_type
    }

    /// The sample value that means "no data" (tag `GDAL_NODATA`), if there is one.
    #[must_use]
    pub fn nodata(&self) -> Option<f64> {
        self.nodata
    }

    /// The name of each band (GDAL's description), empty where there is none.
    #[must_use]
    pub fn band_names(&self) -> &[String] {
        &self.metadata.band_names
    }

    /// Scale and offset of a band, counted from 0: the physical value is `sample * scale + offset`.
    /// `(1.0, 0.0)` where the file has none.
    ///
    /// # Panics
    ///
    /// If there is no such band.
    #[must_use]
    pub fn scale_offset(&self, band: usize) -> (f64, f64) {
        let all = &self.metadata.scale_offset;
        *all.get(band).unwrap_or_else(|| panic!("band {band} of {} bands", all.len()))
    }

    /// Metadata items of the dataset (GDAL's default domain).
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata.items
    }

    /// Reads all bands, `[band, row, column]`.
    ///
    /// # Errors
    ///
    /// As [`read_window`](Self::read_window).
    pub fn read<T: Sample>(&self) -> Result<Raster<T>> {
        let Grid { height, width, .. } = self.grid;
        self.read_window(Window { row: 0, col: 0, height, width })
    }

    /// Reads a part of all bands, `[band, row, column]`; only the blocks that it touches are read and unpacked.
    ///
    /// Samples are as stored: scale and offset are not applied. Blocks that were left out of a sparse file are
    /// nodata, or 0 where the file has no nodata value.
    ///
    /// # Errors
    ///
    /// `T` is not the file's sample type, the window leaves the raster, it takes more than
    /// [`with_max_bytes`](Self::with_max_bytes), or a block is damaged.
    pub fn read_window<T: Sample>(&self, window: Window) -> Result<Raster<T>> {
        self.check_window::<T>(window)?;
        let mut data = Array3::from_elem((self.layout.num_bands, window.height, window.width), T::default());
        self.unpack_window(window, data.view_mut())?;
        Ok(Raster { data, grid: self.grid.window(window), nodata: self.nodata })
    }

    /// [`read_window`](Self::read_window) into memory of the caller, `[band, row, column]`: who reads many windows of a
    /// size keeps one array. Pixels in standard order; all are written, those of blocks that a sparse file left out too.
    ///
    /// # Errors
    ///
    /// As [`read_window`](Self::read_window); what `out` holds then is undefined. [`Error::OutputShape`] for an array of
    /// another shape or order.
    pub fn read_window_into<T: Sample>(&self, window: Window, out: ArrayViewMut3<'_, T>) -> Result<()> {
        self.check_window::<T>(window)?;
        let expected = [self.layout.num_bands, window.height, window.width];
        if out.shape() != expected || !out.is_standard_layout() {
            let shape = out.shape().to_vec();
            return Err(Error::OutputShape { path: self.path.clone(), shape, expected });
        }
        self.unpack_window(window, out)
    }

    /// Refuses another sample type, a window that leaves the raster, and one that takes too much memory.
    fn check_window<T: Sample>(&self, window: Window) -> Result<()> {
        let layout = &self.layout;
        if T::TYPE != layout.sample_type {
            return Err(Error::SampleType {
                path: self.path.clone(),
                file: layout.sample_type,
                asked: T::TYPE,
            });
        }
        let Grid { height, width, .. } = self.grid;
        let fits = |start: usize, size: usize, all| start.checked_add(size).is_some_and(|end| end <= all);
        if !fits(window.row, window.height, height) || !fits(window.col, window.width, width) {
            return Err(Error::WindowOutside { path: self.path.clone(), window, height, width });
        }
        self.check_size(&[layout.num_bands, window.height, window.width, size_of::<T>()])?;
        let packing = &layout.packing;
        self.check_size(&[layout.block_height, packing.width, packing.samples, size_of::<T>()])
    }

    fn unpack_window<T: Sample>(&self, window: Window, out: ArrayViewMut3<'_, T>) -> Result<()> {
        self.parts(window, out)
            .into_par_iter()
            .chunks(self.source.ranges_at_once().max(1))
            .try_for_each_init(Unpacker::new, |unpacker, parts| self.read_parts(parts, unpacker))
    }

    /// Refuses memory, the product of some sizes in bytes, that is beyond the limit.
    fn check_size(&self, sizes: &[usize]) -> Result<()> {
        let bytes = sizes.iter().fold(1_u64, |product, size| product.saturating_mul(*size as u64));
        if bytes > self.max_bytes || isize::try_from(bytes).is_err() {
            return Err(Error::TooLarge { path: self.path.clone(), bytes, limit: self.max_bytes });
        }
        Ok(())
    }

    /// Cuts the window's array into one piece per block that it touches.
    fn parts<'a, T>(&self, window: Window, mut planes: ArrayViewMut3<'a, T>) -> Vec<Part<'a, T>> {
        let layout = &self.layout;
        let (block_height, block_width) = (layout.block_height, layout.packing.width);
        let mut parts = Vec::new();
        for plane in 0..layout.num_bands / layout.packing.samples {
            let (mut rows, rest) = planes.split_at(Axis(0), layout.packing.samples);
            planes = rest;
            let mut row = window.row;
            while row < window.row + window.height && window.width > 0 {
                let inner_row = row % block_height;
                let height = (block_height - inner_row).min(window.row + window.height - row);
                let (mut cols, rest) = rows.split_at(Axis(1), height);
                rows = rest;
                let mut col = window.col;
                while col < window.col + window.width {
                    let inner_col = col % block_width;
                    let width = (block_width - inner_col).min(window.col + window.width - col);
                    let (part, rest) = cols.split_at(Axis(2), width);
                    cols = rest;
                    let block = (plane * layout.blocks_down + row / block_height) * layout.blocks_across
                        + col / block_width;
                    parts.push((block, inner_row, inner_col, part));
                    col += width;
                }
                row += height;
            }
        }
        parts
    }

    /// Reads the blocks of some parts at once, and unpacks each into its place.
    fn read_parts<T: Sample>(&self, parts: Vec<Part<'_, T>>, unpacker: &mut Unpacker) -> Result<()> {
        let range = |(block, ..): &Part<'_, T>| {
            let (offset, count) = self.layout.blocks[*block];
            // What lies behind an uncompressed block is not read.
            let uncompressed = self.layout.compression == Compression::None;
            let count = if uncompressed { count.min(self.block_bytes::<T>(*block) as u64) } else { count };
            offset..offset + count
        };
        let ranges: Vec<_> = parts.iter().map(range).collect();
        let raw = self.source.read_ranges(&ranges);
        let raw = raw.map_err(|source| Error::Read { path: self.path.clone(), source })?;
        parts.into_iter().zip(raw).try_for_each(|(part, raw)| self.unpack(part, raw, unpacker))
    }

    /// Bytes of a block when it is unpacked; the last strip may be short.
    fn block_bytes<T: Sample>(&self, block: usize) -> usize {
        let layout = &self.layout;
        let rows = if layout.is_tiled {
            layout.block_height
        } else {
            layout.block_height.min(self.grid.height - block % layout.blocks_down * layout.block_height)
        };
        rows * layout.packing.width * layout.packing.samples * size_of::<T>()
    }

    fn unpack<T: Sample>(
        &self,
        (block, row, col, mut out): Part<'_, T>,
        mut raw: Vec<u8>,
        unpacker: &mut Unpacker,
    ) -> Result<()> {
        let layout = &self.layout;
        let (offset, count) = layout.blocks[block];
        if count == 0 {
            out.fill(self.nodata.map_or(T::default(), T::from_f64));
            return Ok(());
        }
        let damaged = |problem| Error::DamagedTiff {
            path: self.path.clone(),
            problem: format!("block {block} at byte {offset}: {problem}"),
        };
        let full = layout.block_height * layout.packing.width * layout.packing.samples * size_of::<T>();
        let needed = self.block_bytes::<T>(block);
        let bytes = layout.compression.decompress(&mut raw, needed, full, unpacker).map_err(damaged)?;
        layout.packing.unpack(bytes, row, col, out);
        Ok(())
    }
}

impl fmt::Debug for GeoTiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeoTiff").field("path", &self.path).field("grid", &self.grid).finish_non_exhaustive()
    }
}

/// A source that is read from its start to its end.
struct Reader {
    source: Arc<dyn Source>,
    length: u64,
    position: u64,
}

impl Reader {
    fn new(source: &Arc<dyn Source>, length: u64) -> Self {
        Self { source: Arc::clone(source), length, position: 0 }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.length.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let count = buffer.len().min(left);
        if count > 0 {
            self.source.read_exact_at(&mut buffer[..count], self.position)?;
        }
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// What a file that is no TIFF seems to be.
fn looks_like(head: &[u8]) -> &'static str {
    match head {
        [] => "an empty file",
        [b'I', b'I', ..] | [b'M', b'M', ..] => "a tiff of another kind",
        [0, 0, 0, 12, b'j', b'P', ..] | [0xFF, 0x4F, 0xFF, 0x51, ..] => "a jpeg 2000 file",
        [b'P', b'K', 3 | 5, ..] => "a zip archive",
        [0x89, b'P', b'N', b'G', ..] => "a png image",
        [0xFF, 0xD8, 0xFF, ..] => "a jpeg image",
        [0x1F, 0x8B, ..] => "a gzip file",
        [b'<', ..] | [0xEF, 0xBB, 0xBF, b'<', ..] => "xml or html",
        _ if head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) => "text",
        _ => "something else",
    }
}

/// What is wrong with a directory.
enum Problem {
    Damaged(String),
    Unsupported(String),
    Io(io::Error),
}

impl Problem {
    fn in_file(self, path: &Path) -> Error {
        let path = path.to_owned();
        match self {
            Self::Damaged(problem) => Error::DamagedTiff { path, problem },
            Self::Unsupported(feature) => Error::UnsupportedTiff { path, feature },
            Self::Io(source) => Error::Read { path, source },
        }
    }
}

impl From<TiffError> for Problem {
    fn from(error: TiffError) -> Self {
        match error {
            TiffError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Damaged("the file ends inside its directory; fetch or write it again".into())
            }
            TiffError::IoError(error) => Self::Io(error),
            TiffError::UnsupportedError(error) => Self::Unsupported(sentence(&error.to_string())),
            TiffError::FormatError(error) => Self::Damaged(sentence(&error.to_string())),
            TiffError::LimitsExceeded => Self::Damaged("a tag is larger than 1 MiB".into()),
            error => Self::Damaged(sentence(&error.to_string())),
        }
    }
}

/// A foreign message in the style of ours: lower case, no full stop.
fn sentence(text: &str) -> String {
    let text = text.trim_end_matches('.');
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

type Directory = (Grid, Layout, Option<f64>, Metadata);

/// The sizes of a hostile directory overflow in `tiff`'s arithmetic, which panics where overflow checks are on.
fn careful<T>(parse: impl FnOnce() -> Result<T, TiffError>) -> Result<T, Problem> {
    let parsed = catch_unwind(AssertUnwindSafe(parse));
    Ok(parsed.map_err(|_| Problem::Damaged("the sizes in its directory overflow".into()))??)
}

fn first_directory(source: &Arc<dyn Source>, length: u64) -> Result<Decoder<BufReader<Reader>>, Problem> {
    careful(|| Decoder::new(BufReader::new(Reader::new(source, length))))
}

/// The directory where `tiff` stands. Its blocks lie within `length` bytes.
fn read_directory(tiff: &mut Decoder<BufReader<Reader>>, length: u64) -> Result<Directory, Problem> {
    let (width, height) = tiff.dimensions()?;
    let (width, height) = (width as usize, height as usize);

    let num_bands = usize::from(tiff.find_tag_unsigned::<u16>(Tag::SamplesPerPixel)?.unwrap_or(1));
    let first = |tag, tiff: &mut Decoder<_>| -> Result<u16, TiffError> {
        Ok(tiff.find_tag_unsigned_vec::<u16>(tag)?.and_then(|values| values.first().copied()).unwrap_or(1))
    };
    let bits = first(Tag::BitsPerSample, tiff)?;
    // SampleFormat: 1 unsigned, 2 signed, 3 float, 4 undefined (read as unsigned, as GDAL does).
    let sample_type = match (first(Tag::SampleFormat, tiff)?, bits) {
        (1 | 4, 8) => SampleType::U8,
        (1 | 4, 16) => SampleType::U16,
        (1 | 4, 32) => SampleType::U32,
        (2, 16) => SampleType::I16,
        (2, 32) => SampleType::I32,
        (3, 32) => SampleType::F32,
        (3, 64) => SampleType::F64,
        (format, bits) => {
            let kind = match format {
                1 | 4 => "unsigned integer",
                2 => "signed integer",
                3 => "float",
                _ => "complex or unknown",
            };
            return Err(Problem::Unsupported(format!("{bits}-bit {kind} samples")));
        }
    };
    let compression = match tiff.find_tag_unsigned::<u16>(Tag::Compression)?.unwrap_or(1) {
        1 => Compression::None,
        5 => Compression::Lzw,
        8 | 32946 => Compression::Deflate,
        32773 => Compression::PackBits,
        50000 => Compression::Zstd,
        code => {
            let name = match code {
                2..=4 => "fax",
                6 | 7 => "jpeg",
                34887 => "lerc",
                34925 => "lzma",
                50001 => "webp",
                _ => "unknown",
            };
            return Err(Problem::Unsupported(format!(
                "{name} compression ({code}); rewrite it with `gdal_translate -co COMPRESS=DEFLATE`"
            )));
        }
    };
    let predictor = match tiff.find_tag_unsigned::<u16>(Tag::Predictor)?.unwrap_or(1) {
        // A predictor belongs to the compression; without one the tag is ignored, as libtiff does.
        _ if matches!(compression, Compression::None | Compression::PackBits) => Predictor::None,
        1 => Predictor::None,
        2 => Predictor::Horizontal,
        3 if matches!(sample_type, SampleType::F32 | SampleType::F64) => Predictor::Float,
        code => return Err(Problem::Unsupported(format!("predictor {code} on {sample_type} samples"))),
    };

    let is_planar = tiff.find_tag_unsigned::<u16>(Tag::PlanarConfiguration)?.unwrap_or(1) == 2;
    let (block_width, block_height) = tiff.chunk_dimensions();
    let block_width = block_width as usize;
    let is_tiled = tiff.get_chunk_type() == ChunkType::Tile;
    let (block_height, offsets, counts) = if is_tiled {
        (block_height as usize, Tag::TileOffsets, Tag::TileByteCounts)
    } else {
        // RowsPerStrip may be 2^32 - 1: all of them.
        ((block_height as usize).min(height), Tag::StripOffsets, Tag::StripByteCounts)
    };
    let mut blocks = |tag| tiff.find_tag_unsigned_vec::<u64>(tag).map(Option::unwrap_or_default);
    let blocks: Vec<_> = blocks(offsets)?.into_iter().zip(blocks(counts)?).collect();
    let (blocks_across, blocks_down) = (width.div_ceil(block_width), height.div_ceil(block_height));
    let planes = if is_planar { num_bands } else { 1 };
    if Some(blocks.len()) != blocks_across.checked_mul(blocks_down).and_then(|n| n.checked_mul(planes)) {
        return Err(Problem::Damaged(format!(
            "{} blocks listed, {planes} x {blocks_down} x {blocks_across} needed",
            blocks.len()
        )));
    }
    let is_inside =
        |(offset, count): &(u64, u64)| offset.checked_add(*count).is_some_and(|end| end <= length);
    let outside = blocks.iter().filter(|block| !is_inside(block)).count();
    if outside > 0 {
        return Err(Problem::Damaged(format!(
            "{outside} of {} blocks lie beyond the end of the file, which has {length} bytes; \
             was it cut off? fetch or write it again",
            blocks.len()
        )));
    }

    let mut doubles = |tag| -> Result<Vec<f64>, TiffError> {
        tiff.find_tag(tag)?.map_or(Ok(Vec::new()), tiff::decoder::ifd::Value::into_f64_vec)
    };
    let geo = GeoTags {
        pixel_scale: doubles(Tag::ModelPixelScaleTag)?,
        tiepoints: doubles(Tag::ModelTiepointTag)?,
        transformation: doubles(Tag::ModelTransformationTag)?,
        key_directory: tiff.find_tag_unsigned_vec(Tag::GeoKeyDirectoryTag)?.unwrap_or_default(),
    };
    let mut text = |tag| -> Result<Option<String>, TiffError> {
        tiff.find_tag(tag)?.map(tiff::decoder::ifd::Value::into_string).transpose()
    };
    let nodata = text(Tag::GdalNodata)?.and_then(|text| text.trim_matches(['\0', ' ']).parse().ok());
    // The decimal text of an f32 is another f64 than its samples are.
    let nodata = nodata
        .map(|value| if sample_type == SampleType::F32 { f32::from_f64(value).to_f64() } else { value });
    let metadata = match text(GDAL_METADATA)? {
        Some(xml) => Metadata::parse(xml.trim_end_matches('\0'), num_bands)
            .map_err(|problem| Problem::Damaged(format!("tag GDAL_METADATA: {problem}")))?,
        None => Metadata::new(num_bands),
    };

    let grid = Grid { height, width, transform: geo.transform(), epsg: geo.epsg() };
    let packing = Packing {
        width: block_width,
        samples: if is_planar { 1 } else { num_bands },
        predictor,
        big_endian: tiff.byte_order() == tiff::tags::ByteOrder::BigEndian,
    };
    let layout = Layout {
        num_bands,
        sample_type,
        compression,
        packing,
        is_tiled,
        block_height,
        blocks_across,
        blocks_down,
        blocks,
    };
    Ok((grid, layout, nodata, metadata))
}
