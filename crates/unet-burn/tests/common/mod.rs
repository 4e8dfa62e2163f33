//! Weights and images that the script beside the golden values makes too, bit by bit.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use unet_burn::burn::tensor::{Device, Tensor, TensorData};
use unet_burn::{UNet, UNetConfig};

/// In `[-1, 1)`, exact in `f32`: a hash of the name (FNV-1a) and the index.
pub(crate) fn uniform(name: &str, count: usize) -> impl Iterator<Item = f64> {
    let seed =
        name.bytes().fold(2_166_136_261_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
    (0_u32..).take(count).map(move |index| {
        let mut x = seed.wrapping_add(index.wrapping_mul(2_654_435_761));
        x = (x ^ (x >> 16)).wrapping_mul(73_244_475);
        x = (x ^ (x >> 16)).wrapping_mul(73_244_475);
        f64::from((x ^ (x >> 16)) >> 21) / 1024.0 - 1.0
    })
}

#[expect(clippy::cast_possible_truncation, reason = "rounding is meant")]
fn single(value: f64) -> f32 {
    value as f32
}

/// A network whose weights and statistics are the script's.
pub(crate) fn filled(config: &UNetConfig, device: &Device) -> UNet {
    let model = config.init(device).unwrap();
    let stored = model.to_safetensors().unwrap();
    let tensors = SafeTensors::deserialize(&stored).unwrap();
    let filled: HashMap<String, (Vec<usize>, Vec<u8>)> = tensors
        .tensors()
        .into_iter()
        .map(|(name, tensor)| {
            let shape = tensor.shape().to_vec();
            let (scale, shift) = if shape.len() == 4 {
                ((6.0 / shape[1..].iter().product::<usize>() as f64).sqrt(), 0.0)
            } else if name.ends_with("running_var") || name.contains("norm.weight") {
                (0.5, 1.0)
            } else {
                (0.25, 0.0)
            };
            let values = uniform(&name, shape.iter().product())
                .flat_map(|value| single(shift + value * scale).to_le_bytes())
                .collect();
            (name, (shape, values))
        })
        .collect();
    let views = filled
        .iter()
        .map(|(name, (shape, values))| (name, TensorView::new(Dtype::F32, shape.clone(), values).unwrap()));
    let bytes = safetensors::serialize(views, None).unwrap();
    model.load_safetensors(bytes, Path::new("filled")).unwrap()
}

/// An image like the script's, `[batch, channel, row, column]`.
pub(crate) fn image(shape: [usize; 4], device: &Device) -> Tensor<4> {
    let values: Vec<f32> = uniform("image", shape.iter().product()).map(single).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

pub(crate) fn values(tensor: Tensor<4>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// Largest difference over the largest value.
pub(crate) fn relative_error(ours: &[f32], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len(), "same number of values");
    // A maximum leaves out what is no number.
    assert!(ours.iter().all(|value| value.is_finite()), "all of them numbers");
    let largest = theirs.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    let differences = ours.iter().zip(theirs).map(|(&a, b)| (f64::from(a) - b).abs());
    differences.fold(0.0_f64, f64::max) / largest
}
