//! Images that the server hands out.

use std::path::Path;

use ndarray::Array3;
use s2_io::{CogOptions, Grid, Overviews, write_cog};

/// Numbers below 4096 that look random.
pub(crate) fn noise(mut state: u64) -> impl FnMut() -> u16 {
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u16::try_from(state >> 52).unwrap()
    }
}

/// A square band as a cloud optimized GeoTIFF, and its samples; the western edge and the pixels in metres of UTM zone 29.
pub(crate) fn cog(
    folder: &Path,
    west: f64,
    resolution: f64,
    size: usize,
    samples: impl FnMut() -> u16,
) -> (Array3<u16>, Vec<u8>) {
    let data = Array3::from_shape_simple_fn((1, size, size), samples);
    let grid = Grid {
        transform: [west, resolution, 0.0, 3_300_000.0, 0.0, -resolution],
        epsg: Some(32629),
        height: size,
        width: size,
    };
    let path = folder.join("band.tif");
    let options = CogOptions { nodata: Some(0.0), overviews: Overviews::Nearest, ..CogOptions::default() };
    write_cog(&path, data.view(), &grid, &options).unwrap();
    (data, std::fs::read(path).unwrap())
}
