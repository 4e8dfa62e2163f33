//! The network on a graphics adapter, where there is one. Software adapters count: a test needs no speed.
//!
//! `benches/gpu` takes these tests to machines with a real one. `UNET_BURN_TEST_ADAPTER=vulkan` asks for one of Vulkan, and
//! makes its absence a failure.

mod common;

use std::io::Write as _;
use std::path::Path;
use std::sync::OnceLock;

use common::{filled, image, relative_error, uniform, values};
use ndarray::{Array2, Array3, Array4};
use unet_burn::burn::data::dataset::InMemDataset;
use unet_burn::burn::tensor::wgpu::WgpuBackend;
use unet_burn::burn::tensor::{Device, FloatDType, Tensor};
use unet_burn::{
    Classes, Criterion, Error, Execution, IGNORE_INDEX, Image, Layout, PackedBatch, Patch, Photometric,
    PredictorConfig, RawImage, Scale, TrainingConfig, UNetConfig, train,
};

fn say(words: &str) {
    let _ = writeln!(std::io::stderr(), "{words}");
}

/// The same for all tests: burn opens it once in a process.
fn adapter() -> Option<Device> {
    static OPENED: OnceLock<Option<Device>> = OnceLock::new();
    let open = || {
        let asked = std::env::var("UNET_BURN_TEST_ADAPTER").ok();
        let api = match asked.as_deref() {
            Some("vulkan") => WgpuBackend::Vulkan,
            None => WgpuBackend::Auto,
            Some(other) => panic!("UNET_BURN_TEST_ADAPTER={other}: vulkan is all that can be asked for"),
        };
        match Device::wgpu_options().graphics_api(api).init() {
            Ok(device) => {
                let name = device.identity().map(|identity| identity.name);
                say(&format!("adapter: {}", name.unwrap_or_default()));
                Some(device)
            }
            Err(error) => {
                assert!(asked.is_none(), "no graphics adapter: {error}");
                say(&format!("skipped: no graphics adapter ({error})"));
                None
            }
        }
    };
    OPENED.get_or_init(open).clone()
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
    // One of each layout, with both paddings and both ways up among them.
    let layouts = [Layout::AsmMap, Layout::Seed, Layout::Vanilla, Layout::Residual];
    let of_layout = layouts.map(|layout| cases.iter().filter(move |case| case.config.layout == layout));
    for (number, mut of_layout) in of_layout.into_iter().enumerate() {
        let Case { config, input, logits } = of_layout.nth(number % 2).unwrap();
        let run = |device: &Device| values(filled(config, device).forward(image(*input, device)).unwrap());
        let ours = run(&device);
        let error = relative_error(&ours, logits);
        let cpu: Vec<f64> = run(&Device::flex()).into_iter().map(f64::from).collect();
        let parity = relative_error(&ours, &cpu);
        println!("{:?}: relative error {error:.2e}, to the CPU {parity:.2e}", config.layout);
        // The same f32 sums as on the CPU in another order; see pytorch.rs.
        assert!(error <= 1e-5 && parity <= 1e-5, "{config:?}: {error}, to the CPU {parity}");
    }
}

#[test]
fn it_makes_channels_of_counts_as_the_cpu_does() {
    let Some(device) = adapter() else { return };
    let batch = PackedBatch::try_new(&[patch(0), patch(1), patch(2)]).unwrap();
    let [ours, cpu] = [device, Device::flex()].map(|device| {
        let batch = batch.clone().into_device(&device);
        [batch.images, batch.truth, batch.valid].map(|tensor| tensor.into_data().try_to_vec::<f32>().unwrap())
    });
    for (ours, cpu) in ours.iter().flatten().zip(cpu.iter().flatten()) {
        // One rounding of values up to 1.
        assert!((ours - cpu).abs() <= 1.2e-7, "{ours} and {cpu}");
    }
    assert!(cpu[0].iter().any(|&value| value > 0.0 && value < 1.0), "channels of bands");
}

