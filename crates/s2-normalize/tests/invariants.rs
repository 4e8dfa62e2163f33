//! What holds for every band: against slow versions, against ndarray-stats, and under another radiometric offset.

use ndarray_stats::Quantile1dExt;
use ndarray_stats::interpolate::Linear;
use noisy_float::types::n64;
use proptest::prelude::*;
use s2_normalize::ndarray::{Array1, Array2, Axis, Slice};
use s2_normalize::{BandStatistics, Definition, Histogram, Radiometry, upsample_bilinear};

/// Bands with nodata; DN at most 60 000 leave room for an offset.
fn bands() -> impl Strategy<Value = Array2<u16>> {
    let dn = prop_oneof![1 => Just(0_u16), 3 => 1..60_000_u16, 3 => 1000..1020_u16];
    (1..12_usize, 1..12_usize).prop_flat_map(move |(height, width)| {
        prop::collection::vec(dn.clone(), height * width)
            .prop_map(move |dn| Array2::from_shape_vec((height, width), dn).expect("the shape fits"))
    })
}

/// The same scene stored with 1000 more: nodata stays nodata.
fn shifted(dn: &Array2<u16>) -> Array2<u16> {
    dn.map(|&dn| if dn == 0 { 0 } else { dn + 1000 })
}

fn histogram(dn: &Array2<u16>) -> Histogram {
    let mut histogram = Histogram::new();
    histogram.add(dn.view(), Array2::from_elem(dn.dim(), false).view()).expect("equal shapes");
    histogram
}

fn bits(values: &Array2<f32>) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

const BEFORE: Radiometry = Radiometry { offset: 0, quantification: 10_000 };
const SINCE_04_00: Radiometry = Radiometry { offset: -1000, quantification: 10_000 };

