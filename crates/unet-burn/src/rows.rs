//! Prediction of an image that comes row by row, on the CPU.

use std::sync::Arc;

use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor, TensorData};
use ndarray::{Array2, ArrayView3};

use crate::cpu::{Network, Release, Stream};
use crate::predict::device_error;
use crate::{Error, Predictor, Result};

impl Predictor {
    /// Probabilities of images, one after the other, and their shape.
    pub(crate) fn map_by_rows(
        &self,
        network: &Network,
        images: &[f32],
        shape: [usize; 4],
    ) -> Result<(Vec<f32>, [usize; 4])> {
        let config = self.model.config();
        config.check_images(&shape)?;
        let [batch, channels, height, width] = shape;
        let images = images.chunks_exact(channels * height * width);
        let logits = images.flat_map(|image| Stream::new(network, [height, width]).push(network, image));
        let map = sigmoids(logits.collect(), &self.device)?;
        Ok((map, [batch, 1, config.output_size(height)?, config.output_size(width)?]))
    }

    /// A predictor for one image that comes row by row, such as a scene that is larger than the memory; nothing where there
    /// is none: on devices other than the CPU, for networks with shortcuts, padding or transposed convolutions, for all
    /// views and for half precision.
    ///
    /// It computes no pixel twice and needs memory for some hundred rows only ([`RowPredictor::bytes`]). The probabilities
    /// are those of [`predict`](Self::predict) for the whole image, to the bit.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSize`] for a height or width that the network does not take.
    pub fn by_rows(&self, height: usize, width: usize) -> Result<Option<RowPredictor>> {
        self.model.config().output_size(height)?;
        self.model.config().output_size(width)?;
        let network = self.by_rows.as_ref().filter(|_| !self.config.all_views);
        Ok(network.map(|network| RowPredictor {
            stream: Stream::new(network, [height, width]),
            network: Arc::clone(network),
            device: self.device.clone(),
            in_channels: self.model.config().in_channels,
            missing: height,
            width,
            _memory: Release,
        }))
    }
}

/// As the device computes them.
fn sigmoids(logits: Vec<f32>, device: &Device) -> Result<Vec<f32>> {
    let count = logits.len();
    let map = sigmoid(Tensor::<1>::from_data(TensorData::new(logits, [count]), device)).into_data();
    map.try_to_vec().map_err(|error| device_error(format!("{error:?}")))
}

/// Probabilities of an image that comes row by row: made by [`Predictor::by_rows`].
///
/// ```
/// use unet_burn::burn::tensor::Device;
/// use unet_burn::ndarray::{Array3, Axis, concatenate};
/// use unet_burn::{PredictorConfig, UNetConfig};
///
/// let device = Device::flex();
/// let model = UNetConfig { in_channels: 3, levels: 2, filters: 4, ..UNetConfig::default() }.init(&device)?;
/// let predictor = PredictorConfig::default().init(&model, &device)?;
/// let mut rows = predictor.by_rows(100, 60)?.expect("a network for the CPU");
/// let mut map = Vec::new();
/// for _ in 0..10 {
///     map.push(rows.push(Array3::zeros((3, 10, 60)).view())?);
/// }
/// let views: Vec<_> = map.iter().map(|rows| rows.view()).collect();
/// assert_eq!(concatenate(Axis(0), &views)?.dim(), (60, 20));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RowPredictor {
    network: Arc<Network>,
    stream: Stream,
    device: Device,
    in_channels: usize,
    /// Rows that have not come yet.
    missing: usize,
    width: usize,
    _memory: Release,
}

impl RowPredictor {
    /// Takes the next rows and gives those of the map that can be computed by now; with the last row come all that are
    /// left.
    ///
    /// # Shapes
    ///
    /// - `rows`: `[in_channels, n, width]`, normalised as in training
    /// - output: `[m, width − loss]`, each in `[0, 1]`
    ///
    /// # Errors
    ///
    /// [`Error::InputShape`] for other channels, another width, or more rows than the image has; [`Error::Device`] when the
    /// device fails.
    pub fn push(&mut self, rows: ArrayView3<'_, f32>) -> Result<Array2<f32>> {
        let (channels, height, width) = rows.dim();
        if (channels, width) != (self.in_channels, self.width) || height > self.missing {
            let actual = vec![1, channels, height, width];
            return Err(Error::InputShape { actual, in_channels: self.in_channels });
        }
        self.missing -= height;
        let rows = rows.as_standard_layout();
        let logits = self.stream.push(&self.network, rows.as_slice().unwrap_or_default());
        let width = self.stream.width();
        let shape = [logits.len() / width, width];
        Array2::from_shape_vec(shape, sigmoids(logits, &self.device)?)
            .map_err(|error| device_error(error.to_string()))
    }

    /// Memory that it needs for the rows that it keeps, in bytes: an estimate. Weights are not counted.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.stream.bytes()
    }

    /// A predictor of the same image from a row on that is a multiple of this gives the same probabilities, to the bit.
    #[must_use]
    pub fn restart_step(&self) -> usize {
        Stream::restart_step(&self.network)
    }

    /// Rows of the image after which so many rows of the map have come, one or more.
    #[must_use]
    pub fn input_rows(&self, rows: usize) -> usize {
        self.stream.input_rows(&self.network, rows)
    }
}
