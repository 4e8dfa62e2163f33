//! What can go wrong: maps that do not fit together, values that are no probabilities, thresholds off the
//! grid.

/// The result of this crate's functions that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller passed in does not fit.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two maps that are compared pixel by pixel have different sizes.
    #[error("the {name} has the shape {found:?} (rows, columns), but the map to be scored has {expected:?}")]
    ShapeMismatch {
        /// Which map differs: `truth` or `valid`.
        name: &'static str,
        /// Its shape.
        found: (usize, usize),
        /// The shape of the prediction.
        expected: (usize, usize),
    },

    /// A value given as a probability is not one.
    #[error(
        "the value {value} at row {row}, column {col} is not a probability; it must lie in 0 to 1, or be NaN where \
         nothing was predicted"
    )]
    NotAProbability {
        /// The value.
        value: f32,
        /// Its row.
        row: usize,
        /// Its column.
        col: usize,
    },

    /// A threshold is not one at which the histogram is exact.
    #[error("the threshold {threshold} is not one of 0.000, 0.001, … 1.000, at which the counts are exact")]
    ThresholdOffGrid {
        /// The threshold.
        threshold: f64,
    },
}
