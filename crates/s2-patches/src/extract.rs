//! Cutting patches out of a scene, mirrored beyond its edges.

use ndarray::{Array3, ArrayView3};

use crate::{PatchWindow, Window};

/// The pixel inside an axis of `len` pixels that stands at `index`, inside or outside.
///
/// The axis is mirrored about its first and last pixel, which are not repeated (`numpy.pad` with
/// `mode="reflect"`), and again and again however far `index` is: … 2 1 **0 1 2 3** 2 1 0 1 …
///
/// # Panics
///
/// When `len` is 0.
pub const fn mirror(index: isize, len: usize) -> usize {
    assert!(len > 0, "there is nothing to mirror on an axis without pixels");
    if len == 1 {
        return 0;
    }
    let last = len - 1;
    let folded = index.rem_euclid(2 * last as isize).unsigned_abs();
    if folded <= last { folded } else { 2 * last - folded }
}

/// A copy of `height` rows and `width` columns from (`row`, `col`) on, in all channels, [mirrored](mirror) where
/// they lie outside the scene.
///
/// # Shapes
///
/// - `scene`: `[channel, row, column]`
/// - output: `[channel, height, width]`
///
/// # Panics
///
/// When the scene has no rows or no columns.
pub fn extract<T: Clone>(
    scene: ArrayView3<'_, T>,
    row: isize,
    col: isize,
    height: usize,
    width: usize,
) -> Array3<T> {
    let (channels, scene_height, scene_width) = scene.dim();
    let rows: Vec<usize> = (0..height).map(|i| mirror(row + i as isize, scene_height)).collect();
    let cols: Vec<usize> = (0..width).map(|i| mirror(col + i as isize, scene_width)).collect();
    let mut patch = Vec::with_capacity(channels * height * width);
    for channel in scene.outer_iter() {
        for &row in &rows {
            let row = channel.row(row);
            patch.extend(cols.iter().map(|&col| row[col].clone()));
        }
    }
    Array3::from_shape_vec((channels, height, width), patch).expect("as many values as the shape has")
}

/// The part of the scene that [`extract`] with the same arguments reads, so that a caller can read only this from a
/// file.
///
/// Extracting from that part alone, at (`row - part.row`, `col - part.col`), gives the same patch. Where the
/// rows lie wholly outside the scene, the part has all rows, to keep this true; likewise the columns.
///
/// # Panics
///
/// When the scene has no rows or no columns.
pub fn footprint(
    row: isize,
    col: isize,
    height: usize,
    width: usize,
    scene_height: usize,
    scene_width: usize,
) -> Window {
    let (row, height) = touched(row, height, scene_height);
    let (col, width) = touched(col, width, scene_width);
    Window { row, col, height, width }
}

/// First pixel and number of pixels of an axis that the mirrored range from `start` on touches.
fn touched(start: isize, count: usize, len: usize) -> (usize, usize) {
    let end = start + count as isize;
    if end <= 0 || start >= len as isize {
        return (0, len);
    }
    let inside = || (start..end).map(|index| mirror(index, len));
    let (first, last) = (inside().min().unwrap_or(0), inside().max().unwrap_or(0));
    (first, last + 1 - first)
}

impl PatchWindow {
    /// The input of the network for this window: [`extract`] at its place.
    ///
    /// # Panics
    ///
    /// When the scene has no rows or no columns.
    pub fn extract<T: Clone>(&self, scene: ArrayView3<'_, T>) -> Array3<T> {
        extract(scene, self.input_row, self.input_col, self.input_size, self.input_size)
    }

    /// The part of the scene that the input is made from: [`footprint`] at its place.
    ///
    /// # Panics
    ///
    /// When the scene has no rows or no columns.
    pub fn footprint(&self, scene_height: usize, scene_width: usize) -> Window {
        let size = self.input_size;
        footprint(self.input_row, self.input_col, size, size, scene_height, scene_width)
    }
}
