//! Masks to polygons: traces each 4-connected component along its pixel edges.

use crate::affine::pixel_to_map;
use geo_types::{LineString, Polygon};
use ndarray::ArrayView2;

/// Traces the `true` pixels of a mask into polygons along pixel edges.
///
/// Each 4-connected component (pixels that share an edge, GDAL's default) becomes one polygon, in the order
/// of the components' first pixels, row by row. Rings have a vertex only where they turn; exteriors run
/// counter-clockwise and holes clockwise in the coordinates of `transform` (as RFC 7946 asks), also where
/// that mirrors. All polygons are valid: where pixels touch at a corner only, rings meet in that point but
/// never cross or touch themselves. [`rasterize`](crate::rasterize) gives the mask back.
///
/// `transform` maps pixels to map coordinates in GDAL order `[x0, dx, row_rotation, y0, column_rotation,
/// dy]`; one that cannot be inverted gives polygons without area.
///
/// The cost is one pass over the mask and memory for the runs of `true` pixels in each row.
///
/// # Shapes
///
/// - `mask`: `[height, width]` = `[row, column]`
///
/// # Examples
///
/// ```
/// use s2_vector::{geo_types::polygon, polygonize};
///
/// let mask = ndarray::array![[true, true, false], [false, false, true]];
/// let polygons = polygonize(mask.view(), &[0., 10., 0., 0., 0., -10.]);
/// assert_eq!(polygons.len(), 2); // the third pixel touches the others at a corner only
/// assert_eq!(polygons[0], polygon![(x: 0., y: 0.), (x: 0., y: -10.), (x: 20., y: -10.), (x: 20., y: 0.)]);
/// ```
pub fn polygonize(mask: ArrayView2<'_, bool>, transform: &[f64; 6]) -> Vec<Polygon<f64>> {
    let runs = Runs::new(mask);
    let mirrored = transform[1] * transform[5] - transform[2] * transform[4] > 0.0;
    // Every ring passes the left edge of some run downwards, and the first one of a component is the
    // exterior.
    let mut passed = vec![false; runs.runs.len()];
    let mut polygons: Vec<Polygon<f64>> = Vec::new();
    for first in 0..runs.runs.len() {
        if passed[first] {
            continue;
        }
        let corners = runs.trace(first, &mut passed);
        let ring = corners.into_iter().map(|(row, col)| pixel_to_map(transform, row, col));
        let ring: LineString<f64> = if mirrored { ring.rev().collect() } else { ring.collect() };
        let component = runs.runs[first].component;
        if let Some(polygon) = polygons.get_mut(component) {
            polygon.interiors_push(ring);
        } else {
            polygons.push(Polygon::new(ring, Vec::new()));
        }
    }
    polygons
}

/// Adjacent `true` pixels of a row.
struct Run {
    row: usize,
    /// The first column.
    start: usize,
    /// The column after the last.
    end: usize,
    /// The number of the component, in the order of first pixels.
    component: usize,
}

/// The runs of a mask, in row-major order.
struct Runs {
    runs: Vec<Run>,
    /// The position of each row's first run, and the number of runs.
    row_starts: Vec<usize>,
}

impl Runs {
    fn new(mask: ArrayView2<'_, bool>) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        let mut row_starts = vec![0];
        // Disjoint sets: the parent of a run is an earlier run of its component, or itself.
        let mut parents: Vec<usize> = Vec::new();
        for (row, pixels) in mask.rows().into_iter().enumerate() {
            let (mut above, above_end) = (row_starts[row.saturating_sub(1)], row_starts[row]);
            let mut start = None;
            for (col, pixel) in pixels.into_iter().chain([&false]).enumerate() {
                match (start, pixel) {
                    (None, true) => start = Some(col),
                    (Some(begin), false) => {
                        start = None;
                        let this = runs.len();
                        runs.push(Run { row, start: begin, end: col, component: 0 });
                        parents.push(this);
                        while above < above_end && runs[above].end <= begin {
                            above += 1;
                        }
                        // The last run above may touch the next run of this row as well, so `above` stays.
                        let touching = (above..above_end).take_while(|&run| runs[run].start < col);
                        touching.for_each(|run| join(&mut parents, run, this));
                    }
                    _ => {}
                }
            }
            row_starts.push(runs.len());
        }
        let mut num_components = 0;
        for run in 0..runs.len() {
            runs[run].component = if parents[run] == run {
                num_components += 1;
                num_components - 1
            } else {
                // A parent comes earlier, so it has its component already.
                runs[parents[run]].component
            };
        }
        Self { runs, row_starts }
    }

