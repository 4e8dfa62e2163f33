//! From patches to probabilities.

use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor, TensorData};
use ndarray::{Array4, ArrayView4};

use crate::{Error, Result, UNet};

/// Probability of the positive class for each pixel of a batch of patches.
///
/// The network runs as it is: give it a model that was loaded from a bundle or returned by
/// [`train`](crate::train), which neither drops out nor updates batch norm.
///
/// # Shapes
///
/// - `patches`: `[batch, in_channels, size, size]`, normalised as in training
/// - output: `[batch, 1, size − loss, size − loss]`, each in `[0, 1]`
///
/// # Errors
///
/// [`Error::InvalidSize`] and [`Error::InputShape`] for patches that do not fit, [`Error::Device`] when the
/// device fails.
pub fn predict(model: &UNet, patches: ArrayView4<'_, f32>, device: &Device) -> Result<Array4<f32>> {
    let (batch, channels, height, width) = patches.dim();
    let values: Vec<f32> = patches.iter().copied().collect();
    let images = Tensor::<4>::from_data(TensorData::new(values, [batch, channels, height, width]), device);
    let probabilities = sigmoid(model.forward(images)?);
    let [batch, classes, rows, cols] = probabilities.dims();
    let device_error = |message: String| Error::Device { message };
    let data = probabilities.try_into_data().map_err(|error| device_error(error.to_string()))?;
    let values = data.try_to_vec::<f32>().map_err(|error| device_error(format!("{error:?}")))?;
    Array4::from_shape_vec((batch, classes, rows, cols), values)
        .map_err(|error| device_error(error.to_string()))
}
