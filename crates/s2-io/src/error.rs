//! What can go wrong, sorted by whose fault it is.

use std::path::PathBuf;

use crate::{Band, Baseline, Grid, SampleType, Window};

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a product or raster could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why the operating system refused.
        source: std::io::Error,
    },
    /// A file could not be written; nothing was left behind.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why the operating system refused.
        source: std::io::Error,
    },
    /// A JPEG 2000 file could not be decoded.
    #[error("cannot decode {}", path.display())]
    Jp2 {
        /// The file, or its place in an archive.
        path: PathBuf,
        /// What is wrong with it.
        source: s2_jp2::Error,
    },
    /// A zip archive or one of its members could not be read.
    #[error("cannot read the zip archive {}; if it is damaged, get it again", path.display())]
    Zip {
        /// The archive, or the member's place in it.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A path inside a product leads out of it.
    #[error("{}: refused, because the path {member:?} in it leads out of the product", path.display())]
    UnsafePath {
        /// The product or archive.
        path: PathBuf,
        /// The path.
        member: String,
    },
    /// A folder or archive is no Sentinel-2 product.
    #[error("{} is not a Sentinel-2 product: {reason}", path.display())]
    NotAProduct {
        /// The folder or archive.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// An archive holds a member that is unsafe to unpack, though its path stays inside.
    #[error("{}: refused, because {member:?} in it {problem}", path.display())]
    UnsafeMember {
        /// The archive.
        path: PathBuf,
        /// The member's path.
        member: String,
        /// What is unsafe about it.
        problem: &'static str,
    },
    /// Files of a product are missing, cannot be read, or are not those that its manifest or archive names.
    #[error(
        "{} {problem}{}; get the product again", path.display(),
        match more { 0 => String::new(), 1 => ", and 1 more file is damaged".to_owned(), n => format!(", and {n} more files are damaged") }
    )]
    Damaged {
        /// The first of these files in the order of the manifest, or its place in an archive.
        path: PathBuf,
        /// What is wrong with it: what was found and what was expected.
        problem: String,
        /// How many more files are damaged.
        more: usize,
    },
    /// A product has no manifest, which alone says what its files must be.
    #[error("{} has no manifest.safe, so it is not known what its files must be", path.display())]
    NoManifest {
        /// The product.
        path: PathBuf,
    },
    /// A product does not hold exactly one granule.
    #[error(
        "{} has {} granules, one is needed{}", path.display(), granules.len(),
        if granules.is_empty() { String::new() } else { format!(": {}; keep one in GRANULE/", granules.join(", ")) }
    )]
    Granules {
        /// The product.
        path: PathBuf,
        /// Names of its granules.
        granules: Vec<String>,
    },
    /// Metadata are not well-formed XML.
    #[error("cannot parse {}", path.display())]
    Xml {
        /// The file, or its place in an archive.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Metadata lack a value or hold an impossible one.
    #[error("{}: {element} {}", path.display(), value.as_ref().map_or("is missing".to_owned(), |v| format!("cannot be {v:?}")))]
    Metadata {
        /// The file, or its place in an archive.
        path: PathBuf,
        /// The XML element.
        element: String,
        /// Its value, if there is one.
        value: Option<String>,
    },
    /// The radiometric offset of a product that must have one is unknown.
    #[error(
        "{}: no radiometric offset of {band} at baseline {baseline}, where one is required (04.00 and later); \
         get the metadata again, or make the product with Sen2Cor 2.10 or later",
        path.display()
    )]
    MissingOffset {
        /// The metadata file.
        path: PathBuf,
        /// The band.
        band: Band,
        /// The product's baseline.
        baseline: Baseline,
    },
    /// A product's name and its metadata name different baselines.
    #[error("{}: the metadata say baseline {metadata}, the name {name} says {named}", path.display())]
    BaselineMismatch {
        /// The metadata file.
        path: PathBuf,
        /// Baseline in the metadata.
        metadata: Baseline,
        /// The product's name.
        name: String,
        /// Baseline in the name.
        named: Baseline,
    },
    /// A product lacks a band.
    #[error("{} has no {image} at {resolution_m} m; looked for {looked_for}", path.display())]
    MissingImage {
        /// The product.
        path: PathBuf,
        /// The band, or SCL.
        image: String,
        /// Resolution, metres.
        resolution_m: u32,
        /// The path or pattern in the product.
        looked_for: String,
    },
    /// A file belongs to another tile than its product.
    #[error("{} belongs to tile {found}, the product to tile {expected}", path.display())]
    OtherTile {
        /// The file, or its place in an archive.
        path: PathBuf,
        /// Tile in its name.
        found: String,
        /// Tile of the product.
        expected: String,
    },
    /// A product has no grid of this resolution.
    #[error("{} has no grid of {resolution_m} m", path.display())]
    Resolution {
        /// The tile metadata.
        path: PathBuf,
        /// Resolution, metres.
        resolution_m: u32,
    },
    /// An image has another size than its product says.
    #[error("{} has {height} rows and {width} columns, the product's grid {} and {}", path.display(), grid.height, grid.width)]
    ImageSize {
        /// The file, or its place in an archive.
        path: PathBuf,
        /// Rows of the image.
        height: u32,
        /// Columns of the image.
        width: u32,
        /// The grid in the product's metadata.
        grid: Grid,
    },
    /// An image lies elsewhere than its product says.
    #[error(
        "{} lies at {:?} in EPSG {:?}, the product's grid at {:?} in EPSG {:?}",
        path.display(), found.transform, found.epsg, grid.transform, grid.epsg
    )]
    ImagePlace {
        /// The file, or its place in an archive.
        path: PathBuf,
        /// The grid in the image.
        found: Box<Grid>,
        /// The grid in the product's metadata.
        grid: Box<Grid>,
    },
    /// A text is not the name of a band, baseline or product.
    #[error("{text:?} is not {expected}")]
    Name {
        /// The text.
        text: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A file is no TIFF.
    #[error("{} is no tiff: it looks like {looks_like}", path.display())]
    NotTiff {
        /// The file.
        path: PathBuf,
        /// What its first bytes say.
        looks_like: &'static str,
    },
    /// A TIFF contradicts itself or is cut off.
    #[error("{} is a damaged tiff: {problem}", path.display())]
    DamagedTiff {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        problem: String,
    },
    /// A TIFF is well-formed, but uses what this crate does not read.
    #[error("{} uses what is not supported: {feature}", path.display())]
    UnsupportedTiff {
        /// The file.
        path: PathBuf,
        /// The feature.
        feature: String,
    },
    /// A raster was asked for as another type than the file's.
    #[error("{} has {file} samples, they cannot be read as {asked}", path.display())]
    SampleType {
        /// The file.
        path: PathBuf,
        /// What it holds.
        file: SampleType,
        /// What was asked for.
        asked: SampleType,
    },
    /// A window leaves its raster.
    #[error(
        "rows {} to {} and columns {} to {} leave {}, which has {height} rows and {width} columns",
        window.row, window.row.saturating_add(window.height), window.col, window.col.saturating_add(window.width),
        path.display()
    )]
    WindowOutside {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        window: Window,
        /// Rows of the file.
        height: usize,
        /// Columns of the file.
        width: usize,
    },
    /// Pixels are to go into an array of another shape, or in another order.
    #[error(
        "{} is read into an array of shape {shape:?}, {expected:?} in standard order is needed", path.display()
    )]
    OutputShape {
        /// The file.
        path: PathBuf,
        /// Of the array: bands, rows, columns.
        shape: Vec<usize>,
        /// Of the window.
        expected: [usize; 3],
    },
    /// A read takes more memory than its limit.
    #[error(
        "reading {} takes {bytes} bytes, the limit is {limit}: read windows of it, or raise the limit",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What the read takes.
        bytes: u64,
        /// What is allowed.
        limit: u64,
    },
    /// An archive is larger than what may be unpacked.
    #[error(
        "{}: refused, because it unpacks to {found} {what}, the limit is {limit}; raise the limit if you trust it",
        path.display()
    )]
    UnpackLimit {
        /// The archive, or the member's place in it.
        path: PathBuf,
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// What is allowed.
        limit: u64,
    },
    /// A product is to be unpacked where something else is.
    #[error("{} is already there and is not known to be what the archive holds; move it away to unpack it again", path.display())]
    Exists {
        /// The folder that is there.
        path: PathBuf,
        /// Why it was not taken for the unpacked product.
        source: Box<Self>,
    },
    /// A record of a stage is none, or one of another version.
    #[error("{} is no record of what was made beside it; remove it, and that is made again", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A disk has no room for what is to be written.
    #[error("{}: {needed} bytes are needed, {free} are free", path.display())]
    NoSpace {
        /// The folder that was to be written to.
        path: PathBuf,
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A GeoTIFF cannot be written as asked.
    #[error("cannot write {}: {problem}", path.display())]
    InvalidCog {
        /// The file.
        path: PathBuf,
        /// What does not fit together.
        problem: String,
    },
}