#[test]
fn it_predicts_what_the_cpu_predicts() {
    let Some(device) = adapter() else { return };
    let config = PredictorConfig { all_views: true, spread: true, ..PredictorConfig::default() };
    let images = PackedBatch::try_new(&[patch(0)]).unwrap().into_device(&Device::flex()).images;
    let images = images.into_data().try_to_vec::<f32>().unwrap();
    let images = Array4::from_shape_vec((1, 4, 28, 28), images).unwrap();
    let [ours, cpu] = [device, Device::flex()].map(|device| {
        let model = filled(&small(), &device);
        config.init(&model, &device).unwrap().predict(images.view()).unwrap()
    });
    assert_eq!(ours.dim(), cpu.dim(), "mean and spread");
    for (ours, cpu) in ours.iter().zip(&cpu) {
        // Roundings of logits of some units; the spread is a root, which does not enlarge them here.
        assert!((ours - cpu).abs() <= 1e-5, "{ours} and {cpu}");
    }
}

/// As small as there can be: each size of map is another set of kernels to compile.
fn small() -> UNetConfig {
    UNetConfig { in_channels: 4, levels: 1, filters: 2, dropout: 0.0, ..UNetConfig::default() }
}

/// Counts of two bands, brighter in the upper half, and two classes, as scenes give them.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts below 5,000")]
fn patch(index: usize) -> Patch {
    let output = small().output_size(28).unwrap();
    let noise: Vec<f64> = uniform(&format!("patch {index}"), 2 * 28 * 28).collect();
    let bands = Array3::from_shape_fn((2, 28, 28), |(band, row, col)| {
        let light = if row < 14 { 4000.0 } else { 2000.0 };
        (light + 1000.0 * noise[(band * 28 + row) * 28 + col]) as u16
    });
    Patch {
        name: format!("patch {index}"),
        image: Image::Raw(RawImage {
            bands,
            scales: vec![Scale { low: 1000.0, high: 5000.5 }; 2],
            classes: Some(Classes {
                map: Array2::from_shape_fn((28, 28), |(row, col)| [0, 2][(row + col + index) % 2]),
                one_hot: vec![0, 2],
            }),
            photometric: Photometric { contrast: 1.1, brightness: -0.05 },
        }),
        truth: Array2::from_shape_fn((output, output), |(row, col)| match (row, col) {
            (0, 0) => IGNORE_INDEX,
            _ => u8::from(row < output / 2),
        }),
    }
}

/// Losses of training and validation, epoch by epoch.
fn losses(device: &Device, mixed: bool) -> Vec<f64> {
    let network = small();
    let patches = |from: usize, to: usize| InMemDataset::new((from..to).map(patch).collect());
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
        say("skipped: the graphics adapter has no halves");
        return;
    }
    for (ours, cpu) in losses(&device, true).iter().zip(&cpu) {
        assert!((ours / cpu - 1.0).abs() < 0.02, "in mixed precision {ours} and {cpu}");
    }
}

/// Where one buffer cannot hold the images (1.1 GB, made of 2.7 MB on the device), that is what training says.
#[test]
fn a_lack_of_memory_has_its_name() {
    let Some(device) = adapter() else { return };
    const SIDE: usize = 1172;
    let network = UNetConfig { in_channels: 201, ..small() };
    let output = network.output_size(SIDE).unwrap();
    let patch = Patch {
        name: "large".into(),
        image: Image::Raw(RawImage {
            bands: Array3::from_elem((1, SIDE, SIDE), 3000),
            scales: vec![Scale { low: 1000.0, high: 5000.0 }],
            classes: Some(Classes { map: Array2::zeros((SIDE, SIDE)), one_hot: (0..200).collect() }),
            photometric: Photometric::default(),
        }),
        truth: Array2::from_shape_fn((output, output), |(row, _)| u8::from(row < output / 2)),
    };
    let patches = || InMemDataset::new(vec![patch.clone()]);
    let config =
        TrainingConfig { epochs: 1, batch_size: 1, criterion: Criterion::Loss, ..TrainingConfig::default() };
    let model = network.init(&device).unwrap();
    match train(model, &config, patches(), patches(), Execution::on(&device)) {
        Err(Error::OutOfMemory { .. }) => {}
        Ok(_) => say("skipped: the graphics adapter holds 1.1 GB in one buffer"),
        Err(error) => panic!("{error}"),
    }
    let eight = Tensor::<1>::ones([8], &device).sum().try_into_scalar::<f32>();
    assert!(eight.is_ok_and(|sum| sum == 8.0), "the adapter serves again");
}
