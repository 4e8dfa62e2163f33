//! From the 20 m to the 10 m grid.

use ndarray::parallel::prelude::*;
use ndarray::{Array2, ArrayView2, Axis};

/// Doubles both axes of a band by bilinear interpolation, in integers: 20 m to 10 m.
///
/// The grids share their outer corner, as those of a Sentinel-2 tile do, so an output pixel centre lies a
/// quarter of a coarse pixel from the centre of its parent (the coarse pixel that contains it). Its value is
/// the mean of the parent, of the neighbours on its side along rows and along columns, and of the diagonal
/// neighbour, with weights 9, 3, 3 and 1. At the edge of the band the nearest pixel stands in for a missing
/// neighbour.
///
/// Nodata (DN 0) is left out of the weights; an output pixel is nodata exactly when its parent is. So valid data
/// neither bleed into nodata nor are darkened by it.
///
/// The mean is rounded half up in integer arithmetic. Therefore adding a constant to every valid DN adds it to
/// every valid output, exactly, and a scene stored under another radiometric offset stays the same scene.
///
/// The output has shape `[2 * rows, 2 * columns]`. Rows run in threads.
pub fn upsample_bilinear(dn: ArrayView2<'_, u16>) -> Array2<u16> {
    let (height, width) = dn.dim();
    let mut out = Array2::zeros((2 * height, 2 * width));
    if dn.is_empty() {
        return out;
    }
    out.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(row, mut out)| {
        let parent = dn.row(row / 2);
        let beside = if row % 2 == 0 { (row / 2).saturating_sub(1) } else { (row / 2 + 1).min(height - 1) };
        let beside = dn.row(beside);
        // Where all pixels are valid, all weights are: most rows, and a fraction of the time.
        if parent.iter().chain(&beside).all(|&dn| dn != 0)
            && let Some(out) = out.as_slice_mut()
        {
            // First down the columns, then along the row the same again: 9, 3, 3, 1.
            let columns: Vec<u32> =
                parent.iter().zip(beside).map(|(&a, &b)| 3 * u32::from(a) + u32::from(b)).collect();
            double_row(&columns, out);
            return;
        }
        // Sums and weights of the parent (3) and its neighbour (1).
        let columns: Vec<(u32, u32)> = parent
            .iter()
            .zip(beside)
            .map(|(&a, &b)| (3 * u32::from(a) + u32::from(b), 3 * u32::from(a != 0) + u32::from(b != 0)))
            .collect();
        for (col, &(own, own_weight)) in columns.iter().enumerate() {
            // Less than 3: the parent is nodata.
            if own_weight >= 3 {
                let (left, right) = (columns[col.saturating_sub(1)], columns[(col + 1).min(width - 1)]);
                out[2 * col] = rounded_mean(3 * own + left.0, 3 * own_weight + left.1);
                out[2 * col + 1] = rounded_mean(3 * own + right.0, 3 * own_weight + right.1);
            }
        }
    });
    out
}

/// Doubles a row whose values are four times those of valid pixels.
#[expect(clippy::cast_possible_truncation, reason = "a mean of u16 is a u16")]
fn double_row(columns: &[u32], out: &mut [u16]) {
    let mean = |own: u32, other: u32| ((3 * own + other + 8) / 16) as u16;
    // Inside without a branch, eight at a time; at the ends a pixel is its own neighbour.
    let inside = out[2..].chunks_exact_mut(2).zip(columns.windows(3));
    for (out, three) in inside {
        (out[0], out[1]) = (mean(three[1], three[0]), mean(three[1], three[2]));
    }
    let last = columns.len() - 1;
    (out[0], out[1]) = (mean(columns[0], columns[0]), mean(columns[0], columns[1.min(last)]));
    (out[2 * last], out[2 * last + 1]) =
        (mean(columns[last], columns[last.saturating_sub(1)]), mean(columns[last], columns[last]));
}

/// `sum / weight`, halves rounded up.
fn rounded_mean(sum: u32, weight: u32) -> u16 {
    // All weights are 16 away from nodata: spares the division there.
    let mean = if weight == 16 { (sum + 8) / 16 } else { (2 * sum + weight) / (2 * weight) };
    u16::try_from(mean).expect("a mean of u16 is a u16")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_without_pixels_and_of_one_pixel_are_doubled_too() {
        for shape in [(0, 0), (3, 0), (0, 3)] {
            let doubled = upsample_bilinear(Array2::zeros(shape).view());
            assert_eq!(doubled.dim(), (2 * shape.0, 2 * shape.1));
        }
        assert_eq!(upsample_bilinear(Array2::from_elem((1, 1), 7).view()), Array2::from_elem((2, 2), 7));
        assert_eq!(
            upsample_bilinear(Array2::from_elem((1, 1), u16::MAX).view()),
            Array2::from_elem((2, 2), u16::MAX)
        );
    }
}
