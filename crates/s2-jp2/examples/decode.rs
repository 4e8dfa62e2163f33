//! Decodes a JPEG 2000 image into a file of raw samples (little-endian, `[component, row, column]`), and prints its
//! shape, the seconds that reading and decoding took, and a hash of the samples (FNV-1a of the bytes).
//!
//! ```sh
//! cargo run --release -p s2-jp2 --example decode -- B04.jp2 B04.raw --window 0,0,572,572
//! ```

use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::ExitCode;
use std::time::Instant;

use s2_jp2::{Image, Limits, Region, Sample, Window};

const USAGE: &str = "usage: decode IN.jp2 OUT.raw [--window ROW,COL,HEIGHT,WIDTH] [--reduce N] [--threads N]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut paths = Vec::new();
    let (mut window, mut reduce, mut threads) = (None, 0, 0);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut numbers = || parse(&argument, &arguments.next().ok_or(USAGE)?);
        match &argument[..] {
            "--window" => {
                let [row, col, height, width] = numbers()?[..] else { return Err(USAGE.into()) };
                window = Some(Window { row, col, height, width });
            }
            "--reduce" => reduce = u32::try_from(numbers()?[0]).map_err(|_| USAGE)?,
            "--threads" => threads = numbers()?[0],
            option if option.starts_with("--") => return Err(USAGE.into()),
            _ => paths.push(argument),
        }
    }
    let [input, output] = &paths[..] else { return Err(USAGE.into()) };
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().map_err(|e| e.to_string())?;

    let start = Instant::now();
    let unreadable = |error: &dyn std::error::Error| format!("{input}: {error}");
    let file = File::open(input).map_err(|e| unreadable(&e))?;
    let image = Image::open(&file, &Limits::default()).map_err(|e| unreadable(&e))?;
    let (height, width) = image.reduced_shape(reduce);
    let window = window.unwrap_or(Window { row: 0, col: 0, height, width });
    let region = Region { reduce, window, stride: window.width };
    let bits = image.components().iter().map(|c| c.bits).max();
    match bits {
        _ if image.components().iter().any(|c| c.signed) => {
            let samples = decode(&image, &region, start).map_err(|e| unreadable(&e))?;
            write(output, &samples, i16::to_le_bytes)
        }
        Some(..=8) => {
            let samples = decode(&image, &region, start).map_err(|e| unreadable(&e))?;
            write(output, &samples, u8::to_le_bytes)
        }
        _ => {
            let samples = decode(&image, &region, start).map_err(|e| unreadable(&e))?;
            write(output, &samples, u16::to_le_bytes)
        }
    }
}

fn parse(option: &str, text: &str) -> Result<Vec<usize>, String> {
    let numbers = text.split(',').map(str::parse).collect::<Result<_, _>>();
    numbers.map_err(|_| format!("{option} {text}: not a number\n{USAGE}"))
}

/// The samples; prints their shape and the seconds since `start`.
fn decode<T: Sample>(image: &Image<'_>, region: &Region, start: Instant) -> s2_jp2::Result<Vec<T>> {
    let (components, Window { height, width, .. }) = (image.components().len(), region.window);
    let mut samples = vec![T::default(); components * height * width];
    image.decode_region(region, &mut samples)?;
    print!("{components} x {height} x {width}  {:.4} s", start.elapsed().as_secs_f64());
    Ok(samples)
}

/// Writes the samples; prints their hash.
fn write<T: Copy, const N: usize>(path: &str, samples: &[T], bytes: fn(T) -> [u8; N]) -> Result<(), String> {
    let failed = |error| format!("{path}: {error}");
    let mut out = BufWriter::new(File::create(path).map_err(failed)?);
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for sample in samples {
        let bytes = bytes(*sample);
        hash = bytes.iter().fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        out.write_all(&bytes).map_err(failed)?;
    }
    out.flush().map_err(failed)?;
    println!("  {hash:016x}");
    Ok(())
}
