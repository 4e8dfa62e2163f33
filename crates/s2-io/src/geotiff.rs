//! GeoTIFF (TIFF 6.0, OGC 19-008): reading by window, writing as cloud optimized GeoTIFF.

mod block;
mod directory;
mod geokeys;
mod metadata;
mod options;
mod overview;
mod read;
mod sample;
mod write;

pub use options::{CogCompression, CogOptions};
pub use overview::Overviews;
pub use read::GeoTiff;
pub use sample::{Sample, SampleType};
pub use write::{CogWriter, write_cog};
