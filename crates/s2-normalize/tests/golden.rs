//! Percentiles and scaling against numpy, resampling against GDAL (values by `data/make_golden.py`).

use s2_normalize::ndarray::Array2;
use s2_normalize::{BandStatistics, Definition, Histogram, Radiometry, upsample_bilinear};
use serde::Deserialize;

fn golden<T: for<'a> Deserialize<'a>>(text: &str) -> T {
    serde_json::from_str(text).expect("the file is what its script wrote")
}

#[derive(Deserialize)]
struct Percentiles {
    cases: Vec<Masked>,
    large: Large,
}

#[derive(Deserialize)]
struct Masked {
    shape: (usize, usize),
    dn: Vec<u16>,
    excluded: Vec<usize>,
    percentiles: Vec<Percentile>,
}

#[derive(Deserialize)]
struct Large {
    pixels: u64,
    percentiles: Vec<Percentile>,
}

#[derive(Deserialize)]
struct Percentile {
    offset: i32,
    q: f64,
    value: f64,
}

/// The percentile of DN + offset, through the statistics, which take two at once.
fn found(histogram: &Histogram, &Percentile { offset, q, .. }: &Percentile) -> f64 {
    if offset == 0 {
        return histogram.percentile(q).expect("there are pixels");
    }
    let radiometry = Radiometry { offset, quantification: 1 };
    let bounds = |low_percent, high_percent| {
        let definition = Definition { low_percent, high_percent, ..Definition::default() };
        BandStatistics::from_histogram("B02", histogram, radiometry, &definition)
    };
    // The other bound is the extreme on the far side, so that the two differ unless all pixels are equal.
    if q < 50.0 { bounds(q, 100.0).map(|band| band.low) } else { bounds(0.0, q).map(|band| band.high) }
        .expect("the pixels differ")
}

/// No tolerance: the same floating-point steps in the same order give the same bits.
#[test]
fn percentiles_equal_numpy_to_the_last_bit() {
    let Percentiles { cases, large } = golden(include_str!("data/percentiles.json"));
    let mut compared = 0;
    for case in &cases {
        let dn = Array2::from_shape_vec(case.shape, case.dn.clone()).expect("the shape fits");
        let mut excluded = vec![false; case.dn.len()];
        case.excluded.iter().for_each(|&pixel| excluded[pixel] = true);
        let excluded = Array2::from_shape_vec(case.shape, excluded).expect("the shape fits");
        let mut histogram = Histogram::new();
        histogram.add(dn.view(), excluded.view()).expect("equal shapes");
        for percentile in case.percentiles.iter().filter(|p| p.offset == 0 || histogram.count() > 1) {
            assert_eq!(
                found(&histogram, percentile),
                percentile.value,
                "{:?}, q {}",
                case.shape,
                percentile.q
            );
            compared += 1;
        }
    }
    assert_eq!(compared, cases.len() * 22 - 11, "all but those of a single pixel with an offset");

    // The same formula of the pixel number as in the script; in two parts, to be merged.
    let part = |pixels: std::ops::Range<u64>| {
        let dn =
            pixels.clone().map(|p| u16::try_from((p * 2_654_435_761 % (1 << 32)) >> 17).expect("15 bits"));
        let excluded = pixels.clone().map(|p| (p * 2_246_822_519 % (1 << 32)) >> 30 == 0);
        let shape = (1, usize::try_from(pixels.end - pixels.start).expect("small"));
        let dn = Array2::from_shape_vec(shape, dn.collect()).expect("one row");
        let excluded = Array2::from_shape_vec(shape, excluded.collect()).expect("one row");
        let mut histogram = Histogram::new();
        histogram.add(dn.view(), excluded.view()).expect("equal shapes");
        histogram
    };
    let mut histogram = part(0..400_000);
    histogram.merge(&part(400_000..large.pixels));
    for percentile in &large.percentiles {
        assert_eq!(found(&histogram, percentile), percentile.value, "large, q {}", percentile.q);
    }
}

#[derive(Deserialize)]
struct Scaling {
    low: f64,
    high: f64,
    offset: i32,
    quantification: u32,
    dn: Vec<u16>,
    reflectance: Vec<f32>,
    scaled: Vec<f32>,
}

/// No tolerance: both reckon in `f64` in the same order and round once.
#[test]
fn reflectance_and_scaled_values_equal_numpy_to_the_last_bit() {
    for case in golden::<Vec<Scaling>>(include_str!("data/scaling.json")) {
        let Scaling { low, high, offset, quantification, .. } = case;
        let band = BandStatistics { band: "B02".to_owned(), low, high, count: 1, offset, quantification };
        let dn = Array2::from_shape_vec((1, case.dn.len()), case.dn.clone()).expect("one row");
        let mut scaled = Array2::zeros(dn.dim());
        band.normalize_into(dn.view(), scaled.view_mut()).expect("equal shapes");
        assert_eq!(scaled.as_slice(), Some(&case.scaled[..]), "low {low}, high {high}");
        // In a large window the same digital numbers come many times, in a small one not.
        let cols = dn.len();
        for rows in [0, 1, 1 + (1 << 18) / cols] {
            let many = dn.broadcast((rows, cols)).expect("rows of one row");
            let mut scaled = Array2::zeros((rows, cols));
            band.normalize_into(many, scaled.view_mut()).expect("equal shapes");
            assert!(scaled.rows().into_iter().all(|row| row.as_slice() == Some(&case.scaled[..])), "{rows}");
        }
        let reflectance: Vec<f32> = case.dn.iter().map(|&dn| band.radiometry().reflectance(dn)).collect();
        assert_eq!(reflectance, case.reflectance, "offset {offset}");
    }
}

#[derive(Deserialize)]
struct Bilinear {
    name: String,
    shape: (usize, usize),
    dn: Vec<u16>,
    fine: Vec<u16>,
}

/// GDAL has the same weights but reckons in floating point, so a mean that is a half may come out a little below and be
/// rounded down: at most 1 DN. (In these values it is 0.)
#[test]
fn bilinear_resampling_equals_gdal_within_one_dn() {
    for case in golden::<Vec<Bilinear>>(include_str!("data/bilinear.json")) {
        let dn = Array2::from_shape_vec(case.shape, case.dn).expect("the shape fits");
        let fine = upsample_bilinear(dn.view());
        let gdal = Array2::from_shape_vec(fine.dim(), case.fine).expect("twice the shape");
        let mut differ = 0;
        for ((row, col), &value) in fine.indexed_iter() {
            // Where the parent is nodata GDAL fills in from valid neighbours; we keep nodata.
            if dn[[row / 2, col / 2]] != 0 {
                let expected = gdal[[row, col]];
                assert!(
                    value.abs_diff(expected) <= 1,
                    "{}: {value} at {row}, {col}, GDAL {expected}",
                    case.name
                );
                differ += usize::from(value != expected);
            }
        }
        println!("{}: {differ} of {} values differ", case.name, fine.len());
    }
}
