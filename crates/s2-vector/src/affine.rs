//! The affine transform between pixels and map, in the order of the GDAL raster data model.

use crate::{Error, Result};
use geo_types::Coord;

/// Converts a map position to pixels: `x` in columns, `y` in rows, both 0 at the outer corner of the first
/// pixel.
pub(crate) fn map_to_pixel(transform: &[f64; 6]) -> Result<impl Fn(Coord<f64>) -> Coord<f64> + use<>> {
    let [x0, dx, rx, y0, ry, dy] = *transform;
    let determinant = dx * dy - rx * ry;
    if determinant == 0.0 || transform.iter().chain([&determinant]).any(|value| !value.is_finite()) {
        return Err(Error::SingularTransform { transform: *transform });
    }
    Ok(move |Coord { x, y }| {
        let (x, y) = (x - x0, y - y0);
        if rx == 0.0 && ry == 0.0 {
            // A division, not a product with the inverse: exact for whole pixels of 10 m.
            Coord { x: x / dx, y: y / dy }
        } else {
            Coord { x: (dy * x - rx * y) / determinant, y: (dx * y - ry * x) / determinant }
        }
    })
}

/// Converts a pixel corner to a map position.
pub(crate) fn pixel_to_map(transform: &[f64; 6], row: usize, col: usize) -> Coord<f64> {
    let [x0, dx, rx, y0, ry, dy] = *transform;
    let (row, col) = (row as f64, col as f64);
    Coord { x: x0 + col * dx + row * rx, y: y0 + col * ry + row * dy }
}
