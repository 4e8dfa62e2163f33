//! Polygons to a mask by the pixel-centre rule, on a scan line (GDAL's `gdal_rasterize` without `-at`).

use crate::{Error, Result, affine::map_to_pixel};
use geo::{
    CoordsIter,
    winding_order::{Winding, WindingOrder},
};
use geo_types::{Coord, Polygon};
use ndarray::{Array2, Axis, Slice};
use std::ops::Range;

/// Burns polygons into a mask: `true` where the centre of the pixel lies inside at least one polygon.
///
/// `transform` maps pixels to the coordinates of the polygons, in GDAL order `[x0, dx, row_rotation, y0,
/// column_rotation, dy]`, and may be rotated. Holes are left out. A polygon that crosses itself is filled by
/// the even-odd rule, each polygon by itself. What lies outside the mask is cut off.
///
/// A centre exactly on an edge is decided as GDAL decides it. In a raster with north up, a centre on
///
/// - the left edge of a polygon is out, on the right edge in;
/// - the upper or lower edge of an exterior is in;
/// - the upper edge of a hole is out (it belongs to the hole), on the lower edge in.
///
/// So polygons that share an edge leave no gap, and share pixels only along a horizontal edge through pixel
/// centres. In a mirrored raster (south up) the lower edge of an exterior is out and the upper edge of a hole
/// in.
///
/// The cost is that of the edges times the rows that they cross, and of the pixels set.
///
/// # Shapes
///
/// - output: `[height, width]` = `[row, column]`
///
/// # Errors
///
/// [`Error::SingularTransform`] if the transform cannot be inverted; [`Error::NotFinite`] if a coordinate is
/// not a number or infinite.
///
/// # Examples
///
/// ```
/// use s2_vector::{geo_types::polygon, rasterize};
///
/// // 2 × 3 pixels of 10 m; the polygon covers the centres of the first column only.
/// let mine = polygon![(x: 0., y: 0.), (x: 14., y: 0.), (x: 14., y: -20.), (x: 0., y: -20.)];
/// let mask = rasterize([&mine], &[0., 10., 0., 0., 0., -10.], 2, 3)?;
/// assert_eq!(mask, ndarray::array![[true, false, false], [true, false, false]]);
/// # Ok::<(), s2_vector::Error>(())
/// ```
pub fn rasterize<'a>(
    polygons: impl IntoIterator<Item = &'a Polygon<f64>>,
    transform: &[f64; 6],
    height: usize,
    width: usize,
) -> Result<Array2<bool>> {
    let to_pixel = map_to_pixel(transform)?;
    let mut mask = Array2::from_elem((height, width), false);
    // (row, column): from this column on, the pixels of the row are on the other side of the boundary.
    let mut crossings: Vec<(usize, usize)> = Vec::new();
    for (index, polygon) in polygons.into_iter().enumerate() {
        let nowhere = |&position: &Coord<f64>| {
            let pixel = to_pixel(position);
            !(pixel.x.is_finite() && pixel.y.is_finite())
        };
        if let Some(Coord { x, y }) = polygon.coords_iter().find(nowhere) {
            return Err(Error::NotFinite { index, x, y });
        }
        crossings.clear();
        for ring in std::iter::once(polygon.exterior()).chain(polygon.interiors()) {
            // GDAL turns every ring clockwise in map coordinates, then fills the horizontal edges through
            // pixel centres that run to the left.
            let backward = ring.winding_order() == Some(WindingOrder::CounterClockwise);
            for edge in ring.lines() {
                let (start, end) = (to_pixel(edge.start), to_pixel(edge.end));
                let (from, to) = if backward { (end, start) } else { (start, end) };
                burn_edge(from, to, &mut mask, &mut crossings);
            }
        }
        crossings.sort_unstable();
        // Rings are closed, so a row is crossed an even number of times.
        for pair in crossings.chunks_exact(2) {
            let (row, from, to) = (pair[0].0, pair[0].1, pair[1].1);
            fill(&mut mask, row, from..to);
        }
    }
    Ok(mask)
}

/// Notes where an edge crosses the centre lines of rows; fills its pixels if it lies on such a line.
fn burn_edge(from: Coord<f64>, to: Coord<f64>, mask: &mut Array2<bool>, crossings: &mut Vec<(usize, usize)>) {
    let (height, width) = mask.dim();
    if from.y == to.y {
        let row = first_row(from.y, height);
        if to.x < from.x && row < height && row as f64 + 0.5 == from.y {
            fill(mask, row, first_col(to.x, width)..first_col(from.x, width));
        }
        return;
    }
    let (top, bottom) = if from.y < to.y { (from, to) } else { (to, from) };
    for row in first_row(top.y, height)..first_row(bottom.y, height) {
        let centre = row as f64 + 0.5;
        let x = (centre - top.y) * (bottom.x - top.x) / (bottom.y - top.y) + top.x;
        crossings.push((row, first_col(x, width)));
    }
}

fn fill(mask: &mut Array2<bool>, row: usize, columns: Range<usize>) {
    mask.row_mut(row).slice_axis_mut(Axis(0), Slice::from(columns)).fill(true);
}

/// The first row whose centre lies at or below `y`, at most `height`.
fn first_row(y: f64, height: usize) -> usize {
    whole((y - 0.5).ceil(), height)
}

/// The first column whose centre lies right of `x`, at most `width`.
fn first_col(x: f64, width: usize) -> usize {
    whole((x + 0.5).floor(), width)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=limit first")]
fn whole(value: f64, limit: usize) -> usize {
    value.clamp(0.0, limit as f64) as usize
}
