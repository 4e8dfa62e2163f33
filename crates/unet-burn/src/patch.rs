//! What the network learns from: a patch of channels and the truth inside its margin.

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};
use ndarray::{Array2, Array3};

use crate::{Error, Result};

/// Truth value of pixels that take no part in the loss.
pub const IGNORE_INDEX: u8 = 255;

/// One sample.
#[derive(Clone, Debug)]
pub struct Patch {
    /// Where it comes from, in words for an error message: a file, a product, a place.
    pub name: String,
    /// The network's input.
    pub image: Image,
    /// Truth of the network's output, smaller than the image by its margin: 1 is positive, 0 is not,
    /// [`IGNORE_INDEX`] takes no part. `[row, column]`.
    pub truth: Array2<u8>,
}

/// The channels of a sample.
#[derive(Clone, Debug)]
pub enum Image {
    /// Channels that are ready for the network, `[channel, row, column]`.
    Normalised(Array3<f32>),
    /// Stored counts, which the device normalises: a quarter of the bytes.
    Raw(RawImage),
}

/// Stored counts with all that makes channels of them: the bands in −1 to 1, then the classes one-hot.
#[derive(Clone, Debug)]
pub struct RawImage {
    /// Digital numbers, `[band, row, column]`; 0 is nodata and becomes −1.
    pub bands: Array3<u16>,
    /// One for each band.
    pub scales: Vec<Scale>,
    /// The classes, if the network takes any.
    pub classes: Option<Classes>,
    /// Change of the light, for augmentation.
    pub photometric: Photometric,
}

/// The ends of a band's range: the channel is `2 (dn − low) / (high − low) − 1`, clipped to −1 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Digital number that becomes −1; it need not be whole.
    pub low: f64,
    /// Digital number that becomes 1.
    pub high: f64,
}

/// A map of classes and which of them are channels.
#[derive(Clone, Debug)]
pub struct Classes {
    /// `[row, column]`.
    pub map: Array2<u8>,
    /// The class of each channel: 1 where the map has it, else 0.
    pub one_hot: Vec<u8>,
}

/// Brightness and contrast: `contrast · channel + brightness`, clipped to −1 to 1.
///
/// It touches the bands only, after they were scaled and clipped; nodata stays −1, classes stay 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Photometric {
    /// Factor, 1 for none.
    pub contrast: f64,
    /// Summand, 0 for none.
    pub brightness: f64,
}

impl Default for Photometric {
    /// No change.
    fn default() -> Self {
        Self { contrast: 1.0, brightness: 0.0 }
    }
}

impl Image {
    /// Channels, rows and columns.
    #[must_use]
    pub fn dim(&self) -> (usize, usize, usize) {
        match self {
            Self::Normalised(channels) => channels.dim(),
            Self::Raw(raw) => {
                let (bands, height, width) = raw.bands.dim();
                (bands + raw.classes.as_ref().map_or(0, |classes| classes.one_hot.len()), height, width)
            }
        }
    }
}

