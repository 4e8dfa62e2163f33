//! Reading GeoTIFFs: equal to GDAL on every file, whole and by window, and one clear error for bad files.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ndarray::Array3;
use proptest::prelude::*;
use s2_io::{Error, GeoTiff, Raster, Sample, SampleType, Window, ndarray};
use serde_json::Value;

type TestResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn shared() -> PathBuf {
    std::env::var_os("S2_TEST_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")),
        PathBuf::from,
    )
}

/// CRC-32 of the samples, little-endian, band by band, as `make_geotiff.py` computes it.
fn crc32<T: Sample>(data: &Array3<T>, bytes: impl Fn(T) -> Vec<u8>) -> u32 {
    let bytes: Vec<u8> = data.iter().flat_map(|value| bytes(*value)).collect();
    libdeflater::crc32(&bytes)
}

/// The sample type's name in numpy, and shape and checksum of what is read.
fn summary(tiff: &GeoTiff) -> TestResult<(&'static str, [usize; 3], u32)> {
    macro_rules! summary {
        ($type:ident, $name:literal) => {{
            let Raster { data, grid, nodata } = tiff.read::<$type>()?;
            assert_eq!((grid, nodata.map(f64::to_bits)), (*tiff.grid(), tiff.nodata().map(f64::to_bits)));
            ($name, data.dim().into(), crc32(&data, |value| value.to_le_bytes().to_vec()))
        }};
    }
    Ok(match tiff.sample_type() {
        SampleType::U8 => summary!(u8, "uint8"),
        SampleType::U16 => summary!(u16, "uint16"),
        SampleType::I16 => summary!(i16, "int16"),
        SampleType::U32 => summary!(u32, "uint32"),
        SampleType::I32 => summary!(i32, "int32"),
        SampleType::F32 => summary!(f32, "float32"),
        SampleType::F64 => summary!(f64, "float64"),
        other => return Err(format!("no golden value for {other}").into()),
    })
}