proptest! {
    #[test]
    fn upsampling_equals_the_slow_definition(dn in bands()) {
        let (height, width) = dn.dim();
        let fine = upsample_bilinear(dn.view());
        prop_assert_eq!(fine.dim(), (2 * height, 2 * width));
        // A fine centre lies at (i + 0.5) / 2 coarse pixels; the two coarse centres around it weigh 3 and 1.
        let around = |i: usize, len: usize| {
            let side = if i % 2 == 0 { (i / 2).checked_sub(1) } else { Some(i / 2 + 1) };
            [(i / 2, 3), (side.filter(|&side| side < len).unwrap_or(i / 2), 1)]
        };
        for ((row, col), &value) in fine.indexed_iter() {
            let (mut sum, mut weights) = (0_u64, 0_u64);
            for (r, down) in around(row, height) {
                for (c, along) in around(col, width) {
                    if dn[[r, c]] != 0 {
                        sum += down * along * u64::from(dn[[r, c]]);
                        weights += down * along;
                    }
                }
            }
            let expected = if dn[[row / 2, col / 2]] == 0 { 0 } else { (2 * sum + weights) / (2 * weights) };
            prop_assert_eq!(u64::from(value), expected, "row {}, column {}", row, col);
        }
    }

    #[test]
    fn upsampling_keeps_nodata_and_the_range(dn in bands()) {
        let fine = upsample_bilinear(dn.view());
        let valid = || dn.iter().filter(|&&dn| dn != 0);
        for ((row, col), &value) in fine.indexed_iter() {
            prop_assert_eq!(value == 0, dn[[row / 2, col / 2]] == 0);
            prop_assert!(value == 0 || (valid().min() <= Some(&value) && Some(&value) <= valid().max()));
        }
    }

    #[test]
    fn upsampling_a_strided_view_equals_upsampling_its_copy(dn in bands()) {
        prop_assert_eq!(upsample_bilinear(dn.t()), upsample_bilinear(dn.t().to_owned().view()));
    }

    #[test]
    fn upsampling_commutes_with_another_offset(dn in bands()) {
        let fine = upsample_bilinear(dn.view());
        prop_assert_eq!(upsample_bilinear(shifted(&dn).view()), shifted(&fine));
    }

    #[test]
    fn reflectance_is_the_same_under_another_offset(dn in 1..60_000_u16) {
        prop_assert_eq!(
            BEFORE.reflectance(dn).to_bits(),
            SINCE_04_00.reflectance(dn + 1000).to_bits()
        );
    }

    #[test]
    fn bounds_and_scaled_values_are_the_same_under_another_offset(dn in bands()) {
        let definition = Definition::default();
        let old = BandStatistics::from_histogram("B02", &histogram(&dn), BEFORE, &definition);
        let new = BandStatistics::from_histogram("B02", &histogram(&shifted(&dn)), SINCE_04_00, &definition);
        let (Ok(old), Ok(new)) = (&old, &new) else {
            prop_assert_eq!(old.map_err(|e| e.to_string()).err(), new.map_err(|e| e.to_string()).err());
            return Ok(());
        };
        prop_assert_eq!((old.low.to_bits(), old.high.to_bits()), (new.low.to_bits(), new.high.to_bits()));
        prop_assert_eq!(old.count, new.count);
        let scaled = |band: &BandStatistics, dn: &Array2<u16>| {
            let mut out = Array2::from_elem(dn.dim(), f32::NAN);
            band.normalize_into(dn.view(), out.view_mut()).expect("equal shapes");
            out
        };
        let old = scaled(old, &dn);
        prop_assert_eq!(bits(&old), bits(&scaled(new, &shifted(&dn))));
        prop_assert!(old.iter().all(|value| (-1.0..=1.0).contains(value)));
        for (&dn, &value) in dn.iter().zip(&old) {
            prop_assert!(dn != 0 || value == -1.0, "nodata is the dark end");
        }
    }

    #[test]
    fn percentiles_equal_those_of_ndarray_stats(dn in bands(), q in 0.0..=100.0_f64) {
        let valid = dn.iter().filter(|&&dn| dn != 0);
        let mut sorted: Array1<_> = valid.map(|&dn| n64(f64::from(dn))).collect();
        let judge = sorted.quantile_mut(n64(q / 100.0), &Linear).ok().map(f64::from);
        let found = histogram(&dn).percentile(q);
        prop_assert_eq!(found.is_some(), judge.is_some());
        if let (Some(found), Some(judge)) = (found, judge) {
            // Two ways to interpolate in f64: at most two roundings each, of numbers below 2^16 (half a unit in the last
            // place is 2^-37 * 2^-1 there), so 4 * 2^-38 apart. The rank is one product in both.
            prop_assert!((found - judge).abs() <= 2_f64.powi(-36), "{found} and {judge}");
        }
    }

    #[test]
    fn merged_parts_equal_the_whole(dn in bands(), at in 0..12_usize, threshold in any::<u16>()) {
        let excluded = dn.map(|&dn| dn > threshold);
        let at = at.min(dn.nrows());
        let mut whole = Histogram::new();
        whole.add(dn.view(), excluded.view()).expect("equal shapes");
        let mut parts = Histogram::new();
        for rows in [0..at, at..dn.nrows()] {
            let mut part = Histogram::new();
            let rows = Slice::from(rows);
            part.add(dn.slice_axis(Axis(0), rows), excluded.slice_axis(Axis(0), rows)).expect("equal shapes");
            parts.merge(&part);
        }
        prop_assert!(parts == whole);
        let counted = dn.iter().filter(|&&dn| dn != 0 && dn <= threshold).count();
        prop_assert_eq!(whole.count(), counted as u64);
    }
}

#[test]
fn nodata_has_no_reflectance_whatever_the_offset() {
    assert!(BEFORE.reflectance(0).is_nan() && SINCE_04_00.reflectance(0).is_nan(), "DN 0 is NaN");
    assert_eq!(SINCE_04_00.reflectance(1), -0.0999, "DN 1 is a valid dark pixel");
}

#[test]
fn percentiles_outside_0_to_100_and_of_nothing_are_none() {
    assert_eq!(Histogram::new().percentile(50.0), None, "no pixels");
    let one = histogram(&Array2::from_elem((1, 1), 7));
    assert_eq!(one.percentile(50.0), Some(7.0));
    for q in [-0.1, 100.1, f64::NAN] {
        assert_eq!(one.percentile(q), None, "q {q}");
    }
}
