//! The shape of a network, and the sizes that follow from it.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, UNet};

/// The released network of Couttenier et al. 2022 (`Unet_2021-05-16`) with its numbers left open.
///
/// The default is the published one: 24 channels, 4 levels, 64 filters, kernel 3, dropout 0.3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UNetConfig {
    /// Input channels.
    pub in_channels: usize,
    /// Poolings; each halves the size and doubles the filters.
    pub levels: usize,
    /// Filters of the first level.
    pub filters: usize,
    /// Side of the convolution kernels, odd. Two valid convolutions make a block.
    pub kernel: usize,
    /// Share of values that dropout sets to zero in training, 0 to below 1.
    pub dropout: f64,
    /// The ε of batch normalisation (Keras: 1e-3).
    pub norm_epsilon: f64,
}

impl Default for UNetConfig {
    fn default() -> Self {
        Self { in_channels: 24, levels: 4, filters: 64, kernel: 3, dropout: 0.3, norm_epsilon: 1e-3 }
    }
}

impl UNetConfig {
    /// Makes the network with random weights on a device.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for zero channels, levels or filters, an even kernel or a dropout outside
    /// `[0, 1)`.
    pub fn init(&self, device: &Device) -> Result<UNet> {
        self.check()?;
        Ok(UNet::new(self, device))
    }

    /// Size of the output for a square input, both in pixels a side: 572 → 388 for the default.
    ///
    /// A block of two valid convolutions takes `2(k − 1)` pixels. Level `l` of the encoder and of the decoder
    /// counts `2^l` times in pixels of the input, the bottleneck `2^levels` times: in all
    /// `2(k − 1)(3·2^levels − 2)`. A size is valid when each pooling meets an even map, that is
    /// `n ≡ 2(k − 1)(2^levels − 1) (mod 2^levels)`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSize`] names the nearest valid sizes.
    pub fn output_size(&self, input: usize) -> Result<usize> {
        let scale = 1 << self.levels;
        let block = 2 * (self.kernel - 1);
        let loss = block * (3 * scale - 2);
        let remainder = block * (scale - 1) % scale;
        // The first valid size above the loss: its output is one pixel or more.
        let smallest = loss + 1 + (scale + remainder - (loss + 1) % scale) % scale;
        if input >= smallest && input % scale == remainder {
            return Ok(input - loss);
        }
        let (below, above) = if input < smallest {
            (None, smallest)
        } else {
            let below = input - (scale + input % scale - remainder) % scale;
            (Some(below), below + scale)
        };
        Err(Error::InvalidSize { size: input, levels: self.levels, kernel: self.kernel, below, above })
    }

    pub(crate) fn check(&self) -> Result<()> {
        let positive =
            [("in_channels", self.in_channels), ("levels", self.levels), ("filters", self.filters)];
        for (field, value) in positive {
            if value == 0 {
                let requirement = "it has to be 1 or more";
                return Err(Error::InvalidConfig { field, value: value.to_string(), requirement });
            }
        }
        let rules = [
            ("levels", self.levels.to_string(), self.levels <= 8, "it has to be 8 or less"),
            ("kernel", self.kernel.to_string(), self.kernel % 2 == 1, "it has to be odd"),
            (
                "dropout",
                self.dropout.to_string(),
                (0.0..1.0).contains(&self.dropout),
                "it has to be in [0, 1)",
            ),
            (
                "norm_epsilon",
                self.norm_epsilon.to_string(),
                self.norm_epsilon > 0.0 && self.norm_epsilon.is_finite(),
                "it has to be positive",
            ),
        ];
        for (field, value, holds, requirement) in rules {
            if !holds {
                return Err(Error::InvalidConfig { field, value, requirement });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slow way: one operation after the other.
    fn simulate(config: &UNetConfig, input: usize) -> Option<usize> {
        let block = |size: usize| size.checked_sub(2 * (config.kernel - 1)).filter(|&size| size > 0);
        let mut size = input;
        for _ in 0..config.levels {
            size = block(size)?;
            if size % 2 == 1 {
                return None;
            }
            size /= 2;
        }
        size = block(size)?;
        for _ in 0..config.levels {
            size = block(size * 2)?;
        }
        Some(size)
    }

    #[test]
    fn sizes_equal_a_walk_through_the_network() {
        for levels in 1..=5 {
            for kernel in [1, 3, 5, 7] {
                let config = UNetConfig { levels, kernel, ..UNetConfig::default() };
                for input in 1..800 {
                    match config.output_size(input) {
                        Ok(output) => assert_eq!(simulate(&config, input), Some(output), "input {input}"),
                        Err(Error::InvalidSize { below, above, .. }) => {
                            assert_eq!(simulate(&config, input), None, "input {input} of {config:?}");
                            assert!(simulate(&config, above).is_some(), "{above} is named above {input}");
                            assert!(
                                below.is_none_or(|below| simulate(&config, below).is_some()),
                                "{below:?} is named below {input}"
                            );
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        }
    }

    #[test]
    fn the_published_window_is_572_to_388() {
        let config = UNetConfig::default();
        assert_eq!(config.output_size(572).unwrap(), 388, "Ronneberger 2015, figure 1");
        let error = UNetConfig { kernel: 5, ..config }.output_size(572).unwrap_err();
        assert_eq!(
            error.to_string(),
            "572 is no valid input size for 4 levels and kernel 5: use 568 or 584",
            "572 fits kernel 3 only"
        );
    }

    #[test]
    fn an_impossible_network_is_refused() {
        let error = UNetConfig { kernel: 4, ..UNetConfig::default() }.check().unwrap_err();
        assert_eq!(error.to_string(), "kernel is 4: it has to be odd", "even kernel");
    }
}
