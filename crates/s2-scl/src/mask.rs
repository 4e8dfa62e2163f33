//! Masks and counts of classes.

use ndarray::{Array2, ArrayView2};

use crate::{ClassSet, Error, Result, SceneClass};

/// `true` where the class of the pixel is in `classes`. Same shape as `scl`, `[row, column]`.
///
/// A number that is no class (above 11) is in no set and gives `false`. Where such a number must not pass
/// unseen, call [`counts`] or [`one_hot`](crate::one_hot()) first: they refuse it.
pub fn mask(scl: ArrayView2<'_, u8>, classes: ClassSet) -> Array2<bool> {
    scl.map(|&value| classes.contains(value))
}

/// How many pixels of each class `scl` has, in class order; the sum is the number of pixels.
///
/// # Errors
///
/// [`Error::UnknownClassAt`] for a number above 11.
pub fn counts(scl: ArrayView2<'_, u8>) -> Result<[u64; SceneClass::COUNT]> {
    let mut counts = [0; SceneClass::COUNT];
    for ((row, col), &value) in scl.indexed_iter() {
        *counts.get_mut(usize::from(value)).ok_or(Error::UnknownClassAt { row, col, value })? += 1;
    }
    Ok(counts)
}
