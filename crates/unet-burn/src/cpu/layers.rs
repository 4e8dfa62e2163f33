//! What stands between the convolutions, one pass over the memory each: pooling, dropout, concatenation, batch norm.
//!
//! Maps are `[batch, channel, row, column]`, contiguous. Work is shared by planes of one image and channel.

use rayon::prelude::*;

use super::conv::rectify;
use super::kernel::{Instructions, Work, run};
use super::memory::Buffer;

/// Height and width of a plane.
pub(crate) type Size = [usize; 2];

/// The largest of each 2×2 of some pairs of rows.
pub(super) fn pool_rows(rows: &[f32], width: usize, out: &mut [f32]) {
    // NaN is passed on, as PyTorch does.
    let larger = |a: f32, b: f32| if b > a || b.is_nan() { b } else { a };
    for (rows, out) in rows.chunks_exact(2 * width).zip(out.chunks_exact_mut(width / 2)) {
        let (upper, lower) = rows.split_at(width);
        let pairs = upper.as_chunks::<2>().0.iter().zip(lower.as_chunks::<2>().0);
        for ((&[a, b], &[c, d]), out) in pairs.zip(out) {
            *out = larger(larger(a, b), larger(c, d));
        }
    }
}

/// The largest of each 2×2 (both sizes even).
pub(crate) fn pool(x: &[f32], [height, width]: Size) -> Buffer {
    let (area, out_area) = (height * width, (height / 2) * (width / 2));
    let mut out = Buffer::any(x.len() / area * out_area);
    let planes = x.par_chunks_exact(area).zip(out.par_chunks_exact_mut(out_area));
    planes.for_each(|(x, out)| pool_rows(x, width, out));
    out
}

/// [`pool`], and which of the four it was: `2 row + column`, the first one of equals.
pub(crate) fn pool_with_places(x: &[f32], [height, width]: Size) -> (Buffer, Vec<u8>) {
    let (out_height, out_width) = (height / 2, width / 2);
    let planes = x.len() / (height * width);
    let mut out = Buffer::any(planes * out_height * out_width);
    let mut places = vec![0_u8; out.len()];
    let area = out_height * out_width;
    let outputs = out.par_chunks_exact_mut(area).zip(places.par_chunks_exact_mut(area));
    x.par_chunks_exact(height * width).zip(outputs).for_each(|(x, (out, places))| {
        let rows = x
            .chunks_exact(2 * width)
            .zip(out.chunks_exact_mut(out_width).zip(places.chunks_exact_mut(out_width)));
        for (rows, (out, places)) in rows {
            let (upper, lower) = rows.split_at(width);
            let pairs = upper.as_chunks::<2>().0.iter().zip(lower.as_chunks::<2>().0);
            for ((&[a, b], &[c, d]), (out, place)) in pairs.zip(out.iter_mut().zip(places)) {
                let (mut largest, mut at) = (a, 0);
                // NaN is passed on, as PyTorch does.
                for (index, value) in [(1, b), (2, c), (3, d)] {
                    let larger = value > largest || value.is_nan();
                    largest = if larger { value } else { largest };
                    at = if larger { index } else { at };
                }
                (*out, *place) = (largest, at);
            }
        }
    });
    (out, places)
}

/// The gradient of [`pool_with_places`]: it goes to the largest.
pub(crate) fn pool_backward(gradient: &[f32], places: &[u8], [height, width]: Size) -> Buffer {
    let (out_height, out_width) = (height / 2, width / 2);
    let area = out_height * out_width;
    let planes = gradient.len() / area;
    let mut out = Buffer::any(planes * height * width);
    let inputs = gradient.par_chunks_exact(area).zip(places.par_chunks_exact(area));
    out.par_chunks_exact_mut(height * width).zip(inputs).for_each(|(out, (gradient, places))| {
        if height % 2 + width % 2 > 0 {
            out.fill(0.0); // a last row or column that no square has
        }
        let rows = gradient.chunks_exact(out_width).zip(places.chunks_exact(out_width));
        for (rows, (gradient, places)) in out.chunks_exact_mut(2 * width).zip(rows) {
            let (upper, lower) = rows.split_at_mut(width);
            let pairs = upper.as_chunks_mut::<2>().0.iter_mut().zip(lower.as_chunks_mut::<2>().0);
            for ((upper, lower), (&gradient, &place)) in pairs.zip(gradient.iter().zip(places)) {
                let at = |index| if place == index { gradient } else { 0.0 };
                (*upper, *lower) = ([at(0), at(1)], [at(2), at(3)]);
            }
        }
    });
    out
}

