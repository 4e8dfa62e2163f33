//! Reads a GeoTIFF of one `u16` band into a file of raw samples (little-endian, row by row), or writes one as cloud
//! optimized GeoTIFF; prints its shape and the seconds that reading or writing took.
//!
//! ```sh
//! cargo run --release -p s2-io --example cog -- read IN.tif OUT.raw [--window ROW,COL,HEIGHT,WIDTH] [--threads N]
//! cargo run --release -p s2-io --example cog -- write IN.tif OUT.tif [--zstd] [--threads N]
//! ```

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use s2_io::{CogCompression, CogOptions, GeoTiff, Overviews, Raster, Window, write_cog};

const USAGE: &str = "usage: cog read IN.tif OUT.raw [--window ROW,COL,HEIGHT,WIDTH] [--threads N]\n\
                     cog write IN.tif OUT.tif [--zstd] [--threads N]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            let cause = problem.source().map_or_else(String::new, |cause| format!(": {cause}"));
            eprintln!("{problem}{cause}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let (mut words, mut window, mut threads) = (Vec::new(), None, 0);
    let mut compression = CogCompression::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(USAGE);
        match &argument[..] {
            "--window" => window = Some(parse_window(&value()?)?),
            "--threads" => threads = value()?.parse()?,
            "--zstd" => compression = CogCompression::Zstd(1),
            option if option.starts_with("--") => return Err(USAGE.into()),
            _ => words.push(argument),
        }
    }
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["read", input, output] => {
            let raster = timed(|| read(input, window))?;
            let bytes: Vec<u8> = raster.data.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            std::fs::write(output, bytes).map_err(|error| format!("{output}: {error}"))?;
        }
        ["write", input, output] => {
            let raster = read(input, None)?;
            let options = CogOptions { overviews: Overviews::Average, compression, ..CogOptions::default() };
            timed(|| {
                write_cog(output, raster.data.view(), &raster.grid, &options)?;
                Ok(raster)
            })?;
        }
        _ => return Err(USAGE.into()),
    }
    Ok(())
}

fn timed(work: impl FnOnce() -> s2_io::Result<Raster<u16>>) -> s2_io::Result<Raster<u16>> {
    let start = Instant::now();
    let raster = work()?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{:?}  {seconds:.4} s", raster.data.shape());
    Ok(raster)
}

fn read(path: impl AsRef<Path>, window: Option<Window>) -> s2_io::Result<Raster<u16>> {
    let file = GeoTiff::open(path)?;
    match window {
        Some(window) => file.read_window(window),
        None => file.read(),
    }
}

fn parse_window(text: &str) -> Result<Window, Box<dyn Error>> {
    let numbers = text.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    let [row, col, height, width] = numbers[..] else { return Err(USAGE.into()) };
    Ok(Window { row, col, height, width })
}
