//! From patches to probabilities.

#[cfg(feature = "flex")]
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use ndarray::{Array4, CowArray, Ix4};
use serde::{Deserialize, Serialize};

#[cfg(feature = "flex")]
use crate::cpu::{Network, Stream};
use crate::ops::Cast;
use crate::{Error, Result, UNet, prediction_bytes};

/// Probability of the positive class for each pixel of a batch of patches: a [`Predictor`] for once.
///
/// # Shapes
///
/// - `patches`: `[batch, in_channels, size, size]`, normalised as in training
/// - output: `[batch, 1, size − loss, size − loss]`, each in `[0, 1]`
///
/// # Errors
///
/// As [`Predictor::predict`].
pub fn predict<'a>(
    model: &UNet,
    patches: impl Into<CowArray<'a, f32, Ix4>>,
    device: &Device,
) -> Result<Array4<f32>> {
    PredictorConfig::default().init(model, device)?.predict(patches)
}

/// How a [`Predictor`] looks at patches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PredictorConfig {
    /// Look at each patch in its eight flips and quarter turns and give the mean of their probabilities
    /// (test-time augmentation): eight times the work.
    pub all_views: bool,
    /// Give the standard deviation of the eight views as a second channel.
    pub spread: bool,
    /// Compute in half precision: 16 bits, of which 11 carry the value. Probabilities come as `f32` all the same.
    pub half: bool,
}

impl PredictorConfig {
    /// Makes a network ready to predict, batch norm folded into the convolutions. The network itself stays as it is.
    ///
    /// It runs as it is given: take a model that was loaded from a bundle or returned by [`train`](crate::train),
    /// which neither drops out nor updates batch norm.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for a network of several classes, for a spread without all views, and for half precision on
    /// a device that has none.
    pub fn init(self, model: &UNet, device: &Device) -> Result<Predictor> {
        let refused = |field, requirement| Error::InvalidConfig { field, value: "true".into(), requirement };
        model.config().check_binary()?;
        if self.spread && !self.all_views {
            return Err(refused("spread", "it is that of all views, so it needs these"));
        }
        // Clones share the statistics of batch norm, and the network that was given has to keep its own.
        let elsewhere = model.devices().iter().any(|other| other != device);
        let mut model = if self.half || elsewhere {
            model.config().init(device)?.load_record(model.clone().into_record())
        } else {
            model.clone()
        };
        model = model.fold_norms();
        if self.half {
            if !device.supports_dtype(FloatDType::F16) {
                return Err(refused("half", "this device computes in single precision only"));
            }
            model = model.map(&mut Cast::to(FloatDType::F16));
        }
        Ok(Predictor {
            #[cfg(feature = "flex")]
            by_rows: model.by_rows().map(Arc::new),
            model,
            config: self,
            device: device.clone(),
            #[cfg(feature = "flex")]
            _memory: crate::cpu::Release,
        })
    }
}

/// A network that is ready to predict: made once by [`PredictorConfig::init`], used for many patches.
///
/// ```
/// use unet_burn::burn::tensor::Device;
/// use unet_burn::ndarray::Array4;
/// use unet_burn::{PredictorConfig, UNetConfig};
///
/// let device = Device::flex();
/// let model = UNetConfig { in_channels: 3, levels: 2, filters: 4, ..UNetConfig::default() }.init(&device)?;
/// let config = PredictorConfig { all_views: true, spread: true, ..PredictorConfig::default() };
/// let predictor = config.init(&model, &device)?;
/// let maps = predictor.predict(Array4::zeros((1, 3, 60, 60)))?;
/// assert_eq!(maps.dim(), (1, predictor.num_maps(), 20, 20)); // mean and spread
/// # Ok::<(), unet_burn::Error>(())
/// ```
#[derive(Debug)]
pub struct Predictor {
    /// The same network, where it can go row by row.
    #[cfg(feature = "flex")]
    pub(crate) by_rows: Option<Arc<Network>>,
    pub(crate) model: UNet,
    pub(crate) config: PredictorConfig,
    pub(crate) device: Device,
    #[cfg(feature = "flex")]
    _memory: crate::cpu::Release,
}

