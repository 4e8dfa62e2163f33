//! What can go wrong, sorted by whose fault it is.

use std::path::PathBuf;

/// The result of this crate's functions that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong: with a file, with what the caller passed in, or with the system.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is not JSON, or not `GeoJSON`.
    #[error("{} is not a GeoJSON FeatureCollection", path.display())]
    NotGeoJson {
        /// The file.
        path: PathBuf,
        /// What the parser says, with line and column where it knows them.
        source: serde_json::Error,
    },

    /// The file names a coordinate reference system other than WGS84 longitude and latitude.
    #[error(
        "{} has the coordinate reference system {crs}; only WGS84 longitude and latitude (EPSG:4326, CRS84) is \
         read: convert it, for example with `ogr2ogr -t_srs EPSG:4326 -lco RFC7946=YES new.geojson old.geojson`",
        path.display()
    )]
    UnsupportedCrs {
        /// The file.
        path: PathBuf,
        /// The file's `crs` member, or the name in it.
        crs: String,
    },

    /// A feature is not a polygon that can be used.
    #[error("{}: feature {index} (counted from 0) {problem}", path.display())]
    BadFeature {
        /// The file.
        path: PathBuf,
        /// The position of the feature in the file, from 0.
        index: usize,
        /// What is wrong with it, as the end of a sentence.
        problem: String,
    },

    /// A polygon to be burnt has a coordinate that is not a finite number of pixels.
    #[error("polygon {index} (counted from 0) has the position ({x}, {y}), which lies at no finite pixel")]
    NotFinite {
        /// The position of the polygon among those given, from 0.
        index: usize,
        /// The first coordinate.
        x: f64,
        /// The second coordinate.
        y: f64,
    },

    /// An affine transform maps all pixels to one line or point, or holds a value that is not finite.
    #[error(
        "the transform {transform:?} cannot be inverted; GDAL's order is [x0, dx, row_rotation, y0, \
         column_rotation, dy]"
    )]
    SingularTransform {
        /// The transform, in GDAL order.
        transform: [f64; 6],
    },

    /// An EPSG code is not one of WGS84 / UTM.
    #[error(
        "EPSG:{epsg} is not WGS84 / UTM; known are 32601 to 32660 (northern zones) and 32701 to 32760 (southern)"
    )]
    NotUtm {
        /// The code.
        epsg: u32,
    },

    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why the operating system refused.
        source: std::io::Error,
    },

    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file that was to be written; if it existed before, it is unchanged.
        path: PathBuf,
        /// Why the operating system refused.
        source: std::io::Error,
    },
}
