//! Writing COGs: what is written is read, by this crate and by GDAL; nothing is left behind on failure.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use ndarray::{Array3, ShapeBuilder};
use proptest::prelude::*;
use s2_io::{
    CogCompression, CogOptions, CogWriter, Error, GeoTiff, Grid, Overviews, Sample, Window, ndarray,
    write_atomic, write_cog,
};
use serde_json::json;

fn utm(height: usize, width: usize) -> Grid {
    Grid { height, width, transform: [199_980.0, 10.0, 0.0, 3_400_020.0, 0.0, -10.0], epsg: Some(32629) }
}

/// Pseudo-random numbers (a linear congruential generator, upper bits).
fn noise(seed: u64, count: usize) -> impl Iterator<Item = u32> {
    let step = |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    std::iter::successors(Some(seed ^ 0x5EED), step).skip(3).map(|state| (state >> 32) as u32).take(count)
}

fn array<T>(shape: (usize, usize, usize), value: impl Fn(u32) -> T) -> Array3<T> {
    let count = shape.0 * shape.1 * shape.2;
    Array3::from_shape_vec(shape, noise(count as u64, count).map(value).collect()).unwrap()
}

fn round_trip<T: Sample>(data: &Array3<T>, options: &CogOptions) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("round.tif");
    let (bands, height, width) = data.dim();
    write_cog(&path, data.view(), &utm(height, width), options).unwrap();
    let tiff = GeoTiff::open(&path).unwrap();
    let raster = tiff.read::<T>().unwrap();
    // By text, so that NaN equals NaN.
    assert_eq!(raster.data.mapv(|v| format!("{v:?}")), data.mapv(|v| format!("{v:?}")), "pixels");
    assert_eq!(raster.grid, utm(height, width), "grid");
    assert_eq!((tiff.num_bands(), tiff.sample_type()), (bands, T::TYPE), "bands and type");
    assert_eq!(raster.nodata.map(|v| v.to_string()), options.nodata.map(|v| v.to_string()), "nodata");
    let window = Window { row: height / 3, col: width / 2, height: height - height / 3, width: width / 3 };
    let part = tiff.read_window::<T>(window).unwrap();
    let rows = ndarray::Slice::from(window.row..window.row + window.height);
    let cols = ndarray::Slice::from(window.col..window.col + window.width);
    let expected = data.slice_axis(ndarray::Axis(1), rows).slice_axis(ndarray::Axis(2), cols).to_owned();
    assert_eq!(part.data.mapv(|v| format!("{v:?}")), expected.mapv(|v| format!("{v:?}")), "{window:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    #[expect(clippy::cast_possible_truncation, reason = "the lower bits of noise are noise")]
    fn what_is_written_is_read(
        bands in 1..5_usize, height in 1..70_usize, width in 1..70_usize, blocks in 1..4_usize,
        overviews in prop::sample::select(vec![
            Overviews::None, Overviews::Nearest, Overviews::Average, Overviews::Mode,
        ]),
        nodata in prop::option::of(0..5_u8), level in 1..13_u8, zstd in any::<bool>(),
    ) {
        let shape = (bands, height, width);
        let nodata = nodata.map(f64::from);
        let compression = if zstd { CogCompression::Zstd(level) } else { CogCompression::Deflate(level) };
        let options = CogOptions { block_size: 16 * blocks, overviews, nodata, compression, ..CogOptions::default() };
        round_trip(&array(shape, |v| v as u8), &options);
        round_trip(&array(shape, |v| v as u16), &options);
        round_trip(&array(shape, |v| (v as u16).cast_signed()), &options);
        round_trip(&array(shape, |v| v), &options);
        round_trip(&array(shape, u32::cast_signed), &options);
        // Every bit pattern is a float; the payload of a NaN is not compared.
        round_trip(&array(shape, f32::from_bits), &options);
        round_trip(&array(shape, |v| f64::from_bits(u64::from(v) << 32 | u64::from(!v))), &options);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn rows_that_come_piece_by_piece_give_the_same_file(
        bands in 1..4_usize, height in 1..150_usize, width in 1..70_usize,
        pieces in prop::collection::vec(0..60_usize, 1..8), overviews in prop::sample::select(vec![
            Overviews::None, Overviews::Nearest, Overviews::Average, Overviews::Mode,
        ]),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (whole, by_rows) = (folder.path().join("whole.tif"), folder.path().join("rows.tif"));
        let data = array((bands, height, width), |v| v % 7);
        let options = CogOptions { block_size: 16, overviews, nodata: Some(3.0), ..CogOptions::default() };
        write_cog(&whole, data.view(), &utm(height, width), &options).unwrap();
        let mut writer = CogWriter::create(&by_rows, bands, &utm(height, width), &options).unwrap();
        let mut rest = data.view();
        for piece in pieces.into_iter().chain([height]) {
            let (next, behind) = rest.split_at(ndarray::Axis(1), piece.min(rest.dim().1));
            writer.write_rows(next).unwrap();
            rest = behind;
        }
        prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is seen of it yet");
        writer.finish().unwrap();
        prop_assert_eq!(fs::read(&by_rows).unwrap(), fs::read(&whole).unwrap());
    }
}

#[test]
fn rows_must_be_as_many_and_as_wide_as_the_grid() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tif");
    let writer = || CogWriter::<u8>::create(&path, 2, &utm(40, 30), &CogOptions::default()).unwrap();
    let message = |error: Error| error.to_string().rsplit_once(": ").unwrap().1.to_owned();
    let rows = |bands, height, width| Array3::<u8>::zeros((bands, height, width));
    let mut one = writer();
    one.write_rows(rows(2, 39, 30).view()).unwrap();
    let error = one.write_rows(rows(2, 2, 30).view()).unwrap_err();
    assert_eq!(message(error), "41 rows came, the grid has 40");
    assert_eq!(message(one.finish().unwrap_err()), "39 of 40 rows came");
    let error = writer().write_rows(rows(1, 3, 30).view()).unwrap_err();
    assert_eq!(message(error), "rows of 1 bands and 30 columns came, 2 and 30 are needed");
    let error = writer().write_rows(rows(2, 3, 31).view()).unwrap_err();
    assert_eq!(message(error), "rows of 2 bands and 31 columns came, 2 and 30 are needed");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn overviews_are_rasters_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tif");
    let data = array((2, 150, 101), |v| v);
    let options = CogOptions { block_size: 32, nodata: Some(7.0), ..CogOptions::default() };
    write_cog(&path, data.view(), &utm(150, 101), &options).unwrap();
    let tiff = GeoTiff::open(&path).unwrap();
    let overviews = tiff.overviews().unwrap();
    let sizes: Vec<_> = overviews.iter().map(|small| (small.grid().height, small.grid().width)).collect();
    assert_eq!(sizes, [(75, 51), (38, 26), (19, 13)]);
    let mut step = 1;
    for small in &overviews {
        step *= 2;
        let every =
            |axis, data| ndarray::ArrayView3::slice_axis_move(data, axis, ndarray::Slice::new(0, None, step));
        let expected = every(ndarray::Axis(2), every(ndarray::Axis(1), data.view()));
        let read = small.read::<u32>().unwrap();
        assert_eq!(read.data, expected, "every {step}th pixel");
        assert_eq!(read.nodata, Some(7.0));
        let corner = |grid: &Grid| grid.position(grid.height as f64, grid.width as f64);
        let ((x, y), (x0, y0)) = (corner(small.grid()), corner(tiff.grid()));
        assert!((x - x0).abs() < 1e-6 && (y - y0).abs() < 1e-6, "the same ground");
        assert_eq!(small.overviews().unwrap().len(), 3, "the file has three");
    }
    let options = CogOptions { overviews: Overviews::None, ..options };
    write_cog(&path, data.view(), &utm(150, 101), &options).unwrap();
    assert_eq!(GeoTiff::open(&path).unwrap().overviews().unwrap().len(), 0);
    // The directory that comes next: this one again, or one beyond the end.
    let bytes = fs::read(&path).unwrap();
    let next = 8 + 2 + 12 * usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    for (place, expected) in [(8, "cycle"), (u32::MAX - 1, "the file ends")] {
        let mut bytes = bytes.clone();
        bytes[next..next + 4].copy_from_slice(&place.to_le_bytes());
        fs::write(&path, bytes).unwrap();
        let error = GeoTiff::open(&path).and_then(|tiff| tiff.overviews()).unwrap_err().to_string();
        let problem = error.strip_prefix(&format!("{} is a damaged tiff: ", path.display()));
        assert!(problem.is_some_and(|problem| problem.contains(expected)), "{error}");
    }
}

