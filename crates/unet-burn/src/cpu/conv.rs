//! Convolutions of stride 1 on the CPU.
//!
//! The output is cut into parts whose input fits into the second-level cache. Each part is a piece of work of its own: its
//! input rows are packed into planes, padding included, the products of the planes are summed for a few output channels
//! at a time, and rows are made of the sums. Every output value is the same sum in the same order however the parts are
//! cut and whoever computes them.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::kernel::{Instructions, ROWS, Work, correlate, fma, run};
use super::memory::Buffer;
use super::parts::{Cut, Part};
use super::planes::{Plane, pack, planes, unpack};
use super::way::{Product, Way};

/// The sizes of a convolution of stride 1.
///
/// Images are `[batch, channel, row, column]`, weights `[out_channel, in_channel, row, column]`, all contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Convolution {
    pub(crate) way: Way,
    pub(crate) batch: usize,
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    /// Height and width of the input,
    pub(crate) input: [usize; 2],
    /// and of the output; input that it needs beyond the edges is 0.
    pub(crate) output: [usize; 2],
    /// Rows and columns of the kernel.
    pub(crate) kernel: [usize; 2],
    /// Rows above and columns left of the input that count as 0.
    pub(crate) padding: [usize; 2],
}

impl Convolution {
    /// A convolution of images and weights of these shapes, with zeros above, left, below and right of the images.
    pub(crate) fn new(
        [batch, in_channels, height, width]: [usize; 4],
        [out_channels, _, rows, cols]: [usize; 4],
        [top, left, bottom, right]: [usize; 4],
    ) -> Self {
        Self {
            way: Way::of_kernel([rows, cols]),
            batch,
            in_channels,
            out_channels,
            input: [height, width],
            output: [height + top + bottom + 1 - rows, width + left + right + 1 - cols],
            kernel: [rows, cols],
            padding: [top, left],
        }
    }

    /// A 2×2 convolution of doubled images, padded at the bottom and on the right.
    pub(crate) fn doubled(
        [batch, in_channels, height, width]: [usize; 4],
        [out_channels, _, rows, cols]: [usize; 4],
    ) -> Self {
        assert_eq!([rows, cols], [2, 2], "the kernel of an up-convolution");
        Self {
            way: Way::Doubled,
            batch,
            in_channels,
            out_channels,
            input: [height, width],
            output: [2 * height, 2 * width],
            kernel: [2, 2],
            padding: [0, 0],
        }
    }

    pub(super) fn in_plane(&self) -> usize {
        self.input[0] * self.input[1]
    }

