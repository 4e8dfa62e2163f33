//! The statistics file, and every way in which statistics are refused.

use std::error::Error as _;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use s2_normalize::ndarray::{Array2, array};
use s2_normalize::{BandStatistics, Definition, Error, Histogram, Radiometry, Statistics};

const RADIOMETRY: Radiometry = Radiometry { offset: -1000, quantification: 10_000 };

fn statistics(low: f64, high: f64) -> Statistics {
    Statistics {
        version: Statistics::VERSION,
        definition: Definition::default(),
        product: "S2A_MSIL2A_20200219T112111_N0509_R037_T29RKH_20200219T140000".to_owned(),
        baseline: "05.09".to_owned(),
        bands: vec![BandStatistics {
            band: "B02".to_owned(),
            low,
            high,
            count: 12,
            offset: -1000,
            quantification: 10_000,
        }],
        made_by: "s2-normalize 0.1.0".to_owned(),
    }
}

fn histogram(dn: &Array2<u16>, excluded: &Array2<bool>) -> Histogram {
    let mut histogram = Histogram::new();
    histogram.add(dn.view(), excluded.view()).expect("equal shapes");
    histogram
}

fn files(folder: &Path) -> Vec<String> {
    let names =
        fs::read_dir(folder).expect("the folder exists").map(|entry| entry.expect("an entry").file_name());
    names.map(|name| name.into_string().expect("UTF-8")).collect()
}

proptest! {
    // Each case waits for the disk.
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_file_gives_back_every_bit(a in -1e3..1e3_f64, b in -1e3..1e3_f64) {
        prop_assume!(a != b);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("statistics.json");
        let statistics = statistics(a.min(b), a.max(b));
        statistics.save(&path).expect("saved");
        prop_assert_eq!(Statistics::load(&path).expect("loaded"), statistics);
    }
}

#[test]
fn saving_replaces_the_file_and_leaves_nothing_else() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("statistics.json");
    statistics(0.1, 0.2).save(&path).expect("saved");
    statistics(0.1, 0.3).save(&path).expect("saved again");
    assert_eq!(Statistics::load(&path).expect("loaded").band("B02").map(|band| band.high), Some(0.3));
    assert_eq!(Statistics::load(&path).expect("loaded").band("B03"), None);
    assert_eq!(files(folder.path()), ["statistics.json"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| fs::metadata(path).expect("the file exists").permissions().mode();
        let ordinary = folder.path().join("ordinary");
        fs::File::create(&ordinary).expect("created");
        assert_eq!(mode(&path), mode(&ordinary), "readable as any other new file");
    }
}

#[test]
fn a_failed_save_names_the_file_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let taken = folder.path().join("taken");
    fs::create_dir(&taken).expect("created");
    for path in [folder.path().join("missing").join("statistics.json"), taken] {
        let error = statistics(0.1, 0.2).save(&path).expect_err("cannot be written");
        assert!(matches!(&error, Error::Write { path: named, .. } if *named == path), "{error}");
        assert_eq!(files(folder.path()), ["taken"], "{error}");
    }
}

/// The error of a file with this text, with its cause.
fn refusal(text: &str) -> (Error, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("statistics.json");
    fs::write(&path, text).expect("written");
    let error = Statistics::load(&path).expect_err("refused");
    assert!(error.to_string().contains("statistics.json"), "{error} names the file");
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    (error, cause)
}

