//! Bands and scene classification of a product on one grid of 10 m.

use ndarray::parallel::prelude::*;
use ndarray::{Array2, Array3, ArrayView2, ArrayViewMut2, Axis};
use s2_jp2::Window;

use super::{Layer, NODATA, Product};
use crate::{Error, Grid, Raster, Result, jp2};

/// Layers that are decoded side by side. The threads share the tiles of each, so that more would cost memory only.
const LAYERS_AT_ONCE: usize = 2;
/// Rows of 20 m that are brought to 10 m at once: some 2 MB, which stay in the processor's cache.
const STRIP: usize = 16;

impl Product {
    /// Reads layers of 10 and 20 m on the grid of 10 m: the input of a network, or a window of it.
    ///
    /// Bands that the product has at 10 m are as they are. Bands of 20 m are handed to `upsample`, which doubles both
    /// axes of a piece of them; it may look at one pixel around each, so that a window equals its part of the whole.
    /// `upsample_bilinear` of the crate `s2-normalize` is such a function. The scene classification of 20 m is repeated,
    /// whatever `upsample` does.
    ///
    /// Layers are decoded two at a time, each in parallel in the current rayon pool. Beside the output, memory is needed
    /// for the 20 m pixels of two layers and for what the decoder needs.
    ///
    /// # Shapes
    ///
    /// - `window`: in pixels of 10 m; `None` is the whole tile
    /// - `upsample`: from `[rows, columns]` to `[2 * rows, 2 * columns]`
    /// - raster: `[layer, row, column]`, DN as stored (see [`Product::offset`]) or classes, nodata 0
    ///
    /// # Errors
    ///
    /// As [`Product::read_band`] for each layer (one that has neither 10 nor 20 m is missing at 20 m), and when the
    /// window leaves the tile or the sizes of the two grids do not fit together.
    ///
    /// # Panics
    ///
    /// When `upsample` returns another shape.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use s2_io::{Band, Layer, Product, Window};
    /// # fn upsample_bilinear(dn: s2_io::ndarray::ArrayView2<'_, u16>) -> s2_io::ndarray::Array2<u16> { dn.to_owned() }
    ///
    /// let product = Product::open("S2A_MSIL2A_20200219T112111_N0509_R037_T29RKH_20200219T140000.SAFE")?;
    /// let layers: Vec<_> = Band::TEN_AND_TWENTY.map(Layer::Band).into_iter().chain([Layer::Scl]).collect();
    /// let window = Window { row: 388, col: 776, height: 572, width: 572 };
    /// let stack = product.read_stack(&layers, Some(window), upsample_bilinear)?;
    /// assert_eq!(stack.data.dim(), (11, 572, 572));
    /// # Ok::<(), s2_io::Error>(())
    /// ```
    pub fn read_stack(
        &self,
        layers: &[Layer],
        window: Option<Window>,
        upsample: impl Fn(ArrayView2<'_, u16>) -> Array2<u16> + Sync,
    ) -> Result<Raster<u16>> {
        let grid = self.grid(10)?;
        let window = window.unwrap_or(Window { row: 0, col: 0, height: grid.height, width: grid.width });
        jp2::check_window(self.source.path(), &grid, window)?;
        let mut data = Array3::default((layers.len(), window.height, window.width));
        for (layers, mut planes) in
            layers.chunks(LAYERS_AT_ONCE).zip(data.axis_chunks_iter_mut(Axis(0), LAYERS_AT_ONCE))
        {
            let planes: Vec<_> = planes.outer_iter_mut().collect();
            layers
                .par_iter()
                .zip(planes)
                .try_for_each(|(layer, plane)| self.read_at_10m(*layer, window, &upsample, plane))?;
        }
        Ok(Raster { data, grid: grid.window(window), nodata: NODATA })
    }

    /// Reads one layer of [`Product::read_stack`] into a plane of it, for programs that do something in between.
    ///
    /// # Errors
    ///
    /// As [`Product::read_stack`].
    ///
    /// # Panics
    ///
    /// When `out` has another shape than the window, or `upsample` returns another one than it must.
    pub fn read_at_10m(
        &self,
        layer: Layer,
        window: Window,
        upsample: impl Fn(ArrayView2<'_, u16>) -> Array2<u16> + Sync,
        mut out: ArrayViewMut2<'_, u16>,
    ) -> Result<()> {
        assert_eq!(out.dim(), (window.height, window.width), "the plane has the shape of the window");
        let fine = self.grid(10)?;
        jp2::check_window(self.source.path(), &fine, window)?;
        if self.images.get(&(layer, 10)).is_some_and(|image| image.exists) {
            return self.open_image(layer, 10, |path, image, _| match out.as_slice_mut() {
                Some(samples) => jp2::decode_into(path, image, window, samples),
                None => {
                    let raster = jp2::decode(path, image, &fine, Some(window), NODATA)?;
                    out.assign(&raster.data.index_axis(Axis(0), 0));
                    Ok(())
                }
            });
        }
        let (coarse, raster) = self.open_image(layer, 20, |path, image, grid| {
            if (grid.height, grid.width) != (fine.height.div_ceil(2), fine.width.div_ceil(2)) {
                return Err(Error::Metadata {
                    path: self.tile_metadata.clone(),
                    element: format!(
                        "the size at 20 m, where that at 10 m is {} x {},",
                        fine.height, fine.width
                    ),
                    value: Some(format!("{} x {}", grid.height, grid.width)),
                });
            }
            let coarse = around(window, grid);
            Ok((coarse, jp2::decode::<u16>(path, image, grid, Some(coarse), NODATA)?))
        })?;
        double(layer, raster.data.index_axis(Axis(0), 0), coarse, window, upsample, out);
        Ok(())
    }
}

/// Brings pixels of 20 m, which lie at `coarse` in their grid, to a window of 10 m: classes are repeated, bands go
/// through `upsample`.
pub(crate) fn double(
    layer: Layer,
    dn: ArrayView2<'_, u16>,
    coarse: Window,
    window: Window,
    upsample: impl Fn(ArrayView2<'_, u16>) -> Array2<u16> + Sync,
    mut out: ArrayViewMut2<'_, u16>,
) {
    out.axis_chunks_iter_mut(Axis(0), 2 * STRIP).into_par_iter().enumerate().for_each(|(strip, mut out)| {
        let row = window.row + 2 * STRIP * strip;
        if layer == Layer::Scl {
            for (y, mut out) in out.outer_iter_mut().enumerate() {
                let dn = dn.row((row + y) / 2 - coarse.row);
                for (x, out) in out.iter_mut().enumerate() {
                    *out = dn[(window.col + x) / 2 - coarse.col];
                }
            }
            return;
        }
        // The rows that this strip needs: its own and one around.
        let (first, end) = neighbours(row, out.nrows(), coarse.row, coarse.row + coarse.height);
        let rows = dn.slice_axis(Axis(0), (first - coarse.row..end - coarse.row).into());
        let double = upsample(rows);
        assert_eq!(double.dim(), (2 * rows.nrows(), 2 * rows.ncols()), "`upsample` doubles both axes");
        let place = |start: usize, first: usize, size| {
            let start = start - 2 * first;
            (start..start + size).into()
        };
        let double = double.slice_axis(Axis(0), place(row, first, out.nrows()));
        out.assign(&double.slice_axis(Axis(1), place(window.col, coarse.col, window.width)));
    });
}

/// The pixels of 20 m that a window of 10 m needs.
pub(crate) fn around(window: Window, coarse: &Grid) -> Window {
    let (row, end_row) = neighbours(window.row, window.height, 0, coarse.height);
    let (col, end_col) = neighbours(window.col, window.width, 0, coarse.width);
    Window { row, col, height: end_row - row, width: end_col - col }
}

/// First and end of the coarse pixels below `size` fine ones from `start` on, and one on each side if it is between
/// `least` and `end`.
fn neighbours(start: usize, size: usize, least: usize, end: usize) -> (usize, usize) {
    let first = (start / 2).saturating_sub(1).max(least);
    (first, ((start + size).div_ceil(2) + 1).min(end).max(first))
}
