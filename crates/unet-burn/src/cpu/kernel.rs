//! The two loops in which all of the time goes, for each instruction set.
//!
//! Both work on *planes*: a row of pixels after the other, all of them `f32`, one plane for each channel. A convolution
//! is a sum of planes that are shifted and weighted; a *tap* is such a shift, in values. Vectors run along the pixels, so
//! that no value is moved inside a vector, and a tile of the result stays in registers while the sum is made.

use crate::{Error, Result};

/// A set of instructions that the loops are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instructions {
    /// What every processor of the target has.
    Portable,
    /// 8 values at once, multiplied and added in one instruction.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 16 values at once.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Instructions {
    /// The fastest first.
    pub(crate) fn available() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = avx2 && is_x86_feature_detected!("avx512f");
            let found = [(avx512, Self::Avx512), (avx2, Self::Avx2), (true, Self::Portable)];
            found.into_iter().filter_map(|(there, set)| there.then_some(set)).collect()
        }
        #[cfg(not(target_arch = "x86_64"))]
        vec![Self::Portable]
    }

    /// As the processor's makers call them.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
        }
    }

    /// Those that the variable asks for, else the fastest that this processor has.
    pub(crate) fn chosen() -> Result<Self> {
        // What the variable said first counts, for whoever asks later.
        static ASKED: std::sync::OnceLock<String> = std::sync::OnceLock::new();
        let asked = ASKED.get_or_init(|| {
            let asked = std::env::var_os("UNET_BURN_INSTRUCTIONS").unwrap_or_default();
            asked.to_string_lossy().into_owned()
        });
        let available = Self::available();
        if asked.is_empty() {
            return Ok(available[0]);
        }
        let found = available.iter().find(|set| set.name().eq_ignore_ascii_case(asked));
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = available.iter().map(|set| set.name()).collect();
            Error::Instructions { asked: asked.clone(), available: names.join(" ") }
        })
    }

    /// As [`chosen`](Self::chosen); the fastest where others are asked for than there are.
    pub(crate) fn best() -> Self {
        static BEST: std::sync::OnceLock<Instructions> = std::sync::OnceLock::new();
        *BEST.get_or_init(|| Self::chosen().unwrap_or_else(|_| Self::available()[0]))
    }
}

/// Work that is compiled once for each instruction set: `FMA` says whether `a · b + c` is one instruction, `LANES` how
/// many values a vector holds, and `PIXELS` are two vectors.
pub(crate) trait Work {
    /// Does it. Implementations are `#[inline(always)]`, down to the loops.
    fn run<const FMA: bool, const LANES: usize, const PIXELS: usize>(self);
}

