//! Predicts a prepared scene.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use examples::cli::{Common, run};
use examples::{device, predict};
use unet_burn::Bundle;

/// Predicts a prepared scene and writes probability.tif, mask.tif (1 = mine, 255 = no data) and mines.geojson
/// (polygons in WGS 84 with hectares).
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
    /// Side of the network's input windows in pixels.
    #[arg(long, default_value_t = 572)]
    window: usize,
    /// Probability from which a pixel is a mine, 0 to 1; the model's own if not given.
    #[arg(long)]
    threshold: Option<f64>,
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(&args.common, |_| {
        let device = device::open(args.common.device)?;
        let bundle = Bundle::load(&args.model, &device.device)?;
        predict::predict(
            &args.scene,
            &bundle,
            &device,
            &args.out,
            args.window,
            args.threshold,
            args.common.quiet,
        )
    })
}