#[test]
fn the_memory_order_of_the_array_does_not_matter() {
    let data = array((3, 20, 30), |v| v);
    let mut turned = Array3::zeros((3, 20, 30).f());
    turned.assign(&data);
    assert!(!turned.is_standard_layout(), "another order");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tif");
    write_cog(&path, turned.view(), &utm(20, 30), &CogOptions::default()).unwrap();
    assert_eq!(GeoTiff::open(&path).unwrap().read::<u32>().unwrap().data, data);
}

#[test]
fn names_scales_and_items_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tif");
    let options = CogOptions {
        band_names: vec!["B02".into(), "B8A <é> & \"co\"".into()],
        scale_offset: vec![(1e-4, -0.1), (1.0, 0.0)],
        metadata: vec![("PRODUCT".into(), "a < b & c".into()), ("BASELINE".into(), "05.09".into())],
        nodata: Some(-1e30),
        ..CogOptions::default()
    };
    write_cog(&path, Array3::<f32>::zeros((2, 3, 4)).view(), &utm(3, 4), &options).unwrap();
    let tiff = GeoTiff::open(&path).unwrap();
    assert_eq!(tiff.band_names(), options.band_names);
    assert_eq!([tiff.scale_offset(0), tiff.scale_offset(1)], *options.scale_offset);
    assert_eq!(tiff.metadata().clone().into_iter().collect::<Vec<_>>(), {
        let mut sorted = options.metadata.clone();
        sorted.sort();
        sorted
    });
    assert_eq!(tiff.nodata(), Some(f64::from(-1e30_f32)), "as a sample has it");
}

