//! From reflectance on the ground to the digital numbers and the scene classification of a Level-2A product.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "digital numbers are clamped to 15 bits and pixel positions lie far inside i32"
)]

use ndarray::Array2;
use rayon::prelude::*;

use super::noise::{Noise, lerp};
use super::sky::{Sky, is_nodata};
use super::spectra::{BANDS, CIRRUS, CLOUD, SHADE, Spectrum};

/// `BOA_QUANTIFICATION_VALUE`: reflectance 1 in digital numbers.
pub(super) const QUANTIFICATION: u16 = 10_000;
/// `BOA_ADD_OFFSET`, added to a digital number before the division; -1000 since baseline 04.00.
pub(super) const OFFSET: i16 = -1000;

/// What the product holds.
#[derive(Debug)]
pub(super) struct Observation {
    /// Digital numbers of the bands, in [`BANDS`]' order and resolution; 0 is nodata.
    pub(super) bands: Vec<Array2<u16>>,
    /// Scene classification at 20 m.
    pub(super) scl: Array2<u16>,
}

/// Looks at the ground through the sky.
pub(super) fn observe(ground: &Array2<Spectrum>, sky: &Sky, seed: u64) -> Observation {
    let bands: Vec<Array2<u16>> =
        (0..BANDS.len()).into_par_iter().map(|band| band_dn(ground, sky, seed, band)).collect();
    let scl = classify(&bands, sky, seed);
    Observation { bands, scl }
}

/// One band: sky, blur by the optics, averaging to its resolution, noise, digital numbers.
fn band_dn(ground: &Array2<Spectrum>, sky: &Sky, seed: u64, band: usize) -> Array2<u16> {
    let size = ground.nrows();
    let mut sharp = Array2::zeros((size, size));
    for (at, reflectance) in sharp.indexed_iter_mut() {
        let cloud = sky.cloud[at];
        let light = lerp(1.0, SHADE[band], 0.92 * sky.shadow[at]);
        // Thick clouds are brighter than their edges.
        let lit = lerp(ground[at][band] * light, CLOUD[band] * lerp(0.72, 1.05, cloud), cloud);
        *reflectance = lerp(lit, CIRRUS[band], sky.cirrus[at]);
    }
    let blurred = blur(&sharp);
    let (name, resolution) = BANDS[band];
    let factor = resolution as usize / 10;
    let noise = Noise::new(seed, name);
    Array2::from_shape_fn((size / factor, size / factor), |(row, col)| {
        let mut sum = 0.0;
        for fine_row in row * factor..(row + 1) * factor {
            for fine_col in col * factor..(col + 1) * factor {
                if is_nodata(size, fine_col as f32, fine_row as f32) {
                    return 0;
                }
                sum += blurred[[fine_row, fine_col]];
            }
        }
        let mean = sum / (factor * factor) as f32;
        let noisy = mean + (0.0007 + 0.006 * mean) * noise.normal(col as i32, row as i32);
        let dn = (noisy * f32::from(QUANTIFICATION)).round() - f32::from(OFFSET);
        dn.clamp(1.0, 32767.0) as u16
    })
}

/// A point-spread function of about 0.5 pixels (standard deviation), mirrored at the edges.
fn blur(sharp: &Array2<f32>) -> Array2<f32> {
    let size = sharp.nrows();
    let side = 0.13;
    let pass = |image: &Array2<f32>, down: usize, right: usize| {
        Array2::from_shape_fn((size, size), |(row, col)| {
            let before = image[[row.saturating_sub(down), col.saturating_sub(right)]];
            let after = image[[(row + down).min(size - 1), (col + right).min(size - 1)]];
            (1.0 - 2.0 * side) * image[[row, col]] + side * (before + after)
        })
    };
    pass(&pass(sharp, 1, 0), 0, 1)
}

/// A scene classification with the habits of `Sen2Cor`: thresholds on the spectrum, so that ponds become water, bright
/// scars now and then cloud, and mixtures stay unclassified; clouds and shadows lose their thin edges.
fn classify(bands: &[Array2<u16>], sky: &Sky, seed: u64) -> Array2<u16> {
    let noise = Noise::new(seed, "scl");
    let size = bands[1].nrows() / 2;
    Array2::from_shape_fn((size, size), |(row, col)| {
        let fine =
            [[2 * row, 2 * col], [2 * row, 2 * col + 1], [2 * row + 1, 2 * col], [2 * row + 1, 2 * col + 1]];
        let mean = |field: &Array2<f32>| fine.iter().map(|&at| field[at]).sum::<f32>() / 4.0;
        let reflectance = |band: usize| {
            let dn = match BANDS[band].1 {
                10 => fine.iter().map(|&at| f32::from(bands[band][at])).sum::<f32>() / 4.0,
                _ => f32::from(bands[band][[row, col]]),
            };
            (dn + f32::from(OFFSET)) / f32::from(QUANTIFICATION)
        };
        if bands[4][[row, col]] == 0 {
            return 0;
        }
        let [blue, green, red, near_infrared] = [1, 2, 3, 7].map(reflectance);
        let short_wave = reflectance(10);
        let vegetation_index = (near_infrared - red) / (near_infrared + red).max(1e-3);
        let water_index = (green - near_infrared) / (green + near_infrared).max(1e-3);
        let (cloud, shadow, cirrus) = (mean(&sky.cloud), mean(&sky.shadow), mean(&sky.cirrus));
        let draw = noise.uniform(col as i32, row as i32);
        // Neighbouring pixels tend to err together.
        let whim = noise.at(col as f32 / 3.0, row as f32 / 3.0);
        if cloud > 0.93 && draw < 0.01 {
            return 1;
        }
        if cloud > 0.6 {
            return 9;
        }
        if cloud > 0.22 {
            return 8;
        }
        if cirrus > 0.07 {
            return 10;
        }
        if shadow > 0.32 && cloud < 0.1 {
            return if whim < -0.45 { 2 } else { 3 };
        }
        if blue > 0.135 && red > 0.2 && vegetation_index < 0.16 && whim + draw > 1.1 {
            return 8;
        }
        if water_index > -0.05 && short_wave < 0.14 {
            return if draw < 0.04 { 7 } else { 6 };
        }
        if near_infrared < 0.115 && short_wave < 0.16 {
            return 2;
        }
        match vegetation_index + 0.04 * whim {
            index if index > 0.40 => 4,
            index if index > 0.36 && draw < 0.25 => 7,
            index if index < 0.05 && draw < 0.35 => 7,
            _ => 5,
        }
    })
}