    /// The position of the run that holds a pixel.
    fn at(&self, row: usize, col: usize) -> Option<usize> {
        let (from, to) = (*self.row_starts.get(row)?, *self.row_starts.get(row + 1)?);
        let after = from + self.runs[from..to].partition_point(|run| run.start <= col);
        let run = after.checked_sub(1).filter(|&run| run >= from)?;
        (col < self.runs[run].end).then_some(run)
    }

    /// Walks the ring that passes the left edge of a run downwards, with the component to the left of the way
    /// (as seen in the image), and returns its corners (row, column), the first one again at the end.
    fn trace(&self, first: usize, passed: &mut [bool]) -> Vec<(usize, usize)> {
        let Run { row, start: col, component, .. } = self.runs[first];
        let inside = |pixel: Option<(usize, usize)>| {
            let run = pixel.and_then(|(row, col)| self.at(row, col));
            run.is_some_and(|run| self.runs[run].component == component)
        };
        let begin = (row, col);
        let mut corners = vec![begin];
        let (mut row, mut col) = begin;
        let mut heading = Heading::Down;
        loop {
            match heading {
                Heading::Down => {
                    if let Some(run) = self.at(row, col) {
                        passed[run] = true;
                    }
                    row += 1;
                }
                Heading::Right => col += 1,
                Heading::Up => row -= 1,
                Heading::Left => col -= 1,
            }
            if (row, col) == begin {
                corners.push(begin);
                return corners;
            }
            let [upper_left, upper_right, lower_left, lower_right] = [
                row.checked_sub(1).zip(col.checked_sub(1)),
                row.checked_sub(1).zip(Some(col)),
                Some(row).zip(col.checked_sub(1)),
                Some((row, col)),
            ];
            let (ahead_left, ahead_right) = match heading {
                Heading::Down => (lower_right, lower_left),
                Heading::Right => (upper_right, lower_right),
                Heading::Up => (upper_left, upper_right),
                Heading::Left => (lower_left, upper_left),
            };
            // Right first: where pixels of the component meet at this corner only, the way keeps to the same
            // background pixel. That pixel and the one opposite are parted by the component, so no ring comes
            // by the same corner twice.
            let turned = if inside(ahead_right) {
                heading.right()
            } else if inside(ahead_left) {
                continue;
            } else {
                heading.left()
            };
            corners.push((row, col));
            heading = turned;
        }
    }
}

/// The representative of a run's set, with the path to it halved.
fn root(parents: &mut [usize], mut run: usize) -> usize {
    while parents[run] != run {
        parents[run] = parents[parents[run]];
        run = parents[run];
    }
    run
}

/// Joins the sets of two runs under the earlier representative.
fn join(parents: &mut [usize], a: usize, b: usize) {
    let (a, b) = (root(parents, a), root(parents, b));
    parents[a.max(b)] = a.min(b);
}

#[derive(Clone, Copy)]
enum Heading {
    Down,
    Right,
    Up,
    Left,
}

impl Heading {
    fn left(self) -> Self {
        match self {
            Self::Down => Self::Right,
            Self::Right => Self::Up,
            Self::Up => Self::Left,
            Self::Left => Self::Down,
        }
    }

    fn right(self) -> Self {
        match self {
            Self::Down => Self::Left,
            Self::Left => Self::Up,
            Self::Up => Self::Right,
            Self::Right => Self::Down,
        }
    }
}
