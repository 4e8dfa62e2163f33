//! Overviews: the same raster at half the size, again and again.

use ndarray::parallel::prelude::*;
use ndarray::{Array3, ArrayView2, ArrayView3, Axis};

use super::sample::Sample;

/// How the pixels of an overview are made from the (up to) 2 × 2 pixels below them.
///
/// Each level is made from the one before. Where a side is odd, its last overview pixel has only one row or
/// column below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overviews {
    /// No overviews: for rasters of at most one block, or that nobody will look at.
    None,
    /// The first of the four. Right for all data, pretty for none.
    #[default]
    Nearest,
    /// The mean of those that are neither nodata nor NaN, halves rounded away from zero. For measurements.
    Average,
    /// The most frequent of those that are neither nodata nor NaN; of equals the first in reading order. For
    /// classes and masks.
    Mode,
}

impl Overviews {
    /// The raster at half the size, rounded up, `[band, row, column]`.
    pub(super) fn halve<T: Sample>(self, data: ArrayView3<'_, T>, nodata: Option<T>) -> Array3<T> {
        let (bands, height, width) = data.dim();
        let mut half = Array3::from_elem((bands, height.div_ceil(2), width.div_ceil(2)), T::default());
        half.axis_iter_mut(Axis(1)).into_par_iter().enumerate().for_each(|(row, mut half)| {
            for (band, mut half) in half.axis_iter_mut(Axis(0)).enumerate() {
                let band = data.index_axis(Axis(0), band);
                let rows = band.slice_axis(Axis(0), (2 * row..height.min(2 * row + 2)).into());
                for (value, pixels) in half.iter_mut().zip(rows.axis_chunks_iter(Axis(1), 2)) {
                    *value = self.of(pixels, nodata);
                }
            }
        });
        half
    }

    /// The overview pixel of up to four.
    #[inline]
    fn of<T: Sample>(self, pixels: ArrayView2<'_, T>, nodata: Option<T>) -> T {
        let first = pixels[(0, 0)];
        // Most of a mask and of an area without data.
        let same = |&pixel: &T| pixel == first || is_nan(pixel) && is_nan(first) && nodata.is_none_or(is_nan);
        if matches!(self, Self::None | Self::Nearest) || pixels.iter().all(same) {
            return first;
        }
        let (mut valid, mut count) = ([first; 4], 0);
        for &pixel in pixels {
            if Some(pixel) != nodata && !is_nan(pixel) && count < 4 {
                valid[count] = pixel;
                count += 1;
            }
        }
        match &valid[..count] {
            [] => nodata.unwrap_or(first),
            valid if self == Self::Average => mean(valid, nodata),
            valid => mode(valid),
        }
    }
}

#[expect(clippy::eq_op, reason = "NaN is what differs from itself; integers never do")]
fn is_nan<T: Sample>(value: T) -> bool {
    value != value
}

fn mean<T: Sample>(values: &[T], nodata: Option<T>) -> T {
    let mean = T::mean(values);
    // The mean of valid values on both sides of the nodata value must not turn into nodata.
    if Some(mean) == nodata { values[0] } else { mean }
}

fn mode<T: Sample>(values: &[T]) -> T {
    let count = |value: &T| values.iter().filter(|other| *other == value).count();
    *values
        .iter()
        .reduce(|best, value| if count(value) > count(best) { value } else { best })
        .unwrap_or(&values[0])
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn an_odd_side_ends_in_pixels_of_what_is_left() {
        let data = array![[[1_u8, 3, 10], [5, 7, 20], [100, 200, 50]]];
        let half = |overviews: Overviews| overviews.halve(data.view(), None);
        assert_eq!(half(Overviews::Nearest), array![[[1, 10], [100, 50]]]);
        assert_eq!(half(Overviews::Average), array![[[4, 15], [150, 50]]]);
        assert_eq!(half(Overviews::Mode), array![[[1, 10], [100, 50]]], "all are equally frequent");
    }

    #[test]
    fn nodata_is_never_mixed_in() {
        let data = array![[[0_u16, 9, 0, 0], [0, 10, 0, 0]]];
        assert_eq!(Overviews::Average.halve(data.view(), Some(0)), array![[[10, 0]]], "9.5 rounds to 10");
        assert_eq!(Overviews::Mode.halve(data.view(), Some(0)), array![[[9, 0]]]);
        assert_eq!(Overviews::Mode.halve(data.view(), None), array![[[0, 0]]]);
        let data = array![[[f32::NAN, 1.0, f32::NAN, -9.0], [-9.0, 2.0, -9.0, -9.0]]];
        assert_eq!(Overviews::Average.halve(data.view(), Some(-9.0)), array![[[1.5, -9.0]]]);
    }

    #[test]
    fn a_mean_does_not_become_nodata() {
        let data = array![[[-1_i16, 1], [1, -1]]];
        assert_eq!(Overviews::Average.halve(data.view(), Some(0)), array![[[-1]]]);
        assert_eq!(Overviews::Average.halve(data.view(), None), array![[[0]]]);
    }

    #[test]
    fn a_nan_raster_stays_nan() {
        let data = array![[[f64::NAN; 2]; 2]];
        assert!(Overviews::Average.halve(data.view(), None)[(0, 0, 0)].is_nan());
    }
}