fn doubles(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn check(path: &Path, golden: &Value) {
    let name = path.display();
    let tiff = GeoTiff::open(path).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (dtype, shape, crc32) = summary(&tiff).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(dtype, golden["dtype"], "{name}: sample type");
    let golden_shape: Vec<f64> = doubles(&golden["shape"]);
    assert_eq!(shape.map(|size| size as f64), *golden_shape, "{name}: shape");
    assert_eq!(u64::from(crc32), golden["crc32"], "{name}: pixels");
    assert_eq!(tiff.grid().transform, *doubles(&golden["transform"]), "{name}: transform, to the bit");
    assert_eq!(tiff.grid().epsg.map(u64::from), golden["epsg"].as_u64(), "{name}: EPSG code");
    let nodata = golden["nodata"].as_str().map(|text| text.parse::<f64>().unwrap());
    assert_eq!(tiff.nodata().map(f64::to_bits), nodata.map(f64::to_bits), "{name}: nodata");
    assert_eq!(tiff.num_bands(), shape[0], "{name}: bands");
    let names: Vec<_> =
        golden["band_names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(tiff.band_names(), names, "{name}: band names");
    for (band, scale_offset) in
        doubles(&golden["scales"]).into_iter().zip(doubles(&golden["offsets"])).enumerate()
    {
        assert_eq!(tiff.scale_offset(band), scale_offset, "{name}: scale and offset of band {band}");
    }
    let metadata: serde_json::Map<_, _> =
        tiff.metadata().iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    assert_eq!(Value::Object(metadata), golden["metadata"], "{name}: metadata");
}

fn golden(file: &str) -> serde_json::Map<String, Value> {
    let text = fs::read_to_string(fixtures().join(file)).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn every_fixture_reads_as_gdal_reads_it() {
    let golden = golden("geotiff_fixtures.json");
    assert!(golden.len() >= 26, "{} fixtures", golden.len());
    for (name, golden) in &golden {
        check(&fixtures().join(name), golden);
    }
}

#[test]
fn every_shared_file_reads_as_gdal_reads_it() {
    let shared = shared();
    if !shared.is_dir() {
        let _ = writeln!(std::io::stderr(), "skipped: there is no folder {}", shared.display());
        return;
    }
    let golden = golden("geotiff_shared.json");
    assert!(golden.len() > 200, "{} files", golden.len());
    for (name, golden) in &golden {
        check(&shared.join(name), golden);
    }
}

#[test]
fn a_raster_of_another_size_is_no_error_of_the_file() -> TestResult {
    let path = shared().join("tailings_brazil/broken_img_23.tif");
    if !path.is_file() {
        let _ = writeln!(std::io::stderr(), "skipped: there is no file {}", path.display());
        return Ok(());
    }
    assert_eq!(GeoTiff::open(path)?.read::<f32>()?.data.dim(), (3, 448, 48));
    Ok(())
}

/// A window read is the same part of the whole.
fn check_window<T: Sample>(tiff: &GeoTiff, window: Window) {
    let whole = tiff.read::<T>().unwrap().data;
    let part = tiff.read_window::<T>(window).unwrap();
    let rows = window.row..window.row + window.height;
    let cols = window.col..window.col + window.width;
    let expected = whole
        .slice_axis(ndarray::Axis(1), rows.into())
        .slice_axis(ndarray::Axis(2), cols.into())
        .mapv(|value| format!("{value:?}")); // NaN equals NaN
    assert_eq!(part.data.mapv(|value| format!("{value:?}")), expected, "{window:?}");
    assert_eq!(part.grid, tiff.grid().window(window), "{window:?}");
}

proptest! {
    #[test]
    fn a_window_is_a_part_of_the_whole(a in 0..30_usize, b in 0..30_usize, c in 0..38_usize, d in 0..38_usize) {
        let window = |height: usize, width: usize| {
            let (a, b, c, d) = (a.min(height), b.min(height), c.min(width), d.min(width));
            Window { row: a.min(b), col: c.min(d), height: a.abs_diff(b), width: c.abs_diff(d) }
        };
        let open = |name: &str| GeoTiff::open(fixtures().join(name)).unwrap();
        check_window::<u8>(&open("strip_u8_none.tif"), window(29, 37));
        check_window::<u16>(&open("tiled_u16_pixel_deflate_predictor2.tif"), window(29, 37));
        check_window::<u16>(&open("tiled_u16_planar_lzw.tif"), window(29, 37));
        check_window::<i32>(&open("strip_i32_planar_deflate_predictor2.tif"), window(20, 23));
        check_window::<f32>(&open("tiled_f32_deflate_predictor3.tif"), window(29, 37));
        check_window::<f64>(&open("strip_f64_lzw_predictor3.tif"), window(17, 19));
        check_window::<u16>(&open("sparse_u16_nodata_7.tif"), window(40, 40));
    }
}

#[test]
fn a_window_outside_is_refused() {
    let path = fixtures().join("strip_u8_none.tif");
    let tiff = GeoTiff::open(&path).unwrap();
    let error = tiff.read_window::<u8>(Window { row: 20, col: 30, height: 10, width: 7 }).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "rows 20 to 30 and columns 30 to 37 leave {}, which has 29 rows and 37 columns",
            path.display()
        )
    );
    let far = Window { row: usize::MAX, col: 0, height: 2, width: 1 };
    assert!(matches!(tiff.read_window::<u8>(far), Err(Error::WindowOutside { .. })), "overflow");
}

#[test]
fn a_window_goes_into_memory_of_the_caller() {
    let path = fixtures().join("strip_u8_none.tif");
    let tiff = GeoTiff::open(&path).unwrap();
    let window = Window { row: 3, col: 5, height: 20, width: 30 };
    let expected = tiff.read_window::<u8>(window).unwrap().data;
    let mut out = Array3::from_elem(expected.dim(), 77);
    tiff.read_window_into(window, out.view_mut()).unwrap();
    assert_eq!(out, expected);
    let none = Window { height: 0, ..window };
    tiff.read_window_into(none, Array3::<u8>::zeros((expected.dim().0, 0, 30)).view_mut()).unwrap();

    // What was there before does not shine through where blocks are left out.
    let sparse = GeoTiff::open(fixtures().join("sparse_u16_nodata_7.tif")).unwrap();
    let all = sparse.read::<u16>().unwrap().data;
    let mut out = Array3::from_elem(all.dim(), 77_u16);
    let (_, height, width) = all.dim();
    sparse.read_window_into(Window { row: 0, col: 0, height, width }, out.view_mut()).unwrap();
    assert!(out == all && all.iter().any(|&value| value == 7), "nodata");

    let bands = expected.dim().0;
    let error = tiff.read_window_into(window, Array3::<u8>::zeros((bands, 20, 31)).view_mut()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{} is read into an array of shape [{bands}, 20, 31], [{bands}, 20, 30] in standard order is needed",
            path.display()
        )
    );
    let mut turned = Array3::<u8>::zeros((bands, 30, 20));
    let error = tiff.read_window_into(window, turned.view_mut().permuted_axes([0, 2, 1])).unwrap_err();
    assert!(matches!(error, Error::OutputShape { .. }), "columns lie apart: {error}");
}

#[test]
fn another_type_is_refused_with_both_names() {
    let path = fixtures().join("strip_u8_none.tif");
    let error = GeoTiff::open(&path).unwrap().read::<u16>().unwrap_err();
    assert_eq!(error.to_string(), format!("{} has u8 samples, they cannot be read as u16", path.display()));
}

