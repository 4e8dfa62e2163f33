//! Clouds, their shadows, a veil of cirrus, and the edge of the swath.

use ndarray::Array2;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::noise::{Noise, map_pixels, smoothstep};
use super::stroke::Point;
use super::terrain::{SUN_AZIMUTH, SUN_ZENITH};

/// What lies between ground and sensor.
#[derive(Debug)]
pub(super) struct Sky {
    /// Opacity of the clouds, 0 to 1.
    pub(super) cloud: Array2<f32>,
    /// Strength of their shadow on the ground, 0 to 1.
    pub(super) shadow: Array2<f32>,
    /// Opacity of the cirrus, 0 to about 0.2.
    pub(super) cirrus: Array2<f32>,
}

struct Cloud {
    centre: Point,
    radius: f32,
    thickness: f32,
}

impl Sky {
    /// Clouds of a seed; few of them, and few of their shadows, lie over the ground where `mines` is negative.
    pub(super) fn new(size: usize, seed: u64, mines: &Array2<f32>, rng: &mut ChaCha8Rng) -> Self {
        let extent = size as f32;
        let scale = (extent / 1536.0).clamp(0.2, 1.0);
        // The sun stands in the south-east, so shadows fall to the north-west: x down, y (growing southwards) down.
        let height = 118.0 * scale * SUN_ZENITH.to_radians().tan();
        let (sin, cos) = SUN_AZIMUTH.to_radians().sin_cos();
        let shift = [-height * sin, height * cos];
        let mut clouds: Vec<Cloud> = Vec::new();
        let mut allowed = 0.03;
        for _ in 0..400 {
            let centre = [rng.random_range(0.0..extent), rng.random_range(0.0..extent)];
            let cloud = Cloud {
                centre,
                radius: scale * rng.random_range(20.0_f32.ln()..85.0_f32.ln()).exp(),
                thickness: rng.random_range(0.35..1.6),
            };
            let crowded = clouds.iter().any(|other| {
                (other.centre[0] - centre[0]).hypot(other.centre[1] - centre[1]) < other.radius + cloud.radius
            });
            let hidden = |shift: Point| {
                share_of_mines(mines, [centre[0] + shift[0], centre[1] + shift[1]], cloud.radius)
            };
            if crowded || hidden([0.0, 0.0]).max(hidden(shift)) > allowed {
                continue;
            }
            // After the first two clouds none may touch a mine.
            clouds.push(cloud);
            if clouds.len() == 2 {
                allowed = 0.0;
            }
            if clouds.len() == 20 {
                break;
            }
        }
        let noise = Noise::new(seed, "clouds");
        let opacity = |x: f32, y: f32| {
            let mut opacity: f32 = 0.0;
            for Cloud { centre, radius, thickness } in &clouds {
                let away = (x - centre[0]).hypot(y - centre[1]) / radius;
                if away < 1.5 {
                    let texture = noise.fractal(x, y, 46.0 * scale, 5);
                    let depth = smoothstep(-0.05, 0.75, 0.75 - away + 0.9 * texture);
                    opacity = opacity.max((depth * thickness).min(0.97));
                }
            }
            opacity
        };
        let veil = Noise::new(seed, "cirrus");
        let veil_centre = [rng.random_range(0.1..0.9) * extent, rng.random_range(0.05..0.95) * extent];
        Self {
            cloud: map_pixels(size, |row, col| opacity(col as f32, row as f32)),
            shadow: map_pixels(size, |row, col| opacity(col as f32 - shift[0], row as f32 - shift[1])),
            cirrus: map_pixels(size, |row, col| {
                let (x, y) = (col as f32, row as f32);
                let (u, v) = ((x - veil_centre[0]) / extent, (y - veil_centre[1]) / extent);
                let away = ((u + 0.5 * v) / 0.34).hypot((v - 0.3 * u) / 0.075);
                let streaks = veil.fractal(x + 0.5 * y, 3.0 * (y - 0.3 * x), 300.0 * scale, 4);
                0.2 * smoothstep(1.3, 0.1, away) * smoothstep(-0.35, 0.55, streaks)
            }),
        }
    }
}

/// Share of a disc, sampled, that lies inside mines.
fn share_of_mines(mines: &Array2<f32>, [x, y]: Point, radius: f32) -> f32 {
    let size = mines.nrows() as f32;
    let (mut inside, mut total) = (0.0, 0.0);
    for step in 0..400 {
        // A sunflower of points covers the disc evenly.
        let (angle, away) = (2.399_963 * step as f32, 1.2 * radius * (step as f32 / 400.0).sqrt());
        let (x, y) = (x + away * angle.cos(), y + away * angle.sin());
        total += 1.0;
        if x >= 0.0 && y >= 0.0 && x < size && y < size {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "inside the scene")]
            let at = [y as usize, x as usize];
            if mines[at] < 0.0 {
                inside += 1.0;
            }
        }
    }
    inside / total
}

/// Whether a place lies beyond the edge of the swath, a slanted line across the north-east corner.
pub(super) fn is_nodata(size: usize, x: f32, y: f32) -> bool {
    let extent = size as f32;
    x > extent * 0.92 + 0.28 * y
}
