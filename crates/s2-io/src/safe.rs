//! SAFE products, L1C and L2A, in a folder or a zip archive: metadata, bands, scene classification.

mod archive;
mod manifest;
mod source;
pub(crate) mod stack;
mod unpack;
mod verify;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use s2_jp2::{Image, Window};

use self::source::Source;
pub(crate) use self::source::is_inside;
pub use self::unpack::{UnpackLimits, unpack, unpack_with_limits, unpacked_bytes};
pub use self::verify::{Verified, verify};
use crate::product::tile_id;
use crate::xml::Element;
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

#[derive(Debug)]
struct ImageFile {
    /// Path in the product, from its metadata or, where these name none that exists, found by its name.
    file: String,
    exists: bool,
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

/// An XML file of a product.
struct Metadata {
    path: PathBuf,
    root: Element,
}

impl Metadata {
    fn read(source: &Source, file: &str) -> Result<Self> {
        let path = source.path_of(file);
        let root = Element::parse(&path, &source.read(file)?)?;
        Ok(Self { path, root })
    }

    fn wrong(&self, element: &str, value: &str) -> Error {
        Error::Metadata {
            path: self.path.clone(),
            element: element.to_owned(),
            value: Some(value.to_owned()),
        }
    }

    /// The text of the first element that has one of these names.
    fn text(&self, names: &[&str]) -> Result<&str> {
        text(&self.path, &self.root, names)
    }

    fn number(&self, element: &Element, names: &[&str]) -> Result<f64> {
        let text = text(&self.path, element, names)?;
        text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| self.wrong(names[0], text))
    }

    /// A number without decimals, however it is written (`10000`, `1000.0`).
    fn integer<T: TryFrom<i64>>(&self, element: &Element, names: &[&str]) -> Result<T> {
        let number = self.number(element, names)?;
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
        let whole = (number.fract() == 0.0 && number.abs() < 1e9).then_some(number as i64);
        whole
            .and_then(|whole| T::try_from(whole).ok())
            .ok_or_else(|| self.wrong(names[0], &number.to_string()))
    }

    fn baseline(&self, names: [&Option<String>; 2]) -> Result<Baseline> {
        let metadata = match self.text(&["PROCESSING_BASELINE"]) {
            Ok(text) => Some(text.parse().map_err(|_| self.wrong("PROCESSING_BASELINE", text))?),
            Err(_) => None,
        };
        let mut baseline = metadata;
        for name in names.into_iter().flatten() {
            let Some(named) = name.parse::<ProductName>().ok().and_then(|name| name.baseline) else {
                continue;
            };
            match baseline {
                Some(metadata) if metadata != named => {
                    let (path, name) = (self.path.clone(), name.clone());
                    return Err(Error::BaselineMismatch { path, metadata, name, named });
                }
                _ => baseline = Some(named),
            }
        }
        let (path, element) = (self.path.clone(), "PROCESSING_BASELINE".to_owned());
        baseline.ok_or(Error::Metadata { path, element, value: None })
    }

    fn quantification(&self, level: Level) -> Result<u32> {
        let names: &[_] = match level {
            Level::L1C => &["QUANTIFICATION_VALUE"],
            Level::L2A => &["BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE"],
        };
        match self.integer(&self.root, names)? {
            0 => Err(self.wrong(names[0], "0")),
            value => Ok(value),
        }
    }

    fn offsets(&self, level: Level, baseline: Baseline) -> Result<[i32; 13]> {
        let name = match level {
            Level::L1C => "RADIO_ADD_OFFSET",
            Level::L2A => "BOA_ADD_OFFSET",
        };
        let mut offsets = [None; 13];
        for element in self.root.find_all(name) {
            // Everywhere else in the metadata the attribute is called `bandId`.
            let id = element.attribute("band_id").or(element.attribute("bandId")).unwrap_or_default();
            let slot = id.parse::<usize>().ok().and_then(|id| offsets.get_mut(id));
            let value = element.text.trim();
            let slot = slot.ok_or_else(|| self.wrong(&format!("band_id of {name}"), id))?;
            *slot = Some(value.parse::<i32>().map_err(|_| self.wrong(name, value))?);
        }
        for band in Band::ALL {
            let required = baseline >= Baseline::WITH_OFFSET && (level, band) != (Level::L2A, Band::B10);
            if required && offsets[usize::from(band.band_id())].is_none() {
                return Err(Error::MissingOffset { path: self.path.clone(), band, baseline });
            }
        }
        Ok(offsets.map(Option::unwrap_or_default))
    }