#[test]
fn a_read_above_the_limit_is_refused() {
    let path = fixtures().join("strip_u8_none.tif");
    let tiff = GeoTiff::open(&path).unwrap().with_max_bytes(1000);
    assert_eq!(
        tiff.read::<u8>().unwrap_err().to_string(),
        format!(
            "reading {} takes 1073 bytes, the limit is 1000: read windows of it, or raise the limit",
            path.display()
        )
    );
    assert!(tiff.read_window::<u8>(Window { row: 1, col: 1, height: 9, width: 9 }).is_ok(), "a window fits");
    let tiff = tiff.with_max_bytes(100);
    let one = tiff.read_window::<u8>(Window { row: 1, col: 1, height: 1, width: 1 });
    assert!(matches!(one, Err(Error::TooLarge { bytes: 259, .. })), "a block of 7 rows does not fit");
}

fn open_error(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tif");
    fs::write(&path, bytes).unwrap();
    let text = GeoTiff::open(&path).unwrap_err().to_string();
    text.replace(path.to_str().unwrap(), "x.tif")
}

#[test]
fn what_is_no_tiff_is_called_by_its_name() {
    for (bytes, name) in [
        (&b""[..], "an empty file"),
        (b"\0\0\0\x0CjP  \r\n\x87\n", "a jpeg 2000 file"),
        (b"\xFF\x4F\xFF\x51\0\x2F", "a jpeg 2000 file"),
        (b"PK\x03\x04\x14\0\0\0", "a zip archive"),
        (b"<?xml version=\"1.0\"?>", "xml or html"),
        (b"Not found\n", "text"),
        (b"II\x55\0\x08\0\0\0", "a tiff of another kind"),
        (&[0; 100], "something else"),
    ] {
        assert_eq!(open_error(bytes), format!("x.tif is no tiff: it looks like {name}"));
    }
}

#[test]
fn unsupported_features_are_named() {
    for (name, message) in [
        (
            "refused_lerc.tif",
            "lerc compression (34887); rewrite it with `gdal_translate -co COMPRESS=DEFLATE`",
        ),
        ("refused_complex.tif", "64-bit complex or unknown samples"),
        ("refused_4_bits.tif", "4-bit unsigned integer samples"),
    ] {
        let bytes = fs::read(fixtures().join(name)).unwrap();
        assert_eq!(open_error(&bytes), format!("x.tif uses what is not supported: {message}"));
    }
}

#[test]
fn other_compressions_are_named() {
    for (code, name) in
        [(6, "jpeg"), (7, "jpeg"), (4, "fax"), (34925, "lzma"), (50001, "webp"), (9999, "unknown")]
    {
        let message = format!(
            "x.tif uses what is not supported: {name} compression ({code}); rewrite it with `gdal_translate -co \
             COMPRESS=DEFLATE`"
        );
        assert_eq!(open_error(&strip(&[(259, code)])), message);
    }
}

#[test]
fn a_missing_file_is_a_read_error() {
    let error = GeoTiff::open("no/such.tif").unwrap_err();
    assert_eq!(error.to_string(), "cannot read no/such.tif");
    let error = GeoTiff::open(fixtures()).unwrap_err();
    assert!(matches!(error, Error::Read { .. } | Error::NotTiff { .. }), "a folder: {error}");
}

/// A little-endian TIFF of one directory with entries `(tag, type, value)`, and some bytes behind it.
fn tiff(entries: &[(u16, u16, u32)], next: u32) -> Vec<u8> {
    let mut bytes = b"II\x2A\0\x08\0\0\0".to_vec();
    bytes.extend(u16::try_from(entries.len()).unwrap().to_le_bytes());
    for (tag, kind, value) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend(next.to_le_bytes());
    bytes.extend([7; 100]);
    bytes
}

/// One strip of 8-bit samples, with some tags replaced.
fn strip(changes: &[(u16, u32)]) -> Vec<u8> {
    let tags =
        [(256, 10), (257, 10), (258, 8), (259, 1), (262, 1), (273, 130), (277, 1), (278, 10), (279, 90)];
    let entries = tags.map(|(tag, value)| {
        let change = changes.iter().find(|(changed, _)| *changed == tag);
        (tag, 4, change.map_or(value, |(_, value)| *value))
    });
    tiff(&entries, 0)
}

