//! The shape of a network, and the sizes that follow from it.

use std::str::FromStr;

use burn::tensor::Device;
use serde::de::value::Error as Unknown;
use serde::de::{DeserializeOwned, IntoDeserializer};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, UNet};

/// Which blocks a network is made of. All have two convolutions a block, half the size and twice the filters a
/// level, and skips that leave before pooling; they differ in what stands between.
///
/// ```text
/// step down   ─►[convs]─┬─► skip       step up   skip ──(crop)──┐
///                       └pool─►                  ─►[up]─ReLU─concat─►[convs]─►
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// The network released with Couttenier et al. 2022 (`Unet_2021-05-16`, by its model summary).
    ///
    /// ```text
    /// convs    conv─ReLU─conv─ReLU
    /// down     convs─pool─dropout─norm     no dropout in the first step; no norm in the last, if it is not the first
    /// bottom   convs
    /// up       up─concat─norm─convs─dropout     the last step has neither norm nor dropout
    /// ```
    #[default]
    AsmMap,
    /// The network as the appendix S4 of Couttenier et al. 2022 can also be read: batch norm (Ioffe and Szegedy
    /// 2015) after each convolution, dropout in each block.
    ///
    /// ```text
    /// convs    conv─norm─ReLU─conv─norm─ReLU
    /// down     convs─pool─dropout
    /// bottom   convs─dropout
    /// up       up─concat─convs─dropout
    /// ```
    Seed,
    /// The network of Ronneberger et al. 2015 (figure 1): no norm; "drop-out layers at the end of the contracting
    /// path" are read as one after the last pooling and one after the bottom block.
    ///
    /// ```text
    /// convs    conv─ReLU─conv─ReLU
    /// down     convs─pool     last step: convs─pool─dropout
    /// bottom   convs─dropout
    /// up       up─concat─convs
    /// ```
    Vanilla,
    /// [`Layout::Seed`] with a shortcut around each pair of convolutions (He et al. 2016, figure 2), which appendix
    /// S4 says was tried: a 1×1 convolution where the channels differ, cropped where convolutions do not pad.
    ///
    /// ```text
    ///            ┌─(1×1)─(crop)──────┐
    /// convs    ──┴conv─norm─ReLU─conv─norm─(+)─ReLU
    /// down     convs─pool─dropout
    /// bottom   convs─dropout
    /// up       up─concat─convs─dropout
    /// ```
    Residual,
}

/// What a convolution does at the border of its map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// No padding: the output is smaller than the input, and none of it rests on invented context.
    #[default]
    Valid,
    /// Zeros around: the output is as large as the input.
    Same,
}

/// How a step up doubles the size of a map and halves its channels. Both have as many weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpConvolution {
    /// Nearest neighbour ×2, then a 2×2 convolution that is padded at the bottom and on the right, as Keras does
    /// it ("upsampling followed by a 2×2 convolution", Ronneberger et al. 2015).
    #[default]
    Upsample,
    /// A transposed 2×2 convolution of stride 2: each pixel becomes 2×2, none sees its neighbour.
    Transposed,
}

/// A value by its name in JSON.
fn named<T: DeserializeOwned>(field: &'static str, name: &str, requirement: &'static str) -> Result<T> {
    T::deserialize(name.into_deserializer()).map_err(|_: Unknown| Error::InvalidConfig {
        field,
        value: name.into(),
        requirement,
    })
}

impl FromStr for Layout {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        named("layout", name, "it has to be asm_map, seed, vanilla or residual")
    }
}

impl FromStr for Padding {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        named("padding", name, "it has to be valid or same")
    }
}

impl FromStr for UpConvolution {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        named("up", name, "it has to be upsample or transposed")
    }
}

/// The shape of a network. Each number is open in each layout.
///
/// The default is the published one: the released layout with 24 channels, 4 levels, 64 filters, kernel 3, dropout
/// 0.3; see the constructors for others.
///
/// ```
/// use unet_burn::{Padding, UNetConfig};
///
/// let config = UNetConfig { in_channels: 3, padding: Padding::Same, ..UNetConfig::residual() };
/// assert_eq!(config.output_size(256)?, 256);
/// # Ok::<(), unet_burn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UNetConfig {
    /// Which blocks.
    #[serde(default)]
    pub layout: Layout,
    /// Input channels.
    pub in_channels: usize,
    /// Logits of a pixel: 1 for a binary map, else one for each class.
    #[serde(default = "one")]
    pub num_classes: usize,
    /// Poolings; each halves the size and doubles the filters.
    pub levels: usize,
    /// Filters of the first level.
    pub filters: usize,
    /// Side of the convolution kernels, odd. Two convolutions make a block.
    pub kernel: usize,
    /// Border of the convolutions.
    #[serde(default)]
    pub padding: Padding,
    /// Way up.
    #[serde(default)]
    pub up: UpConvolution,
    /// Share of values that dropout sets to zero in training, 0 to below 1.
    pub dropout: f64,
    /// The ε of batch normalisation (Keras: 1e-3).
    pub norm_epsilon: f64,
}