/// Values of a share are 0, the others times `1 / (1 − share)`.
///
/// Each pixel draws its own number from the seed, its plane and its place, so that a gradient is dropped by the same
/// call.
#[expect(clippy::cast_possible_truncation, reason = "halves of a seed; planes are fewer than 2^32")]
pub(crate) fn drop_out(instructions: Instructions, x: &[f32], area: usize, seed: u64, share: f64) -> Buffer {
    let mut out = Buffer::any(x.len());
    out.par_chunks_exact_mut(area).zip(x.par_chunks_exact(area)).enumerate().for_each(|(plane, (out, x))| {
        // Two rounds, so that seeds and planes that differ by little have nothing in common.
        let [low, high] = [seed as u32, (seed >> 32) as u32];
        let plane = scatter(scatter(low ^ plane as u32).wrapping_add(high));
        run(instructions, DropOut { x, plane, share, out });
    });
    out
}

/// A number that looks like a random one, each from another: Wellons' `lowbias32`, a hash of 32 bits.
#[inline(always)]
fn scatter(mut number: u32) -> u32 {
    number = (number ^ number >> 16).wrapping_mul(0x7feb_352d);
    number = (number ^ number >> 15).wrapping_mul(0x846c_a68b);
    number ^ number >> 16
}

struct DropOut<'a> {
    x: &'a [f32],
    /// The number of the plane.
    plane: u32,
    share: f64,
    out: &'a mut [f32],
}

impl Work for DropOut<'_> {
    #[inline(always)]
    fn run<const FMA: bool, const LANES: usize, const PIXELS: usize>(self) {
        let Self { x, plane, share, out } = self;
        let scale = rounded(1.0 / (1.0 - share));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2^32 − 1")]
        let dropped = (share * f64::from(u32::MAX)) as u32;
        for (place, (out, x)) in (0_u32..).zip(out.iter_mut().zip(x)) {
            *out = if scatter(scatter(place) ^ plane) < dropped { 0.0 } else { scale * x };
        }
    }
}

/// Where the middle of a larger map begins.
pub(super) fn margin(of: Size, inner: Size) -> Size {
    [(of[0] - inner[0]) / 2, (of[1] - inner[1]) / 2]
}

/// The channels of `x`, then those of the middle of `skip`.
pub(crate) fn concat_cropped(
    (x, [batch, channels, height, width]): (&[f32], [usize; 4]),
    (skip, [_, skip_channels, skip_height, skip_width]): (&[f32], [usize; 4]),
) -> Buffer {
    let (size, skip_size) = ([height, width], [skip_height, skip_width]);
    let (area, skip_area) = (height * width, skip_height * skip_width);
    let [top, left] = margin(skip_size, size);
    let mut out = Buffer::any(batch * (channels + skip_channels) * area);
    out.par_chunks_exact_mut(area).enumerate().for_each(|(index, out)| {
        let (image, channel) = (index / (channels + skip_channels), index % (channels + skip_channels));
        if channel < channels {
            out.copy_from_slice(&x[(image * channels + channel) * area..][..area]);
        } else {
            let plane = &skip[(image * skip_channels + channel - channels) * skip_area..][..skip_area];
            let rows = plane.chunks_exact(skip_size[1]).skip(top);
            for (out, row) in out.chunks_exact_mut(size[1]).zip(rows) {
                out.copy_from_slice(&row[left..][..size[1]]);
            }
        }
    });
    out
}

