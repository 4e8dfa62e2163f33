//! Relief, the river that winds through it from west to east, its creeks, and the light of the sun.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts derived from the scene's size"
)]

use std::f32::consts::{PI, TAU};

use ndarray::Array2;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::noise::{Noise, lerp, map_pixels, smoothstep};
use super::stroke::{Stroke, distance_to_strokes};

/// Zenith angle of the sun, degrees.
pub(super) const SUN_ZENITH: f32 = 36.4;
/// Azimuth of the sun, degrees clockwise from north.
pub(super) const SUN_AZIMUTH: f32 = 138.2;

/// Ground and water.
#[derive(Debug)]
pub(super) struct Terrain {
    /// The river, in pixels.
    pub(super) river: Stroke,
    /// Its tributaries, from the mouth upwards.
    pub(super) creeks: Vec<Stroke>,
    /// Distance to the river's bank, pixels, negative in the water.
    pub(super) river_distance: Array2<f32>,
    /// Distance to the nearest creek, as for the river.
    pub(super) creek_distance: Array2<f32>,
    /// Distance to the nearest sand bar of the river.
    pub(super) sand_distance: Array2<f32>,
    /// Height above the river, metres.
    pub(super) elevation: Array2<f32>,
    /// 1 in the lines where water gathers, 0 on slopes and ridges.
    pub(super) drainage: Array2<f32>,
    /// Light on the slope, 1 on flat ground.
    pub(super) illumination: Array2<f32>,
}

impl Terrain {
    /// The terrain of a seed.
    pub(super) fn new(size: usize, seed: u64, rng: &mut ChaCha8Rng) -> Self {
        let river = river(size, seed);
        let creeks = creeks(size, &river, rng);
        let river_distance = distance_to_strokes(size, std::slice::from_ref(&river), 220.0);
        let creek_distance = distance_to_strokes(size, &creeks, 110.0);
        let sand_distance = distance_to_strokes(size, &sand_bars(&river, seed), 4.0);
        let hills = Noise::new(seed, "hills");
        let warp = Noise::new(seed, "warp");
        // Folded noise has its creases, like valleys, at the bottom; the warp makes them wind.
        let folded = map_pixels(size, |row, col| {
            let (x, y) = (col as f32, row as f32);
            let warped_x = x + 46.0 * warp.fractal(x, y, 120.0, 6);
            let warped_y = y + 46.0 * warp.fractal(x + 5000.0, y, 120.0, 6);
            let octave = |wavelength: f32| hills.at(warped_x / wavelength, warped_y / wavelength).abs();
            [octave(250.0), octave(115.0), octave(52.0), octave(24.0)]
        });
        let elevation = map_pixels(size, |row, col| {
            let [first, second, third, fourth] = folded[[row, col]];
            let height = 330.0 * first + 170.0 * second + 62.0 * third + 24.0 * fourth;
            let valley = smoothstep(4.0, 190.0, river_distance[[row, col]]);
            let incision = lerp(0.3, 1.0, smoothstep(0.0, 100.0, creek_distance[[row, col]]));
            valley * incision * (35.0 + height) + 3.0 * hills.fractal(col as f32, row as f32, 30.0, 4)
        });
        let drainage = map_pixels(size, |row, col| {
            let [first, second, third, _] = folded[[row, col]];
            let upland = smoothstep(10.0, 90.0, river_distance[[row, col]]);
            let crease = |value: f32, width: f32| smoothstep(width, 0.25 * width, value);
            upland * crease(first, 0.06).max(0.9 * crease(second, 0.08)).max(0.6 * crease(third, 0.09))
        });
        let illumination = illumination(&elevation);
        Self {
            river,
            creeks,
            river_distance,
            creek_distance,
            sand_distance,
            elevation,
            drainage,
            illumination,
        }
    }
}

/// A meandering line: the direction swings as a sine of the way (Langbein and Leopold 1966), with unequal bends, and
/// is steered back to a slowly wandering axis.
fn river(size: usize, seed: u64) -> Stroke {
    let noise = Noise::new(seed, "river");
    let extent = size as f32;
    let half_width = (extent / 280.0).clamp(1.2, 5.2);
    let (step, margin) = (half_width * 0.6, 12.0 * half_width);
    let axis = |x: f32| extent * (0.5 + 0.16 * noise.at(x / (0.45 * extent), 0.5));
    let mut stroke = Stroke::default();
    let (mut x, mut y, mut phase) = (-margin, axis(-margin), 0.0_f32);
    // A river as long as this has lost its way; the bound keeps the loop finite whatever the noise.
    for index in 0..(60.0 * extent / step) as usize {
        let way = index as f32 * step / half_width;
        phase += step * TAU / (half_width * (34.0 + 20.0 * noise.fractal(way, 10.5, 55.0, 2)));
        let swing = 1.1 + 0.75 * noise.at(way / 70.0, 20.5);
        let steer = ((axis(x + 6.0 * half_width) - y) / (0.12 * extent)).clamp(-0.8, 0.8);
        let direction = swing * phase.sin() + steer + 0.8 * noise.fractal(way, 30.5, 24.0, 3);
        x += step * direction.cos();
        y += step * direction.sin();
        stroke.push([x, y], half_width * (1.0 + 0.5 * noise.fractal(way, 40.5, 20.0, 3)));
        if x > extent + margin {
            break;
        }
    }
    stroke
}