fn one() -> usize {
    1
}

impl Default for UNetConfig {
    fn default() -> Self {
        Self::asm_map()
    }
}

impl UNetConfig {
    /// The released network: [`Layout::AsmMap`], 24 channels, 31,052,801 parameters.
    #[must_use]
    pub fn asm_map() -> Self {
        Self {
            layout: Layout::AsmMap,
            in_channels: 24,
            num_classes: 1,
            levels: 4,
            filters: 64,
            kernel: 3,
            padding: Padding::Valid,
            up: UpConvolution::Upsample,
            dropout: 0.3,
            norm_epsilon: 1e-3,
        }
    }

    /// The network as appendix S4 describes it: [`Layout::Seed`], 22 channels.
    #[must_use]
    pub fn seed() -> Self {
        Self { layout: Layout::Seed, in_channels: 22, ..Self::asm_map() }
    }

    /// The network of Ronneberger et al. 2015: [`Layout::Vanilla`], one channel, two classes, dropout 0.5.
    #[must_use]
    pub fn vanilla() -> Self {
        Self { layout: Layout::Vanilla, in_channels: 1, num_classes: 2, dropout: 0.5, ..Self::asm_map() }
    }

    /// The network of [`Self::seed`] with shortcuts: [`Layout::Residual`].
    #[must_use]
    pub fn residual() -> Self {
        Self { layout: Layout::Residual, ..Self::seed() }
    }

    pub(crate) fn norm_after_convolutions(&self) -> bool {
        matches!(self.layout, Layout::Seed | Layout::Residual)
    }