impl Patch {
    /// Fails on what no network can learn from: values that are no numbers, labels and classes that mean
    /// nothing, bands without a range.
    ///
    /// # Errors
    ///
    /// [`Error::Patch`] names the patch and its first fault.
    pub fn check(&self) -> Result<()> {
        let fault = |problem: String| Err(Error::Patch { name: self.name.clone(), problem });
        let label = self.truth.indexed_iter().find(|(_, label)| !matches!(**label, 0 | 1 | IGNORE_INDEX));
        if let Some(((row, col), label)) = label {
            return fault(format!(
                "the truth at row {row}, column {col} is {label}: it has to be 0, 1 or {IGNORE_INDEX}"
            ));
        }
        match &self.image {
            Image::Normalised(channels) => {
                match channels.indexed_iter().find(|(_, value)| !value.is_finite()) {
                    Some(((channel, row, col), value)) => {
                        fault(format!("channel {channel} at row {row}, column {col} is {value}"))
                    }
                    None => Ok(()),
                }
            }
            Image::Raw(raw) => {
                let (bands, height, width) = raw.bands.dim();
                if raw.scales.len() != bands {
                    return fault(format!("it has {bands} bands, but {} scales", raw.scales.len()));
                }
                let bad = |scale: &Scale| {
                    !(scale.low.is_finite() && scale.high.is_finite() && scale.low < scale.high)
                };
                if let Some(band) = raw.scales.iter().position(bad) {
                    let Scale { low, high } = raw.scales[band];
                    return fault(format!("band {band} has the range {low} to {high}, which is none"));
                }
                let Photometric { contrast, brightness } = raw.photometric;
                if !(contrast.is_finite() && brightness.is_finite()) {
                    return fault(format!(
                        "contrast {contrast} and brightness {brightness} have to be numbers"
                    ));
                }
                let Some(classes) = &raw.classes else { return Ok(()) };
                if classes.map.dim() != (height, width) {
                    return fault(format!(
                        "its classes are {} x {}, but its bands {height} x {width}",
                        classes.map.nrows(),
                        classes.map.ncols()
                    ));
                }
                match classes.map.indexed_iter().find(|(_, class)| !classes.one_hot.contains(class)) {
                    Some(((row, col), class)) => {
                        fault(format!("the class at row {row}, column {col} is {class}, which is no channel"))
                    }
                    None => Ok(()),
                }
            }
        }
    }
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
    /// The truth once more, in host memory, in the order of `truth`.
    pub labels: Arc<Vec<u8>>,
    /// The batch's share in the step of the optimizer: 1 unless gradients are accumulated.
    pub share: f64,
}

/// Samples of one shape in host memory, as small as they were stored: made by worker threads, moved to the
/// device as they are and expanded there.
#[derive(Clone, Debug)]
pub struct PackedBatch {
    shape: [usize; 4],
    output: [usize; 2],
    images: Packed,
    labels: Arc<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum Packed {
    Normalised(Vec<f32>),
    Raw {
        /// `[batch, band, row, column]`.
        dn: Vec<u16>,
        /// `[batch, band]`.
        scales: Vec<Scale>,
        /// `[batch, row, column]`.
        classes: Vec<u8>,
        one_hot: Vec<u8>,
        photometric: Vec<Photometric>,
    },
}

impl PackedBatch {
    /// Puts patches together, each of them [checked](Patch::check).
    ///
    /// # Errors
    ///
    /// [`Error::Patch`] names the first patch that has a fault or differs in shape or kind from the first.
    ///
    /// # Panics
    ///
    /// Without any patch.
    pub fn try_new(patches: &[Patch]) -> Result<Self> {
        let first = &patches[0];
        let (channels, height, width) = first.image.dim();
        let one_hot = |image: &Image| match image {
            Image::Normalised(_) => None,
            Image::Raw(raw) => Some(raw.classes.as_ref().map_or(vec![], |classes| classes.one_hot.clone())),
        };
        for patch in patches {
            patch.check()?;
            if (patch.image.dim(), patch.truth.dim()) != (first.image.dim(), first.truth.dim())
                || one_hot(&patch.image) != one_hot(&first.image)
            {
                let problem = format!(
                    "its image {:?} with the truth {:?} differs from {} with {:?} and {:?}, or in its channels",
                    patch.image.dim(),
                    patch.truth.dim(),
                    first.name,
                    first.image.dim(),
                    first.truth.dim()
                );
                return Err(Error::Patch { name: patch.name.clone(), problem });
            }
        }
        let raws = || {
            patches
                .iter()
                .filter_map(|patch| if let Image::Raw(raw) = &patch.image { Some(raw) } else { None })
        };
        let images = match &first.image {
            Image::Normalised(_) => {
                let mut values = Vec::with_capacity(patches.len() * channels * height * width);
                for patch in patches {
                    if let Image::Normalised(channels) = &patch.image {
                        values.extend(channels);
                    }
                }
                Packed::Normalised(values)
            }
            Image::Raw(raw) => {
                let mut dn = Vec::with_capacity(patches.len() * raw.bands.len());
                let mut classes = Vec::with_capacity(patches.len() * height * width);
                for raw in raws() {
                    dn.extend(&raw.bands);
                    classes.extend(raw.classes.iter().flat_map(|classes| &classes.map));
                }
                Packed::Raw {
                    dn,
                    scales: raws().flat_map(|raw| raw.scales.iter().copied()).collect(),
                    classes,
                    one_hot: one_hot(&first.image).unwrap_or_default(),
                    photometric: raws().map(|raw| raw.photometric).collect(),
                }
            }
        };
        Ok(Self {
            shape: [patches.len(), channels, height, width],
            output: first.truth.dim().into(),
            images,
            labels: Arc::new(patches.iter().flat_map(|patch| patch.truth.iter().copied()).collect()),
        })
    }

