//! The network on a graphics adapter, where there is one. Software adapters count: a test needs no speed.
//!
//! `benches/gpu` takes these tests to machines with a real one.

mod common;

use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use common::{filled, image, relative_error, single, uniform, values};
use ndarray::{Array2, Array3};
use unet_burn::burn::data::dataset::InMemDataset;
use unet_burn::burn::tensor::{Device, DeviceKind, FloatDType};
use unet_burn::{Criterion, Execution, Image, Patch, TrainingConfig, UNetConfig, train};

fn say(words: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {words}");
}

/// The same for all tests: burn opens it once in a process, by this or by what reads the state of an optimizer.
fn adapter() -> Option<Device> {
    static OPENS: Mutex<()> = Mutex::new(());
    let _one = OPENS.lock().unwrap_or_else(PoisonError::into_inner);
    match Device::wgpu_options().init() {
        Ok(device) => Some(device),
        Err(error) if error.to_string().contains("already initialized") => {
            Some(Device::wgpu(DeviceKind::DefaultDevice))
        }
        Err(error) => {
            say(&format!("no graphics adapter ({error})"));
            None
        }
    }
}

#[derive(serde::Deserialize)]
struct Case {
    config: UNetConfig,
    input: [usize; 4],
    logits: Vec<f64>,
}

#[test]
fn it_gives_pytorchs_logits() {
    let Some(device) = adapter() else { return };
    let cases: Vec<Case> = serde_json::from_str(include_str!("data/networks.json")).unwrap();
    let Case { config, input, logits } = &cases[0];
    let run = |device: &Device| values(filled(config, device).forward(image(*input, device)).unwrap());
    let ours = run(&device);
    let error = relative_error(&ours, logits);
    let cpu: Vec<f64> = run(&Device::flex()).into_iter().map(f64::from).collect();
    let parity = relative_error(&ours, &cpu);
    println!("{:?}: relative error {error:.2e}, to the CPU {parity:.2e}", device.identity().map(|i| i.name));
    // The same f32 sums as on the CPU in another order; see pytorch.rs.
    assert!(error <= 1e-5 && parity <= 1e-5, "relative error {error}, to the CPU {parity}");
}

/// Losses of training and validation, epoch by epoch, of a network that is as small as there can be: each size of map is
/// another set of kernels to compile.
fn losses(device: &Device, mixed: bool) -> Vec<f64> {
    let network = UNetConfig { in_channels: 2, levels: 1, filters: 2, dropout: 0.0, ..UNetConfig::default() };
    let output = network.output_size(28).unwrap();
    let patches = |from: usize, to: usize| {
        let patch = |index: usize| {
            let noise: Vec<f32> = uniform(&format!("patch {index}"), 2 * 28 * 28).map(single).collect();
            let noise = Array3::from_shape_vec((2, 28, 28), noise).unwrap();
            let bright = Array3::from_shape_fn((2, 28, 28), |(_, row, _)| if row < 14 { 1.0 } else { 0.0 });
            let truth = Array2::from_shape_fn((output, output), |(row, _)| u8::from(row < output / 2));
            Patch { name: format!("patch {index}"), image: Image::Normalised(noise + bright), truth }
        };
        InMemDataset::new((from..to).map(patch).collect())
    };
    let weights = filled(&network, &Device::flex()).to_safetensors().unwrap();
    let model = network.init(device).unwrap().load_safetensors(weights, Path::new("filled")).unwrap();
    let config = TrainingConfig {
        epochs: 3,
        batch_size: 2,
        learning_rate: 5e-3,
        criterion: Criterion::Loss,
        mixed_precision: mixed,
        ..TrainingConfig::default()
    };
    let trained = train(model, &config, patches(0, 4), patches(4, 5), Execution::on(device)).unwrap();
    trained.history.iter().flat_map(|epoch| [epoch.training_loss, epoch.validation_loss]).collect()
}

#[test]
fn it_learns_what_the_cpu_learns() {
    let Some(device) = adapter() else { return };
    let cpu = losses(&Device::flex(), false);
    // The same but for the order of sums, six steps long.
    for (ours, cpu) in losses(&device, false).iter().zip(&cpu) {
        assert!((ours / cpu - 1.0).abs() < 1e-4, "{ours} and {cpu}");
    }
    if !device.supports_dtype(FloatDType::F16) {
        say("the graphics adapter has no halves");
        return;
    }
    for (ours, cpu) in losses(&device, true).iter().zip(&cpu) {
        assert!((ours / cpu - 1.0).abs() < 0.02, "in mixed precision {ours} and {cpu}");
    }
}