/// Bars at the inner side of bends and a few islands.
fn sand_bars(river: &Stroke, seed: u64) -> Vec<Stroke> {
    let noise = Noise::new(seed, "bars");
    let (mut inner, mut islands) = (Stroke::default(), Stroke::default());
    for (index, (&[x, y], &radius)) in river.points.iter().zip(&river.radii).enumerate() {
        let (before, after) = (
            river.direction(index.saturating_sub(6)),
            river.direction((index + 6).min(river.points.len() - 1)),
        );
        // The sine of the turn over twelve steps: positive when the line turns right on the map (rows grow down).
        let turn = before[0] * after[1] - before[1] * after[0];
        let [dx, dy] = river.direction(index);
        let way = index as f32;
        let strength = smoothstep(0.2, 1.1, turn.abs() + 0.6 * noise.at(way / 26.0, 0.5));
        let side = radius * turn.signum() * 0.95;
        inner.push([x - dy * side, y + dx * side], radius * (0.95 * strength - 0.2));
        let island = smoothstep(0.55, 0.8, noise.at(way / 35.0, 9.5));
        islands.push([x + 0.2 * dy * radius, y - 0.2 * dx * radius], radius * (0.6 * island - 0.15));
    }
    vec![inner, islands]
}

/// Creeks that leave the river on both sides and wander into the hills, with a branch each.
fn creeks(size: usize, river: &Stroke, rng: &mut ChaCha8Rng) -> Vec<Stroke> {
    let extent = size as f32;
    let count = (size / 150).max(3);
    let mut creeks: Vec<Stroke> = Vec::new();
    for number in 0..count {
        let mouth_x = extent * (number as f32 + rng.random_range(0.2..0.8)) / count as f32;
        let mouth = river.points.iter().position(|point| point[0] >= mouth_x).unwrap_or(0);
        let side = if number % 2 == 0 { 1.0 } else { -1.0 };
        let heading = side * PI * rng.random_range(0.38..0.62);
        let length = extent * rng.random_range(0.3..0.6);
        let first = creeks.len();
        let main = creek(river.points[mouth], heading, length, 1.25, &creeks, rng);
        creeks.push(main);
        for _ in 0..2 {
            let main = &creeks[first];
            let fork = main.points.len() * rng.random_range(25..75) / 100;
            let turn = if rng.random() { 0.9 } else { -0.9 };
            let start = main.points[fork];
            let branch = creek(start, heading + turn, 0.45 * length, 0.7, &creeks[..first], rng);
            creeks.push(branch);
        }
    }
    creeks
}

/// One creek upwards from its mouth; it ends before it meets one of the others.
fn creek(
    mouth: [f32; 2],
    heading: f32,
    length: f32,
    radius: f32,
    others: &[Stroke],
    rng: &mut ChaCha8Rng,
) -> Stroke {
    let step = 3.0;
    let steps = (length / step) as usize;
    let mut stroke = Stroke::default();
    let ([mut x, mut y], mut swing) = (mouth, 0.0_f32);
    for index in 0..steps.max(4) {
        let way = index as f32 / steps.max(4) as f32;
        stroke.push([x, y], radius * (1.0 - 0.85 * way));
        swing = 0.9 * swing + rng.random_range(-0.32..0.32);
        x += step * (heading + swing).cos();
        y += step * (heading + swing).sin();
        let blocked = others
            .iter()
            .flat_map(|other| &other.points)
            .any(|other| (other[0] - x).hypot(other[1] - y) < 24.0);
        if blocked && index > 3 {
            break;
        }
    }
    stroke
}

/// Light relative to flat ground: the cosine of the sun's angle to the slope, weakened as by an imperfect terrain
/// correction.
fn illumination(elevation: &Array2<f32>) -> Array2<f32> {
    let (zenith, azimuth) = (SUN_ZENITH.to_radians(), SUN_AZIMUTH.to_radians());
    let sun = [zenith.sin() * azimuth.sin(), zenith.sin() * azimuth.cos(), zenith.cos()];
    let size = elevation.nrows();
    map_pixels(size, |row, col| {
        let height = |row: usize, col: usize| elevation[[row, col]];
        let (west, east) = (col.saturating_sub(1), (col + 1).min(size - 1));
        let (north, south) = (row.saturating_sub(1), (row + 1).min(size - 1));
        let to_east = (height(row, east) - height(row, west)) / (10.0 * (east - west) as f32);
        let to_north = (height(north, col) - height(south, col)) / (10.0 * (south - north) as f32);
        let length = (1.0 + to_east * to_east + to_north * to_north).sqrt();
        let cosine = (sun[2] - to_east * sun[0] - to_north * sun[1]) / length;
        (1.0 + 0.8 * (cosine / sun[2] - 1.0)).max(0.3)
    })
}
