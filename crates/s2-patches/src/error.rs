//! What can go wrong.

use crate::Window;

/// Result of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Why a geometry, plan, patch or split was refused.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The kernel size is even, zero or beyond reason.
    #[error("kernel size {kernel} is not an odd number from 1 to 255")]
    Kernel {
        /// The kernel size.
        kernel: usize,
    },
    /// There are too many poolings.
    #[error("{levels} poolings are too many: at most 16")]
    Levels {
        /// The number of poolings.
        levels: usize,
    },
    /// The network cannot take an input of this size.
    #[error(
        "input size {input} does not fit {levels} poolings and kernel size {kernel}: {}",
        nearest(*below, *above)
    )]
    InputSize {
        /// The size.
        input: usize,
        /// Poolings of the network.
        levels: usize,
        /// Kernel size of the network.
        kernel: usize,
        /// The nearest valid size below, if there is one.
        below: Option<usize>,
        /// The nearest valid size above.
        above: usize,
    },
    /// The output of an input of this size holds no whole step of windows.
    #[error(
        "input size {input} gives {usable} usable rows and columns, fewer than one step of {step}: use {smallest} or more"
    )]
    Step {
        /// The size.
        input: usize,
        /// Rows (and columns) of the output that do not depend on the place of the window.
        usable: usize,
        /// [`Geometry::step`](crate::Geometry::step).
        step: usize,
        /// The smallest input size that works.
        smallest: usize,
    },
    /// A patch is not the output of the network for its window.
    #[error("patch has shape {found:?}, expected {expected:?} (channel, row, column)")]
    PatchShape {
        /// The shape that is needed.
        expected: [usize; 3],
        /// The shape that was given.
        found: [usize; 3],
    },
    /// A window reaches beyond the scene.
    #[error("{window} reaches beyond the scene of {height} rows and {width} columns")]
    OutsideScene {
        /// The window.
        window: Window,
        /// Rows of the scene.
        height: usize,
        /// Columns of the scene.
        width: usize,
    },
    /// Input footprints of two splits touch or overlap, so pixels of one would be seen by the other.
    #[error(
        "splits {first} and {second} {}: {first_window} and {second_window}; keep at least one pixel between them",
        contact(*overlap)
    )]
    SplitsTouch {
        /// Name of one split.
        first: String,
        /// Its footprint.
        first_window: Window,
        /// Name of the other split.
        second: String,
        /// Its footprint.
        second_window: Window,
        /// How deep the footprints overlap, in pixels; 0 when they touch.
        overlap: usize,
    },
}

fn nearest(below: Option<usize>, above: usize) -> String {
    match below {
        Some(below) => format!("the nearest valid sizes are {below} and {above}"),
        None => format!("the smallest valid size is {above}"),
    }
}

fn contact(overlap: usize) -> String {
    match overlap {
        0 => "touch".to_owned(),
        1 => "overlap by 1 pixel".to_owned(),
        _ => format!("overlap by {overlap} pixels"),
    }
}
