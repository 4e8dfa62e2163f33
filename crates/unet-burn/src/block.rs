//! The parts of the network: a pair of convolutions, a step down, a step up.

use burn::module::{Initializer, Module};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::interpolate::{Interpolate2d, Interpolate2dConfig, InterpolateMode};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

use crate::UNetConfig;

/// A convolution with weights by He et al. 2015 (normal, fan in, gain √2) and biases of zero.
pub(crate) fn convolution(
    channels: [usize; 2],
    kernel: usize,
    padding: PaddingConfig2d,
    device: &Device,
) -> Conv2d {
    let weights = Initializer::KaimingNormal { gain: std::f64::consts::SQRT_2, fan_out_only: false };
    let mut conv = Conv2dConfig::new(channels, [kernel, kernel])
        .with_padding(padding)
        .with_initializer(weights)
        .init(device);
    conv.bias = Some(Initializer::Zeros.init([channels[1]], device));
    conv
}

fn batch_norm(features: usize, config: &UNetConfig, device: &Device) -> BatchNorm {
    BatchNormConfig::new(features).with_epsilon(config.norm_epsilon).init(device)
}

/// Two valid convolutions, each followed by ReLU.
#[derive(Module, Debug)]
pub(crate) struct DoubleConv {
    first: Conv2d,
    second: Conv2d,
}

impl DoubleConv {
    pub(crate) fn new(in_channels: usize, filters: usize, kernel: usize, device: &Device) -> Self {
        Self {
            first: convolution([in_channels, filters], kernel, PaddingConfig2d::Valid, device),
            second: convolution([filters, filters], kernel, PaddingConfig2d::Valid, device),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = relu(self.first.forward(x)); // [batch, filters, n − k + 1, n − k + 1]
        relu(self.second.forward(x)) // [batch, filters, n − 2(k − 1), n − 2(k − 1)]
    }
}

/// A step down: convolutions, pooling, dropout, batch norm.
#[derive(Module, Debug)]
pub(crate) struct Encoder {
    convs: DoubleConv,
    pool: MaxPool2d,
    dropout: Option<Dropout>,
    norm: Option<BatchNorm>,
}

impl Encoder {
    /// The released network drops out in all blocks but the first, and normalises in all but the last.
    pub(crate) fn new(level: usize, in_channels: usize, config: &UNetConfig, device: &Device) -> Self {
        let filters = config.filters << level;
        Self {
            convs: DoubleConv::new(in_channels, filters, config.kernel, device),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            dropout: (level > 0).then(|| DropoutConfig::new(config.dropout).init()),
            norm: (level == 0 || level + 1 < config.levels).then(|| batch_norm(filters, config, device)),
        }
    }

    /// Gives the map for the skip connection, taken before pooling, and the map of the next level.
    pub(crate) fn forward(&self, x: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let skip = self.convs.forward(x); // [batch, filters, m, m]
        let mut x = self.pool.forward(skip.clone()); // [batch, filters, m/2, m/2]
        if let Some(dropout) = &self.dropout {
            x = dropout.forward(x);
        }
        if let Some(norm) = &self.norm {
            x = norm.forward(x);
        }
        (skip, x)
    }
}

/// A step up: upsampling, 2×2 convolution, concatenation with the cropped skip, batch norm, convolutions, dropout.
#[derive(Module, Debug)]
pub(crate) struct Decoder {
    upsample: Interpolate2d,
    up: Conv2d,
    norm: Option<BatchNorm>,
    convs: DoubleConv,
    dropout: Option<Dropout>,
}

impl Decoder {
    /// The released network has neither batch norm nor dropout in its last step.
    pub(crate) fn new(level: usize, config: &UNetConfig, device: &Device) -> Self {
        let filters = config.filters << level;
        Self {
            upsample: Interpolate2dConfig::new()
                .with_mode(InterpolateMode::Nearest)
                .with_scale_factor(Some([2.0, 2.0]))
                .init(),
            // Keras pads a "same" convolution of an even kernel at the bottom and on the right.
            up: convolution([2 * filters, filters], 2, PaddingConfig2d::Explicit(0, 0, 1, 1), device),
            norm: (level > 0).then(|| batch_norm(2 * filters, config, device)),
            convs: DoubleConv::new(2 * filters, filters, config.kernel, device),
            dropout: (level > 0).then(|| DropoutConfig::new(config.dropout).init()),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<4>, skip: Tensor<4>) -> Tensor<4> {
        let x = self.upsample.forward(x); // [batch, 2·filters, n, n]
        let x = relu(self.up.forward(x)); // [batch, filters, n, n]
        let [_, _, height, width] = x.dims();
        let mut x = Tensor::cat(vec![x, crop(skip, height, width)], 1); // [batch, 2·filters, n, n]
        if let Some(norm) = &self.norm {
            x = norm.forward(x);
        }
        let x = self.convs.forward(x); // [batch, filters, n − 2(k − 1), n − 2(k − 1)]
        match &self.dropout {
            Some(dropout) => dropout.forward(x),
            None => x,
        }
    }
}

/// The middle of a map.
fn crop(x: Tensor<4>, height: usize, width: usize) -> Tensor<4> {
    let [_, _, full_height, full_width] = x.dims();
    let (row, col) = ((full_height - height) / 2, (full_width - width) / 2);
    x.narrow(2, row, height).narrow(3, col, width)
}
