//! One channel for each class.

use ndarray::{Array3, ArrayView2, ArrayViewMut3, Zip};

use crate::{Error, Result, SceneClass, counts};

/// Twelve channels in class order, 1.0 in the channel of the pixel's class and 0.0 in the eleven others.
///
/// # Shapes
///
/// - `scl`: `[row, column]`, class numbers
/// - output: `[12, row, column]`
///
/// # Errors
///
/// [`Error::UnknownClassAt`] for a number above 11.
pub fn one_hot(scl: ArrayView2<'_, u8>) -> Result<Array3<f32>> {
    let (height, width) = scl.dim();
    let mut out = Array3::zeros((SceneClass::COUNT, height, width));
    one_hot_into(scl, out.view_mut())?;
    Ok(out)
}

/// As [`one_hot`], into an array that exists; every element of `out` is written.
///
/// # Errors
///
/// [`Error::UnknownClassAt`] for a number above 11, [`Error::Shape`] when `out` is not `[12, row, column]`.
/// `out` is unchanged then.
pub fn one_hot_into(scl: ArrayView2<'_, u8>, mut out: ArrayViewMut3<'_, f32>) -> Result<()> {
    let (height, width) = scl.dim();
    let expected = [SceneClass::COUNT, height, width];
    if out.shape() != expected {
        let (classes, rows, cols) = out.dim();
        return Err(Error::Shape { expected, found: [classes, rows, cols] });
    }
    counts(scl)?;
    for (class, channel) in SceneClass::ALL.into_iter().zip(out.outer_iter_mut()) {
        let class = u8::from(class);
        Zip::from(channel).and(scl).for_each(|out, &value| *out = f32::from(value == class));
    }
    Ok(())
}
