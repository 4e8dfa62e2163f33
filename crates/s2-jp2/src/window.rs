//! A rectangle of pixels.

/// A rectangle of pixels, counted from the first row and column of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// Whether the whole window lies in an image of this size.
    #[must_use]
    pub fn fits(&self, height: usize, width: usize) -> bool {
        let inside = |start: usize, len: usize, end: usize| start.checked_add(len).is_some_and(|e| e <= end);
        inside(self.row, self.height, height) && inside(self.col, self.width, width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_overflows_does_not_fit() {
        let window = Window { row: usize::MAX, col: 0, height: 2, width: 1 };
        assert!(!window.fits(10, 10), "row + height wraps around");
        assert!(Window { row: 8, col: 9, height: 2, width: 1 }.fits(10, 10), "last pixels");
        assert!(!Window { row: 9, col: 9, height: 2, width: 1 }.fits(10, 10), "one row too many");
    }
}
