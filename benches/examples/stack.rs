//! Reads the ten bands of 10 and 20 m and the scene classes of a product on the grid of 10 m, and prints shape, seconds and
//! (on Linux) the peak of its memory; writes the samples (little-endian, layer by layer) when told where.
//!
//! ```sh
//! cargo run --release -p benches --example stack -- PRODUCT.SAFE [OUT.raw] [--threads N]
//! ```

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::Instant;

use s2_io::{Band, Layer, Product};
use s2_normalize::upsample_bilinear;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words: Vec<_> = std::env::args().skip(1).collect();
    let mut threads = 0;
    if let Some(place) = words.iter().position(|word| word == "--threads") {
        threads = words.get(place + 1).ok_or("--threads needs a number")?.parse()?;
        words.drain(place..place + 2);
    }
    let [product, out @ ..] = &words[..] else { return Err("PRODUCT.SAFE [OUT.raw] [--threads N]".into()) };
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let layers: Vec<_> = Band::TEN_AND_TWENTY.map(Layer::Band).into_iter().chain([Layer::Scl]).collect();
    let start = Instant::now();
    let stack = Product::open(product)?.read_stack(&layers, None, upsample_bilinear)?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{:?}  {seconds:.4} s", stack.data.shape());
    // The kernel's own account, where there is one; before anything else takes memory.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(peak) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) {
        println!("peak {}", peak.trim());
    }
    if let [out, ..] = out {
        let mut file = BufWriter::new(File::create(out)?);
        for row in stack.data.rows() {
            let bytes: Vec<u8> = row.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            file.write_all(&bytes)?;
        }
        file.flush()?;
    }
    Ok(())
}
