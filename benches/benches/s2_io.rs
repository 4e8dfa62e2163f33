//! Writing a stack of four bands as COG, reading it whole and by window.

use std::hint::black_box;

use benches::{SIDE, TRANSFORM, dn, part};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::{Array3, Axis, stack};
use s2_io::{CogOptions, GeoTiff, Grid, Overviews, Window, write_cog};

fn cog(c: &mut Criterion) {
    let bands = [1, 2, 3, 4].map(|seed| dn(SIDE, seed));
    let data: Array3<u16> = stack(Axis(0), &bands.each_ref().map(|band| band.view())).expect("equal shapes");
    let grid = Grid { height: SIDE, width: SIDE, transform: TRANSFORM, epsg: Some(32629) };
    let options = CogOptions { nodata: Some(0.0), overviews: Overviews::Average, ..CogOptions::default() };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("stack.tif");
    let bytes = |samples: usize| Throughput::Bytes((samples * size_of::<u16>()) as u64);

    let mut group = c.benchmark_group("s2_io/write_cog");
    group.throughput(bytes(data.len())).sample_size(10);
    group.bench_function(BenchmarkId::new("s2-io", SIDE), |b| {
        b.iter(|| write_cog(&path, black_box(data.view()), &grid, &options).expect("writes"));
    });
    group.finish();

    // Criterion's filter may have left the writing out.
    write_cog(&path, data.view(), &grid, &options).expect("writes");
    let mut group = c.benchmark_group("s2_io/read");
    group.throughput(bytes(data.len())).sample_size(10);
    group.bench_function(BenchmarkId::new("s2-io", SIDE), |b| {
        b.iter(|| GeoTiff::open(&path).and_then(|file| file.read::<u16>()).expect("reads"));
    });
    let whole = GeoTiff::open(&path).and_then(|file| file.read::<u16>()).expect("reads");
    assert!(whole.data == data && whole.grid == grid, "what was read is not what was written");
    group.finish();

    let overviews = GeoTiff::open(&path).and_then(|file| file.overviews()).expect("has overviews");
    let mut group = c.benchmark_group("s2_io/read_overview");
    for small in &overviews {
        let samples = 4 * small.grid().height * small.grid().width;
        group.throughput(bytes(samples));
        group.bench_function(BenchmarkId::new("s2-io", small.grid().height), |b| {
            b.iter(|| small.read::<u16>().expect("reads"));
        });
    }
    group.finish();

    let window = Window { row: 700, col: 900, height: 572, width: 572 };
    let mut group = c.benchmark_group("s2_io/read_window");
    group.throughput(bytes(4 * window.height * window.width));
    let file = GeoTiff::open(&path).expect("opens");
    group.bench_function(BenchmarkId::new("s2-io", window.height), |b| {
        b.iter(|| file.read_window::<u16>(black_box(window)).expect("reads"));
    });
    let read = file.read_window::<u16>(window).expect("reads").data;
    let expected = part(&data, [window.row, window.col], [window.height, window.width]);
    assert_eq!(read, expected, "window and whole differ");
    group.finish();
}

criterion_group!(benches, cog);
criterion_main!(benches);