/// Does the work with some instructions.
pub(crate) fn run<W: Work>(instructions: Instructions, work: W) {
    match instructions {
        Instructions::Portable => work.run::<{ cfg!(target_arch = "aarch64") }, 4, 8>(),
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "several times as fast")]
        // SAFETY: `available` has found the instructions that the functions are compiled for.
        Instructions::Avx2 => unsafe { run_avx2(work) },
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "several times as fast")]
        // SAFETY: as above.
        Instructions::Avx512 => unsafe { run_avx512(work) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2<W: Work>(work: W) {
    work.run::<true, 8, 16>();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f")]
fn run_avx512<W: Work>(work: W) {
    work.run::<true, 16, 32>();
}

#[inline(always)]
pub(crate) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Output channels of a tile at most: with two vectors of pixels each, 12 sums, and registers enough for their factors.
pub(crate) const ROWS: usize = 6;

/// Adds shifted and weighted planes: `out[row][p] = Σ weights[n][row] · planes[offsets[n] + p]`.
///
/// An offset is that of a channel's plane and a tap together; beyond the last pixel asked for come `PIXELS` more values
/// that may be read. `out` has `rows` rows of equal length, a multiple of `PIXELS`.
#[inline(always)]
pub(crate) fn correlate<const FMA: bool, const LANES: usize, const PIXELS: usize>(
    planes: &[f32],
    offsets: &[usize],
    weights: &[f32],
    rows: usize,
    out: &mut [f32],
) {
    match rows {
        1 => correlate_rows::<FMA, LANES, PIXELS, 1>(planes, offsets, weights, out),
        2 => correlate_rows::<FMA, LANES, PIXELS, 2>(planes, offsets, weights, out),
        3 => correlate_rows::<FMA, LANES, PIXELS, 3>(planes, offsets, weights, out),
        4 => correlate_rows::<FMA, LANES, PIXELS, 4>(planes, offsets, weights, out),
        5 => correlate_rows::<FMA, LANES, PIXELS, 5>(planes, offsets, weights, out),
        _ => correlate_rows::<FMA, LANES, PIXELS, ROWS>(planes, offsets, weights, out),
    }
}

#[inline(always)]
fn correlate_rows<const FMA: bool, const LANES: usize, const PIXELS: usize, const N: usize>(
    planes: &[f32],
    offsets: &[usize],
    weights: &[f32],
    out: &mut [f32],
) {
    let length = out.len() / N;
    let (weights, _) = weights.as_chunks::<N>();
    for at in (0..length).step_by(PIXELS) {
        // Two vectors of each row, apart: of longer arrays the compiler makes no vectors.
        let (mut left, mut right) = ([[0.0; LANES]; N], [[0.0; LANES]; N]);
        let planes = &planes[at..];
        for (&offset, weights) in offsets.iter().zip(weights) {
            let pixels: &[f32; PIXELS] = planes[offset..].first_chunk().expect("pixels behind the last");
            let [left_pixels, right_pixels] = *pixels.as_chunks::<LANES>().0 else {
                unreachable!("PIXELS are two vectors")
            };
            for row in 0..N {
                for lane in 0..LANES {
                    left[row][lane] = fma::<FMA>(left_pixels[lane], weights[row], left[row][lane]);
                }
                for lane in 0..LANES {
                    right[row][lane] = fma::<FMA>(right_pixels[lane], weights[row], right[row][lane]);
                }
            }
        }
        for (row, (left, right)) in left.iter().zip(&right).enumerate() {
            let (out, _) = out[row * length + at..].split_at_mut(PIXELS);
            out[..LANES].copy_from_slice(left);
            out[LANES..].copy_from_slice(right);
        }
    }
}

/// Planes that are multiplied with two rows of gradients at once: 12 sums.
const PLANES: usize = 6;

/// The other way round, for the gradient of weights: `out[row][n] += Σ_p gradients[row][p] · planes[offsets[n] + p]`.
///
/// `gradients` has `N` rows, one or two, of equal length, a multiple of `LANES`; the rest as in [`correlate`].
#[inline(always)]
pub(crate) fn products<const FMA: bool, const LANES: usize, const N: usize>(
    gradients: [&[f32]; N],
    planes: &[f32],
    offsets: &[usize],
    out: &mut [f32],
) {
    let (groups, rest) = offsets.as_chunks::<PLANES>();
    for (index, &group) in groups.iter().enumerate() {
        products_tile::<FMA, LANES, N, PLANES>(
            gradients,
            planes,
            group,
            &mut out[PLANES * index..],
            offsets.len(),
        );
    }
    for (index, &one) in rest.iter().enumerate() {
        let first = PLANES * groups.len() + index;
        products_tile::<FMA, LANES, N, 1>(gradients, planes, [one], &mut out[first..], offsets.len());
    }
}

#[inline(always)]
fn products_tile<const FMA: bool, const LANES: usize, const N: usize, const K: usize>(
    gradients: [&[f32]; N],
    planes: &[f32],
    offsets: [usize; K],
    out: &mut [f32],
    out_stride: usize,
) {
    let count = gradients[0].len() / LANES;
    let rows = gradients.map(|row| &row.as_chunks::<LANES>().0[..count]);
    let planes = offsets.map(|offset| &planes[offset..].as_chunks::<LANES>().0[..count]);
    let mut sums = [[[0.0_f32; LANES]; K]; N];
    for at in 0..count {
        let mut gradients = [[0.0; LANES]; N];
        for row in 0..N {
            gradients[row] = rows[row][at];
        }
        for k in 0..K {
            let pixels = planes[k][at];
            for row in 0..N {
                for lane in 0..LANES {
                    sums[row][k][lane] = fma::<FMA>(gradients[row][lane], pixels[lane], sums[row][k][lane]);
                }
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        for (k, &lanes) in sums.iter().enumerate() {
            out[row * out_stride + k] += sum(lanes);
        }
    }
}

/// Halves are added, then their halves.
#[inline(always)]
fn sum<const LANES: usize>(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}
