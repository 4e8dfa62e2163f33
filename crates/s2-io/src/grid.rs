//! Where the pixels of a raster lie on the map: size, affine transform, EPSG code.

use s2_jp2::Window;

/// The pixel grid of a raster.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Number of rows.
    pub height: usize,
    /// Number of columns.
    pub width: usize,
    /// Affine transform in GDAL's order `[x0, dx, rx, y0, ry, dy]`: the outer corner of the first pixel is
    /// `(x0, y0)`, and `dy` is negative where the first row is the northernmost.
    pub transform: [f64; 6],
    /// EPSG code of the map's coordinate reference system, if it is known.
    pub epsg: Option<u32>,
}

impl Grid {
    /// Map position of a pixel position; `(0.0, 0.0)` is the outer corner of the first pixel and
    /// `(0.5, 0.5)` its centre.
    #[must_use]
    pub fn position(&self, row: f64, col: f64) -> (f64, f64) {
        let [x0, dx, rx, y0, ry, dy] = self.transform;
        (x0 + col * dx + row * rx, y0 + col * ry + row * dy)
    }

    /// The grid of a part of this raster.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "pixel positions are far below 2^52")]
    pub fn window(&self, window: Window) -> Self {
        let (x0, y0) = self.position(window.row as f64, window.col as f64);
        let [_, dx, rx, _, ry, dy] = self.transform;
        Self { height: window.height, width: window.width, transform: [x0, dx, rx, y0, ry, dy], ..*self }
    }

    /// The same ground in so many rows and columns, as an overview has it.
    #[expect(clippy::cast_precision_loss, reason = "pixel positions are far below 2^52")]
    pub(crate) fn resized(&self, height: usize, width: usize) -> Self {
        let (rows, cols) = (self.height as f64 / height as f64, self.width as f64 / width as f64);
        let [x0, dx, rx, y0, ry, dy] = self.transform;
        let transform = [x0, dx * cols, rx * rows, y0, ry * cols, dy * rows];
        Self { height, width, transform, ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_keeps_its_place_on_the_map() {
        let grid = Grid {
            height: 100,
            width: 80,
            transform: [199_980.0, 10.0, 0.0, 3_400_020.0, 0.0, -10.0],
            epsg: Some(32629),
        };
        let part = grid.window(Window { row: 30, col: 7, height: 5, width: 6 });
        assert_eq!(part.position(0.5, 0.5), grid.position(30.5, 7.5), "centre of the first pixel");
        assert_eq!((part.height, part.width, part.epsg), (5, 6, Some(32629)), "size and CRS");
    }
}
