//! The parts of the network: a pair of convolutions, a step down, a step up.

use burn::module::{Initializer, Module};
use burn::nn::conv::{Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor};

#[cfg(feature = "flex")]
use crate::cpu::{self, Filter};
use crate::{Layout, Padding, UNetConfig, UpConvolution, fold, ops};

/// Weights by He et al. 2015: normal, fan in, gain √2.
const HE: Initializer = Initializer::KaimingNormal { gain: std::f64::consts::SQRT_2, fan_out_only: false };

/// A convolution with He's weights and biases of zero.
pub(crate) fn convolution(
    channels: [usize; 2],
    kernel: usize,
    padding: PaddingConfig2d,
    device: &Device,
) -> Conv2d {
    let mut conv =
        Conv2dConfig::new(channels, [kernel, kernel]).with_padding(padding).with_initializer(HE).init(device);
    conv.bias = Some(Initializer::Zeros.init([channels[1]], device));
    conv
}

fn batch_norm(features: usize, config: &UNetConfig, device: &Device) -> BatchNorm {
    BatchNormConfig::new(features).with_epsilon(config.norm_epsilon).init(device)
}

pub(crate) fn dropout(config: &UNetConfig) -> Dropout {
    DropoutConfig::new(config.dropout).init()
}

/// Two convolutions, each followed by ReLU; by layout with batch norm before the ReLU and with a shortcut.
///
/// ```text
///    ┌─── [1×1] ─── [crop] ────┐  residual: He et al. 2016, figure 2
/// x ─┴─conv─[norm]─ReLU─conv─[norm]─[+]─ReLU─►
/// ```
#[derive(Module, Debug)]
pub(crate) struct DoubleConv {
    first: Conv2d,
    first_norm: Option<BatchNorm>,
    second: Conv2d,
    second_norm: Option<BatchNorm>,
    /// The 1×1 convolution of the shortcut, where the channels differ.
    shortcut: Option<Conv2d>,
    residual: bool,
}

impl DoubleConv {
    pub(crate) fn new(in_channels: usize, filters: usize, config: &UNetConfig, device: &Device) -> Self {
        let side = config.kernel / 2;
        let padding = || match config.padding {
            Padding::Valid => PaddingConfig2d::Valid,
            Padding::Same => PaddingConfig2d::Explicit(side, side, side, side),
        };
        let residual = config.layout == Layout::Residual;
        let norm = || config.norm_after_convolutions().then(|| batch_norm(filters, config, device));
        let one = || convolution([in_channels, filters], 1, PaddingConfig2d::Valid, device);
        Self {
            first: convolution([in_channels, filters], config.kernel, padding(), device),
            first_norm: norm(),
            second: convolution([filters, filters], config.kernel, padding(), device),
            second_norm: norm(),
            shortcut: (residual && in_channels != filters).then(one),
            residual,
        }
    }

    /// `[batch, in_channels, n, n]` → `[batch, filters, m, m]` with `m = n − 2(k − 1)`, or `n` with same padding.
    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let shortcut = self.residual.then(|| x.clone());
        let x = convolve(&self.first, self.first_norm.as_ref(), x, true); // [batch, filters, n − k + 1, …]
        let x = convolve(&self.second, self.second_norm.as_ref(), x, !self.residual); // [batch, filters, m, m]
        let Some(shortcut) = shortcut else { return x };
        let shortcut = ops::crop(shortcut, &x); // [batch, in_channels, m, m]
        match &self.shortcut {
            Some(one) => ops::add(x, ops::convolve(one, shortcut, false)),
            None => ops::add(x, shortcut),
        }
    }

    /// The convolutions as the CPU takes them row by row, where there is nothing beside them.
    #[cfg(feature = "flex")]
    pub(crate) fn filters(&self) -> Option<[Filter; 2]> {
        let alone = !self.residual && self.first_norm.is_none() && self.second_norm.is_none();
        if !alone {
            return None;
        }
        Some([filter(&self.first, true)?, filter(&self.second, true)?])
    }

    /// Folds the norms behind the convolutions into them.
    pub(crate) fn fold_norms(&mut self) {
        for (conv, norm) in
            [(&mut self.first, &mut self.first_norm), (&mut self.second, &mut self.second_norm)]
        {
            if let Some(norm) = norm.take() {
                fold::backward(conv, &norm);
            }
        }
    }

    /// Folds a norm in front of the block into its first convolution, and gives it back where that cannot be:
    /// zeros that pad a map are not normalised.
    pub(crate) fn fold_norm_before(&mut self, norm: BatchNorm) -> Option<BatchNorm> {
        let padded = !matches!(self.first.padding, PaddingConfig2d::Valid);
        if padded || self.residual {
            return Some(norm);
        }
        fold::forward(&mut self.first, &norm);
        None
    }
}

/// A convolution without padding, then ReLU if wanted, as the CPU takes it row by row.
#[cfg(feature = "flex")]
pub(crate) fn filter(conv: &Conv2d, relu: bool) -> Option<Filter> {
    let (weights, bias) = (conv.weight.val(), conv.bias.as_ref()?.val());
    if cpu::padding(conv) != Some([0; 4]) || !cpu::takes(&weights) {
        return None;
    }
    let shape = weights.dims();
    let weights = weights.into_data().try_to_vec::<f32>().ok()?;
    Some(Filter::new(shape, &weights, bias.into_data().try_to_vec().ok()?, relu))
}

fn convolve(conv: &Conv2d, norm: Option<&BatchNorm>, x: Tensor<4>, relu: bool) -> Tensor<4> {
    match norm {
        Some(norm) => ops::normalise(norm, ops::convolve(conv, x, false), relu),
        None => ops::convolve(conv, x, relu),
    }
}