    /// The grids of a tile, by resolution. `ULX` and `ULY` are the outer corner of the first pixel.
    fn grids(&self) -> Result<BTreeMap<u32, Grid>> {
        let code = self.text(&["HORIZONTAL_CS_CODE"])?;
        let epsg = code.strip_prefix("EPSG:").and_then(|code| code.parse().ok());
        let epsg = Some(epsg.ok_or_else(|| self.wrong("HORIZONTAL_CS_CODE", code))?);
        let resolution = |element: &Element| {
            let text = element.attribute("resolution").unwrap_or_default();
            text.parse::<u32>().map_err(|_| self.wrong("resolution", text))
        };
        let mut grids = BTreeMap::new();
        for place in self.root.find_all("Geoposition") {
            let resolution_m = resolution(place)?;
            for size in self.root.find_all("Size") {
                if resolution(size)? != resolution_m {
                    continue;
                }
                let [x0, y0] = [self.number(place, &["ULX"])?, self.number(place, &["ULY"])?];
                let [dx, dy] = [self.number(place, &["XDIM"])?, self.number(place, &["YDIM"])?];
                grids.insert(
                    resolution_m,
                    Grid {
                        height: self.integer(size, &["NROWS"])?,
                        width: self.integer(size, &["NCOLS"])?,
                        transform: [x0, dx, 0.0, y0, 0.0, dy],
                        epsg,
                    },
                );
            }
        }
        Ok(grids)
    }
}

fn text<'a>(path: &Path, element: &'a Element, names: &[&str]) -> Result<&'a str> {
    let found = names.iter().find_map(|name| element.find(name));
    found.map(|element| element.text.trim()).ok_or_else(|| Error::Metadata {
        path: path.to_owned(),
        element: names[0].to_owned(),
        value: None,
    })
}

/// The level that the name of a product's metadata file tells; `None` for other files.
pub(crate) fn product_level(file: &str) -> Option<Level> {
    let name = file.to_ascii_lowercase();
    let old = |level: &str| name.contains(&format!("_mtd_saf{level}_")) && name.ends_with(".xml");
    match &*name {
        _ if name.contains('/') => None,
        "mtd_msil1c.xml" => Some(Level::L1C),
        "mtd_msil2a.xml" | "mtd_msil2ap.xml" => Some(Level::L2A),
        _ if old("l1c") => Some(Level::L1C),
        _ if old("l2a") => Some(Level::L2A),
        _ => None,
    }
}

/// The folder of the product's one granule and its metadata file. Where there is no `GRANULE` folder, as in some
/// copies, the tile metadata may lie beside those of the product.
fn granule(source: &Source) -> Result<(String, String)> {
    let mut granules: Vec<_> = source
        .files()
        .iter()
        .filter_map(|file| Some(file.strip_prefix("GRANULE/")?.split_once('/')?.0.to_owned()))
        .collect();
    granules.dedup();
    let is_metadata = |file: &str| {
        let name = file.to_ascii_lowercase();
        let old = (name.contains("_mtd_l1c_tl_") || name.contains("_mtd_l2a_tl_")) && name.ends_with(".xml");
        name == "mtd_tl.xml" || (old && !name.contains('/'))
    };
    let folder = match &granules[..] {
        [] => String::new(),
        [granule] => format!("GRANULE/{granule}/"),
        _ => return Err(Error::Granules { path: source.path().to_owned(), granules }),
    };
    let file = source.files().iter().find(|file| file.strip_prefix(&folder).is_some_and(is_metadata));
    match file {
        Some(file) => Ok((folder, file.clone())),
        None if granules.is_empty() => Err(Error::Granules { path: source.path().to_owned(), granules }),
        None => {
            let reason = format!("no {folder}MTD_TL.xml in it");
            Err(Error::NotAProduct { path: source.path().to_owned(), reason })
        }
    }
}

