//! Flips and quarter turns.

use ndarray::{ArrayView3, Axis};

/// The eight ways to lay a square on itself: quarter turns and flips.
///
/// They move pixels and change no value, so the same one goes to the bands, the class channels and the labels of
/// a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dihedral {
    /// As it is.
    Identity,
    /// A quarter turn counter-clockwise: the right column becomes the top row (`numpy.rot90`).
    Rotate90,
    /// A half turn.
    Rotate180,
    /// Three quarter turns counter-clockwise: the left column becomes the top row.
    Rotate270,
    /// Left and right change places (`numpy.fliplr`).
    FlipHorizontal,
    /// Top and bottom change places (`numpy.flipud`).
    FlipVertical,
    /// Rows become columns.
    Transpose,
    /// Mirrored about the other diagonal.
    AntiTranspose,
}

impl Dihedral {
    /// All eight.
    pub const ALL: [Self; 8] = [
        Self::Identity,
        Self::Rotate90,
        Self::Rotate180,
        Self::Rotate270,
        Self::FlipHorizontal,
        Self::FlipVertical,
        Self::Transpose,
        Self::AntiTranspose,
    ];

    /// The patch `[channel, row, column]` so moved, as a view: nothing is copied.
    ///
    /// Turns by 90° and 270° and the transpositions exchange height and width.
    pub fn apply<T>(self, mut patch: ArrayView3<'_, T>) -> ArrayView3<'_, T> {
        // Each is a transposition or none, then a flip of rows or none, then a flip of columns or none.
        let (transpose, flip_rows, flip_cols) = match self {
            Self::Identity => (false, false, false),
            Self::FlipVertical => (false, true, false),
            Self::FlipHorizontal => (false, false, true),
            Self::Rotate180 => (false, true, true),
            Self::Transpose => (true, false, false),
            Self::Rotate90 => (true, true, false),
            Self::Rotate270 => (true, false, true),
            Self::AntiTranspose => (true, true, true),
        };
        if transpose {
            patch.swap_axes(1, 2);
        }
        if flip_rows {
            patch.invert_axis(Axis(1));
        }
        if flip_cols {
            patch.invert_axis(Axis(2));
        }
        patch
    }

    /// The one that undoes this one.
    pub const fn inverse(self) -> Self {
        match self {
            Self::Rotate90 => Self::Rotate270,
            Self::Rotate270 => Self::Rotate90,
            other => other,
        }
    }
}
