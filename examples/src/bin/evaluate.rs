//! Scores a probability map against truth.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use examples::cli::{Common, run};
use examples::evaluate::evaluate;

/// Scores a probability map against truth (polygons or a mask) at one threshold.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Truth: GeoJSON polygons in WGS 84, or a GeoTIFF of 0 and 1 on the map's grid.
    #[arg(long)]
    truth: PathBuf,
    /// probability.tif as `predict` writes it.
    #[arg(long)]
    probability: PathBuf,
    /// Probability from which a pixel is a mine, 0 to 1; the map's own if not given.
    #[arg(long)]
    threshold: Option<f64>,
    /// Print the scores as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(&args.common, |_| {
        let scores = evaluate(&args.truth, &args.probability, args.threshold)?;
        if args.json {
            println!("{}", serde_json::to_string_pretty(&scores)?);
        } else {
            print!("{}", examples::evaluate::table(&[("map", &scores)]));
        }
        Ok(())
    })
}