    /// Makes the network with random weights on a device.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for zero channels, classes, levels or filters, more than 8 levels, a kernel that is
    /// even or larger than 255, or a dropout outside `[0, 1)`.
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
    /// With [`Padding::Same`] blocks take nothing: the output is as large as the input, a multiple of `2^levels`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSize`] names the nearest valid sizes; [`Error::InvalidConfig`] as [`init`](Self::init).
    pub fn output_size(&self, input: usize) -> Result<usize> {
        self.check()?;
        let scale = self.step();
        let block = match self.padding {
            Padding::Valid => 2 * (self.kernel - 1),
            Padding::Same => 0,
        };
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

    /// Refuses images `[batch, in_channels, height, width]` that the network does not take.
    pub(crate) fn check_images(&self, shape: &[usize; 4]) -> Result<()> {
        let [_, channels, height, width] = *shape;
        if channels != self.in_channels {
            return Err(Error::InputShape { actual: shape.to_vec(), in_channels: self.in_channels });
        }
        self.output_size(height)?;
        self.output_size(width)?;
        Ok(())
    }

    /// `2^levels`: windows whose distance is a multiple of this see the same grid of poolings.
    #[must_use]
    pub fn step(&self) -> usize {
        1 << self.levels
    }

    /// How many rows at the top, and how many at the bottom, of an output depend on where the window begins and
    /// ends; as many columns on the left and on the right.
    ///
    /// Windows that begin at multiples of [`Self::step`] and leave these rows to their neighbours together give
    /// what the whole scene gives at once.
    ///
    /// A map is spoiled by zeros that stand for what lies beyond the window. Let `c` of its rows at one side be
    /// spoiled. A convolution with same padding makes them `c + (k − 1)/2`, a pooling `⌈c/2⌉`, an up-convolution
    /// `2c`, and one row more at the bottom if it is [`UpConvolution::Upsample`], whose 2×2 kernel is padded there.
    /// A concatenation has as many as the worse of its parts. Valid convolutions spoil nothing: what is left is
    /// `2^levels − 1` rows at the bottom for an upsampling network (15 of 388), and none for a transposed one.
    #[must_use]
    pub fn spoiled(&self) -> [usize; 2] {
        let block = match self.padding {
            Padding::Valid => 0,
            Padding::Same => self.kernel - 1,
        };
        let padded = usize::from(self.up == UpConvolution::Upsample);
        let mut down = 0;
        let mut skips = Vec::with_capacity(self.levels);
        for _ in 0..self.levels {
            skips.push(down + block);
            down = (down + block).div_ceil(2);
        }
        let bottleneck = down + block;
        [0, padded].map(|padded| {
            let up = |below: usize, &skip: &usize| (2 * below + padded).max(skip) + block;
            skips.iter().rev().fold(bottleneck, up)
        })
    }

    /// Training and prediction know one class beside the background.
    pub(crate) fn check_binary(&self) -> Result<()> {
        let requirement = "training and prediction take networks of one logit a pixel: it has to be 1";
        match self.num_classes {
            1 => Ok(()),
            other => {
                Err(Error::InvalidConfig { field: "num_classes", value: other.to_string(), requirement })
            }
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let positive = [
            ("in_channels", self.in_channels),
            ("num_classes", self.num_classes),
            ("levels", self.levels),
            ("filters", self.filters),
        ];
        for (field, value) in positive {
            if value == 0 {
                let requirement = "it has to be 1 or more";
                return Err(Error::InvalidConfig { field, value: value.to_string(), requirement });
            }
        }
        let rules = [
            ("levels", self.levels.to_string(), self.levels <= 8, "it has to be 8 or less"),
            ("kernel", self.kernel.to_string(), self.kernel % 2 == 1, "it has to be odd"),
            ("kernel", self.kernel.to_string(), self.kernel <= 255, "it has to be 255 or less"),
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
        let block = |size: usize| match config.padding {
            Padding::Valid => size.checked_sub(2 * (config.kernel - 1)).filter(|&size| size > 0),
            Padding::Same => Some(size),
        };
        let mut size = input;
        for _ in 0..config.levels {
            size = block(size)?;
            if size % 2 == 1 || size == 0 {
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
            for (kernel, padding) in
                [1, 3, 5, 7].map(|kernel| (kernel, Padding::Valid)).into_iter().chain([(3, Padding::Same)])
            {
                let config = UNetConfig { levels, kernel, padding, ..UNetConfig::default() };
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
                            let between = below.map_or(1, |below| below + 1)..above;
                            assert!(between.contains(&input), "{below:?} and {above} are around {input}");
                            let nearer = between.into_iter().find(|&size| simulate(&config, size).is_some());
                            assert_eq!(nearer, None, "{below:?} and {above} are the nearest to {input}");
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

    /// The slow way: which rows of a map one window's zeros have reached, one operation after the other.
    fn walk(config: &UNetConfig, input: usize) -> Vec<bool> {
        let convolve = |map: Vec<bool>| -> Vec<bool> {
            let side = config.kernel as isize / 2;
            let sees = |row: isize| map.get(usize::try_from(row).ok()?).copied();
            let rows = match config.padding {
                Padding::Valid => side..map.len() as isize - side,
                Padding::Same => 0..map.len() as isize,
            };
            rows.map(|row| (row - side..=row + side).any(|row| sees(row).unwrap_or(true))).collect()
        };
        let block = |map| convolve(convolve(map));
        let mut map = vec![false; input];
        let mut skips = Vec::new();
        for _ in 0..config.levels {
            map = block(map);
            skips.push(map.clone());
            map = map.chunks(2).map(|pair| pair[0] || pair[1]).collect();
        }
        map = block(map);
        for skip in skips.iter().rev() {
            map = map.iter().flat_map(|&row| [row, row]).collect();
            if config.up == UpConvolution::Upsample {
                map =
                    (0..map.len()).map(|row| map[row] || map.get(row + 1).copied().unwrap_or(true)).collect();
            }
            let crop = (skip.len() - map.len()) / 2;
            map = block(map.iter().zip(&skip[crop..]).map(|(&up, &skip)| up || skip).collect());
        }
        map
    }

    #[test]
    fn spoiled_rows_equal_a_walk_through_the_network() {
        for levels in 1..=4 {
            for kernel in [1, 3, 5, 7] {
                for padding in [Padding::Valid, Padding::Same] {
                    for up in [UpConvolution::Upsample, UpConvolution::Transposed] {
                        let config = UNetConfig { levels, kernel, padding, up, ..UNetConfig::default() };
                        let Err(Error::InvalidSize { above, .. }) = config.output_size(1201) else {
                            panic!("1201 is valid for no network with poolings")
                        };
                        let map = walk(&config, above);
                        let clean: Vec<usize> = (0..map.len()).filter(|&row| !map[row]).collect();
                        let walked = [clean[0], map.len() - 1 - clean[clean.len() - 1]];
                        assert_eq!(config.spoiled(), walked, "{config:?}");
                        assert!(clean.windows(2).all(|rows| rows[1] == rows[0] + 1), "the middle is clean");
                    }
                }
            }
        }
        assert_eq!(UNetConfig::default().spoiled(), [0, 15], "as `s2_patches::Geometry` has it");
    }

    #[test]
    fn a_configuration_without_the_newer_fields_is_the_released_layout() {
        let json =
            r#"{"in_channels":24,"levels":4,"filters":64,"kernel":3,"dropout":0.3,"norm_epsilon":0.001}"#;
        assert_eq!(serde_json::from_str::<UNetConfig>(json).unwrap(), UNetConfig::asm_map(), "{json}");
    }

    #[test]
    fn an_impossible_network_is_refused() {
        let error = UNetConfig { kernel: 4, ..UNetConfig::default() }.check().unwrap_err();
        assert_eq!(error.to_string(), "kernel is 4: it has to be odd", "even kernel");
        assert_eq!("residual".parse::<Layout>().unwrap(), Layout::Residual, "by name");
        let error = "unet++".parse::<Layout>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "layout is unet++: it has to be asm_map, seed, vanilla or residual",
            "unknown layout"
        );
    }
}
