//! SAFE products, L1C and L2A, in a folder or a zip archive: metadata, bands, scene classification.

mod archive;
mod layout;
mod manifest;
mod metadata;
mod source;
pub(crate) mod stack;
mod unpack;
mod verify;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use s2_jp2::{Image, Window};

pub(crate) use self::layout::product_level;
use self::layout::{ImageFile, granule, images, stem_parts};
use self::metadata::Metadata;
use self::source::Source;
pub(crate) use self::source::is_inside;
pub use self::unpack::{UnpackLimits, unpack, unpack_with_limits, unpacked_bytes};
pub use self::verify::{Verified, verify};
use crate::product::tile_id;
use crate::{Band, Baseline, Error, Grid, Level, ProductName, Raster, Result, jp2};

/// DN 0 means nodata in every image of a product.
const NODATA: Option<f64> = Some(0.0);
/// GML writes positions as decimal text; a millimetre is far below a pixel and far above rounding.
const SAME_PLACE_M: f64 = 1e-3;

/// A Sentinel-2 product of one tile, opened: its metadata are read, its images are read on demand.
///
/// # Examples
///
/// ```no_run
/// use s2_io::{Band, Product};
///
/// let product = Product::open("S2A_MSIL2A_20200219T112111_N0509_R037_T29RKH_20200219T140000.SAFE.zip")?;
/// let red = product.read_band(Band::B04, 10)?;
/// assert_eq!(red.data.dim(), (1, 10_980, 10_980));
/// let reflectance = (f64::from(red.data[[0, 0, 0]]) + f64::from(product.offset(Band::B04)))
///     / f64::from(product.quantification());
/// # Ok::<(), s2_io::Error>(())
/// ```
#[derive(Debug)]
pub struct Product {
    source: Source,
    name: String,
    level: Level,
    baseline: Baseline,
    tile: String,
    sensing_start: String,
    quantification: u32,
    /// By [`Band::band_id`].
    offsets: [i32; 13],
    tile_metadata: PathBuf,
    /// By resolution, metres.
    grids: BTreeMap<u32, Grid>,
    images: BTreeMap<(Layer, u32), ImageFile>,
}

/// An image of a product that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// A band.
    Band(Band),
    /// The scene classification of an L2A product.
    Scl,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Band(band) => band.fmt(f),
            Self::Scl => f.pad("SCL"),
        }
    }
}

impl Product {
    /// Opens a product: a SAFE folder, or a zip archive with one SAFE folder in it (or a product at its root). The
    /// archive is not unpacked; its files are read into memory one at a time.
    ///
    /// Products of baseline 04.00 and later must give their radiometric offset; products before that have none.
    /// Old products of several granules can be opened when one granule is left in them.
    ///
    /// # Errors
    ///
    /// When there is no product, its metadata are damaged or contradict its name, offsets are missing, there is not
    /// exactly one granule, or a path in it leads out of the product.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let source = Source::open(path.as_ref())?;
        let (file, named_level) = source
            .files()
            .iter()
            .filter_map(|file| Some((file, product_level(file)?)))
            // Old L2A products keep the metadata of their L1C product.
            .max_by_key(|(_, level)| *level)
            .ok_or_else(|| Error::NotAProduct {
                path: path.as_ref().to_owned(),
                reason: "no product metadata in it".to_owned(),
            })?;
        let product = Metadata::read(&source, file)?;
        let (granule, tile_file) = granule(&source)?;
        let tile_metadata = Metadata::read(&source, &tile_file)?;

        let level = match product.text(&["PROCESSING_LEVEL"]) {
            Ok(text) if text.starts_with("Level-1C") => Level::L1C,
            Ok(text) if text.starts_with("Level-2A") => Level::L2A,
            Ok(text) => return Err(product.wrong("PROCESSING_LEVEL", text)),
            Err(_) => named_level,
        };
        let tile_text = tile_metadata.text(&["TILE_ID", "TILE_ID_2A"])?;
        let tile = tile_text.split('_').find_map(tile_id);
        let tile = tile.ok_or_else(|| tile_metadata.wrong("TILE_ID", tile_text))?.to_owned();

