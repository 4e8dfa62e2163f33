//! The parts that the output of a convolution is cut into, and where they lie.

use super::conv::Convolution;
use super::way::Product;

/// Bytes of the planes of a part at most: half of a small second-level cache.
const PART_BYTES: usize = 256 << 10;

/// How a convolution is cut into parts.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// Groups of output rows of a part, and their pixels.
    pub(super) groups: usize,
    pub(super) pixels: usize,
    /// Parts from top to bottom and from left to right.
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Values from one row of a plane to the next, and from one plane to the next.
    pub(super) pitch: usize,
    pub(super) stride: usize,
}

/// A part of the output: some groups of rows of an image, and some of their pixels.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) image: usize,
    pub(super) group: usize,
    pub(super) pixel: usize,
}

impl Convolution {
    pub(super) fn cut(&self, planes: usize, least: usize) -> Cut {
        let ([group_rows, group_cols], [reach_rows, reach_cols]) =
            (self.way.group(), self.way.reach(self.kernel));
        let all = [self.output[0].div_ceil(group_rows), self.output[1].div_ceil(group_cols)];
        let row_bytes = |pixels: usize| 4 * planes * (pixels + reach_cols);
        let fits = |groups: usize, pixels: usize| (groups + reach_rows) * row_bytes(pixels) <= PART_BYTES;
        let cols =
            (1..all[1]).find(|&cols| fits(1, all[1].div_ceil(cols)) || all[1] / cols <= 128).unwrap_or(1);
        let pixels = all[1].div_ceil(cols).max(1);
        let groups = (PART_BYTES / row_bytes(pixels)).saturating_sub(reach_rows).max(1);
        // Enough parts for many threads, but long ones.
        let groups =
            groups.min((self.batch * all[0]).div_ceil(32)).max(least / pixels).clamp(1, all[0].max(1));
        let pitch = pixels + reach_cols;
        Cut {
            groups,
            pixels,
            rows: all[0].div_ceil(groups),
            cols: all[1].div_ceil(pixels),
            pitch,
            stride: (groups + reach_rows) * pitch,
        }
    }

    pub(super) fn part(&self, cut: Cut, index: usize) -> Part {
        let (image, place) = (index / (cut.rows * cut.cols), index % (cut.rows * cut.cols));
        Part { image, group: place / cut.cols * cut.groups, pixel: place % cut.cols * cut.pixels }
    }

    /// Where a product finds the pixels of each input channel and tap in the planes, less the pixel.
    pub(super) fn offsets(&self, cut: Cut, product: &Product) -> Vec<usize> {
        let taps = || product.taps.iter().map(|[row, col]| row * cut.pitch + col);
        let channels = (0..self.in_channels).map(|channel| product.plane * self.in_channels + channel);
        channels.flat_map(|plane| taps().map(move |tap| plane * cut.stride + tap)).collect()
    }

    /// The rows of each part of the output: by part, then by channel.
    pub(super) fn split<'a>(
        &self,
        cut: Cut,
        rows: impl Iterator<Item = &'a mut [f32]>,
    ) -> Vec<Vec<&'a mut [f32]>> {
        let [group_rows, group_cols] = self.way.group();
        let mut parts: Vec<Vec<&mut [f32]>> = Vec::new();
        let most = self.out_channels * cut.groups * group_rows;
        parts.resize_with(self.batch * cut.rows * cut.cols, || Vec::with_capacity(most));
        for (index, row) in rows.enumerate() {
            let (image, row_index) = (index / (self.out_channels * self.output[0]), index % self.output[0]);
            let first = (image * cut.rows + row_index / (cut.groups * group_rows)) * cut.cols;
            for (part, piece) in parts[first..].iter_mut().zip(row.chunks_mut(cut.pixels * group_cols)) {
                part.push(piece);
            }
        }
        parts
    }
}