#[test]
fn hostile_directories_give_one_clear_error() {
    assert_eq!(
        open_error(&tiff(&[(256, 4, 10)], 8)),
        "x.tif is a damaged tiff: file contained a cycle in the list of IFDs"
    );
    assert_eq!(open_error(&strip(&[(257, 0)])), "x.tif is a damaged tiff: invalid dimensions: 10x0");
    assert_eq!(
        open_error(&strip(&[(273, 4_000_000_000)])),
        "x.tif is a damaged tiff: 1 of 1 blocks lie beyond the end of the file, which has 222 bytes; \
         was it cut off? fetch or write it again"
    );
    assert_eq!(
        open_error(&b"II\x2A\0\xFF\xFF\0\0"[..]),
        "x.tif is a damaged tiff: the file ends inside its directory; fetch or write it again"
    );
    // 2^32 - 1 rows in strips of one, times 65535 planes.
    let entries = [
        (256, 4, u32::MAX),
        (257, 4, u32::MAX),
        (262, 4, 1),
        (273, 4, 130),
        (277, 4, 65535),
        (278, 4, 1),
        (279, 4, 1),
        (284, 4, 2),
    ];
    let error = open_error(&tiff(&entries, 0));
    assert!(error.starts_with("x.tif is a damaged tiff: "), "{error}");
}

#[test]
fn a_small_file_of_huge_size_takes_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.tif");
    fs::write(&path, strip(&[(256, 1 << 30), (257, 1 << 30), (278, 1 << 30), (259, 8)])).unwrap();
    let error = GeoTiff::open(&path).unwrap().read::<u8>().unwrap_err();
    assert!(matches!(error, Error::TooLarge { bytes: 0x1000_0000_0000_0000, .. }), "{error}");
    let window = Window { row: 5, col: 5, height: 1, width: 1 };
    let error = GeoTiff::open(&path).unwrap().with_max_bytes(u64::MAX).read_window::<u8>(window).unwrap_err();
    let text = error.to_string().replace(path.to_str().unwrap(), "x.tif");
    assert_eq!(
        text,
        "x.tif is a damaged tiff: block 0 at byte 130: 90 bytes cannot hold 1152921504606846976"
    );
}

/// Whatever is read: no panic.
fn try_read(path: &Path) -> Result<(), Error> {
    let tiff = GeoTiff::open(path)?.with_max_bytes(1 << 20);
    match tiff.sample_type() {
        SampleType::U8 => tiff.read::<u8>().map(drop),
        SampleType::U16 => tiff.read::<u16>().map(drop),
        SampleType::I16 => tiff.read::<i16>().map(drop),
        SampleType::U32 => tiff.read::<u32>().map(drop),
        SampleType::I32 => tiff.read::<i32>().map(drop),
        SampleType::F32 => tiff.read::<f32>().map(drop),
        _ => tiff.read::<f64>().map(drop),
    }
}

const SMALL: [&str; 6] = [
    "strip_u8_none.tif",
    "strip_u32_packbits.tif",
    "strip_i16_lzw_predictor2.tif",
    "big_tiff_u16_lzw_predictor2.tif",
    "metadata_u16.tif",
    "sparse_u16_nodata_7.tif",
];

#[test]
fn a_file_cut_anywhere_is_refused_at_opening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.tif");
    for name in SMALL {
        let bytes = fs::read(fixtures().join(name)).unwrap();
        fs::write(&path, &bytes).unwrap();
        try_read(&path).unwrap_or_else(|error| panic!("{name} whole: {error}"));
        for end in 0..bytes.len() {
            // GDAL ends a file with the data or the directory, and may leave a padding byte.
            fs::write(&path, &bytes[..end]).unwrap();
            if let Ok(tiff) = GeoTiff::open(&path) {
                assert!(end + 1 == bytes.len(), "{name} cut at {end} of {} opens: {tiff:?}", bytes.len());
            }
        }
    }
}

#[test]
fn no_flipped_byte_makes_the_reader_panic() {
    let folder = tempfile::tempdir().unwrap();
    let mut errors = 0;
    for name in SMALL {
        let path = folder.path().join(name);
        let bytes = fs::read(fixtures().join(name)).unwrap();
        fs::write(&path, &bytes).unwrap();
        let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        for (i, old) in (0..).zip(bytes) {
            for new in [old ^ 0xFF, old ^ 1, old] {
                file.seek(SeekFrom::Start(i)).unwrap();
                file.write_all(&[new]).unwrap();
                errors += usize::from(new != old && try_read(&path).is_err());
            }
        }
    }
    assert!(errors > 1000, "{errors} of the changes are noticed");
}

#[test]
fn one_open_file_serves_several_threads() {
    let tiff = GeoTiff::open(fixtures().join("tiled_u16_planar_lzw.tif")).unwrap();
    let expected = tiff.read::<u16>().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(tiff.read::<u16>().unwrap(), expected));
        }
    });
}
