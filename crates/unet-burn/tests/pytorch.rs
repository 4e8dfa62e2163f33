//! The network and the loss against PyTorch (`data/make_golden.py`).

use std::fs;
use std::path::Path;

use approx::assert_relative_eq;
use safetensors::SafeTensors;
use unet_burn::burn::tensor::{Device, Tensor, TensorData};
use unet_burn::{FocalLoss, UNet, UNetConfig};

const CHANNELS: usize = 3;
const SIZE: usize = 100;
const PIXELS: u32 = 3 * 100 * 100;

fn data(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn config() -> UNetConfig {
    UNetConfig { in_channels: CHANNELS, levels: 3, filters: 3, ..UNetConfig::default() }
}

fn network(device: &Device) -> UNet {
    let model = config().init(device).unwrap();
    model.load_safetensors(data("unet.safetensors"), Path::new("unet.safetensors")).unwrap()
}

/// The same numbers as the script's: exact in f32.
fn image() -> Vec<f32> {
    (0..PIXELS).map(|index| (index * 7919 % 2048) as f32 / 1024.0 - 1.0).collect()
}

fn logits(device: &Device) -> Vec<f32> {
    let image = Tensor::from_data(TensorData::new(image(), [1, CHANNELS, SIZE, SIZE]), device);
    network(device).forward(image).unwrap().into_data().try_to_vec::<f32>().unwrap()
}

/// Largest difference over the largest value. PyTorch's numbers are made in f64; ours in f32 sum up to
/// 9·48 products a layer and pass 17 layers, so that about 17·√432·2⁻²⁴ = 2e-5 is the worst to expect if
/// errors only grew, and rounding in both directions keeps it below a half of that.
fn relative_error(ours: &[f32], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len(), "same number of pixels");
    let largest = theirs.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    let differences = ours.iter().zip(theirs).map(|(&a, b)| (f64::from(a) - b).abs());
    differences.fold(0.0_f64, f64::max) / largest
}

fn expected() -> Vec<f64> {
    let bytes = data("unet_output.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let values = tensors.tensor("logits").unwrap();
    values.data().chunks_exact(8).map(|chunk| f64::from_le_bytes(chunk.try_into().unwrap())).collect()
}

#[test]
fn the_cpu_gives_pytorchs_logits() {
    let error = relative_error(&logits(&Device::flex()), &expected());
    println!("relative error on the CPU: {error:.2e}");
    assert!(error <= 1e-5, "relative error {error}");
}

#[test]
fn a_graphics_adapter_gives_pytorchs_logits() {
    // Software adapters count: a test needs no speed.
    let device = match Device::wgpu_options().init() {
        Ok(device) => device,
        Err(error) => {
            println!("SKIPPED: no graphics adapter ({error})");
            return;
        }
    };
    let ours = logits(&device);
    let error = relative_error(&ours, &expected());
    let cpu: Vec<f64> = logits(&Device::flex()).into_iter().map(f64::from).collect();
    let parity = relative_error(&ours, &cpu);
    println!("{:?}: relative error {error:.2e}, to the CPU {parity:.2e}", device.identity().map(|i| i.name));
    // The same f32 sums in another order: as far from PyTorch, and so from the CPU, as the CPU may be.
    assert!(error <= 1e-5 && parity <= 1e-5, "relative error {error}, to the CPU {parity}");
}

#[test]
fn weights_come_back_from_their_file() {
    let device = Device::flex();
    let bytes = network(&device).to_safetensors().unwrap();
    let original = data("unet.safetensors");
    let (ours, theirs) =
        (SafeTensors::deserialize(&bytes).unwrap(), SafeTensors::deserialize(&original).unwrap());
    let mut names = theirs.names();
    names.sort_unstable();
    let mut our_names = ours.names();
    our_names.sort_unstable();
    assert_eq!(our_names, names, "the names are PyTorch's");
    for name in names {
        let (ours, theirs) = (ours.tensor(name).unwrap(), theirs.tensor(name).unwrap());
        assert_eq!((ours.shape(), ours.data()), (theirs.shape(), theirs.data()), "{name}");
    }
}

#[test]
fn weights_of_another_network_are_refused_by_name() {
    let device = Device::flex();
    let load = |config: UNetConfig| {
        let model = config.init(&device).unwrap();
        model
            .load_safetensors(data("unet.safetensors"), Path::new("unet.safetensors"))
            .unwrap_err()
            .to_string()
    };
    let wider = load(UNetConfig { filters: 4, ..config() });
    assert!(wider.contains("encoder.0.convs.first"), "{wider}");
    let deeper = load(UNetConfig { levels: 4, ..config() });
    assert!(deeper.starts_with("the weights of unet.safetensors do not fit the network"), "{deeper}");
    let model = config().init(&device).unwrap();
    let broken = model.load_safetensors(vec![1, 2, 3], Path::new("broken.safetensors")).unwrap_err();
    assert!(broken.to_string().contains("broken.safetensors"), "{broken}");
}

#[derive(serde::Deserialize)]
struct Case {
    alpha: f64,
    gamma: f64,
    logit: f64,
    truth: f64,
    loss: f64,
    gradient: f64,
}

#[test]
fn focal_loss_and_its_gradient_are_pytorchs() {
    let cases: Vec<Case> = serde_json::from_slice(&data("focal.json")).unwrap();
    assert!(cases.len() > 70, "all cases are there");
    let device = Device::flex().autodiff();
    for case in cases {
        let map = |value: f64| Tensor::<4>::full([1, 1, 1, 1], value, &device);
        let logit = map(case.logit).require_grad();
        let focal = FocalLoss { alpha: case.alpha, gamma: case.gamma };
        let loss = focal.forward(logit.clone(), map(case.truth), map(1.0));
        let gradients = loss.clone().backward();
        let gradient = logit.grad(&gradients).unwrap().into_data().try_to_vec::<f32>().unwrap()[0];
        let loss = loss.into_data().try_to_vec::<f32>().unwrap()[0];
        // f32 against f64: a few roundings of 6e-8; the exponent γ multiplies the relative error of the discount,
        // whose logarithm is up to 60.
        let tolerance = 1e-5;
        assert_relative_eq!(f64::from(loss), case.loss, max_relative = tolerance, epsilon = 1e-30);
        assert_relative_eq!(f64::from(gradient), case.gradient, max_relative = tolerance, epsilon = 1e-30);
    }
}
