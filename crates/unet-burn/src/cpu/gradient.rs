//! Gradients of a convolution: what one of its output is worth for its input and its weights.

use rayon::prelude::*;

use super::conv::Convolution;
use super::kernel::{Instructions, Work, products, run};
use super::memory::Buffer;
use super::parts::{Cut, Part};
use super::planes::{Plane, pack, pack_gradient, planes};
use super::way::Way;

/// Bytes of the partial sums of a gradient of weights, of which there are two at least.
const PARTIAL_BYTES: usize = 64 << 20;
/// Pixels of a part at least when planes are multiplied: the sums of a tile are to be worth their end.
const LEAST_PIXELS: usize = 512;
/// Partial sums at most: a fixed number, so that the result does not depend on the number of threads.
const PARTIALS: usize = 16;

impl Convolution {
    /// What a gradient of the output is worth for the input.
    pub(crate) fn input_gradient(
        &self,
        instructions: Instructions,
        gradient: &[f32],
        weights: &[f32],
        out: &mut [f32],
    ) {
        let [rows, cols] = self.kernel;
        let (way, padding) = match self.way {
            Way::Doubled => (Way::Halved, [1, 1]),
            way => (way, [rows - 1 - self.padding[0], cols - 1 - self.padding[1]]),
        };
        let back = Self {
            way,
            in_channels: self.out_channels,
            out_channels: self.in_channels,
            input: self.output,
            output: self.input,
            padding,
            ..*self
        };
        // Input and output channels change places; the kernel is turned by 180°.
        let (area, per_out) = (rows * cols, self.in_channels * rows * cols);
        let mut turned = Buffer::any(weights.len());
        turned.par_chunks_exact_mut(self.out_channels * area).enumerate().for_each(|(channel, turned)| {
            for (row, turned) in turned.chunks_exact_mut(area).enumerate() {
                turned.copy_from_slice(&weights[row * per_out + channel * area..][..area]);
                if way != Way::Halved {
                    turned.reverse();
                }
            }
        });
        back.forward(instructions, gradient, &turned, None, false, out);
    }

    /// What a gradient of the output is worth for the weights.
    pub(crate) fn weight_gradient(
        &self,
        instructions: Instructions,
        images: &[f32],
        gradient: &[f32],
    ) -> Vec<f32> {
        let products = self.way.products(self.kernel);
        let sizes: Vec<usize> = products
            .iter()
            .map(|product| self.out_channels * self.in_channels * product.taps.len())
            .collect();
        let size: usize = sizes.iter().sum();
        let cut = self.cut(self.way.planes() * self.in_channels.max(self.out_channels), LEAST_PIXELS);
        let offsets: Vec<Vec<usize>> = products.iter().map(|product| self.offsets(cut, product)).collect();
        let images: Vec<Plane<'_>> = planes(images, self.input).collect();
        let parts = self.batch * cut.rows * cut.cols;
        let partials = (PARTIAL_BYTES / (4 * size)).clamp(2, PARTIALS).min(parts);
        let sums: Vec<Buffer> = (0..partials)
            .into_par_iter()
            .map(|partial| {
                let mut sums = Buffer::any(size);
                sums.fill(0.0);
                let (mut planes, mut gradients) = (Vec::new(), Vec::new());
                for index in partial * parts / partials..(partial + 1) * parts / partials {
                    let part = self.part(cut, index);
                    run(
                        instructions,
                        PackBoth {
                            conv: self,
                            cut,
                            part,
                            products: products.len(),
                            images: &images,
                            gradient,
                            planes: &mut planes,
                            gradients: &mut gradients,
                        },
                    );
                    self.add_products(instructions, &offsets, &planes, &gradients, &mut sums);
                }
                sums
            })
            .collect();
        let mut out = vec![0.0; self.out_channels * self.in_channels * self.kernel[0] * self.kernel[1]];
        let area = self.kernel[0] * self.kernel[1];
        out.par_chunks_exact_mut(self.in_channels * area).enumerate().for_each(|(row, out)| {
            let mut first = 0;
            for (product, size) in products.iter().zip(&sizes) {
                let taps = product.taps.len();
                for (channel, out) in out.chunks_exact_mut(area).enumerate() {
                    for (tap, sources) in product.sources.iter().enumerate() {
                        let at = first + (row * self.in_channels + channel) * taps + tap;
                        let sum: f32 = sums.iter().map(|sums| sums[at]).sum();
                        for &(index, factor) in sources {
                            out[index] += factor * sum;
                        }
                    }
                }
                first += size;
            }
        });
        out
    }

    /// Adds the products of the gradients with the planes of a part, `[product, out_channel, offset]`.
    fn add_products(
        &self,
        instructions: Instructions,
        offsets: &[Vec<usize>],
        planes: &[f32],
        gradients: &[f32],
        sums: &mut [f32],
    ) {
        let length = gradients.len() / (offsets.len() * self.out_channels);
        let mut work = Vec::new();
        let mut rest = sums;
        for (offsets, gradients) in offsets.iter().zip(gradients.chunks_exact(self.out_channels * length)) {
            let (here, later) = rest.split_at_mut(self.out_channels * offsets.len());
            rest = later;
            let pairs = gradients.chunks(2 * length).zip(here.chunks_mut(2 * offsets.len()));
            work.extend(pairs.map(|(gradients, out)| (offsets, gradients, out)));
        }
        work.into_par_iter().for_each(|(offsets, gradients, out)| {
            run(instructions, Products { gradients, length, planes, offsets, out });
        });
    }
}

/// Packs the input and the gradient of a part.
struct PackBoth<'a> {
    conv: &'a Convolution,
    cut: Cut,
    part: Part,
    products: usize,
    images: &'a [Plane<'a>],
    gradient: &'a [f32],
    planes: &'a mut Vec<f32>,
    gradients: &'a mut Vec<f32>,
}

impl Work for PackBoth<'_> {
    #[inline(always)]
    fn run<const FMA: bool, const LANES: usize, const PIXELS: usize>(self) {
        let Self { conv, cut, part, products, images, gradient, planes, gradients } = self;
        pack::<FMA, PIXELS>(conv, cut, part, images, planes);
        pack_gradient::<FMA, PIXELS>(conv, cut, part, products, gradient, gradients);
    }
}

/// Multiplies gradients of one or two output channels with all planes.
struct Products<'a> {
    gradients: &'a [f32],
    length: usize,
    planes: &'a [f32],
    offsets: &'a [usize],
    out: &'a mut [f32],
}

impl Work for Products<'_> {
    #[inline(always)]
    fn run<const FMA: bool, const LANES: usize, const PIXELS: usize>(self) {
        let Self { gradients, length, planes, offsets, out } = self;
        match gradients.split_at(length) {
            (one, []) => products::<FMA, LANES, 1>([one], planes, offsets, out),
            (one, two) => products::<FMA, LANES, 2>([one, two], planes, offsets, out),
        }
    }
}
