//! Times the network: one pass, or one step of training.
//!
//!     speed make FOLDER [SIZE BATCH CHANNELS FILTERS]   writes a model and an input (572 1 22 16)
//!     speed forward FOLDER [DEVICE [mixed]]             one pass, batch norm folded, to FOLDER/ours.raw
//!     speed step FOLDER [DEVICE [mixed]]                forward, focal loss, backward, Adam, as `train` does them,
//!                                                       patches of the size of the input made and moved meanwhile
//!
//! Prints seconds, the median of some passes or the mean of some steps. The device is that of the programs' `--device` (cpu);
//! `RAYON_NUM_THREADS` sets the threads.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::ValueEnum;
use examples::device::{DeviceChoice, open};

use unet_burn::burn::tensor::activation::sigmoid;
use unet_burn::burn::tensor::{Device, FloatDType, Tensor, TensorData};
use unet_burn::ndarray::{Array2, Array3, ArrayView4};
use unet_burn::{
    Bundle, Classes, Criterion, Execution, Image, Patch, PatchSet, Photometric, PredictorConfig, Progress,
    RawImage, Recipe, Scale, TrainingConfig, UNetConfig, train,
};

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
        ["forward", folder, ref device @ .., "mixed"] => forward(Path::new(folder), &chosen(device)?, true),
        ["forward", folder, ref device @ ..] => forward(Path::new(folder), &chosen(device)?, false),
        ["step", folder, ref device @ .., "mixed"] => step(Path::new(folder), &chosen(device)?, true),
        ["step", folder, ref device @ ..] => step(Path::new(folder), &chosen(device)?, false),
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

fn shape(folder: &Path) -> Result<Vec<usize>> {
    let shape = fs::read_to_string(folder.join("input.json"))?;
    Ok(shape.trim_matches(['[', ']']).split(", ").map(str::parse).collect::<Result<_, _>>()?)
}

fn input(folder: &Path, device: &Device) -> Result<Tensor<4>> {
    let shape = shape(folder)?;
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

fn forward(folder: &Path, device: &Device, mixed: bool) -> Result<()> {
    let model = Bundle::load(folder, device)?.model;
    let mut map = Vec::new();
    if *device == Device::flex() && !mixed {
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
        let maps = if mixed { FloatDType::F16 } else { FloatDType::F32 };
        ensure!(device.supports_dtype(maps), "this device computes in single precision only");
        let (model, images) = (model.fold_norms(), input(folder, device)?.cast(maps));
        time(7, || {
            let logits = model.forward(images.clone())?.cast(FloatDType::F32);
            map = sigmoid(logits).into_data().try_to_vec::<f32>()?;
            Ok(())
        })?;
    }
    let bytes: Vec<u8> = map.iter().flat_map(|value| value.to_le_bytes()).collect();
    fs::write(folder.join("ours.raw"), bytes).context("cannot write the probabilities")
}

/// Patches of noise as scenes give them: bands of counts, then a channel for each class, up to 12. Every eighth row is
/// positive.
struct Noise {
    len: usize,
    bands: usize,
    classes: usize,
    input: usize,
    output: usize,
}

impl PatchSet for Noise {
    fn len(&self) -> usize {
        self.len
    }

    fn patch(&self, _: usize, index: usize) -> Result<Patch, Box<dyn std::error::Error + Send + Sync>> {
        let mut seed = u32::try_from(index)?;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 18) as u16
        };
        let bands = Array3::from_shape_simple_fn((self.bands, self.input, self.input), &mut next);
        let classes = self.classes as u8;
        let map = Array2::from_shape_simple_fn((self.input, self.input), || next() as u8 % classes.max(1));
        Ok(Patch {
            name: format!("noise {index}"),
            image: Image::Raw(RawImage {
                bands,
                scales: vec![Scale { low: 0.0, high: 16384.0 }; self.bands],
                classes: (classes > 0).then(|| Classes { map, one_hot: (0..classes).collect() }),
                photometric: Photometric::default(),
            }),
            truth: Array2::from_shape_fn((self.output, self.output), |(row, _)| u8::from(row % 8 == 0)),
        })
    }
}

fn step(folder: &Path, device: &Device, mixed: bool) -> Result<()> {
    const STEPS: usize = 5;
    let model = Bundle::load(folder, device)?.model;
    let [batch_size, channels, input, _] = shape(folder)?[..] else { bail!("input.json holds no shape") };
    let output = model.config().output_size(input)?;
    let classes = channels.saturating_sub(1).min(12);
    let noise = |len| Noise { len, bands: channels - classes, classes, input, output };
    let times = Arc::new(Mutex::new(Vec::new()));
    let clock = times.clone();
    let progress = move |progress: Progress<'_>| {
        if let (Progress::Patches { .. }, Ok(mut times)) = (progress, clock.lock()) {
            times.push(Instant::now());
        }
    };
    let config = TrainingConfig {
        epochs: 1,
        batch_size,
        mixed_precision: mixed,
        criterion: Criterion::Loss,
        ..TrainingConfig::default()
    };
    let execution = Execution { progress: Box::new(progress), ..Execution::on(device) };
    train(model, &config, noise((STEPS + 1) * batch_size), noise(1), execution)?;
    let times = times.lock().map_err(|_| anyhow!("a step failed"))?;
    // The first one warms up.
    let [first, .., last] = times[..] else { bail!("{} steps are too few", times.len()) };
    println!("{}", (last - first).as_secs_f64() / (times.len() - 1) as f64);
    Ok(())
}