    pub(super) fn out_plane(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// The convolution, plus a bias for each output channel, and then ReLU if wanted.
    pub(crate) fn forward(
        &self,
        instructions: Instructions,
        images: &[f32],
        weights: &[f32],
        bias: Option<&[f32]>,
        relu: bool,
        out: &mut [f32],
    ) {
        assert_eq!(images.len(), self.batch * self.in_channels * self.in_plane(), "images of {self:?}");
        assert_eq!(out.len(), self.batch * self.out_channels * self.out_plane(), "output of {self:?}");
        if out.is_empty() {
            return;
        }
        let weights = self.weights(instructions, weights);
        let images: Vec<Plane<'_>> = planes(images, self.input).collect();
        let rows = out.chunks_exact_mut(self.output[1]);
        self.apply(instructions, &images, &weights, bias, relu, rows);
    }

    /// The weights of all products.
    pub(super) fn weights(&self, instructions: Instructions, weights: &[f32]) -> Vec<Buffer> {
        let products = self.way.products(self.kernel);
        products.iter().map(|product| self.product_weights(instructions, product, weights)).collect()
    }

    /// [`forward`](Self::forward) of planes by image and channel, with [`weights`](Self::weights) that are ready, to rows
    /// of the output by image and channel.
    pub(super) fn apply<'a>(
        &self,
        instructions: Instructions,
        images: &[Plane<'_>],
        weights: &[Buffer],
        bias: Option<&[f32]>,
        relu: bool,
        rows: impl Iterator<Item = &'a mut [f32]>,
    ) {
        let cut = self.cut(self.way.planes() * self.in_channels, 0);
        let products = self.way.products(self.kernel);
        let offsets: Vec<Vec<usize>> = products.iter().map(|product| self.offsets(cut, product)).collect();
        let parts = self.split(cut, rows);
        parts.into_par_iter().enumerate().for_each(|(index, out)| {
            SCRATCH.with_borrow_mut(|scratch| {
                let part = self.part(cut, index);
                let forward = Forward {
                    conv: self,
                    cut,
                    part,
                    offsets: &offsets,
                    weights,
                    images,
                    bias,
                    relu,
                    out,
                    scratch,
                };
                run(instructions, forward);
            });
        });
    }

    /// The weights of a product: by block of output channels, then by input channel, tap and output channel.
    fn product_weights(&self, instructions: Instructions, product: &Product, weights: &[f32]) -> Buffer {
        let area = self.kernel[0] * self.kernel[1];
        let taps = product.taps.len();
        let mut out = Buffer::any(self.out_channels * self.in_channels * taps);
        let mut blocks = Vec::new();
        let mut rest = &mut *out;
        for block in blocks_of(self.out_channels) {
            let (here, later) = rest.split_at_mut(block.len() * self.in_channels * taps);
            blocks.push((block, here));
            rest = later;
        }
        blocks.into_par_iter().for_each(|(block, out)| {
            run(
                instructions,
                BlockWeights { block, product, weights, in_channels: self.in_channels, area, out },
            );
        });
        out
    }
}

/// Output channels in blocks of [`ROWS`] or one less, so that no block is small.
fn blocks_of(channels: usize) -> impl Iterator<Item = Range<usize>> {
    let count = channels.div_ceil(ROWS);
    (0..count).map(move |block| block * channels / count..(block + 1) * channels / count)
}

/// Memory that a thread keeps from one part to the next.
#[derive(Default)]
struct Scratch {
    planes: Vec<f32>,
    sums: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The weights of a product for a block of output channels.
struct BlockWeights<'a> {
    block: Range<usize>,
    product: &'a Product,
    weights: &'a [f32],
    in_channels: usize,
    area: usize,
    out: &'a mut [f32],
}

impl Work for BlockWeights<'_> {
    #[inline(always)]
    fn run<const FMA: bool, const LANES: usize, const PIXELS: usize>(self) {
        let Self { block, product, weights, in_channels, area, out } = self;
        // Rows last, so that sums of weights are sums of vectors.
        let mut kernels = vec![[0.0; ROWS]; area];
        for (channel, out) in out.chunks_exact_mut(product.taps.len() * block.len()).enumerate() {
            for (place, row) in block.clone().enumerate() {
                let weights = &weights[(row * in_channels + channel) * area..][..area];
                for (kernel, &weight) in kernels.iter_mut().zip(weights) {
                    kernel[place] = weight;
                }
            }
            for (sources, out) in product.sources.iter().zip(out.chunks_exact_mut(block.len())) {
                let mut sums = [0.0; ROWS];
                for &(index, factor) in sources {
                    for (sum, weight) in sums.iter_mut().zip(kernels[index]) {
                        *sum = fma::<FMA>(factor, weight, *sum);
                    }
                }
                out.copy_from_slice(&sums[..block.len()]);
            }
        }
    }
}

/// Computes a part of the output.
struct Forward<'a> {
    conv: &'a Convolution,
    cut: Cut,
    part: Part,
    /// Of each product.
    offsets: &'a [Vec<usize>],
    weights: &'a [Buffer],
    images: &'a [Plane<'a>],
    bias: Option<&'a [f32]>,
    relu: bool,
    out: Vec<&'a mut [f32]>,
    scratch: &'a mut Scratch,
}

