//! Turns a Sentinel-2 L2A product into a stack of ten bands and SCL at 10 m, with its statistics.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use examples::cli::{Common, run};
use examples::prepare::prepare;

/// Reads a Sentinel-2 L2A product (a SAFE folder or its zip), brings ten bands and the scene classes to 10 m
/// and writes stack.tif and statistics.json (percentiles 2 and 98 without nodata and clouds).
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The product: a .SAFE folder or a .SAFE.zip.
    product: PathBuf,
    /// Folder for stack.tif and statistics.json.
    #[arg(long)]
    out: PathBuf,
    /// Also write what the network gets: normalised.tif, 22 channels of f32.
    #[arg(long)]
    normalised: bool,
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(&args.common, |_| prepare(&args.product, &args.out, args.normalised, args.common.quiet))
}