#[test]
fn files_that_cannot_be_used_are_refused() {
    let good = serde_json::to_string(&statistics(0.1, 0.2)).expect("JSON");
    let with = |old: &str, new: &str| {
        assert!(good.contains(old), "{old} is in the file");
        good.replacen(old, new, 1)
    };

    for text in ["", "DN 1 2 3", "[]", "{}", &good[..good.len() / 2], &with("\"count\"", "\"counts\"")] {
        let (error, cause) = refusal(text);
        assert!(matches!(error, Error::Format { .. }) && !cause.is_empty(), "{text:.20}: {error}: {cause}");
    }
    let (error, cause) = refusal(&with("linear", "nearest"));
    assert!(matches!(error, Error::Format { .. }) && cause.contains("nearest"), "{error}: {cause}");

    let (error, _) = refusal(r#"{"version": 2, "all": "else"}"#);
    assert!(matches!(error, Error::Version { found: 2, supported: 1, .. }), "{error}");

    for (text, expected) in [
        (with("0.2", "0.1"), "bounds of band B02 are not in order: low 0.1, high 0.1"),
        (with("0.2", "-7"), "bounds of band B02 are not in order: low 0.1, high -7"),
        (
            with("10000", "0"),
            "the quantification value of band B02 is 0: read it from the product metadata (usually 10000)",
        ),
        (with("\"nodata\":0", "\"nodata\":9"), "nodata is 9, but in Sentinel-2 products it is 0"),
        (with("98.0", "1.5"), "percents 2 and 1.5 are not in order between 0 and 100"),
        (with("98.0", "198"), "percents 2 and 198 are not in order between 0 and 100"),
    ] {
        let (error, cause) = refusal(&text);
        assert!(matches!(error, Error::Values { .. }), "{error}");
        assert_eq!(cause, expected);
    }

    let missing = Statistics::load("no/such/statistics.json").expect_err("no file");
    assert!(matches!(missing, Error::Read { .. }), "{missing}");
}

#[test]
fn what_cannot_be_loaded_is_not_saved() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("statistics.json");
    let error = statistics(0.2, f64::NAN).save(&path).expect_err("NaN is no bound");
    assert!(matches!(error, Error::Values { .. }), "{error}");
    let newer = Statistics { version: 2, ..statistics(0.1, 0.2) };
    let error = newer.save(&path).expect_err("another version");
    assert!(matches!(error, Error::Version { found: 2, .. }), "{error}");
    assert!(files(folder.path()).is_empty(), "nothing is written");
}

#[test]
fn a_scene_of_nodata_and_cloud_is_refused() {
    let histogram = histogram(&array![[0, 5000], [0, 6000]], &array![[false, true], [true, true]]);
    let error = BandStatistics::from_histogram("B08", &histogram, RADIOMETRY, &Definition::default());
    assert_eq!(
        error.expect_err("nothing is valid").to_string(),
        "band B08 has no valid pixel, all are nodata or excluded (cloud): choose another image"
    );
}

#[test]
fn a_constant_band_is_refused_with_its_value() {
    let dn = Array2::from_elem((4, 5), 1300);
    let histogram = histogram(&dn, &dn.map(|_| false));
    let error = BandStatistics::from_histogram("B10", &histogram, RADIOMETRY, &Definition::default());
    assert_eq!(
        error.expect_err("p2 = p98").to_string(),
        "band B10 is constant: the percentiles 2 and 98 of its 20 valid pixels are both 300 (DN plus offset); \
         leave the band out or choose another image"
    );
}

#[test]
fn definitions_and_radiometry_that_cannot_be_are_refused() {
    let histogram = histogram(&array![[1000, 2000]], &array![[false, false]]);
    let from = |radiometry, definition: Definition| {
        BandStatistics::from_histogram("B02", &histogram, radiometry, &definition).expect_err("refused")
    };
    let error = from(Radiometry { quantification: 0, ..RADIOMETRY }, Definition::default());
    assert!(matches!(error, Error::Quantification { .. }), "{error}");
    for (low_percent, high_percent) in [(98.0, 2.0), (2.0, 2.0), (-1.0, 98.0), (2.0, 101.0), (f64::NAN, 98.0)]
    {
        let error = from(RADIOMETRY, Definition { low_percent, high_percent, ..Definition::default() });
        assert!(matches!(error, Error::Percents { .. }), "{error}");
    }
    let error = from(RADIOMETRY, Definition { nodata: 65_535, ..Definition::default() });
    assert!(matches!(error, Error::Nodata { nodata: 65_535 }), "{error}");
}

#[test]
fn arrays_of_different_shapes_are_refused_and_nothing_is_changed() {
    let dn = Array2::from_elem((2, 3), 1000_u16);
    let mut histogram = Histogram::new();
    let error = histogram.add(dn.view(), Array2::from_elem((3, 2), false).view()).expect_err("swapped");
    assert_eq!(
        error.to_string(),
        "mask of excluded pixels has shape (3, 2), expected (2, 3) (row, column) as the band"
    );
    assert_eq!(histogram.count(), 0);
    let mut out = Array2::from_elem((2, 2), 7.0);
    let band = &statistics(0.1, 0.2).bands[0];
    let error = band.normalize_into(dn.view(), out.view_mut()).expect_err("too narrow");
    assert!(matches!(error, Error::Shape { expected: (2, 3), found: (2, 2), .. }), "{error}");
    assert!(out.iter().all(|&value| value == 7.0), "nothing is written");
}
