//! Nearest-neighbour resampling: the only kind that class numbers allow.

use ndarray::{Array2, ArrayView2, Axis, Slice};

/// Repeats each pixel `factor` times along both axes: 2 brings the 20 m SCL to the 10 m grid.
///
/// The grids of a tile share their outer corner, so the fine pixel `[r, c]` lies inside, and its centre is
/// nearest to, the coarse pixel `[r / factor, c / factor]`. The output has shape
/// `[factor * rows, factor * columns]`.
///
/// # Panics
///
/// When `factor` is 0.
pub fn upsample_nearest(scl: ArrayView2<'_, u8>, factor: usize) -> Array2<u8> {
    assert_ne!(factor, 0, "the factor of upsample_nearest must be at least 1");
    let (height, width) = scl.dim();
    let mut out = Array2::zeros((height * factor, width * factor));
    if scl.is_empty() {
        return out;
    }
    let every = |first: usize| Slice::new(first as isize, None, factor as isize);
    for row in 0..factor {
        for col in 0..factor {
            let mut same_place = out.slice_axis_mut(Axis(0), every(row));
            same_place.slice_axis_inplace(Axis(1), every(col));
            same_place.assign(&scl);
        }
    }
    out
}