/// Writes a COG and, for `check_with_gdal.py`, what it must hold.
fn case<T: Sample>(
    folder: &Path,
    name: &str,
    data: &Array3<T>,
    bytes: impl Fn(T) -> Vec<u8>,
    grid: &Grid,
    options: &CogOptions,
) {
    let dtype = T::TYPE.to_string().replace('u', "uint").replace('i', "int").replace('f', "float");
    let dtype = dtype.replace("uintnt", "uint");
    let (bands, height, width) = data.dim();
    let or = |values: &[String]| if values.is_empty() { vec![String::new(); bands] } else { values.to_vec() };
    let scale_offset = match &*options.scale_offset {
        [] => vec![(1.0, 0.0); bands],
        all => all.to_vec(),
    };
    let wanted = json!({
        "dtype": dtype,
        "shape": [bands, height, width],
        "block_size": options.block_size,
        "overviews": format!("{:?}", options.overviews).to_lowercase(),
        "compression": if matches!(options.compression, CogCompression::Zstd(_)) { "zstd" } else { "deflate" },
        "transform": grid.transform,
        "epsg": grid.epsg,
        "nodata": options.nodata.map(|value| value.to_string()),
        "band_names": or(&options.band_names),
        "scale_offset": scale_offset,
        "metadata": options.metadata.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "colors": options.colors,
    });
    write_cog(folder.join(format!("{name}.tif")), data.view(), grid, options).unwrap();
    fs::write(folder.join(format!("{name}.json")), wanted.to_string()).unwrap();
    let raw: Vec<u8> = data.iter().flat_map(|value| bytes(*value)).collect();
    fs::write(folder.join(format!("{name}.raw")), raw).unwrap();
}

