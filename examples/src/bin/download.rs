//! Looks for Sentinel-2 products in a catalogue and brings them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use chrono::NaiveDate;
use clap::Parser;
use examples::cli::{Plain, run_plain};
use examples::download::{Options, Services, Source, What, download, read_area};
use s2_io::Level;
use s2_io::net::{Query, area_of_bbox};

/// Looks for Sentinel-2 products and brings them: whole (CDSE, with an account), or only the pixels of an area
/// (Earth Search, Planetary Computer), as a stack that `predict` reads.
///
/// What is at its place is whole and checked. The same command goes on where it was cut off.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    place: Place,
    /// First day of sensing, YYYY-MM-DD.
    #[arg(long)]
    from: NaiveDate,
    /// Last day of sensing.
    #[arg(long)]
    to: NaiveDate,
    /// Processing level.
    #[arg(long, value_parser = level, default_value = "l2a")]
    level: Level,
    /// Most clouds, percent.
    #[arg(long)]
    max_cloud: Option<f64>,
    /// Relative orbit, 1 to 143.
    #[arg(long)]
    orbit: Option<u16>,
    /// Catalogue.
    #[arg(long, value_enum, default_value_t = Source::EarthSearch)]
    source: Source,
    /// What to bring [default: products from cdse; else the area, or the bands of a tile].
    #[arg(long, value_enum)]
    what: Option<What>,
    /// The most products; those that cover more of the area, then those of fewer clouds, come first.
    #[arg(long)]
    limit: Option<usize>,
    /// Folder for what is brought.
    #[arg(long)]
    out: PathBuf,
    /// Only say what there is.
    #[arg(long)]
    list: bool,
    /// Stay and bring offline products when they are restored.
    #[arg(long)]
    watch: bool,
    /// Order offline products at the catalogue's order interface (some accounts may), instead of by hand; with --watch.
    #[arg(long, requires = "watch")]
    order: bool,
    /// Files at once; an account of CDSE has 4 connections in all.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Hours after which to give up.
    #[arg(long)]
    hours: Option<f64>,
    /// JSON file with other addresses than the usual ones (docs/ACQUISITION.md).
    #[arg(long)]
    services: Option<PathBuf>,
    #[command(flatten)]
    plain: Plain,
}

#[derive(clap::Args)]
#[group(required = true)]
struct Place {
    /// A .geojson file with the area, in longitude and latitude.
    #[arg(long, conflicts_with = "bbox")]
    aoi: Option<PathBuf>,
    /// West, south, east, north in degrees.
    #[arg(long, value_name = "W,S,E,N", value_delimiter = ',', num_args = 1, allow_hyphen_values = true)]
    bbox: Option<Vec<f64>>,
    /// MGRS tile, such as 29RKH; may be given several times.
    #[arg(long)]
    tile: Vec<String>,
}

fn level(text: &str) -> Result<Level, String> {
    match text.to_ascii_lowercase().as_str() {
        "l1c" => Ok(Level::L1C),
        "l2a" => Ok(Level::L2A),
        _ => Err("it is l1c or l2a".to_owned()),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    run_plain(&args.plain, || download(&options(&args)?))
}

fn options(args: &Args) -> Result<Options> {
    let area = match (&args.place.aoi, args.place.bbox.as_deref()) {
        (Some(path), _) => Some(read_area(path)?),
        (None, Some(&[west, south, east, north])) => Some(area_of_bbox([west, south, east, north])?),
        (None, Some(_)) => bail!("--bbox wants four numbers: west,south,east,north"),
        (None, None) => None,
    };
    let query = Query {
        area,
        tiles: args.place.tile.clone(),
        max_cloud: args.max_cloud,
        relative_orbit: args.orbit,
        ..Query::new(args.level, args.from, args.to)
    };
    let time_limit = args.hours.map(|hours| Duration::try_from_secs_f64(hours * 3600.0)).transpose()?;
    Ok(Options {
        query,
        source: args.source,
        what: args.what,
        limit: args.limit,
        out: args.out.clone(),
        list: args.list,
        watch: args.watch,
        order: args.order,
        connections: args.connections,
        time_limit,
        services: args.services.as_deref().map(Services::load).transpose()?.unwrap_or_default(),
        quiet: args.plain.quiet,
    })
}