impl Work for Forward<'_> {
    #[inline(always)]
    fn run<const FMA: bool, const LANES: usize, const PIXELS: usize>(self) {
        let Self { conv, cut, part, offsets, weights, images, bias, relu, mut out, scratch } = self;
        let Scratch { planes, sums } = scratch;
        pack::<FMA, PIXELS>(conv, cut, part, images, planes);
        let length = (cut.groups * cut.pitch).next_multiple_of(PIXELS);
        let out_rows = out.len() / conv.out_channels;
        sums.resize(offsets.len() * ROWS * length, 0.0);
        for block in blocks_of(conv.out_channels) {
            let sums = &mut sums[..offsets.len() * block.len() * length];
            let products = offsets.iter().zip(weights);
            for ((offsets, weights), sums) in products.zip(sums.chunks_exact_mut(block.len() * length)) {
                let weights = &weights[block.start * offsets.len()..block.end * offsets.len()];
                correlate::<FMA, LANES, PIXELS>(planes, offsets, weights, block.len(), sums);
            }
            for (row, channel) in block.clone().enumerate() {
                let sums = |product: usize| &sums[(product * block.len() + row) * length..][..length];
                let bias = bias.map_or(0.0, |bias| bias[channel]);
                let out = &mut out[channel * out_rows..(channel + 1) * out_rows];
                unpack::<FMA>(conv.way, cut.pitch, sums, out, |value| rectify(value + bias, relu));
            }
        }
    }
}

