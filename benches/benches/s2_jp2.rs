//! Decoding a band of 15 bits: whole, and a window inside one of its four tiles.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use s2_jp2::{Image, Window};

const SIDE: usize = 512;
const BAND: &[u8] = include_bytes!("../data/band_uint15_512_tiles256.jp2");
// Printed by `data/make_jp2.py`.
const SUM: u64 = 457_644_077;
const WEIGHTED: u64 = 2_409_410_454_286;

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("s2_jp2/decode");
    group.throughput(Throughput::Elements((SIDE * SIDE) as u64));
    let mut band = vec![0_u16; SIDE * SIDE];
    group.bench_function(BenchmarkId::new("s2-jp2", SIDE), |b| {
        b.iter(|| Image::parse(black_box(BAND)).and_then(|image| image.decode(&mut band)).expect("decodes"));
    });
    // Again, as Criterion's filter may have left it out; below too.
    Image::parse(BAND).and_then(|image| image.decode(&mut band)).expect("decodes");
    let (mut sum, mut weighted) = (0, 0);
    for (index, &sample) in band.iter().enumerate() {
        sum += u64::from(sample);
        weighted += u64::from(sample) * (index / SIDE * 7 + index % SIDE * 13) as u64;
    }
    assert_eq!((sum, weighted), (SUM, WEIGHTED), "the samples differ from those that were encoded");
    group.finish();

    let window = Window { row: 20, col: 280, height: 200, width: 200 };
    let mut group = c.benchmark_group("s2_jp2/decode_window");
    group.throughput(Throughput::Elements((window.height * window.width) as u64));
    let mut part = vec![0_u16; window.height * window.width];
    group.bench_function(BenchmarkId::new("s2-jp2", window.height), |b| {
        b.iter(|| {
            Image::parse(black_box(BAND))
                .and_then(|image| image.decode_window(window, &mut part))
                .expect("decodes");
        });
    });
    Image::parse(BAND).and_then(|image| image.decode_window(window, &mut part)).expect("decodes");
    let whole =
        |index: usize| band[(window.row + index / window.width) * SIDE + window.col + index % window.width];
    assert!(
        part.iter().enumerate().all(|(index, &sample)| sample == whole(index)),
        "window and whole differ"
    );
    group.finish();

    let mut group = c.benchmark_group("s2_jp2/decode_reduced");
    for level in 1..=3_u32 {
        let side = SIDE >> level;
        let mut small = vec![0_u16; side * side];
        group.throughput(Throughput::Elements((side * side) as u64));
        group.bench_function(BenchmarkId::new("s2-jp2", side), |b| {
            b.iter(|| {
                Image::parse(black_box(BAND))
                    .and_then(|image| image.decode_reduced(level, &mut small))
                    .expect("decodes");
            });
        });
        Image::parse(BAND).and_then(|image| image.decode_reduced(level, &mut small)).expect("decodes");
        // The low-pass of 5/3 keeps the mean.
        let mean =
            |samples: &[u16]| samples.iter().map(|&v| f64::from(v)).sum::<f64>() / samples.len() as f64;
        let (small, whole) = (mean(&small), mean(&band));
        assert!((small / whole - 1.0).abs() < 0.01, "mean {small} at level {level}, {whole} of all");
    }
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
