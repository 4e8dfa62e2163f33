//! JPEG 2000 files as rasters, against GDAL.

mod common;

use std::path::Path;

use common::{chain, fnv1a, golden, own, shared};
use proptest::prelude::*;
use s2_io::{Raster, Window, read_jp2, read_jp2_window};
use serde_json::{Value, json};

fn check<T>(path: &Path, expected: &Value, raster: &Raster<T>)
where
    T: Copy + Into<u64>,
{
    let name = path.display();
    assert_eq!(expected["shape"], json!(raster.data.shape()), "{name}: shape");
    assert_eq!(
        (raster.grid.height, raster.grid.width),
        (raster.data.dim().1, raster.data.dim().2),
        "{name}: grid"
    );
    assert_eq!(expected["epsg"], json!(raster.grid.epsg), "{name}: EPSG");
    assert_eq!(expected["transform"], json!(raster.grid.transform), "{name}: transform");
    match expected["sum"].as_u64() {
        None => assert_eq!(expected["fnv1a"], fnv1a(&raster.data), "{name}: samples"),
        // Of the irreversible transform one sample in a thousand may be rounded the other way, by 1; `s2-jp2` tests
        // single samples.
        Some(sum) => {
            let ours: u64 = raster.data.iter().map(|&sample| sample.into()).sum();
            assert!(ours.abs_diff(sum) <= raster.data.len() as u64 / 1000, "{name}: sum {ours}, GDAL {sum}");
        }
    }
}

#[test]
fn own_files_equal_gdal() {
    let golden = golden("small_golden.json");
    check::<u8>(&own("rgb_geojp2.jp2"), &golden["rgb_geojp2"], &read_jp2(own("rgb_geojp2.jp2")).unwrap());
    for (name, expected) in golden.iter().filter(|(name, _)| *name != "rgb_geojp2") {
        let resolution = name.rsplit('_').next().unwrap();
        let file = format!(
            "{}/{}/R{resolution}/T29RKH_20200219T112111_{name}.jp2",
            common::SMALL,
            common::SMALL_IMAGES
        );
        check::<u16>(&own(&file), expected, &read_jp2(own(&file)).unwrap());
    }
}

#[test]
fn shared_files_equal_gdal() {
    let Some(data) = shared() else { return };
    let mut checked = 0;
    for (file, expected) in golden("jp2_golden.json") {
        let path = data.join(&file);
        if !path.exists() {
            continue;
        }
        checked += 1;
        match expected["dtype"].as_str() {
            Some("uint8") => check::<u8>(&path, &expected, &read_jp2(&path).unwrap()),
            _ => check::<u16>(&path, &expected, &read_jp2(&path).unwrap()),
        }
    }
    assert!(checked > 0, "no file of jp2_golden.json is in {}", data.display());
}

#[test]
fn a_window_places_itself() {
    let path = own("rgb_geojp2.jp2");
    let whole: Raster<u8> = read_jp2(&path).unwrap();
    let window = Window { row: 3, col: 7, height: 11, width: 20 };
    let part: Raster<u8> = read_jp2_window(&path, window).unwrap();
    assert_eq!(part.data, common::part(&whole.data, window), "samples");
    assert_eq!(part.grid.position(0.0, 0.0), whole.grid.position(3.0, 7.0), "place");
    assert_eq!(part.grid.epsg, Some(32721));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn windows_of_real_bands_equal_the_whole(
        file in prop::sample::select(vec![
            "mini_safe_29RKH/S2A_MSIL2A_20200219T112111_N0509_R037_T29RKH_20200219T140000.SAFE/GRANULE/\
             L2A_T29RKH_A024342_20200219T112111/IMG_DATA/R10m/T29RKH_20200219T112111_B04_10m.jp2",
            "mini_safe_29RKH/S2A_MSIL2A_20200219T112111_N0214_R037_T29RKH_20200219T140000.SAFE/GRANULE/\
             L2A_T29RKH_A024342_20200219T112111/IMG_DATA/R60m/T29RKH_20200219T112111_B01_60m.jp2",
            "aws_jp2_previews/sentinel-s2-l1c/tiles/19/U/DP/2017/7/29/0/preview/B8A.jp2",
        ]),
        [row, end_row, col, end_col] in prop::array::uniform4(any::<prop::sample::Index>()),
    ) {
        let Some(path) = shared().map(|data| data.join(file)).filter(|path| path.exists()) else { return Ok(()) };
        let whole: Raster<u16> = read_jp2(&path).unwrap();
        let between = |a: prop::sample::Index, b: prop::sample::Index, length: usize| {
            let (a, b) = (a.index(length), b.index(length));
            (a.min(b), a.max(b) + 1)
        };
        let (row, end_row) = between(row, end_row, whole.grid.height);
        let (col, end_col) = between(col, end_col, whole.grid.width);
        let window = Window { row, col, height: end_row - row, width: end_col - col };
        let part: Raster<u16> = read_jp2_window(&path, window).unwrap();
        prop_assert_eq!(part.data, common::part(&whole.data, window));
    }
}

#[test]
fn foreign_and_broken_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("B04.jp2");
    let band =
        own(&format!("{}/{}/R10m/T29RKH_20200219T112111_B04_10m.jp2", common::SMALL, common::SMALL_IMAGES));
    let data = std::fs::read(band).unwrap();
    let replaced = |from: &str, to: &str| {
        let at = data.windows(from.len()).position(|bytes| bytes == from.as_bytes()).unwrap();
        [&data[..at], to.as_bytes(), &data[at + from.len()..]].concat()
    };
    let name = path.display();
    for (bytes, message) in [
        (b"II*\0".to_vec(), format!("cannot decode {name}: not a JPEG 2000 file: it looks like a TIFF")),
        (
            data[..2000].to_vec(),
            format!(
                "cannot decode {name}: truncated at byte 2000: 4 of 9 tiles are whole; get the file again"
            ),
        ),
        (
            replaced("<gml:pos>199985", "<gml:pos>x99985"),
            format!("{name}: pos of the GMLJP2 box cannot be \"x99985 3400015\""),
        ),
        (replaced("</gml:RectifiedGrid>", "</gml:RectifiedGr1d>"), String::new()),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = chain(&read_jp2::<u16>(&path).unwrap_err());
        match &*message {
            "" => assert!(error.starts_with(&format!("cannot parse {name}: byte ")), "{error}"),
            _ => assert_eq!(error, message),
        }
    }
    let error = read_jp2::<u8>(own("rgb_geojp2.jp2").with_file_name("absent.jp2")).unwrap_err().to_string();
    assert_eq!(error, format!("cannot read {}", own("absent.jp2").display()));
    let error = read_jp2_window::<u8>(own("rgb_geojp2.jp2"), Window { row: 20, col: 0, height: 2, width: 1 });
    let expected = format!(
        "rows 20 to 22 and columns 0 to 1 leave {}, which has 21 rows and 30 columns",
        own("rgb_geojp2.jp2").display()
    );
    assert_eq!(error.unwrap_err().to_string(), expected);
}

#[test]
fn a_tiff_named_jp2_is_recognised() {
    let Some(data) = shared() else { return };
    let path = data.join("aws_jp2_previews/sentinel-s2-l1c/tiles/19/U/DP/2017/7/29/0/B04.jp2");
    let error = chain(&read_jp2::<u16>(&path).unwrap_err());
    assert_eq!(
        error,
        format!("cannot decode {}: not a JPEG 2000 file: it looks like a TIFF", path.display())
    );
}