/// A step down: convolutions, pooling, dropout, batch norm.
#[derive(Module, Debug)]
pub(crate) struct Encoder {
    pub(crate) convs: DoubleConv,
    dropout: Option<Dropout>,
    pub(crate) norm: Option<BatchNorm>,
}

impl Encoder {
    pub(crate) fn new(level: usize, in_channels: usize, config: &UNetConfig, device: &Device) -> Self {
        let filters = config.filters << level;
        let (first, last) = (level == 0, level + 1 == config.levels);
        let (drops, normalises) = match config.layout {
            Layout::AsmMap => (!first, first || !last),
            Layout::Seed | Layout::Residual => (true, false),
            Layout::Vanilla => (last, false),
        };
        Self {
            convs: DoubleConv::new(in_channels, filters, config, device),
            dropout: drops.then(|| dropout(config)),
            norm: normalises.then(|| batch_norm(filters, config, device)),
        }
    }

    /// Its convolutions as the CPU takes them row by row, where pooling is all that comes after them in prediction.
    #[cfg(feature = "flex")]
    pub(crate) fn filters(&self) -> Option<[Filter; 2]> {
        if self.norm.is_some() { None } else { self.convs.filters() }
    }

    /// Gives the map for the skip connection, taken before pooling, and the map of the next level.
    pub(crate) fn forward(&self, x: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        // [batch, filters, m, m], [batch, filters, m/2, m/2]
        let skip = self.convs.forward(x);
        let mut x = ops::pool(skip.clone());
        if let Some(dropout) = &self.dropout {
            x = ops::drop_out(dropout, x);
        }
        if let Some(norm) = &self.norm {
            x = ops::normalise(norm, x, false);
        }
        (skip, x)
    }
}

/// An up-convolution: twice the size, half the channels, ReLU.
///
/// Weights bear the same name in both kinds, as a PyTorch module has one `up`.
#[derive(Module, Debug)]
enum Up {
    Upsample(Conv2d),
    Transposed(ConvTranspose2d),
}

impl Up {
    fn new(filters: usize, config: &UNetConfig, device: &Device) -> Self {
        let channels = [2 * filters, filters];
        match config.up {
            // Keras pads a "same" convolution of an even kernel at the bottom and on the right.
            UpConvolution::Upsample => {
                Self::Upsample(convolution(channels, 2, PaddingConfig2d::Explicit(0, 0, 1, 1), device))
            }
            UpConvolution::Transposed => {
                let mut conv = ConvTranspose2dConfig::new(channels, [2, 2]).with_stride([2, 2]).init(device);
                // Each pixel of the output comes from one of the input.
                let fan_in = Some(channels[0]);
                conv.weight = HE.init_with([channels[0], channels[1], 2, 2], fan_in, None, device);
                conv.bias = Some(Initializer::Zeros.init([filters], device));
                Self::Transposed(conv)
            }
        }
    }

    /// `[batch, 2·filters, n, n]` → `[batch, filters, 2n, 2n]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Upsample(conv) => ops::up_convolve(conv, x),
            Self::Transposed(conv) => ops::up_transposed(conv, x),
        }
    }
}

/// A step up: up-convolution, concatenation with the cropped skip, batch norm, convolutions, dropout.
#[derive(Module, Debug)]
pub(crate) struct Decoder {
    up: Up,
    norm: Option<BatchNorm>,
    convs: DoubleConv,
    dropout: Option<Dropout>,
}

impl Decoder {
    pub(crate) fn new(level: usize, config: &UNetConfig, device: &Device) -> Self {
        let filters = config.filters << level;
        let (normalises, drops) = match config.layout {
            Layout::AsmMap => (level > 0, level > 0),
            Layout::Seed | Layout::Residual => (false, true),
            Layout::Vanilla => (false, false),
        };
        Self {
            up: Up::new(filters, config, device),
            norm: normalises.then(|| batch_norm(2 * filters, config, device)),
            convs: DoubleConv::new(2 * filters, filters, config, device),
            dropout: drops.then(|| dropout(config)),
        }
    }

    /// Its convolutions as the CPU takes them row by row, the up-convolution first, where it has no others.
    #[cfg(feature = "flex")]
    pub(crate) fn filters(&self) -> Option<(Filter, [Filter; 2])> {
        let Up::Upsample(up) = &self.up else { return None };
        if self.norm.is_some() || !cpu::takes(&up.weight.val()) {
            return None;
        }
        let bias = up.bias.as_ref()?.val().into_data().try_to_vec().ok()?;
        let weights = up.weight.val().into_data().try_to_vec::<f32>().ok()?;
        Some((Filter::doubling(up.weight.dims(), &weights, bias), self.convs.filters()?))
    }

    pub(crate) fn forward(&self, x: Tensor<4>, skip: Tensor<4>) -> Tensor<4> {
        let x = self.up.forward(x); // [batch, filters, n, n]
        let mut x = ops::concat_cropped(x, skip); // [batch, 2·filters, n, n]
        if let Some(norm) = &self.norm {
            x = ops::normalise(norm, x, false);
        }
        let x = self.convs.forward(x); // [batch, filters, m, m]
        match &self.dropout {
            Some(dropout) => ops::drop_out(dropout, x),
            None => x,
        }
    }

    pub(crate) fn fold_norms(&mut self) {
        self.convs.fold_norms();
        self.norm = self.norm.take().and_then(|norm| self.convs.fold_norm_before(norm));
    }
}
