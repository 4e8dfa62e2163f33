//! Putting the outputs of a network together.

use ndarray::{ArrayView3, ArrayViewMut3, Axis, Slice};

use crate::{Error, PatchWindow, Result};

/// Copies the part of a network's output that `window` keeps to its place in the scene.
///
/// # Shapes
///
/// - `scene`: `[channel, row, column]`
/// - `patch`: `[channel, output_size, output_size]`
///
/// # Errors
///
/// [`Error::PatchShape`] for a patch of another shape, [`Error::OutsideScene`] for a window of another scene. Nothing
/// is copied then.
pub fn stitch<T: Clone>(
    mut scene: ArrayViewMut3<'_, T>,
    patch: ArrayView3<'_, T>,
    window: &PatchWindow,
) -> Result<()> {
    let (channels, height, width) = scene.dim();
    let expected = [channels, window.output_size, window.output_size];
    if patch.shape() != expected {
        let (channels, rows, cols) = patch.dim();
        return Err(Error::PatchShape { expected, found: [channels, rows, cols] });
    }
    let output = window.output;
    if output.rows().end > height || output.cols().end > width {
        return Err(Error::OutsideScene { window: output, height, width });
    }
    let mut kept = patch;
    let first = window.skipped;
    kept.slice_axis_inplace(Axis(1), Slice::from(first..first + output.height));
    kept.slice_axis_inplace(Axis(2), Slice::from(first..first + output.width));
    scene.slice_axis_inplace(Axis(1), Slice::from(output.rows()));
    scene.slice_axis_inplace(Axis(2), Slice::from(output.cols()));
    scene.assign(&kept);
    Ok(())
}
