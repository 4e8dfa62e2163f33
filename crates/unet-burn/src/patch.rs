//! What the network learns from: a patch of channels and the truth inside its margin.

use burn::data::dataloader::batcher::Batcher;
use burn::tensor::{Device, Tensor, TensorData};
use ndarray::{Array2, Array3};

/// Truth value of pixels that take no part in the loss.
pub const IGNORE_INDEX: u8 = 255;

/// One sample.
#[derive(Clone, Debug)]
pub struct Patch {
    /// Input channels, `[channel, row, column]`.
    pub image: Array3<f32>,
    /// Truth of the network's output, smaller than `image` by its margin: 1 is positive, 0 is not,
    /// [`IGNORE_INDEX`] takes no part. `[row, column]`.
    pub truth: Array2<u8>,
}

/// Samples of one shape on a device.
#[derive(Clone, Debug)]
pub struct PatchBatch {
    /// `[batch, channel, row, column]`.
    pub images: Tensor<4>,
    /// 0 or 1, `[batch, 1, row, column]`.
    pub truth: Tensor<4>,
    /// 0 where the truth is [`IGNORE_INDEX`], else 1; `[batch, 1, row, column]`.
    pub valid: Tensor<4>,
}

/// Puts patches of one shape together.
#[derive(Clone, Copy, Debug, Default)]
pub struct PatchBatcher;

impl Batcher<Patch, PatchBatch> for PatchBatcher {
    /// # Panics
    ///
    /// When the patches differ in shape: a data set has to give patches of one size.
    fn batch(&self, items: Vec<Patch>, device: &Device) -> PatchBatch {
        let (channels, height, width) = items[0].image.dim();
        let (rows, cols) = items[0].truth.dim();
        let mut images = Vec::<f32>::with_capacity(items.len() * channels * height * width);
        let mut truth = Vec::with_capacity(items.len() * rows * cols);
        let mut valid = Vec::with_capacity(items.len() * rows * cols);
        for patch in &items {
            assert_eq!(patch.image.dim(), (channels, height, width), "patches of a batch have one shape");
            assert_eq!(patch.truth.dim(), (rows, cols), "truths of a batch have one shape");
            images.extend(&patch.image);
            truth.extend(patch.truth.iter().map(|&class| f32::from(u8::from(class == 1))));
            valid.extend(patch.truth.iter().map(|&class| f32::from(u8::from(class != IGNORE_INDEX))));
        }
        let batch = items.len();
        let map = |values| Tensor::from_data(TensorData::new(values, [batch, 1, rows, cols]), device);
        PatchBatch {
            images: Tensor::from_data(TensorData::new(images, [batch, channels, height, width]), device),
            truth: map(truth),
            valid: map(valid),
        }
    }
}
