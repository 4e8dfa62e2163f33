//! Splits by region without leakage.

use crate::{Error, Result, Window};

/// The patches of one split: `train`, `validation` or `test`.
#[derive(Debug, Clone, Copy)]
pub struct Split<'a> {
    /// What it is called in messages.
    pub name: &'a str,
    /// The **input** footprints of its patches (also the turned ones), in pixels of one scene: what the network sees,
    /// not only what it predicts. See [`PatchWindow::footprint`](crate::PatchWindow::footprint).
    pub footprints: &'a [Window],
}

/// Checks that no pixel of one split is next to or in another one, and returns the smallest number of pixels
/// between two splits.
///
/// Footprints of the same split may overlap. `None` when fewer than two splits have footprints. Compares every
/// pair of footprints of different splits.
///
/// All footprints count in one grid. Products of different tiles overlap on the ground by about 10 km: lay them on a
/// common grid first, or keep neighbouring tiles in one split.
///
/// # Errors
///
/// [`Error::SplitsTouch`] with the first pair that overlaps or has no pixel between, also at corners.
///
/// ```
/// use s2_patches::{Split, Window, check_split};
///
/// let train = [Window { row: 0, col: 0, height: 572, width: 572 }];
/// let test = [Window { row: 0, col: 600, height: 572, width: 572 }];
/// let splits = [
///     Split { name: "train", footprints: &train },
///     Split { name: "test", footprints: &test },
/// ];
/// assert_eq!(check_split(&splits)?, Some(28));
/// # Ok::<(), s2_patches::Error>(())
/// ```
pub fn check_split(splits: &[Split<'_>]) -> Result<Option<usize>> {
    let mut smallest = None;
    for (i, first) in splits.iter().enumerate() {
        for second in &splits[i + 1..] {
            for first_window in first.footprints {
                for second_window in second.footprints {
                    let gap = gap(first_window, second_window);
                    if gap <= 0 {
                        return Err(Error::SplitsTouch {
                            first: first.name.to_owned(),
                            first_window: *first_window,
                            second: second.name.to_owned(),
                            second_window: *second_window,
                            overlap: gap.unsigned_abs(),
                        });
                    }
                    let gap = gap.unsigned_abs();
                    smallest = Some(smallest.map_or(gap, |smallest: usize| smallest.min(gap)));
                }
            }
        }
    }
    Ok(smallest)
}

/// Pixels between two windows along the axis that parts them more; 0 when they touch, negative when they overlap.
fn gap(a: &Window, b: &Window) -> isize {
    let along = |a: core::ops::Range<usize>, b: core::ops::Range<usize>| {
        (b.start as isize - a.end as isize).max(a.start as isize - b.end as isize)
    };
    along(a.rows(), b.rows()).max(along(a.cols(), b.cols()))
}
