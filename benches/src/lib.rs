//! Seeded inputs of the benches: the same pixels on every machine, with the structure of real ones.

use ndarray::{Array2, Array3, ArrayView3, Slice, Zip};

/// Rows and columns of most inputs: 4.2 million pixels, far more than any cache; a 10 m tile has 29 times as many.
pub const SIDE: usize = 2048;

/// The upper-left corner of tile 29NPJ, 10 m pixels, in GDAL order.
pub const TRANSFORM: [f64; 6] = [600_000.0, 10.0, 0.0, 1_000_020.0, 0.0, -10.0];

/// A reproducible number between 0 and 1 for each position (the finalizer of `SplitMix64`).
#[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
pub fn random(row: usize, col: usize, seed: u64) -> f64 {
    let mut bits = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ ((row as u64) << 32 | col as u64);
    for multiplier in [0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB] {
        bits = (bits ^ (bits >> 30)).wrapping_mul(multiplier);
    }
    ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Smooth noise `[side, side]` around 0.5: three octaves, patches of 64, 16 and 4 pixels.
pub fn surface(side: usize, seed: u64) -> Array2<f64> {
    Array2::from_shape_fn((side, side), |(row, col)| {
        [(64, 0.6), (16, 0.3), (4, 0.1)]
            .map(|(cell, weight)| {
                let (t, u) = ((row % cell) as f64 / cell as f64, (col % cell) as f64 / cell as f64);
                let at = |r, c| random(row / cell + r, col / cell + c, seed + cell as u64);
                let top = at(0, 0) * (1.0 - u) + at(0, 1) * u;
                let bottom = at(1, 0) * (1.0 - u) + at(1, 1) * u;
                weight * (top * (1.0 - t) + bottom * t)
            })
            .iter()
            .sum()
    })
}

/// Digital numbers of a band `[side, side]`: smooth land, noise of the sensor, a nodata wedge (DN 0) at the left.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1000 to 6100")]
pub fn dn(side: usize, seed: u64) -> Array2<u16> {
    let land = surface(side, seed);
    Array2::from_shape_fn((side, side), |(row, col)| {
        if col * 16 < side - row {
            0
        } else {
            (1000.0 + 5000.0 * land[[row, col]] + 40.0 * random(row, col, seed)) as u16
        }
    })
}

/// A scene classification `[side, side]`: connected patches of the classes 0 to 11.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 11")]
pub fn scl(side: usize, seed: u64) -> Array2<u8> {
    surface(side, seed).mapv(|v| (v * 12.0).clamp(0.0, 11.0) as u8)
}

/// A mask of blobs `[side, side]`, about one pixel in ten, some of them with holes.
pub fn mask(side: usize, seed: u64) -> Array2<bool> {
    surface(side, seed).mapv(|v| v > 0.66)
}

/// Probabilities `[side, side]` that mostly agree with [`mask`] of the same seed.
#[expect(clippy::cast_possible_truncation, reason = "0 to 1")]
pub fn probabilities(side: usize, seed: u64) -> Array2<f32> {
    let mut out = Array2::zeros((side, side));
    Zip::indexed(&mut out).and(&surface(side, seed)).for_each(|(row, col), out, &v| {
        *out = (0.5 + 3.0 * (v - 0.66) + 0.2 * (random(row, col, seed + 1) - 0.5)).clamp(0.0, 1.0) as f32;
    });
    out
}

/// The number of pixels, for a throughput.
pub fn pixels<T>(array: &Array2<T>) -> u64 {
    array.len() as u64
}

/// All channels of a part of an array `[channel, row, column]`. (`ndarray::s!` contains `allow(unsafe_code)`, which
/// the workspace forbids.)
pub fn part<T>(array: &Array3<T>, [row, col]: [usize; 2], [height, width]: [usize; 2]) -> ArrayView3<'_, T> {
    array.slice_each_axis(|axis| match axis.axis.index() {
        1 => Slice::from(row..row + height),
        2 => Slice::from(col..col + width),
        _ => Slice::from(..),
    })
}