    /// Number of patches.
    #[must_use]
    pub fn num_patches(&self) -> usize {
        self.shape[0]
    }

    /// Bytes that move to the device.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let images = match &self.images {
            Packed::Normalised(values) => 4 * values.len(),
            Packed::Raw { dn, classes, scales, .. } => 2 * dn.len() + classes.len() + 12 * scales.len(),
        };
        images + self.labels.len()
    }

    /// Moves the batch to a device and expands it there; `share` is 1.
    #[must_use]
    pub fn into_device(self, device: &Device) -> PatchBatch {
        let [batch, channels, height, width] = self.shape;
        let images = match self.images {
            Packed::Normalised(values) => {
                Tensor::from_data(TensorData::new(values, [batch, channels, height, width]), device)
            }
            Packed::Raw { dn, scales, classes, one_hot, photometric } => {
                let shape = [batch, channels - one_hot.len(), height, width];
                let bands = normalise(unpack_u16(&dn, device).reshape(shape), &scales, &photometric, device);
                if one_hot.is_empty() {
                    bands
                } else {
                    let map = unpack_u8(&classes, device).reshape([batch, 1, height, width]);
                    let list = TensorData::new(
                        one_hot.iter().map(|&class| i32::from(class)).collect::<Vec<_>>(),
                        [1, one_hot.len(), 1, 1],
                    );
                    let shape = [batch, one_hot.len(), height, width];
                    let list = Tensor::<4, Int>::from_data(list, device).expand(shape);
                    Tensor::cat(vec![bands, map.expand(shape).equal(list).float()], 1)
                }
            }
        };
        let [rows, cols] = self.output;
        let labels = unpack_u8(&self.labels, device).reshape([batch, 1, rows, cols]);
        PatchBatch {
            images,
            truth: labels.clone().equal_scalar(1).float(),
            valid: labels.not_equal_scalar(i32::from(IGNORE_INDEX)).float(),
            labels: self.labels,
            share: 1.0,
        }
    }
}

/// `[batch, band, row, column]` digital numbers to −1 … 1.
///
/// The middle of a range is subtracted in two steps, its whole part first: that one is exact in `f32`, so the
/// result is within 3 · 2⁻²⁴ of the same formula in `f64`, wherever the range lies.
#[expect(clippy::cast_possible_truncation, reason = "rounds to the nearest f32")]
fn normalise(
    dn: Tensor<4, Int>,
    scales: &[Scale],
    photometric: &[Photometric],
    device: &Device,
) -> Tensor<4> {
    let [batch, bands, _, _] = dn.dims();
    let each = |shape: [usize; 2], values: Vec<f64>| {
        let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
        Tensor::<4>::from_data(TensorData::new(values, [shape[0], shape[1], 1, 1]), device)
    };
    let by_band = |value: fn(&Scale) -> f64| each([batch, bands], scales.iter().map(value).collect());
    let whole = by_band(|scale| f64::midpoint(scale.low, scale.high).round());
    let rest = by_band(|scale| {
        let middle = f64::midpoint(scale.low, scale.high);
        middle - middle.round()
    });
    let gain = by_band(|scale| 2.0 / (scale.high - scale.low));
    let nodata = dn.clone().equal_scalar(0);
    let mut channels = ((dn.float() - whole - rest) * gain).clamp(-1.0, 1.0);
    if photometric.iter().any(|change| *change != Photometric::default()) {
        let by_sample =
            |value: fn(&Photometric) -> f64| each([batch, 1], photometric.iter().map(value).collect());
        let (contrast, brightness) =
            (by_sample(|change| change.contrast), by_sample(|change| change.brightness));
        channels = (channels * contrast + brightness).clamp(-1.0, 1.0);
    }
    channels.mask_fill(nodata, -1.0)
}

