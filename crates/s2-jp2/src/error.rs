//! What can go wrong, sorted by whose fault it is.

use crate::Window;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an image could not be decoded. Byte positions count from the start of the data given to
/// [`Image::parse`](crate::Image::parse).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The data are something else.
    #[error("not a JPEG 2000 file: {found}")]
    NotJpeg2000 {
        /// What they look like.
        found: String,
    },
    /// The data could not be read.
    #[error("reading from byte {offset} failed: {source}")]
    Read {
        /// From where on.
        offset: usize,
        /// Why.
        source: std::io::Error,
    },
    /// The data end too early.
    #[error("truncated at byte {offset}: {}; get the file again", whole(*whole_tiles, *tiles))]
    Truncated {
        /// Where the data end.
        offset: usize,
        /// Tiles whose data are all there.
        whole_tiles: usize,
        /// Tiles of the image; 0 where the header itself is incomplete.
        tiles: usize,
    },
    /// A box or marker contradicts the standard.
    #[error("damaged at byte {offset}: {what}; get the file again")]
    Damaged {
        /// Where.
        offset: usize,
        /// What was found.
        what: String,
    },
    /// The data of one tile cannot be decoded.
    #[error("damaged: tile {tile}, whose data begin at byte {offset}, cannot be decoded; get the file again")]
    Tile {
        /// Number of the tile, row by row from 0.
        tile: usize,
        /// Where its first tile-part begins.
        offset: usize,
        /// What the decoder says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A valid image that this crate cannot decode.
    #[error("not supported: {feature}")]
    Unsupported {
        /// What it uses.
        feature: String,
    },
    /// The image passes one of the [`Limits`](crate::Limits).
    #[error("too large: {value} {what}, the limit is {limit}")]
    TooLarge {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        value: u64,
        /// How many are allowed.
        limit: u64,
    },
    /// The samples do not fit the type asked for.
    #[error("{bits}-bit {}signed samples do not fit {wanted}", if *signed { "" } else { "un" })]
    SampleType {
        /// Bits of a sample.
        bits: u8,
        /// Whether samples have a sign.
        signed: bool,
        /// The type asked for.
        wanted: &'static str,
    },
    /// The window leaves the image.
    #[error(
        "window of rows {}+{} and columns {}+{} leaves the image of {height} rows and {width} columns",
        window.row, window.height, window.col, window.width
    )]
    WindowOutside {
        /// The window.
        window: Window,
        /// Rows of the image.
        height: usize,
        /// Columns of the image.
        width: usize,
    },
    /// The image was coded with fewer resolutions.
    #[error("the image cannot be reduced {wanted} times: it has {levels} smaller resolutions")]
    Reduction {
        /// How often width and height should be halved.
        wanted: u32,
        /// How often they can be.
        levels: u32,
    },
    /// The output slice has the wrong length.
    #[error("the output holds {found} samples, {expected} are needed")]
    OutputLength {
        /// components × height × width, and more where rows are apart.
        expected: usize,
        /// Length of the slice.
        found: usize,
    },
}

fn whole(whole_tiles: usize, tiles: usize) -> String {
    match tiles {
        0 => "the header is incomplete".to_owned(),
        _ => format!("{whole_tiles} of {tiles} tiles are whole"),
    }
}
