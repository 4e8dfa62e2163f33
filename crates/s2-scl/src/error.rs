//! What can go wrong.

/// Result of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Why a scene classification could not be used.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A number is not a scene class.
    #[error("{value} is not a scene class (0 to 11)")]
    UnknownClass {
        /// The number.
        value: u8,
    },
    /// A pixel of a scene classification holds a number that is not a scene class.
    #[error(
        "value {value} at row {row}, column {col} is not a scene class (0 to 11): is this the SCL band, resampled by nearest neighbour?"
    )]
    UnknownClassAt {
        /// Row of the first such pixel in reading order.
        row: usize,
        /// Its column.
        col: usize,
        /// The number.
        value: u8,
    },
    /// The output array does not fit the scene classification.
    #[error("one-hot output has shape {found:?}, expected {expected:?} (class, row, column)")]
    Shape {
        /// The shape that is needed.
        expected: [usize; 3],
        /// The shape that was given.
        found: [usize; 3],
    },
}