/// The images of the granule: those that the metadata name, then those found by name.
fn images(
    source: &Source,
    product: &Metadata,
    granule: &str,
    tile: &str,
) -> Result<BTreeMap<(Layer, u32), ImageFile>> {
    let mut images = BTreeMap::new();
    for name in ["IMAGE_FILE", "IMAGE_FILE_2A", "IMAGE_ID", "IMAGE_ID_2A"] {
        for element in product.root.find_all(name) {
            let text = element.text.trim();
            let text = text.strip_prefix("./").unwrap_or(text);
            if !is_inside(text) {
                return Err(Error::UnsafePath { path: product.path.clone(), member: text.to_owned() });
            }
            let stem = text.strip_suffix(".jp2").unwrap_or(text);
            let Some(key) = layer(stem) else { continue };
            let file = if stem.contains('/') {
                format!("{stem}.jp2")
            } else if stem_parts(stem).find_map(tile_id).is_none_or(|found| found == tile) {
                // Old metadata name files without their folders.
                let same =
                    |file: &&String| file.starts_with(granule) && file.ends_with(&format!("/{stem}.jp2"));
                source
                    .files()
                    .iter()
                    .find(same)
                    .map_or(format!("{granule}IMG_DATA/{stem}.jp2"), String::clone)
            } else {
                continue;
            };
            // Metadata of old products name the images of all granules.
            if file.starts_with(granule) {
                let exists = source.files().binary_search(&file).is_ok();
                images.insert(key, ImageFile { file, exists });
            }
        }
    }
    for file in source.files() {
        let in_images = file.strip_prefix(granule).is_some_and(|rest| rest.starts_with("IMG_DATA/"));
        let Some(key) = file.strip_suffix(".jp2").filter(|_| in_images).and_then(layer) else { continue };
        let known = images.get(&key).is_some_and(|image| image.exists);
        if !known {
            images.insert(key, ImageFile { file: file.clone(), exists: true });
        }
    }
    Ok(images)
}

/// What the name of an image file says: band or scene classification, and resolution in metres.
fn layer(stem: &str) -> Option<(Layer, u32)> {
    let layer = stem_parts(stem).find_map(|part| match part {
        "SCL" => Some(Layer::Scl),
        // In file names bands have two digits: "B02", "B8A".
        _ if part.len() == 3 => part.parse().ok().map(Layer::Band),
        _ => None,
    })?;
    let named = stem_parts(stem).last()?.strip_suffix('m').and_then(|digits| digits.parse().ok());
    match (layer, named) {
        (_, Some(resolution_m)) => Some((layer, resolution_m)),
        (Layer::Band(band), None) => Some((layer, band.resolution_m())),
        (Layer::Scl, None) => None,
    }
}

/// The parts of a file's name without its folder and ending: `T29RKH`, `20200219T112111`, `B02`, `10m`.
fn stem_parts(file: &str) -> impl Iterator<Item = &str> {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.strip_suffix(".jp2").unwrap_or(name).split('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_names_of_all_formats_are_understood() {
        let b02 = Layer::Band(Band::B02);
        for (stem, expected) in [
            ("GRANULE/g/IMG_DATA/T31TDH_20180101T105441_B02", Some((b02, 10))),
            ("GRANULE/g/IMG_DATA/R60m/T29RKH_20200219T112111_B02_60m", Some((b02, 60))),
            ("L2A_T34VFJ_20180818T094031_B8A_20m", Some((Layer::Band(Band::B8A), 20))),
            (
                "S2A_OPER_MSI_L1C_TL_EPA__20160910T134133_A005359_T04MGV_B09",
                Some((Layer::Band(Band::B09), 60)),
            ),
            ("S2A_USER_SCL_L2A_TL_EPA__20160910T134133_A005359_T04MGV_20m", Some((Layer::Scl, 20))),
            ("T29RKH_20200219T112111_SCL_20m", Some((Layer::Scl, 20))),
            ("T29RKH_20200219T112111_TCI_10m", None),
            ("T29RKH_20200219T112111_AOT_20m", None),
            ("", None),
        ] {
            assert_eq!(layer(stem), expected, "{stem}");
        }
    }

    #[test]
    fn paths_that_lead_out_are_recognised() {
        for path in ["../a", "a/../../b", "/a", "\\a", "a\\..\\b", "C:/a", "a/.."] {
            assert!(!is_inside(path), "{path}");
        }
        for path in ["a", "a/b.c", "a..b/c", "GRANULE/x/"] {
            assert!(is_inside(path), "{path}");
        }
    }
}