/// The gradients of both maps of [`concat_cropped`]; the margin of `skip` has none.
pub(crate) fn concat_cropped_backward(
    gradient: &[f32],
    [batch, channels, height, width]: [usize; 4],
    [_, skip_channels, skip_height, skip_width]: [usize; 4],
) -> (Buffer, Buffer) {
    let (size, skip_size) = ([height, width], [skip_height, skip_width]);
    let (area, skip_area) = (height * width, skip_height * skip_width);
    let all = channels + skip_channels;
    let [top, left] = margin(skip_size, size);
    let mut x = Buffer::any(batch * channels * area);
    x.par_chunks_exact_mut(area).enumerate().for_each(|(index, out)| {
        let (image, channel) = (index / channels, index % channels);
        out.copy_from_slice(&gradient[(image * all + channel) * area..][..area]);
    });
    let mut skip = Buffer::any(batch * skip_channels * skip_area);
    skip.par_chunks_exact_mut(skip_area).enumerate().for_each(|(index, out)| {
        let (image, channel) = (index / skip_channels, index % skip_channels);
        let gradient = &gradient[(image * all + channels + channel) * area..][..area];
        for (row, out) in out.chunks_exact_mut(skip_size[1]).enumerate() {
            let inside = row.checked_sub(top).filter(|row| *row < size[0]);
            match inside.map(|row| &gradient[row * size[1]..][..size[1]]) {
                Some(gradient) => {
                    out[..left].fill(0.0);
                    out[left..][..size[1]].copy_from_slice(gradient);
                    out[left + size[1]..].fill(0.0);
                }
                None => out.fill(0.0),
            }
        }
    });
    (x, skip)
}

/// Two sums over a plane, in f64 over pieces in f32: what `each` gives for the values at one place.
pub(super) fn sums_of_plane(a: &[f32], b: &[f32], each: impl Fn(f32, f32) -> [f32; 2]) -> [f64; 2] {
    const LANES: usize = 8;
    let mut total = [0.0; 2];
    for (a, b) in a.chunks(256).zip(b.chunks(256)) {
        let mut sums = [[0.0_f32; LANES]; 2];
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        for (a, b) in a.iter().zip(b) {
            for lane in 0..LANES {
                let [first, second] = each(a[lane], b[lane]);
                sums[0][lane] += first;
                sums[1][lane] += second;
            }
        }
        for (&a, &b) in a_rest.iter().zip(b_rest) {
            let [first, second] = each(a, b);
            sums[0][0] += first;
            sums[1][0] += second;
        }
        total[0] += f64::from(sums[0].iter().sum::<f32>());
        total[1] += f64::from(sums[1].iter().sum::<f32>());
    }
    total
}

/// [`sums_of_plane`] over the planes of each channel.
fn channel_sums(
    a: &[f32],
    b: &[f32],
    channels: usize,
    area: usize,
    each: impl Fn(usize, f32, f32) -> [f32; 2] + Sync,
) -> Vec<[f64; 2]> {
    let planes: Vec<[f64; 2]> = a
        .par_chunks_exact(area)
        .zip(b.par_chunks_exact(area))
        .enumerate()
        .map(|(index, (a, b))| sums_of_plane(a, b, |a, b| each(index % channels, a, b)))
        .collect();
    (0..channels)
        .map(|channel| {
            let planes = planes.iter().skip(channel).step_by(channels);
            planes.fold([0.0; 2], |sums, plane| [sums[0] + plane[0], sums[1] + plane[1]])
        })
        .collect()
}

#[expect(clippy::cast_possible_truncation, reason = "computed in f64, kept in f32")]
pub(super) fn rounded(value: f64) -> f32 {
    value as f32
}