#[test]
#[expect(clippy::cast_possible_truncation, reason = "the remainder is small")]
fn gdal_reads_what_was_written_and_calls_it_a_cog() {
    let Some(python) = std::env::var_os("S2_PYTHON") else {
        let _ = writeln!(std::io::stderr(), "skipped: S2_PYTHON names no python with rasterio and rio-cogeo");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path();
    let default = CogOptions::default;

    let mask = array((1, 1100, 1030), |v| [0_u8, 0, 1, 255][(v % 4) as usize]);
    let options = CogOptions {
        overviews: Overviews::Mode,
        nodata: Some(255.0),
        colors: Some(vec![[200, 200, 200], [255, 0, 64]]),
        ..default()
    };
    case(out, "mask_u8_palette", &mask, |v| vec![v], &utm(1100, 1030), &options);

    let stack = array((11, 1030, 515), |v| (v % 5000) as u16 * u16::from(v % 7 > 0));
    let options = CogOptions {
        overviews: Overviews::Average,
        nodata: Some(0.0),
        band_names: (0..11).map(|i| format!("B{i:02} <&>")).collect(),
        scale_offset: vec![(1e-4, -0.1); 11],
        metadata: vec![
            ("PRODUCT".into(), "S2A & \"others\" <é>".into()),
            ("BASELINE".into(), "05.09".into()),
        ],
        ..default()
    };
    case(out, "stack_u16", &stack, |v| v.to_le_bytes().to_vec(), &utm(1030, 515), &options);

    let probability =
        array((1, 700, 513), |v| if v % 9 == 0 { f32::NAN } else { (v % 1000) as f32 / 1000.0 });
    let compression = CogCompression::Zstd(1);
    let options =
        CogOptions { overviews: Overviews::Average, nodata: Some(f64::NAN), compression, ..default() };
    case(out, "probability_f32", &probability, |v| v.to_le_bytes().to_vec(), &utm(700, 513), &options);

    let place = |height, width, transform, epsg| Grid { height, width, transform, epsg };
    let options = CogOptions { nodata: Some(-1.5), ..default() };
    let degrees = place(37, 21, [-57.5, 9e-5, 0.0, -6.25, 0.0, -9e-5], Some(4326));
    let small = array((2, 37, 21), f64::from);
    case(out, "small_f64_degrees", &small, |v| v.to_le_bytes().to_vec(), &degrees, &options);

    let rgb = array((3, 100, 130), |v| v as u8);
    let south = place(100, 130, [500_000.0, 8.0, 6.0, 9_300_000.0, 6.0, -8.0], Some(32721));
    let compression = CogCompression::Deflate(12);
    let options = CogOptions { block_size: 32, compression, ..default() };
    case(out, "rgb_u8_rotated_south", &rgb, |v| vec![v], &south, &options);

    let signed = array((1, 65, 67), |v| (v % 200) as i16 - 100);
    let laea = place(65, 67, [4_000_000.0, 20.0, 0.0, 3_000_000.0, 0.0, -20.0], Some(3035));
    let options = CogOptions {
        block_size: 16,
        overviews: Overviews::Average,
        nodata: Some(-100.0),
        compression: CogCompression::Deflate(6),
        ..default()
    };
    case(out, "signed_i16_laea", &signed, |v| v.to_le_bytes().to_vec(), &laea, &options);

    let one = array((1, 1, 1), u32::cast_signed);
    let nowhere = place(1, 1, [0.0, 1.0, 0.0, 0.0, 0.0, 1.0], None);
    case(out, "one_pixel_i32", &one, |v| v.to_le_bytes().to_vec(), &nowhere, &default());

    let line = array((4, 1, 3000), |v| v);
    let options =
        CogOptions { overviews: Overviews::None, compression: CogCompression::Zstd(3), ..default() };
    case(out, "line_u32_no_overviews", &line, |v| v.to_le_bytes().to_vec(), &utm(1, 3000), &options);

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check_with_gdal.py");
    let output = Command::new(python).arg(script).arg(out).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.starts_with("8 files are as asked for"), "{text}");
    println!("{text}");
}

