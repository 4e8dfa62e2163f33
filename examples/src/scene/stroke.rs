//! Strokes (rivers, roads) and outlines (mines) as signed distance fields, in pixels.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positions are clamped to the scene before they become indices"
)]

use ndarray::Array2;
use rayon::prelude::*;

/// A point of the scene, in 10 m pixels from its upper left corner; the first pixel's centre is (0.5, 0.5).
pub(super) type Point = [f32; 2];

/// A line of varying half width.
#[derive(Clone, Debug, Default)]
pub(super) struct Stroke {
    /// The line.
    pub(super) points: Vec<Point>,
    /// Half width at each point; where it is negative there is no stroke.
    pub(super) radii: Vec<f32>,
}

impl Stroke {
    /// Appends a point.
    pub(super) fn push(&mut self, point: Point, radius: f32) {
        self.points.push(point);
        self.radii.push(radius);
    }

    /// Direction of the line at a point, as a unit vector.
    pub(super) fn direction(&self, index: usize) -> Point {
        let last = self.points.len() - 1;
        let (a, b) = (self.points[index.saturating_sub(1)], self.points[(index + 1).min(last)]);
        let length = (b[0] - a[0]).hypot(b[1] - a[1]).max(1e-6);
        [(b[0] - a[0]) / length, (b[1] - a[1]) / length]
    }
}

/// Distance of each pixel's centre to the nearest edge of a stroke, negative inside, at most `reach`.
pub(super) fn distance_to_strokes(size: usize, strokes: &[Stroke], reach: f32) -> Array2<f32> {
    let segments: Vec<(Point, Point, f32, f32)> = strokes
        .iter()
        .flat_map(|stroke| {
            let ends = stroke.points.windows(2).zip(stroke.radii.windows(2));
            ends.map(|(points, radii)| (points[0], points[1], radii[0], radii[1]))
        })
        .collect();
    let mut distances = vec![reach; size * size];
    distances.par_chunks_mut(size).enumerate().for_each(|(row, distances)| {
        let y = row as f32 + 0.5;
        for &(a, b, radius_a, radius_b) in &segments {
            let margin = reach + radius_a.max(radius_b);
            if y < a[1].min(b[1]) - margin || y > a[1].max(b[1]) + margin {
                continue;
            }
            let first = (a[0].min(b[0]) - margin).max(0.0) as usize;
            let last = (a[0].max(b[0]) + margin).clamp(0.0, size as f32) as usize;
            for (col, distance) in distances.iter_mut().enumerate().take(last).skip(first) {
                let (away, along) = distance_to_segment([col as f32 + 0.5, y], a, b);
                *distance = distance.min(away - radius_a - along * (radius_b - radius_a));
            }
        }
    });
    Array2::from_shape_vec((size, size), distances).expect("one value for each pixel of the square")
}

/// Signed distance of the pixels around a closed outline to it, negative inside: each pixel (row, column) of its
/// bounding box, `margin` pixels wider and cut to the scene.
pub(super) fn distance_to_outline(
    size: usize,
    outline: &[Point],
    margin: f32,
) -> impl Iterator<Item = ([usize; 2], f32)> {
    let range = |axis: usize| {
        let values = || outline.iter().map(move |point| point[axis]);
        let first = (values().fold(f32::INFINITY, f32::min) - margin).max(0.0) as usize;
        let last = (values().fold(0.0, f32::max) + margin).min(size as f32).ceil() as usize;
        first..last
    };
    let (rows, columns) = (range(1), range(0));
    rows.flat_map(move |row| columns.clone().map(move |col| [row, col])).map(move |[row, col]| {
        let point = [col as f32 + 0.5, row as f32 + 0.5];
        let mut inside = false;
        let mut nearest = f32::INFINITY;
        for (index, &b) in outline.iter().enumerate() {
            let a = outline[(index + outline.len() - 1) % outline.len()];
            nearest = nearest.min(distance_to_segment(point, a, b).0);
            if (a[1] > point[1]) != (b[1] > point[1])
                && point[0] < a[0] + (point[1] - a[1]) / (b[1] - a[1]) * (b[0] - a[0])
            {
                inside = !inside;
            }
        }
        ([row, col], if inside { -nearest } else { nearest })
    })
}

/// Distance to a segment, and the nearest place on it from 0 at `a` to 1 at `b`.
fn distance_to_segment(point: Point, a: Point, b: Point) -> (f32, f32) {
    let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
    let (px, py) = (point[0] - a[0], point[1] - a[1]);
    let along = ((px * dx + py * dy) / (dx * dx + dy * dy).max(1e-12)).clamp(0.0, 1.0);
    ((px - along * dx).hypot(py - along * dy), along)
}
