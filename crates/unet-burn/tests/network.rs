//! The published numbers, and what does not fit.

use ndarray::Array4;
use unet_burn::burn::module::Module;
use unet_burn::burn::tensor::{Device, Tensor};
use unet_burn::{Error, FocalLoss, UNetConfig, predict};

/// 4,480 of them are running statistics of batch norm; burn counts these too.
#[test]
fn the_released_network_has_the_published_number_of_parameters() {
    let device = Device::flex();
    for (in_channels, published) in [(24, 31_052_801), (22, 31_051_649)] {
        let model = UNetConfig { in_channels, ..UNetConfig::default() }.init(&device).unwrap();
        assert_eq!(model.num_params(), published, "{in_channels} channels");
        let stored = model.to_safetensors().unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&stored).unwrap();
        let total: usize =
            tensors.tensors().iter().map(|(_, tensor)| tensor.shape().iter().product::<usize>()).sum();
        assert_eq!(total, published, "in the file of {in_channels} channels");
    }
}

#[test]
fn a_window_of_572_gives_388() {
    let device = Device::flex();
    let model = UNetConfig { in_channels: 2, filters: 1, ..UNetConfig::default() }.init(&device).unwrap();
    let logits = model.forward(Tensor::zeros([1, 2, 572, 572], &device)).unwrap();
    assert_eq!(logits.dims(), [1, 1, 388, 388], "Ronneberger 2015, figure 1");
}

#[test]
fn an_input_that_does_not_fit_is_refused() {
    let device = Device::flex();
    let model = UNetConfig { in_channels: 2, filters: 1, ..UNetConfig::default() }.init(&device).unwrap();
    let wrong_size = predict(&model, Array4::zeros((1, 2, 190, 190)).view(), &device).unwrap_err();
    assert_eq!(
        wrong_size.to_string(),
        "190 is no valid input size for 4 levels and kernel 3: use 188 or 204",
        "size"
    );
    let wrong_channels = predict(&model, Array4::zeros((1, 3, 188, 188)).view(), &device).unwrap_err();
    assert!(matches!(wrong_channels, Error::InputShape { in_channels: 2, .. }), "{wrong_channels}");
}

#[test]
fn ignored_pixels_do_not_change_the_loss() {
    let device = Device::flex();
    let logits = Tensor::<4>::from_floats([[[[2.0, -1.0]]], [[[3.0, 3.0]]]], &device);
    let truth = Tensor::<4>::from_floats([[[[1.0, 0.0]]], [[[0.0, 0.0]]]], &device);
    let valid = Tensor::<4>::from_floats([[[[1.0, 0.0]]], [[[0.0, 0.0]]]], &device);
    let loss = FocalLoss::default().forward(logits, truth, valid).into_data().try_to_vec::<f32>().unwrap();
    let p = 1.0 / (1.0 + (-2.0_f32).exp());
    let expected = -0.25 * (1.0 - p).powi(2) * p.ln();
    assert!((loss[0] - expected).abs() < 1e-7, "{} and {expected}", loss[0]);
    assert_eq!(loss[1], 0.0, "nothing valid");
}
