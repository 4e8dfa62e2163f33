//! The network: steps down, a bottleneck, steps up, one logit a pixel and class.

use burn::module::{Initializer, Module};
use burn::nn::conv::Conv2d;
use burn::nn::{Dropout, PaddingConfig2d};
use burn::tensor::{Device, Tensor};

#[cfg(feature = "flex")]
use crate::block::filter;
use crate::block::{Decoder, DoubleConv, Encoder, convolution, dropout};
#[cfg(feature = "flex")]
use crate::cpu;
use crate::{Layout, Result, UNetConfig, ops};

/// What the network believes of a pixel before it has learned anything: Lin et al. 2017, §4.1 (π = 0.01).
const PRIOR: f64 = 0.01;

/// A U-Net (Ronneberger et al. 2015).
///
/// ```text
/// input ─ block ─┬──────────────── crop ────────────────┬─ concat ─ block ─ 1×1 ─► logits
///              pool                                  up 2×2
///                └─ block ─┬────── crop ──────┬─ concat ─ block
///                        pool              up 2×2
///                          └─ … bottleneck … ─┘
/// ```
///
/// What a block holds beside its two convolutions is drawn at [`Layout`]. An up-convolution ends in ReLU, and the
/// upsampled map comes first in the concatenation. The public record of the released network does not name the
/// activation: ReLU here.
#[derive(Module, Debug)]
pub struct UNet {
    pub(crate) encoder: Vec<Encoder>,
    pub(crate) bottleneck: DoubleConv,
    dropout: Option<Dropout>,
    pub(crate) decoder: Vec<Decoder>,
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
        let bottleneck = DoubleConv::new(filters(config.levels - 1), filters(config.levels), config, device);
        let decoder = (0..config.levels).rev().map(|level| Decoder::new(level, config, device)).collect();
        let mut head = convolution([config.filters, config.num_classes], 1, PaddingConfig2d::Valid, device);
        if config.num_classes == 1 {
            let prior = Initializer::Constant { value: -((1.0 - PRIOR) / PRIOR).ln() };
            head.bias = Some(prior.init([1], device));
        }
        let dropout = (config.layout != Layout::AsmMap).then(|| dropout(config));
        Self { encoder, bottleneck, dropout, decoder, head, config: config.clone() }
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
    /// - output: `[batch, num_classes, height − loss, width − loss]`, raw logits; no loss with same padding
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSize`](crate::Error::InvalidSize) and [`Error::InputShape`](crate::Error::InputShape).
    pub fn forward(&self, images: Tensor<4>) -> Result<Tensor<4>> {
        self.config.check_images(&images.dims())?;
        let mut x = images; // [batch, in_channels, height, width]
        let mut skips = Vec::with_capacity(self.encoder.len());
        for encoder in &self.encoder {
            let (skip, down) = encoder.forward(x);
            skips.push(skip);
            x = down;
        }
        x = self.bottleneck.forward(x); // [batch, filters·2^levels, …]
        if let Some(dropout) = &self.dropout {
            x = ops::drop_out(dropout, x);
        }
        for (decoder, skip) in self.decoder.iter().zip(skips.into_iter().rev()) {
            x = decoder.forward(x, skip);
        }
        Ok(ops::convolve(&self.head, x, false)) // [batch, num_classes, height − loss, width − loss]
    }

    /// The network as the CPU takes it row by row. There are layouts that it does not take so: those with shortcuts,
    /// padding or transposed convolutions; and norms have to be folded.
    #[cfg(feature = "flex")]
    pub(crate) fn by_rows(&self) -> Option<cpu::Network> {
        let mut steps = Vec::new();
        for (encoder, decoder) in self.encoder.iter().zip(self.decoder.iter().rev()) {
            steps.push(cpu::Step { down: encoder.filters()?, up: Some(decoder.filters()?) });
        }
        steps.push(cpu::Step { down: self.bottleneck.filters()?, up: None });
        Some(cpu::Network { steps, head: filter(&self.head, false)? })
    }

    /// The network for inference with each batch norm folded into the convolution beside it.
    ///
    /// The output stays the same but for rounding. Norms behind a convolution go into it; norms in front of one (in
    /// [`Layout::AsmMap`]) go into it if it does not pad, and stay else. The running statistics are used, so
    /// what comes out is not for training, and its weights are no longer those of its [`UNetConfig`]: save
    /// before.
    #[must_use]
    pub fn fold_norms(mut self) -> Self {
        for level in 0..self.encoder.len() {
            self.encoder[level].convs.fold_norms();
            if let Some(norm) = self.encoder[level].norm.take() {
                let next = self.encoder.get_mut(level + 1).map(|encoder| &mut encoder.convs);
                self.encoder[level].norm = next.unwrap_or(&mut self.bottleneck).fold_norm_before(norm);
            }
        }
        self.bottleneck.fold_norms();
        self.decoder.iter_mut().for_each(Decoder::fold_norms);
        self
    }
}
