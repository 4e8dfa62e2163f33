//! A rectangle of pixels.

use core::ops::Range;

/// A rectangle of pixels of a scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// First row.
    pub row: usize,
    /// First column.
    pub col: usize,
    /// Number of rows.
    pub height: usize,
    /// Number of columns.
    pub width: usize,
}

impl Window {
    /// The rows, for slicing.
    pub const fn rows(&self) -> Range<usize> {
        self.row..self.row + self.height
    }

    /// The columns, for slicing.
    pub const fn cols(&self) -> Range<usize> {
        self.col..self.col + self.width
    }
}

impl core::fmt::Display for Window {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { row, col, height, width } = self;
        write!(f, "window of {height} rows and {width} columns at row {row}, column {col}")
    }
}