/// ReLU if wanted; NaN stays.
#[inline(always)]
pub(super) fn rectify(value: f32, relu: bool) -> f32 {
    let least = if relu { 0.0 } else { f32::NEG_INFINITY };
    if value < least { least } else { value }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every product of the convolution: output, input and weight it belongs to.
    fn terms(conv: &Convolution, mut each: impl FnMut(usize, usize, usize)) {
        let ([height, width], [out_height, out_width], [rows, cols]) = (conv.input, conv.output, conv.kernel);
        let scale = if conv.way == Way::Doubled { 2 } else { 1 };
        let place = |at: usize, tap: usize, padding: usize, size: usize| {
            (at + tap).checked_sub(padding).map(|at| at / scale).filter(|&at| at < size)
        };
        for image in 0..conv.batch {
            for (o, i) in (0..conv.out_channels).flat_map(|o| (0..conv.in_channels).map(move |i| (o, i))) {
                for (y, x) in (0..out_height).flat_map(|y| (0..out_width).map(move |x| (y, x))) {
                    for (r, c) in (0..rows).flat_map(|r| (0..cols).map(move |c| (r, c))) {
                        let row = place(y, r, conv.padding[0], height);
                        let col = place(x, c, conv.padding[1], width);
                        if let (Some(row), Some(col)) = (row, col) {
                            each(
                                ((image * conv.out_channels + o) * out_height + y) * out_width + x,
                                ((image * conv.in_channels + i) * height + row) * width + col,
                                ((o * conv.in_channels + i) * rows + r) * cols + c,
                            );
                        }
                    }
                }
            }
        }
    }

    /// The largest difference, in units of the largest value.
    fn error(found: &[f32], expected: &[f64]) -> f64 {
        // A maximum leaves out what is no number.
        assert!(found.len() == expected.len() && found.iter().all(|value| value.is_finite()), "numbers");
        let largest = expected.iter().fold(f64::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
        let differences =
            found.iter().zip(expected).map(|(&found, expected)| (f64::from(found) - expected).abs());
        differences.fold(0.0, f64::max) / largest
    }

    fn values(seed: &mut u32, count: usize) -> Vec<f32> {
        let mut next = || {
            *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from((*seed >> 16) as u16) / 32768.0 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn convolutions() -> impl Strategy<Value = Convolution> {
        let channels = prop_oneof![1..14_usize, Just(33)];
        let kernel =
            prop_oneof![2 => Just([3, 3]), 1 => (1..=7_usize, 1..=7_usize).prop_map(|(r, c)| [r, c])];
        let sizes = (1..3_usize, channels.clone(), channels, 1..40_usize, 1..40_usize);
        (any::<bool>(), sizes, kernel, 0..7_usize, 0..7_usize).prop_filter_map(
            "a kernel larger than the image",
            |(doubled, (batch, in_channels, out_channels, height, width), kernel, top, left)| {
                let input = [height, width];
                let (way, kernel, padding) = if doubled {
                    (Way::Doubled, [2, 2], [0, 0])
                } else {
                    (Way::of_kernel(kernel), kernel, [top % kernel[0], left % kernel[1]])
                };
                let output = if doubled {
                    [2 * height, 2 * width]
                } else {
                    // Padded alike on both sides.
                    [
                        (height + 2 * padding[0] + 1).checked_sub(kernel[0]).filter(|size| *size > 0)?,
                        (width + 2 * padding[1] + 1).checked_sub(kernel[1]).filter(|size| *size > 0)?,
                    ]
                };
                Some(Convolution { way, batch, in_channels, out_channels, input, output, kernel, padding })
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        /// By a loop over all products in f64, with all instructions that this processor has.
        ///
        /// Sums of up to 33 · 49 products of values in [-1, 1] lose about √1617 · 2⁻²⁴ = 2.4e-6 of a typical term, less of
        /// the largest sum; the points of `Way::Rows` enlarge the errors by 1.4. Gradients of weights sum up to 2 · 1600
        /// products. 5e-6 leaves room for both.
        #[test]
        fn convolutions_and_gradients_equal_a_slow_loop(conv in convolutions(), mut seed in any::<u32>()) {
            let images = values(&mut seed, conv.batch * conv.in_channels * conv.in_plane());
            let weights = values(&mut seed, conv.out_channels * conv.in_channels * conv.kernel[0] * conv.kernel[1]);
            let bias = values(&mut seed, conv.out_channels);
            let gradient = values(&mut seed, conv.batch * conv.out_channels * conv.out_plane());
            let mut sums = vec![0.0; gradient.len()];
            let (mut images_gradient, mut weights_gradient) = (vec![0.0; images.len()], vec![0.0; weights.len()]);
            terms(&conv, |o, i, w| {
                sums[o] += f64::from(images[i]) * f64::from(weights[w]);
                images_gradient[i] += f64::from(gradient[o]) * f64::from(weights[w]);
                weights_gradient[w] += f64::from(gradient[o]) * f64::from(images[i]);
            });
            for (place, sum) in sums.iter_mut().enumerate() {
                *sum = (*sum + f64::from(bias[place / conv.out_plane() % conv.out_channels])).max(0.0);
            }
            for instructions in Instructions::available() {
                let mut found = vec![0.0; gradient.len()];
                conv.forward(instructions, &images, &weights, Some(&bias), true, &mut found);
                prop_assert!(error(&found, &sums) < 5e-6, "{instructions:?} forward: {}", error(&found, &sums));
                let mut found = vec![0.0; images.len()];
                conv.input_gradient(instructions, &gradient, &weights, &mut found);
                let off = error(&found, &images_gradient);
                prop_assert!(off < 5e-6, "{instructions:?} input: {off}");
                let off = error(&conv.weight_gradient(instructions, &images, &gradient), &weights_gradient);
                prop_assert!(off < 5e-6, "{instructions:?} weights: {off}");
            }
        }
    }

    #[test]
    fn the_result_does_not_depend_on_the_number_of_threads() {
        let conv = Convolution {
            way: Way::Rows,
            batch: 2,
            in_channels: 22,
            out_channels: 16,
            input: [90, 300],
            output: [88, 298],
            kernel: [3, 3],
            padding: [0, 0],
        };
        let mut seed = 1;
        let images = values(&mut seed, conv.batch * conv.in_channels * conv.in_plane());
        let weights = values(&mut seed, conv.out_channels * conv.in_channels * 9);
        let gradient = values(&mut seed, conv.batch * conv.out_channels * conv.out_plane());
        let results = [1, 2, 5].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            pool.install(|| {
                let mut out = vec![0.0; gradient.len()];
                conv.forward(Instructions::best(), &images, &weights, None, false, &mut out);
                (out, conv.weight_gradient(Instructions::best(), &images, &gradient))
            })
        });
        assert!(results[0] == results[1] && results[0] == results[2], "bit for bit");
    }
}