// Not every graphics interface has integers of 8 and 16 bits, so they travel in words of 32. Each word takes
// its parts from equal runs of the values, which are then put back behind each other.

fn unpack_u16(values: &[u16], device: &Device) -> Tensor<1, Int> {
    unpack(values, 2, 16, |value| u32::from(*value), device)
}

fn unpack_u8(values: &[u8], device: &Device) -> Tensor<1, Int> {
    unpack(values, 4, 8, |value| u32::from(*value), device)
}

fn unpack<T>(
    values: &[T],
    parts: usize,
    bits: usize,
    wide: fn(&T) -> u32,
    device: &Device,
) -> Tensor<1, Int> {
    let length = values.len().div_ceil(parts);
    let mut words = vec![0_u32; length];
    for (part, run) in values.chunks(length.max(1)).enumerate() {
        for (word, value) in words.iter_mut().zip(run) {
            *word |= wide(value) << (part * bits);
        }
    }
    let words: Vec<i32> = words.into_iter().map(u32::cast_signed).collect();
    let words = Tensor::<1, Int>::from_data(TensorData::new(words, [length]), device);
    let mask = (1_i32 << bits) - 1;
    let part = |part: usize| {
        let shift = i32::try_from(part * bits).expect("less than 32");
        words.clone().bitwise_right_shift_scalar(shift).bitwise_and_scalar(mask)
    };
    Tensor::cat((0..parts).map(part).collect(), 0).narrow(0, 0, values.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(index: usize) -> u32 {
        let mut x = u32::try_from(index).unwrap().wrapping_mul(2_654_435_761) ^ 0x9e37_79b9;
        x ^= x >> 15;
        x = x.wrapping_mul(0x85eb_ca6b);
        x ^ (x >> 13)
    }

    /// Two bands of all kinds of counts and twelve classes, of odd sizes so that no run is full.
    fn raw(seed: usize, photometric: Photometric) -> RawImage {
        let dn = |(band, row, col): (usize, usize, usize)| match hash(seed + band * 5000 + row * 71 + col) {
            x if x % 7 == 0 => 0,
            x if x % 11 == 0 => u16::MAX,
            x => (x >> 16) as u16 % 12_000,
        };
        RawImage {
            bands: Array3::from_shape_fn((2, 13, 17), dn),
            scales: vec![
                Scale { low: 1234.567, high: 3210.123 + seed as f64 },
                Scale { low: -340.25, high: 9876.5 },
            ],
            classes: Some(Classes {
                map: Array2::from_shape_fn((13, 17), |(row, col)| (hash(seed + row * 17 + col) % 12) as u8),
                one_hot: (0..12).collect(),
            }),
            photometric,
        }
    }

    /// The obvious way, in `f64`.
    #[expect(clippy::cast_possible_truncation, reason = "rounds to the nearest f32")]
    fn channels(raw: &RawImage) -> Array3<f32> {
        let classes = raw.classes.as_ref().unwrap();
        Array3::from_shape_fn((14, 13, 17), |(channel, row, col)| {
            if channel >= 2 {
                return f32::from(u8::from(classes.map[[row, col]] == classes.one_hot[channel - 2]));
            }
            let dn = raw.bands[[channel, row, col]];
            if dn == 0 {
                return -1.0;
            }
            let Scale { low, high } = raw.scales[channel];
            let scaled = (2.0 * (f64::from(dn) - low) / (high - low) - 1.0).clamp(-1.0, 1.0);
            (scaled * raw.photometric.contrast + raw.photometric.brightness).clamp(-1.0, 1.0) as f32
        })
    }

    fn patch(name: &str, image: Image) -> Patch {
        let truth = Array2::from_shape_fn((5, 7), |(row, col)| [0, 1, IGNORE_INDEX][(row * 7 + col) % 3]);
        Patch { name: name.into(), image, truth }
    }

    #[test]
    fn counts_expanded_on_the_device_equal_channels_made_by_the_host() {
        let device = Device::flex();
        let light = Photometric { contrast: 1.15, brightness: -0.1 };
        for photometric in [Photometric::default(), light] {
            let raws = [raw(1, photometric), raw(900, Photometric::default()), raw(77, photometric)];
            let packed = raws.clone().map(|raw| patch("raw", Image::Raw(raw)));
            let ready = raws.map(|raw| patch("ready", Image::Normalised(channels(&raw))));
            let (packed, ready) =
                (PackedBatch::try_new(&packed).unwrap(), PackedBatch::try_new(&ready).unwrap());
            let (few, many) = (packed.bytes(), ready.bytes());
            assert!(few * 5 < many, "2 · 2 + 1 bytes instead of 14 · 4: {few} against {many}");
            let (packed, ready) = (packed.into_device(&device), ready.into_device(&device));
            // Subtraction, product, contrast and its sum round by 2⁻²⁴ of at most 2 each.
            let difference = (packed.images - ready.images).abs().max().into_scalar::<f32>();
            assert!(difference < 5e-7, "{difference}");
            assert_eq!(packed.truth.into_data(), ready.truth.into_data(), "truth");
            assert_eq!(packed.valid.into_data(), ready.valid.into_data(), "valid");
        }
    }

    #[test]
    fn labels_come_back_as_truth_and_validity() {
        let raw = raw(5, Photometric::default());
        let patches = [patch("a", Image::Raw(raw.clone())), patch("b", Image::Raw(raw))];
        let batch = PackedBatch::try_new(&patches).unwrap().into_device(&Device::flex());
        let labels: Vec<u8> = patches.iter().flat_map(|patch| patch.truth.clone()).collect();
        assert_eq!(*batch.labels, labels, "in host memory");
        let truth = batch.truth.into_data().try_to_vec::<f32>().unwrap();
        let valid = batch.valid.into_data().try_to_vec::<f32>().unwrap();
        for (index, &label) in labels.iter().enumerate() {
            assert_eq!(truth[index], f32::from(u8::from(label == 1)), "truth of {label}");
            assert_eq!(valid[index], f32::from(u8::from(label != IGNORE_INDEX)), "validity of {label}");
        }
    }

    #[test]
    fn a_fault_names_its_patch() {
        let good = || Array3::<f32>::zeros((2, 13, 17));
        let message = |patch: Patch| PackedBatch::try_new(&[patch]).unwrap_err().to_string();
        let mut image = good();
        image[[1, 2, 3]] = f32::NAN;
        assert_eq!(
            message(patch("chip 7", Image::Normalised(image))),
            "chip 7 cannot be learned from: channel 1 at row 2, column 3 is NaN"
        );
        let mut wrong = patch("chip 8", Image::Normalised(good()));
        wrong.truth[[4, 6]] = 2;
        assert_eq!(
            message(wrong),
            "chip 8 cannot be learned from: the truth at row 4, column 6 is 2: it has to be 0, 1 or 255"
        );
        let mut counts = raw(3, Photometric::default());
        counts.scales[1] = Scale { low: 5.0, high: 5.0 };
        assert_eq!(
            message(patch("chip 9", Image::Raw(counts))),
            "chip 9 cannot be learned from: band 1 has the range 5 to 5, which is none"
        );
        let mut counts = raw(3, Photometric::default());
        counts.classes.as_mut().unwrap().map[[0, 1]] = 200;
        assert_eq!(
            message(patch("scene", Image::Raw(counts))),
            "scene cannot be learned from: the class at row 0, column 1 is 200, which is no channel"
        );
        let small = Array3::zeros((2, 12, 17));
        let patches = [patch("a", Image::Normalised(good())), patch("b", Image::Normalised(small))];
        let error = PackedBatch::try_new(&patches).unwrap_err().to_string();
        assert!(error.starts_with("b cannot be learned from: its image (2, 12, 17)"), "{error}");
        let mixed = [
            patch("a", Image::Raw(raw(3, Photometric::default()))),
            patch("b", Image::Normalised(Array3::zeros((14, 13, 17)))),
        ];
        assert!(PackedBatch::try_new(&mixed).is_err(), "one kind in a batch");
    }
}