        let stem = |name: &str| {
            let name = name.strip_suffix(".zip").unwrap_or(name);
            name.strip_suffix(".SAFE").unwrap_or(name).to_owned()
        };
        let on_disk = path.as_ref().canonicalize().ok();
        let on_disk = on_disk.as_deref().and_then(Path::file_name).map(|name| stem(&name.to_string_lossy()));
        let in_metadata = product.text(&["PRODUCT_URI", "PRODUCT_URI_2A"]).ok().map(stem);
        let names = [&in_metadata, &on_disk];
        let baseline = product.baseline(names)?;
        for name in names.into_iter().flatten() {
            let named = name.parse::<ProductName>().ok().and_then(|name| name.tile);
            if let Some(expected) = named.filter(|named| *named != tile) {
                return Err(Error::OtherTile { path: tile_metadata.path, found: tile, expected });
            }
        }
        Ok(Self {
            name: in_metadata.or(on_disk).unwrap_or_default(),
            level,
            baseline,
            sensing_start: product.text(&["PRODUCT_START_TIME"])?.to_owned(),
            quantification: product.quantification(level)?,
            offsets: product.offsets(level, baseline)?,
            grids: tile_metadata.grids()?,
            tile_metadata: tile_metadata.path,
            images: images(&source, &product, &granule, &tile)?,
            tile,
            source,
        })
    }

    /// The product's name, without `.SAFE`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Processing level.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// Processing baseline.
    #[must_use]
    pub fn baseline(&self) -> Baseline {
        self.baseline
    }

    /// MGRS tile, `"29RKH"`.
    #[must_use]
    pub fn tile(&self) -> &str {
        &self.tile
    }

    /// Start of sensing, UTC, as the metadata write it: `"2020-02-19T11:21:11.024Z"`.
    #[must_use]
    pub fn sensing_start(&self) -> &str {
        &self.sensing_start
    }

    /// What a reflectance of 1 is in DN: 10 000, or 1000 in products of 2015.
    ///
    /// `reflectance = (dn + offset) / quantification`.
    #[must_use]
    pub fn quantification(&self) -> u32 {
        self.quantification
    }

    /// What to add to the DN of a band before it is divided: -1000 since baseline 04.00, 0 before. DN 0 is nodata
    /// and stays so.
    #[must_use]
    pub fn offset(&self, band: Band) -> i32 {
        self.offsets[usize::from(band.band_id())]
    }

    /// The grid of the images of a resolution (10, 20 or 60 m).
    ///
    /// # Errors
    ///
    /// When the product has no such grid.
    pub fn grid(&self, resolution_m: u32) -> Result<Grid> {
        let missing = || Error::Resolution { path: self.tile_metadata.clone(), resolution_m };
        self.grids.get(&resolution_m).copied().ok_or_else(missing)
    }

    /// The bands that are there, with their resolution in metres, sorted.
    pub fn bands(&self) -> impl Iterator<Item = (Band, u32)> {
        self.images.iter().filter(|(_, image)| image.exists).filter_map(|((layer, resolution_m), _)| {
            match layer {
                Layer::Band(band) => Some((*band, *resolution_m)),
                Layer::Scl => None,
            }
        })
    }

    /// Reads a band at one of the resolutions that the product has it in.
    ///
    /// # Shapes
    ///
    /// - raster: `[1, row, column]`, DN as stored (see [`Product::offset`]), nodata 0
    ///
    /// # Errors
    ///
    /// When the band is not there or damaged, or its size, place or tile contradict the metadata.
    pub fn read_band(&self, band: Band, resolution_m: u32) -> Result<Raster<u16>> {
        self.read(Layer::Band(band), resolution_m, None)
    }

    /// Reads a window of a band; only the JPEG 2000 tiles that it touches are decoded. Otherwise as
    /// [`Product::read_band`].
    ///
    /// # Errors
    ///
    /// As [`Product::read_band`], and when the window leaves the band.
    pub fn read_band_window(&self, band: Band, resolution_m: u32, window: Window) -> Result<Raster<u16>> {
        self.read(Layer::Band(band), resolution_m, Some(window))
    }

    /// Reads the scene classification of an L2A product, at 20 or 60 m.
    ///
    /// # Shapes
    ///
    /// - raster: `[1, row, column]`, classes 0 to 11, nodata 0
    ///
    /// # Errors
    ///
    /// As [`Product::read_band`].
    pub fn read_scl(&self, resolution_m: u32) -> Result<Raster<u8>> {
        self.read(Layer::Scl, resolution_m, None)
    }

    fn read<T: s2_jp2::Sample>(
        &self,
        layer: Layer,
        resolution_m: u32,
        window: Option<Window>,
    ) -> Result<Raster<T>> {
        self.open_image(layer, resolution_m, |path, image, grid| {
            jp2::decode(path, image, grid, window, NODATA)
        })
    }

    /// Opens an image, checks that it is the one that the metadata speak of, and hands it on with its path and grid.
    fn open_image<T>(
        &self,
        layer: Layer,
        resolution_m: u32,
        read: impl FnOnce(&Path, &Image<'_>, &Grid) -> Result<T>,
    ) -> Result<T> {
        let grid = self.grid(resolution_m)?;
        let file = match self.images.get(&(layer, resolution_m)) {
            Some(ImageFile { file, exists: true }) => file,
            other => {
                return Err(Error::MissingImage {
                    path: self.source.path().to_owned(),
                    image: layer.to_string(),
                    resolution_m,
                    looked_for: match other {
                        Some(image) => image.file.clone(),
                        None if self.level == Level::L1C => format!("GRANULE/*/IMG_DATA/*_{layer}.jp2"),
                        None => format!("GRANULE/*/IMG_DATA/R{resolution_m}m/*_{layer}_{resolution_m}m.jp2"),
                    },
                });
            }
        };
        let path = self.source.path_of(file);
        if let Some(found) = stem_parts(file).find_map(tile_id).filter(|found| *found != self.tile) {
            let (found, expected) = (found.to_owned(), self.tile.clone());
            return Err(Error::OtherTile { path, found, expected });
        }
        let opened = self.source.open_image(file)?;
        let image = jp2::open(&path, &*opened)?;
        let (height, width) = (image.height(), image.width());
        if (height as usize, width as usize) != (grid.height, grid.width) {
            return Err(Error::ImageSize { path, height, width, grid });
        }
        if image.components().len() != 1 {
            let feature = format!("an image of {} components as {layer}", image.components().len());
            return Err(Error::Jp2 { path, source: s2_jp2::Error::Unsupported { feature } });
        }
        if let Some(found) = jp2::georeference(&path, &image)? {
            let same_crs = found.epsg.is_none_or(|epsg| Some(epsg) == grid.epsg);
            let close = |(a, b): (&f64, &f64)| (a - b).abs() <= SAME_PLACE_M;
            if !same_crs || !found.transform.iter().zip(&grid.transform).all(close) {
                let (found, grid) = (Box::new(found), Box::new(grid));
                return Err(Error::ImagePlace { path, found, grid });
            }
        }
        read(&path, &image, &grid)
    }
}
