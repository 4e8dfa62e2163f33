//! Artisanal mines: irregular outlines in clusters along the water, and what the ground inside looks like.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts derived from the scene's size"
)]

use std::f32::consts::TAU;

use anyhow::{Result, ensure};
use ndarray::Array2;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::sky;
use super::stroke::{Point, Stroke, distance_to_outline};
use super::terrain::Terrain;

/// How far outside a mine its distance field reaches, pixels.
const REACH: f32 = 8.0;

/// A mine: pits, spoil and ponds together.
#[derive(Clone, Debug)]
pub(super) struct Mine {
    /// Closed outline without a repeated last point.
    pub(super) outline: Vec<Point>,
    /// 0: red earth, 1: washed gravel and kaolin.
    pub(super) paleness: f32,
    /// 0: green, abandoned ponds; 1: milky ones in use.
    pub(super) activity: f32,
    /// Share of the ground that plants have taken back, about 0 to 0.4.
    pub(super) regrowth: f32,
}

/// All mines of a scene.
#[derive(Debug)]
pub(super) struct Mines {
    /// The mines, from the west third to the east one.
    pub(super) mines: Vec<Mine>,
    /// Distance to the nearest outline in pixels, negative inside, at most [`REACH`].
    pub(super) distance: Array2<f32>,
    /// Index of that mine.
    pub(super) nearest: Array2<u16>,
}

impl Mines {
    /// About one mine per 3 km² with areas spread evenly in logarithm, as many in each third of the scene from west to
    /// east, none across the border of two thirds.
    pub(super) fn new(size: usize, terrain: &Terrain, rng: &mut ChaCha8Rng) -> Result<Self> {
        let mut all = Self {
            mines: Vec::new(),
            distance: Array2::from_elem((size, size), REACH),
            nearest: Array2::zeros((size, size)),
        };
        let pixels = (size * size) as f32;
        let per_third = (size * size / 88_000).max(3);
        let (smallest, largest) = (48.0_f32, (pixels / 90.0).min(2950.0));
        for third in 0..3 {
            let mut placed = 0;
            let mut centres: Vec<(&Stroke, usize)> = Vec::new();
            for number in 0..per_third {
                // Large ones first: they are the hardest to place.
                let rank = (per_third - 1 - number) as f32 + rng.random_range(0.0..1.0);
                let mut area = smallest * (largest / smallest).powf((rank / per_third as f32).powf(0.85));
                if number % 5 == 0 {
                    centres.clear();
                }
                for _ in 0..60 {
                    if centres.is_empty() {
                        centres.extend(cluster_centre(size, third, terrain, rng));
                    }
                    let Some(&(water, centre)) = centres.first() else { continue };
                    let mine = mine(water, centre, area, rng);
                    if all.fits(size, third, &mine, terrain) {
                        all.add(size, mine);
                        placed += 1;
                        break;
                    }
                    area = (0.98 * area).max(smallest);
                    if rng.random_range(0..12) == 0 {
                        centres.clear();
                    }
                }
            }
            ensure!(placed > 0, "no room for a mine in third {third} of the scene; try another seed");
        }
        Ok(all)
    }

    /// Whether the mine lies in its third, on dry land seen by the sensor and two pixels from every other mine.
    fn fits(&self, size: usize, third: usize, mine: &Mine, terrain: &Terrain) -> bool {
        let extent = size as f32;
        let (west, east) = (extent * third as f32 / 3.0 + 2.0, extent * (third + 1) as f32 / 3.0 - 2.0);
        let inside = |&[x, y]: &Point| {
            x > west && x < east && y > 3.0 && y < extent - 3.0 && !sky::is_nodata(size, x - 4.0, y + 4.0)
        };
        mine.outline.iter().all(inside)
            && distance_to_outline(size, &mine.outline, 2.0).all(|([row, col], distance)| {
                distance > 1.0
                    || (self.distance[[row, col]] > 1.5 && terrain.river_distance[[row, col]] > 0.5)
            })
    }

    fn add(&mut self, size: usize, mine: Mine) {
        let index = u16::try_from(self.mines.len()).unwrap_or(u16::MAX);
        for (at, distance) in distance_to_outline(size, &mine.outline, REACH) {
            if distance < self.distance[at] {
                self.distance[at] = distance;
                self.nearest[at] = index;
            }
        }
        self.mines.push(mine);
    }
}

/// A place on the river or a creek, in the given third.
fn cluster_centre<'a>(
    size: usize,
    third: usize,
    terrain: &'a Terrain,
    rng: &mut ChaCha8Rng,
) -> Option<(&'a Stroke, usize)> {
    let water = if rng.random_bool(0.5) {
        &terrain.river
    } else {
        &terrain.creeks[rng.random_range(0..terrain.creeks.len())]
    };
    let index = rng.random_range(0..water.points.len());
    let [x, y] = water.points[index];
    let extent = size as f32;
    let inside = (x / extent * 3.0).floor() as i32 == third as i32 && y > 0.04 * extent && y < 0.96 * extent;
    inside.then_some((water, index))
}

/// A mine of about `area` pixels beside the water, near the centre of its cluster and drawn out along the valley.
fn mine(water: &Stroke, centre: usize, area: f32, rng: &mut ChaCha8Rng) -> Mine {
    let radius = (area / std::f32::consts::PI).sqrt();
    let stretch = rng.random_range(1.0..1.7_f32);
    let spread = 14.0 + 1.2 * radius;
    let (first, last) = (centre as f32 - spread, centre as f32 + spread);
    let index = (rng.random_range(first..last).max(0.0) as usize).min(water.points.len() - 1);
    let [dx, dy] = water.direction(index);
    let side = if rng.random() { 1.0 } else { -1.0 };
    let offset =
        side * (water.radii[index] + radius / stretch + 22.0 * rng.random_range(0.0..1.0_f32).powi(2));
    let along = rng.random_range(-4.0..4.0);
    let [x, y] = water.points[index];
    let middle = [x - dy * offset + dx * along, y + dx * offset + dy * along];
    // A circle with five waves of random strength.
    let waves: Vec<(f32, f32, f32)> = (2..=6)
        .map(|order| {
            let order = order as f32;
            (order, rng.random_range(0.05..0.34) / order.powf(0.6), rng.random_range(0.0..TAU))
        })
        .collect();
    let count = (radius * 2.2).clamp(20.0, 72.0) as usize;
    let mut outline: Vec<Point> = (0..count)
        .map(|step| {
            let angle = TAU * step as f32 / count as f32;
            let wave: f32 =
                waves.iter().map(|(order, height, phase)| height * (order * angle + phase).cos()).sum();
            let reach = (1.0 + wave).max(0.35);
            [reach * angle.cos() * stretch, reach * angle.sin() / stretch]
        })
        .collect();
    let unit: f32 = (0..count)
        .map(|index| {
            let (a, b) = (outline[index], outline[(index + 1) % count]);
            0.5 * (a[0] * b[1] - a[1] * b[0])
        })
        .sum();
    let factor = (area / unit).sqrt();
    for point in &mut outline {
        let [u, v] = [point[0] * factor, point[1] * factor];
        *point = [middle[0] + u * dx - v * dy, middle[1] + u * dy + v * dx];
    }
    Mine {
        outline,
        paleness: rng.random_range(0.0..1.0_f32).powf(0.8),
        activity: rng.random_range(0.0..1.0_f32).powf(0.7),
        regrowth: rng.random_range(0.0..0.45_f32).powf(1.3),
    }
}
