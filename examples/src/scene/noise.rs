//! Seeded gradient noise and the small functions of procedural fields.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "lattice positions of scenes lie far inside i32"
)]

use ndarray::Array2;
use rayon::prelude::*;

/// Gradient noise after Perlin (2002): zero at lattice points, about -1 to 1, a pure function of seed and place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noise(u64);

impl Noise {
    /// A field of its own for each `purpose` of one scene.
    pub(super) fn new(seed: u64, purpose: &str) -> Self {
        Self(purpose.bytes().fold(mix(seed), |state, byte| mix(state ^ u64::from(byte))))
    }

    /// 32 random bits of a lattice point.
    pub(super) fn bits(self, column: i32, row: i32) -> u32 {
        let place = u64::from(column as u32) << 32 | u64::from(row as u32);
        (mix(self.0 ^ mix(place)) >> 32) as u32
    }

    /// A number in [0, 1) of a lattice point.
    pub(super) fn uniform(self, column: i32, row: i32) -> f32 {
        (self.bits(column, row) >> 8) as f32 / (1 << 24) as f32
    }

    /// About normally distributed, mean 0, variance 1: the sum of four uniform numbers.
    pub(super) fn normal(self, column: i32, row: i32) -> f32 {
        let bits = mix(self.0 ^ mix(u64::from(column as u32) << 32 | u64::from(row as u32)));
        let sum: u64 = (0..4).map(|part| bits >> (16 * part) & 0xffff).sum();
        (sum as f32 / 65536.0 - 2.0) * 3_f32.sqrt()
    }

    /// Smooth noise; one lattice cell is one unit.
    pub(super) fn at(self, x: f32, y: f32) -> f32 {
        let (column, row) = (x.floor(), y.floor());
        let (u, v) = (x - column, y - row);
        let corner = |dx: i32, dy: i32| {
            let bits = self.bits(column as i32 + dx, row as i32 + dy);
            let slope = |bits: u32| (bits & 0xffff) as f32 / 32768.0 - 1.0;
            slope(bits) * (u - dx as f32) + slope(bits >> 16) * (v - dy as f32)
        };
        let fade = |t: f32| t * t * t * (t * (t * 6.0 - 15.0) + 10.0);
        let top = lerp(corner(0, 0), corner(1, 0), fade(u));
        let bottom = lerp(corner(0, 1), corner(1, 1), fade(u));
        1.9 * lerp(top, bottom, fade(v))
    }

    /// Octaves of halving wavelength and amplitude; the first has the given wavelength in pixels.
    pub(super) fn fractal(self, x: f32, y: f32, wavelength: f32, octaves: u32) -> f32 {
        let (mut sum, mut total, mut amplitude, mut frequency) = (0.0, 0.0, 1.0, 1.0 / wavelength);
        for octave in 0..octaves {
            let shift = 17.3 * octave as f32;
            sum += amplitude * self.at(x * frequency + shift, y * frequency - shift);
            total += amplitude;
            amplitude *= 0.5;
            frequency *= 2.0;
        }
        sum / total
    }
}

/// The finaliser of `SplitMix64`.
fn mix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// From `a` at 0 to `b` at 1.
pub(super) fn lerp(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

/// 0 at or before `start`, 1 at or after `end`, smooth between; `start` may be the larger.
pub(super) fn smoothstep(start: f32, end: f32, value: f32) -> f32 {
    let t = ((value - start) / (end - start)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Share of a pixel inside a shape whose edge is `signed_distance` pixels from its centre (negative: inside).
pub(super) fn coverage(signed_distance: f32) -> f32 {
    (0.5 - signed_distance).clamp(0.0, 1.0)
}

/// Evaluates a pixel function on a square, rows in parallel.
pub(super) fn map_pixels<T: Send + Clone + Default>(
    size: usize,
    function: impl Fn(usize, usize) -> T + Sync,
) -> Array2<T> {
    let mut pixels = vec![T::default(); size * size];
    pixels.par_chunks_mut(size).enumerate().for_each(|(row, pixels)| {
        for (col, pixel) in pixels.iter_mut().enumerate() {
            *pixel = function(row, col);
        }
    });
    Array2::from_shape_vec((size, size), pixels).expect("one value for each pixel of the square")
}
