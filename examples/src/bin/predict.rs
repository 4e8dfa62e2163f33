//! Predicts a prepared scene.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use clap::Parser;
use examples::cli::{Common, run};
use examples::predict::{Options, WindowSize};
use examples::{device, predict};
use unet_burn::PredictorConfig;

/// Predicts a prepared scene and writes probability.tif, mask.tif (1 = mine, 255 = no data) and mines.geojson
/// (polygons in WGS 84 with hectares).
///
/// A run that was killed goes on where it stopped when the same is asked for again.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The folder that `prepare` wrote.
    scene: PathBuf,
    /// The model bundle: a folder with model.json and model.safetensors.
    #[arg(long)]
    model: PathBuf,
    /// Folder for the maps.
    #[arg(long)]
    out: PathBuf,
    /// Side of the network's input windows in pixels. The map does not depend on it; larger ones take more memory and
    /// less time. auto takes what the device has memory for: on the CPU strips that the network goes down row by row.
    #[arg(long, default_value = "auto")]
    window: WindowSize,
    /// Windows that the network gets at a time; more keep a GPU busy, and auto gives them smaller windows. Strips have none.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// 8: look at each window in its eight flips and quarter turns, and give the mean. Takes eight times as long.
    #[arg(long, default_value = "1", value_parser = ["1", "8"])]
    views: String,
    /// Give the standard deviation of the eight views as second band of probability.tif.
    #[arg(long)]
    spread: bool,
    /// Compute in half precision, where the device has it. Changes probabilities by about 0.001.
    #[arg(long)]
    half: bool,
    /// Probability from which a pixel is a mine, 0 to 1; the model's own if not given.
    #[arg(long, allow_negative_numbers = true)]
    threshold: Option<f64>,
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(&args.common, |_| {
        ensure!(!args.spread || args.views == "8", "--spread is that of eight views: give --views 8");
        if let Some(threshold) = args.threshold {
            ensure!((0.0..=1.0).contains(&threshold), "--threshold {threshold} is not in 0 to 1");
        }
        let device = device::open(args.common.device)?;
        let options = Options {
            window: args.window,
            batch: args.batch,
            views: PredictorConfig { all_views: args.views == "8", spread: args.spread, half: args.half },
        };
        predict::predict(
            &args.scene,
            &args.model,
            &device,
            &args.out,
            options,
            args.threshold,
            args.common.quiet,
        )
    })
}
