//! Turns Sentinel-2 products into stacks of ten bands and SCL at 10 m, with their statistics: one product, or a work
//! folder of them.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Parser;
use examples::cli::{Common, run};
use examples::prepare::prepare;
use examples::stages::{Options, prepare_work};
use examples::work::{Stage, Work};

/// Reads a Sentinel-2 L2A product (a SAFE folder or its zip), brings ten bands and the scene classes to 10 m
/// and writes stack.tif and statistics.json (percentiles 2 and 98 without nodata and clouds).
///
/// With --work DIR it does so for all products that `download --out DIR` has brought, through the stages archive
/// (verified), l1c (unpacked), l2a (made by Sen2Cor; L2A archives are read as they are), stack and normalised. What is
/// there and current stays as it is; what is missing, or was made of something else, is made.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The product: a .SAFE folder or a .SAFE.zip.
    #[arg(required_unless_present = "work", requires = "out")]
    product: Option<PathBuf>,
    /// Folder for stack.tif and statistics.json.
    #[arg(long, requires = "product")]
    out: Option<PathBuf>,
    /// Also write what the network gets: normalised.tif, 22 channels of f32.
    #[arg(long)]
    normalised: bool,
    /// The work folder whose products are to be prepared, instead of one product.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["product", "out"])]
    work: Option<PathBuf>,
    /// The stages that stay once the last one is there, which always stays; the others are removed then. Without it all
    /// stay.
    #[arg(long, value_enum, value_name = "STAGES", value_delimiter = ',', conflicts_with = "product")]
    keep: Option<Vec<Stage>>,
    /// Only products of this MGRS tile, such as 29RKH; several times for several tiles.
    #[arg(long = "tile", value_name = "TILE", conflicts_with = "product", value_parser = tile)]
    tiles: Vec<String>,
    /// Sen2Cor: its folder or its L2A_Process. Without it it is looked for where it is usually installed.
    #[arg(long, value_name = "PATH", conflicts_with = "product")]
    sen2cor: Option<PathBuf>,
    /// Settings for Sen2Cor, a L2A_GIPP.xml; without it its own.
    #[arg(long = "sen2cor-gipp", value_name = "FILE", conflicts_with = "product")]
    gipp: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// A tile, with or without the T that product names have before it.
fn tile(text: &str) -> Result<String, String> {
    let tile = text.to_ascii_uppercase();
    let tile = tile.strip_prefix('T').unwrap_or(&tile);
    match tile.as_bytes() {
        [a, b, rest @ ..]
            if [a, b].iter().all(|byte| byte.is_ascii_digit())
                && rest.len() == 3
                && rest.iter().all(u8::is_ascii_uppercase) =>
        {
            Ok(tile.to_owned())
        }
        _ => Err("not an MGRS tile such as 29RKH".to_owned()),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let quiet = args.common.quiet;
    run(&args.common, |_| match (&args.work, &args.product, &args.out) {
        (Some(work), ..) => {
            let options = Options {
                keep: args.keep,
                normalised: args.normalised,
                sen2cor: args.sen2cor,
                gipp: args.gipp,
                tiles: args.tiles,
                quiet,
            };
            prepare_work(&Work::open(work)?, &options)
        }
        (None, Some(product), Some(out)) => prepare(product, out, args.normalised, quiet),
        _ => bail!("name a product and --out, or --work"),
    })
}
