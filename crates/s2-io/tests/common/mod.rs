//! What the tests of JPEG 2000 files and products share.
#![allow(dead_code, reason = "each of them needs a part of it")]

pub(crate) mod copy;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use s2_io::Window;
use s2_io::ndarray::Array3;
use serde_json::Value;

/// The small product of this crate.
pub(crate) const SMALL: &str = "S2A_MSIL2A_20200219T112111_N0509_R037_T29RKH_20200219T140000.SAFE";
pub(crate) const SMALL_IMAGES: &str = "GRANULE/L2A_T29RKH_A024342_20200219T112111/IMG_DATA";

/// A file that belongs to this crate's tests.
pub(crate) fn own(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The folder of the shared test data, or `None`, said aloud, where it is absent.
pub(crate) fn shared() -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");
    let folder = std::env::var_os("S2_TEST_DATA").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    if !folder.is_dir() {
        let _ =
            writeln!(std::io::stderr(), "skipped: no shared test data (set S2_TEST_DATA to their folder)");
        return None;
    }
    Some(folder)
}

pub(crate) fn golden(name: &str) -> serde_json::Map<String, Value> {
    serde_json::from_slice(&std::fs::read(own(name)).unwrap()).unwrap()
}

/// FNV-1a over whole samples, as in the scripts beside the golden values.
pub(crate) fn fnv1a<T: Copy + Into<u64>>(data: &Array3<T>) -> String {
    let hash = data.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &sample| {
        (hash ^ sample.into()).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// A message with all its causes, as programs print it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// A window's samples, pixel by pixel.
pub(crate) fn part<T: Copy>(data: &Array3<T>, window: Window) -> Array3<T> {
    let shape = (data.dim().0, window.height, window.width);
    Array3::from_shape_fn(shape, |(band, row, col)| data[[band, window.row + row, window.col + col]])
}