#[test]
fn what_does_not_fit_together_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tif");
    let message = |data: Array3<u16>, grid: Grid, options: CogOptions| {
        let error = write_cog(&path, data.view(), &grid, &options).unwrap_err();
        assert!(matches!(error, Error::InvalidCog { .. }), "{error}");
        let prefix = format!("cannot write {}: ", path.display());
        error.to_string().strip_prefix(&prefix).unwrap().to_owned()
    };
    let data = || Array3::zeros((2, 3, 4));
    let default = CogOptions::default;
    let deflate = |level| CogOptions { compression: CogCompression::Deflate(level), ..default() };
    let zstd = |level| CogOptions { compression: CogCompression::Zstd(level), ..default() };
    assert_eq!(message(data(), utm(4, 3), default()), "the data has 3 rows and 4 columns, the grid 4 and 3");
    assert_eq!(
        message(Array3::zeros((0, 3, 4)), utm(3, 4), default()),
        "there are no pixels in 0 bands of 3 rows and 4 columns"
    );
    for (options, expected) in [
        (CogOptions { block_size: 100, ..default() }, "block size 100 is no multiple of 16 up to 16384"),
        (CogOptions { block_size: 0, ..default() }, "block size 0 is no multiple of 16 up to 16384"),
        (CogOptions { band_names: vec!["B02".into()], ..default() }, "1 band names for 2 bands"),
        (CogOptions { scale_offset: vec![(1.0, 0.0); 3], ..default() }, "3 scales for 2 bands"),
        (CogOptions { nodata: Some(-1.0), ..default() }, "nodata -1 is no u16 value"),
        (CogOptions { nodata: Some(f64::NAN), ..default() }, "nodata NaN is no u16 value"),
        (deflate(0), "deflate level 0 is not between 1 and 12"),
        (deflate(13), "deflate level 13 is not between 1 and 12"),
        (zstd(0), "zstd level 0 is not between 1 and 22"),
        (zstd(23), "zstd level 23 is not between 1 and 22"),
        (
            CogOptions { colors: Some(vec![[0; 3]]), ..default() },
            "1 colours for 2 bands of u16 samples; a palette needs one u8 band and has up to 256 colours",
        ),
    ] {
        assert_eq!(message(data(), utm(3, 4), options), expected);
    }
    let unknown = Grid { epsg: Some(102_008), ..utm(3, 4) };
    assert_eq!(message(data(), unknown, default()), "EPSG:102008 does not fit into a GeoKey (1024 to 32766)");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was written");
}

#[test]
fn a_missing_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing/x.tif");
    let data = Array3::<u8>::zeros((1, 3, 4));
    let error = write_cog(&path, data.view(), &utm(3, 4), &CogOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot write {}", path.display()));
    assert!(std::error::Error::source(&error).is_some_and(|source| !source.to_string().is_empty()));
}

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("summary.json");
    write_atomic(&path, |file| std::io::Write::write_all(file, b"old")).unwrap();
    let error = write_atomic(&path, |file| {
        std::io::Write::write_all(file, b"half of the n")?;
        Err(std::io::Error::other("the sensor is off"))
    })
    .unwrap_err();
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the sensor is off");
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    write_atomic(&path, |file| std::io::Write::write_all(file, b"new")).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
}

#[cfg(unix)]
#[test]
fn a_written_file_has_the_permissions_of_any_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
    write_atomic(&ours, |_| Ok(())).unwrap();
    fs::write(&plain, "").unwrap();
    let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&ours), mode(&plain));
}

/// A disk that is full after some blocks, by the limit of a process on its file size (`EFBIG` in place of
/// `ENOSPC`): the test starts itself as that process.
#[cfg(unix)]
#[test]
fn a_full_disk_gives_one_error_and_leaves_no_half_file() {
    if let Some(path) = std::env::var_os("S2_IO_TEST_FULL_DISK") {
        let data = array((1, 1024, 1024), |v| v);
        let error = write_cog(&path, data.view(), &utm(1024, 1024), &CogOptions::default()).unwrap_err();
        println!("error: {error}: {}", std::error::Error::source(&error).unwrap());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stack.tif");
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "a_full_disk_gives_one_error_and_leaves_no_half_file", "--nocapture"])
        .env("S2_IO_TEST_FULL_DISK", &path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&format!("error: cannot write {}: File too large", path.display())), "{text}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
}
