//! GeoTIFFs: the directory, all pixels, and a window, which is its part of the whole.
#![no_main]

use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use s2_io::{GeoTiff, SampleType, Sample, Window};

fn read<T: Sample>(file: &GeoTiff) {
    let Ok(whole) = file.read::<T>() else { return };
    let (height, width) = (whole.grid.height, whole.grid.width);
    let window = Window { row: height / 3, col: width / 4, height: height - height / 3, width: width / 2 };
    let part = file.read_window::<T>(window).expect("a part of what was read");
    for ((band, row, col), sample) in part.data.indexed_iter() {
        let expected = whole.data[(band, row + window.row, col + window.col)];
        // NaN differs from itself.
        assert!(*sample == expected || expected != expected, "band {band}, row {row}, column {col}");
    }
}

fuzz_target!(|data: &[u8]| {
    // The reader takes a path: a file in memory where there is such a folder.
    let folder = PathBuf::from("/dev/shm");
    let folder = if folder.is_dir() { folder } else { std::env::temp_dir() };
    let path = folder.join(format!("s2-fuzz-{}.tif", std::process::id()));
    std::fs::write(&path, data).expect("a temporary file");
    if let Ok(file) = GeoTiff::open(&path) {
        let file = file.with_max_bytes(1 << 20);
        let _ = (file.grid(), file.nodata(), file.band_names(), file.metadata());
        for small in file.overviews().into_iter().flatten() {
            assert_eq!(small.num_bands(), file.num_bands(), "an overview has the bands of its raster");
        }
        match file.sample_type() {
            SampleType::U8 => read::<u8>(&file),
            SampleType::U16 => read::<u16>(&file),
            SampleType::I16 => read::<i16>(&file),
            SampleType::U32 => read::<u32>(&file),
            SampleType::I32 => read::<i32>(&file),
            SampleType::F32 => read::<f32>(&file),
            _ => read::<f64>(&file),
        }
    }
});
