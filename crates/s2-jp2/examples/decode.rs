//! Decodes a JPEG 2000 image into a file of raw samples (little-endian, `[component, row, column]`), and prints its
//! shape, the seconds that reading and decoding took, and a hash of the samples.
//!
//! ```sh
//! cargo run --release -p s2-jp2 --example decode -- B04.jp2 B04.raw --window 0,0,572,572
//! ```

use std::error::Error;
use std::fs::File;
use std::time::Instant;

use s2_jp2::{Image, Limits, Region, Sample, Window};

const USAGE: &str = "decode IN.jp2 OUT.raw [--window ROW,COL,HEIGHT,WIDTH] [--reduce N] [--threads N]";

fn main() -> Result<(), Box<dyn Error>> {
    let mut paths = Vec::new();
    let (mut window, mut reduce, mut threads) = (None, 0, 0);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(USAGE);
        match &argument[..] {
            "--window" => window = Some(parse_window(&value()?)?),
            "--reduce" => reduce = value()?.parse()?,
            "--threads" => threads = value()?.parse()?,
            option if option.starts_with("--") => return Err(USAGE.into()),
            _ => paths.push(argument),
        }
    }
    let [input, output] = &paths[..] else { return Err(USAGE.into()) };
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;

    let start = Instant::now();
    let file = File::open(input)?;
    let image = Image::open(&file, &Limits::default())?;
    let (height, width) = image.reduced_shape(reduce);
    let window = window.unwrap_or(Window { row: 0, col: 0, height, width });
    let region = Region { reduce, window, stride: window.width };
    let components = image.components();
    let signed = components.iter().any(|c| c.signed);
    let bytes = match components.iter().map(|c| c.bits).max() {
        _ if signed => decode::<i16, 2>(&image, &region, start, i16::to_le_bytes)?,
        Some(..=8) => decode::<u8, 1>(&image, &region, start, u8::to_le_bytes)?,
        _ => decode::<u16, 2>(&image, &region, start, u16::to_le_bytes)?,
    };
    std::fs::write(output, bytes)?;
    Ok(())
}

fn parse_window(text: &str) -> Result<Window, Box<dyn Error>> {
    let numbers = text.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    let [row, col, height, width] = numbers[..] else { return Err(USAGE.into()) };
    Ok(Window { row, col, height, width })
}

fn decode<T: Sample, const N: usize>(
    image: &Image<'_>,
    region: &Region,
    start: Instant,
    bytes: impl Fn(T) -> [u8; N],
) -> Result<Vec<u8>, Box<dyn Error>> {
    let Window { height, width, .. } = region.window;
    let mut samples = vec![T::default(); image.components().len() * height * width];
    image.decode_region(region, &mut samples)?;
    let seconds = start.elapsed().as_secs_f64();
    let raw: Vec<u8> = samples.into_iter().flat_map(bytes).collect();
    let hash = fnv1a(&raw);
    println!("{} x {height} x {width}  {seconds:.4} s  {hash:016x}", image.components().len());
    Ok(raw)
}

/// FNV-1a of bytes.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
