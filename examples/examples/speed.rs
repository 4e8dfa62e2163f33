//! Times the network: one pass, or one step of training.
//!
//!     speed make FOLDER [SIZE BATCH CHANNELS FILTERS]   writes a model and an input (572 1 22 16)
//!     speed forward FOLDER [DEVICE]                     one pass, batch norm folded, to FOLDER/ours.raw
//!     speed step FOLDER [DEVICE]                        forward, focal loss, backward, Adam
//!
//! Prints the median of some rounds in seconds. The device is that of the programs' `--device` (cpu);
//! `RAYON_NUM_THREADS` sets the threads.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use examples::device::{DeviceChoice, open};

use unet_burn::burn::module::Module;
use unet_burn::burn::optim::{AdamConfig, GradientsParams};
use unet_burn::burn::tensor::activation::sigmoid;
use unet_burn::burn::tensor::{Device, Tensor, TensorData};
use unet_burn::ndarray::ArrayView4;
use unet_burn::{Bundle, FocalLoss, PredictorConfig, Recipe, UNetConfig};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["make", folder, ref numbers @ ..] => {
            let numbers = numbers.iter().map(|number| number.parse()).collect::<Result<Vec<usize>, _>>()?;
            let &[size, batch, channels, filters] = numbers.as_slice() else {
                return make(Path::new(folder), [572, 1, 22, 16]);
            };
            make(Path::new(folder), [size, batch, channels, filters])
        }
        ["forward", folder, ref device @ ..] => forward(Path::new(folder), &chosen(device)?),
        ["step", folder, ref device @ ..] => step(Path::new(folder), &chosen(device)?),
        _ => bail!("what to do: make, forward or step, and a folder"),
    }
}

fn chosen(name: &[&str]) -> Result<Device> {
    let name = name.first().unwrap_or(&"cpu");
    let choice =
        DeviceChoice::from_str(name, false).map_err(|error| anyhow::anyhow!("device {name}: {error}"))?;
    Ok(open(choice)?.device)
}

fn make(folder: &Path, [size, batch, in_channels, filters]: [usize; 4]) -> Result<()> {
    let device = Device::flex();
    device.seed(1);
    let model = UNetConfig { in_channels, filters, ..UNetConfig::default() }.init(&device)?;
    let recipe = Recipe {
        channels: (0..in_channels).map(|channel| format!("channel {channel}")).collect(),
        resolution_m: 10.0,
        normalization: "values in -1 to 1".into(),
    };
    Bundle { model, recipe, threshold: None, training: None }.save(folder)?;
    let mut seed = 1_u32;
    let values = (0..batch * in_channels * size * size).flat_map(|_| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (f32::from((seed >> 16) as u16) / 32768.0 - 1.0).to_le_bytes()
    });
    fs::write(folder.join("input.raw"), values.collect::<Vec<u8>>())?;
    fs::write(folder.join("input.json"), format!("[{batch}, {in_channels}, {size}, {size}]"))?;
    Ok(())
}

fn input(folder: &Path, device: &Device) -> Result<Tensor<4>> {
    let shape = fs::read_to_string(folder.join("input.json"))?;
    let shape =
        shape.trim_matches(['[', ']']).split(", ").map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    let bytes = fs::read(folder.join("input.raw"))?;
    let values: Vec<f32> = bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    Ok(Tensor::from_data(TensorData::new(values, shape), device))
}

/// Runs once to warm up, then prints the median of some rounds.
fn time(rounds: usize, mut work: impl FnMut() -> Result<()>) -> Result<()> {
    work()?;
    let mut seconds = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        work()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    println!("{}", seconds[rounds / 2]);
    Ok(())
}

fn forward(folder: &Path, device: &Device) -> Result<()> {
    let model = Bundle::load(folder, device)?.model;
    let mut map = Vec::new();
    if *device == Device::flex() {
        // The CPU goes row by row.
        let predictor = PredictorConfig::default().init(&model, device)?;
        let data = input(folder, device)?.into_data();
        let [batch, channels, height, width] = data.shape().dims();
        let images = ArrayView4::from_shape((batch, channels, height, width), data.as_slice::<f32>()?)?;
        time(7, || {
            map = predictor.predict(images)?.into_raw_vec_and_offset().0;
            Ok(())
        })?;
    } else {
        // Images that lie on the device already.
        let (model, images) = (model.fold_norms(), input(folder, device)?);
        time(7, || {
            map = sigmoid(model.forward(images.clone())?).into_data().try_to_vec::<f32>()?;
            Ok(())
        })?;
    }
    let bytes: Vec<u8> = map.iter().flat_map(|value| value.to_le_bytes()).collect();
    fs::write(folder.join("ours.raw"), bytes).context("cannot write the probabilities")
}

fn step(folder: &Path, device: &Device) -> Result<()> {
    let model = Bundle::load(folder, device)?.model;
    let device = device.clone().autodiff();
    let mut model = model.to_device(&device).train();
    let images = input(folder, &device)?;
    let [batch, _, height, width] = images.dims();
    let [height, width] = [model.config().output_size(height)?, model.config().output_size(width)?];
    // Every eighth row is positive.
    let truth = |at: usize| if (at / width % height).is_multiple_of(8) { 1.0 } else { 0.0 };
    let truth: Vec<f32> = (0..batch * height * width).map(truth).collect();
    let truth = Tensor::<4>::from_data(TensorData::new(truth, [batch, 1, height, width]), &device);
    let valid = Tensor::ones(truth.dims(), &device);
    let mut optimizer = AdamConfig::new().with_epsilon(1e-7).init();
    time(3, || {
        let logits = model.forward(images.clone())?;
        let loss = FocalLoss::default().forward(logits, truth.clone(), valid.clone()).mean();
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(1e-3, model.clone(), gradients);
        let value = loss.into_scalar::<f32>();
        ensure!(value.is_finite(), "a loss of {value}");
        Ok(device.sync()?)
    })
}