impl Predictor {
    /// Probabilities of a batch of patches.
    ///
    /// With all views, the rows and columns at all four sides of an output depend on the padding of the
    /// up-convolutions, not only the last ones.
    ///
    /// # Shapes
    ///
    /// - `patches`: `[batch, in_channels, size, size]`, normalised as in training; an array is moved, a view copied
    /// - output: `[batch, num_maps, size − loss, size − loss]`: the probability of the positive class, in `[0, 1]`,
    ///   and then, if asked for, the standard deviation of the views (divided by 8, not 7), in `[0, 0.5]`
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSize`] and [`Error::InputShape`] for patches that do not fit, [`Error::OutOfMemory`] when the
    /// device cannot hold the maps between the layers, [`Error::Device`] when it fails otherwise.
    pub fn predict<'a>(&self, patches: impl Into<CowArray<'a, f32, Ix4>>) -> Result<Array4<f32>> {
        let patches = patches.into();
        let (batch, channels, height, width) = patches.dim();
        if self.config.all_views && height != width {
            let actual = vec![batch, channels, height, width];
            return Err(Error::InputShape { actual, in_channels: self.model.config().in_channels });
        }
        #[cfg(feature = "flex")]
        if let Some(network) = self.by_rows.as_ref().filter(|_| !self.config.all_views) {
            let patches = patches.as_standard_layout();
            let images = patches.as_slice().unwrap_or_default();
            let (map, shape) = self.map_by_rows(network, images, [batch, channels, height, width])?;
            return Array4::from_shape_vec(shape, map).map_err(|error| device_error(error.to_string()));
        }
        // Moved where the values lie in order already.
        let patches = match patches.is_standard_layout() {
            true => patches.into_owned(),
            false => patches.as_standard_layout().into_owned(),
        };
        let (values, _) = patches.into_raw_vec_and_offset();
        let data = TensorData::new(values, [batch, channels, height, width]);
        let maps = self.maps(Tensor::from_data(data, &self.device))?;
        let [batch, maps_count, rows, cols] = maps.dims();
        let data = maps.try_into_data().map_err(|error| device_error(error.to_string()))?;
        let values = data.try_to_vec::<f32>().map_err(|error| device_error(format!("{error:?}")))?;
        Array4::from_shape_vec((batch, maps_count, rows, cols), values)
            .map_err(|error| device_error(error.to_string()))
    }

    /// Memory that a batch of patches of `size` × `size` needs at most, in bytes: an estimate, in which the patches themselves
    /// and the weights are not counted.
    ///
    /// On the CPU, where most networks go row by row and patch by patch, that is little; else see [`prediction_bytes`].
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSize`] for a size that the network does not take.
    pub fn bytes(&self, batch: usize, size: usize) -> Result<u64> {
        let config = self.model.config();
        let square = |side: usize| (batch * size_of::<f32>()) as u64 * (side as u64).pow(2);
        let output = square(config.output_size(size)?);
        let maps = match self.config.all_views {
            // All views of the map, once more side by side; the patches as one of them sees them.
            true => 20 * output + config.in_channels as u64 * square(size),
            // Logits and what becomes of them.
            false => 3 * output,
        };
        #[cfg(feature = "flex")]
        if let Some(network) = &self.by_rows {
            return Ok(maps + Stream::new(network, [size, size]).bytes());
        }
        Ok(maps + batch as u64 * prediction_bytes(config, size)?)
    }

    /// Channels of the output: the probability and, if asked for, its spread.
    #[must_use]
    pub fn num_maps(&self) -> usize {
        if self.config.spread { 2 } else { 1 }
    }

    /// How it looks at patches.
    #[must_use]
    pub fn config(&self) -> PredictorConfig {
        self.config
    }

    fn maps(&self, images: Tensor<4>) -> Result<Tensor<4>> {
        if !self.config.all_views {
            return self.probabilities(images);
        }
        let views: Result<Vec<_>> =
            VIEWS.iter().map(|view| Ok(view.undo(self.probabilities(view.apply(images.clone()))?))).collect();
        let views = Tensor::cat(views?, 1); // [batch, 8, size − loss, size − loss]
        let mean = views.clone().mean_dim(1);
        Ok(match self.config.spread {
            true => Tensor::cat(vec![mean, views.var_bias(1).sqrt()], 1),
            false => mean,
        })
    }

    fn probabilities(&self, images: Tensor<4>) -> Result<Tensor<4>> {
        #[cfg(feature = "flex")]
        if let Some(network) = &self.by_rows {
            let shape = images.dims();
            let images = images.into_data();
            let images = images.as_slice().map_err(|error| device_error(format!("{error:?}")))?;
            let (map, shape) = self.map_by_rows(network, images, shape)?;
            return Ok(Tensor::from_data(TensorData::new(map, shape), &self.device));
        }
        let images = if self.config.half { images.cast(FloatDType::F16) } else { images };
        let logits = self.model.forward(images)?;
        Ok(sigmoid(if self.config.half { logits.cast(FloatDType::F32) } else { logits }))
    }
}

/// A flip or quarter turn: rows and columns change places or not, then rows run upwards or not, then columns
/// leftwards or not.
#[derive(Clone, Copy)]
struct View {
    transpose: bool,
    flip: &'static [usize],
}

/// All eight.
const VIEWS: [View; 8] = {
    let flips: [&[usize]; 4] = [&[], &[2], &[3], &[2, 3]];
    let mut views = [View { transpose: false, flip: &[] }; 8];
    let mut i = 0;
    while i < 8 {
        views[i] = View { transpose: i >= 4, flip: flips[i % 4] };
        i += 1;
    }
    views
};

impl View {
    fn apply(self, x: Tensor<4>) -> Tensor<4> {
        let x = if self.transpose { x.swap_dims(2, 3) } else { x };
        self.flipped(x)
    }

    fn undo(self, x: Tensor<4>) -> Tensor<4> {
        let x = self.flipped(x);
        if self.transpose { x.swap_dims(2, 3) } else { x }
    }

    fn flipped(self, x: Tensor<4>) -> Tensor<4> {
        self.flip.iter().fold(x, |x, &axis| x.flip([axis]))
    }
}

/// Tells a lack of memory from other failures. burn has no error of its own for it, only the words of the layer below:
/// cubecl's and wgpu's.
pub(crate) fn device_error(message: String) -> Error {
    const WORDS: [&str; 5] =
        ["out of memory", "out-of-memory", "out of device memory", "not enough memory", "can't allocate"];
    let lower = message.to_lowercase();
    if WORDS.iter().any(|words| lower.contains(words)) {
        return Error::OutOfMemory { message };
    }
    Error::Device { message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_memory_is_told_from_other_failures() {
        for message in [
            "An error happened during execution\nCaused by:\n  out of device memory allocating 1073741824 bytes",
            "can't allocate buffer of size: 4294967296",
            "An out-of-memory error happened during launch",
            "Not enough memory left.",
        ] {
            let error = device_error(message.into());
            assert!(matches!(error, Error::OutOfMemory { .. }), "{message}: {error}");
        }
        let other = device_error("Validation Error: a binding is missing".into());
        assert!(matches!(other, Error::Device { .. }), "{other}");
    }
}