/// Mean and biased variance of each channel.
pub(crate) fn statistics(x: &[f32], channels: usize, area: usize) -> (Vec<f32>, Vec<f32>) {
    let count = (x.len() / channels) as f64;
    let near: Vec<f32> = channel_sums(x, x, channels, area, |_, x, _| [x, 0.0])
        .iter()
        .map(|[sum, _]| rounded(sum / count))
        .collect();
    // What rounding has left of the mean is found about it.
    channel_sums(x, x, channels, area, |channel, x, _| {
        let centred = x - near[channel];
        [centred * centred, centred]
    })
    .iter()
    .zip(&near)
    .map(|([squares, rest], &near)| {
        let rest = rest / count;
        (rounded(f64::from(near) + rest), rounded(squares / count - rest * rest))
    })
    .unzip()
}

/// What batch norm keeps of a batch: by channel, mean, 1 / √(variance + ε), γ and β.
#[derive(Clone, Debug)]
pub(crate) struct Normalised {
    pub(crate) mean: Vec<f32>,
    pub(crate) inverse_deviation: Vec<f32>,
    pub(crate) gamma: Vec<f32>,
    pub(crate) beta: Vec<f32>,
    pub(crate) relu: bool,
}

impl Normalised {
    /// What it makes of a value of a channel. The mean is taken off first: with a mean of many deviations, a scale and a
    /// shift would lose the digits of the difference.
    fn of(&self, channel: usize) -> impl Fn(f32) -> f32 {
        let (mean, beta) = (self.mean[channel], self.beta[channel]);
        let scale = self.gamma[channel] * self.inverse_deviation[channel];
        move |x| (x - mean) * scale + beta
    }

    /// The normalised values.
    pub(crate) fn forward(&self, x: &[f32], area: usize) -> Buffer {
        let mut out = Buffer::any(x.len());
        out.par_chunks_exact_mut(area).zip(x.par_chunks_exact(area)).enumerate().for_each(
            |(index, (out, x))| {
                let normalise = self.of(index % self.mean.len());
                for (out, &x) in out.iter_mut().zip(x) {
                    *out = rectify(normalise(x), self.relu);
                }
            },
        );
        out
    }

    /// Gradients of the input, γ and β (Ioffe and Szegedy 2015, §3):
    /// `γ / σ · (g − mean(g) − x̂ · mean(g · x̂))`, with `g` 0 where ReLU has cut.
    pub(crate) fn backward(&self, x: &[f32], gradient: &[f32], area: usize) -> (Buffer, Vec<f32>, Vec<f32>) {
        let channels = self.mean.len();
        let count = (x.len() / channels) as f64;
        let passed = |channel: usize, x: f32, gradient: f32| {
            if !self.relu || self.of(channel)(x) > 0.0 { gradient } else { 0.0 }
        };
        let sums = channel_sums(x, gradient, channels, area, |channel, x, gradient| {
            let gradient = passed(channel, x, gradient);
            [gradient, gradient * ((x - self.mean[channel]) * self.inverse_deviation[channel])]
        });
        let mut out = Buffer::any(x.len());
        out.par_chunks_exact_mut(area)
            .zip(x.par_chunks_exact(area).zip(gradient.par_chunks_exact(area)))
            .enumerate()
            .for_each(|(index, (out, (x, gradient)))| {
                let channel = index % channels;
                let (mean, inverse) = (self.mean[channel], self.inverse_deviation[channel]);
                let scale = self.gamma[channel] * inverse;
                let [mean_gradient, mean_product] = sums[channel].map(|sum| rounded(sum / count));
                for ((out, &x), &gradient) in out.iter_mut().zip(x).zip(gradient) {
                    let normalised = (x - mean) * inverse;
                    let gradient = passed(channel, x, gradient);
                    *out = scale * (gradient - mean_gradient - normalised * mean_product);
                }
            });
        let gamma = sums.iter().map(|[_, product]| rounded(*product)).collect();
        let beta = sums.iter().map(|[sum, _]| rounded(*sum)).collect();
        (out, gamma, beta)
    }
}
