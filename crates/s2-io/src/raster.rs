//! Pixels with their place on the map.

use ndarray::Array3;

use crate::Grid;

/// Samples of one or more bands on one grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Raster<T> {
    /// Samples, `[band, row, column]`.
    pub data: Array3<T>,
    /// Where they lie. `grid.height` and `grid.width` equal the last two axes of `data`.
    pub grid: Grid,
    /// The sample value that means "no data", if there is one.
    pub nodata: Option<f64>,
}
