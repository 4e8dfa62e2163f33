//! The network: four steps down, a bottleneck, four steps up, one probability a pixel.

use burn::module::{Initializer, Module};
use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor};

use crate::block::{Decoder, DoubleConv, Encoder, convolution};
use crate::{Result, UNetConfig};

/// What the network believes of a pixel before it has learned anything: Lin et al. 2017, §4.1 (π = 0.01).
const PRIOR: f64 = 0.01;

/// A U-Net of valid convolutions: the layout of the released network of Couttenier et al. 2022.
///
/// ```text
/// input ─conv─conv─┬──────────────── crop ────────────────┬─concat─conv─conv─ 1×1 ─► logits
///                pool                                  up 2×2
///               [norm]                                    │
///                  └─conv─conv─┬──────── crop ────────┬─concat─norm─conv─conv─dropout
///                         pool, dropout, [norm]    up 2×2
///                              └──── … bottleneck … ──┘
/// ```
///
/// The encoder normalises after pooling, in all blocks but the last; dropout comes before it, in all blocks but
/// the first. The decoder upsamples by nearest neighbour, halves the channels by a 2×2 convolution padded at
/// the bottom and on the right, puts the cropped skip behind, normalises (not in the last step) and drops out
/// after the convolutions (not in the last step). The public record does not name the activation: ReLU here.
#[derive(Module, Debug)]
pub struct UNet {
    encoder: Vec<Encoder>,
    bottleneck: DoubleConv,
    decoder: Vec<Decoder>,
    head: Conv2d,
    #[module(skip)]
    config: UNetConfig,
}

impl UNet {
    pub(crate) fn new(config: &UNetConfig, device: &Device) -> Self {
        let filters = |level: usize| config.filters << level;
        let encoder = (0..config.levels)
            .map(|level| {
                let in_channels = if level == 0 { config.in_channels } else { filters(level - 1) };
                Encoder::new(level, in_channels, config, device)
            })
            .collect();
        let bottleneck =
            DoubleConv::new(filters(config.levels - 1), filters(config.levels), config.kernel, device);
        let decoder = (0..config.levels).rev().map(|level| Decoder::new(level, config, device)).collect();
        let mut head = convolution([config.filters, 1], 1, PaddingConfig2d::Valid, device);
        head.bias = Some(Initializer::Constant { value: -((1.0 - PRIOR) / PRIOR).ln() }.init([1], device));
        Self { encoder, bottleneck, decoder, head, config: config.clone() }
    }

    /// What the network was made by.
    #[must_use]
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// Runs the network.
    ///
    /// # Shapes
    ///
    /// - `images`: `[batch, in_channels, height, width]`, both sizes valid by [`UNetConfig::output_size`]
    /// - output: `[batch, 1, height − loss, width − loss]`, raw logits
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSize`](crate::Error::InvalidSize) and [`Error::InputShape`](crate::Error::InputShape).
    pub fn forward(&self, images: Tensor<4>) -> Result<Tensor<4>> {
        let [_, channels, height, width] = images.dims();
        if channels != self.config.in_channels {
            let actual = images.dims().to_vec();
            return Err(crate::Error::InputShape { actual, in_channels: self.config.in_channels });
        }
        self.config.output_size(height)?;
        self.config.output_size(width)?;
        let mut x = images; // [batch, in_channels, height, width]
        let mut skips = Vec::with_capacity(self.encoder.len());
        for encoder in &self.encoder {
            let (skip, down) = encoder.forward(x);
            skips.push(skip);
            x = down;
        }
        x = self.bottleneck.forward(x); // [batch, filters·2^levels, …]
        for (decoder, skip) in self.decoder.iter().zip(skips.into_iter().rev()) {
            x = decoder.forward(x, skip);
        }
        Ok(self.head.forward(x)) // [batch, 1, height − loss, width − loss]
    }
}
