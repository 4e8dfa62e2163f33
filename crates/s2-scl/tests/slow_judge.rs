//! Every function against a slow loop that says the same thing in the plainest way.

use proptest::prelude::*;
use s2_scl::ndarray::{Array2, Array3, Slice};
use s2_scl::{ClassSet, Error, SceneClass, counts, mask, one_hot, one_hot_into, upsample_nearest};

fn maps(largest: u8) -> impl Strategy<Value = Array2<u8>> {
    (0..9_usize, 0..9_usize).prop_flat_map(move |(height, width)| {
        prop::collection::vec(0..=largest, height * width)
            .prop_map(move |values| Array2::from_shape_vec((height, width), values).expect("the shape fits"))
    })
}

fn sets() -> impl Strategy<Value = ClassSet> {
    prop::sample::subsequence(SceneClass::ALL.to_vec(), 0..=12).prop_map(|classes| ClassSet::of(&classes))
}

proptest! {
    #[test]
    fn one_hot_equals_the_slow_loop(scl in maps(11)) {
        let channels = one_hot(scl.view()).expect("all classes are known");
        prop_assert_eq!(channels.dim(), (12, scl.nrows(), scl.ncols()));
        for ((class, row, col), &value) in channels.indexed_iter() {
            let expected = if usize::from(scl[[row, col]]) == class { 1.0 } else { 0.0 };
            prop_assert_eq!(value, expected);
        }
    }

    #[test]
    fn one_hot_fills_a_strided_view_and_nothing_else(scl in maps(11)) {
        let (height, width) = scl.dim();
        let mut stack = Array3::from_elem((14, height + 2, width + 3), 7.0_f32);
        let inner = stack.slice_each_axis_mut(|axis| match axis.axis.index() {
            0 => Slice::from(1..13),
            1 => Slice::from(1..=height),
            _ => Slice::from(2..2 + width),
        });
        one_hot_into(scl.view(), inner).expect("known classes");
        let mut expected = Array3::from_elem((14, height + 2, width + 3), 7.0_f32);
        for ((row, col), &class) in scl.indexed_iter() {
            for k in 0..12 {
                expected[[k + 1, row + 1, col + 2]] = if usize::from(class) == k { 1.0 } else { 0.0 };
            }
        }
        prop_assert_eq!(stack, expected);
    }

    #[test]
    fn the_first_unknown_class_in_reading_order_is_named(scl in maps(13)) {
        let mut bad = None;
        for row in (0..scl.nrows()).rev() {
            for col in (0..scl.ncols()).rev() {
                if scl[[row, col]] > 11 {
                    bad = Some(Error::UnknownClassAt { row, col, value: scl[[row, col]] });
                }
            }
        }
        prop_assert_eq!(one_hot(scl.view()).err(), bad.clone());
        prop_assert_eq!(counts(scl.view()).err(), bad);
    }

    #[test]
    fn mask_equals_the_slow_loop(scl in maps(20), classes in sets()) {
        let found = mask(scl.view(), classes);
        prop_assert_eq!(found.dim(), scl.dim());
        for ((row, col), &inside) in found.indexed_iter() {
            prop_assert_eq!(inside, classes.iter().any(|class| class as u8 == scl[[row, col]]));
        }
    }

    #[test]
    fn counts_equal_the_slow_loop(scl in maps(11)) {
        let found = counts(scl.view()).expect("all classes are known");
        for class in SceneClass::ALL {
            let slow = scl.iter().filter(|&&value| value == class as u8).count();
            prop_assert_eq!(found[class as usize], slow as u64);
        }
    }

    #[test]
    fn nearest_takes_the_coarse_pixel_whose_centre_is_nearest(scl in maps(255), factor in 1..5_usize) {
        let fine = upsample_nearest(scl.view(), factor);
        prop_assert_eq!(fine.dim(), (scl.nrows() * factor, scl.ncols() * factor));
        // Centres in half fine pixels: fine i at 2i + 1, coarse j at factor * (2j + 1).
        let nearest = |i: usize, len: usize| {
            (0..len).min_by_key(|&j| (2 * i + 1).abs_diff(factor * (2 * j + 1))).expect("at least one pixel")
        };
        for ((row, col), &value) in fine.indexed_iter() {
            prop_assert_eq!(value, scl[[nearest(row, scl.nrows()), nearest(col, scl.ncols())]]);
        }
    }
}

#[test]
fn numbers_and_classes_convert_both_ways() {
    for (number, class) in (0_u8..).zip(SceneClass::ALL) {
        assert_eq!(SceneClass::try_from(number), Ok(class), "number to class");
        assert_eq!(u8::from(class), number, "class to number");
    }
    for value in 12..=255 {
        assert_eq!(SceneClass::try_from(value), Err(Error::UnknownClass { value }), "not a class");
    }
}

#[test]
fn names_and_colours_tell_the_classes_apart() {
    for a in SceneClass::ALL {
        for b in SceneClass::ALL {
            assert_eq!(a == b, a.name() == b.name(), "names of {a:?} and {b:?}");
            assert_eq!(a == b, a.color() == b.color(), "colours of {a:?} and {b:?}");
        }
    }
}

#[test]
fn percentiles_leave_out_0_1_8_and_9() {
    let left_out: Vec<u8> = ClassSet::PERCENTILE_EXCLUDED.iter().map(u8::from).collect();
    assert_eq!(left_out, [0, 1, 8, 9]);
    let again: ClassSet = ClassSet::PERCENTILE_EXCLUDED.iter().collect();
    assert_eq!(again, ClassSet::PERCENTILE_EXCLUDED, "a set survives iteration");
    assert!(
        (12..=255).all(|value| !ClassSet::of(&SceneClass::ALL).contains(value)),
        "no set has numbers above 11"
    );
}

#[test]
fn a_wrong_output_shape_is_refused_and_the_output_kept() {
    let scl = Array2::<u8>::zeros((2, 3));
    let mut out = Array3::from_elem((12, 3, 2), 5.0);
    let error = one_hot_into(scl.view(), out.view_mut()).expect_err("rows and columns are swapped");
    assert_eq!(error, Error::Shape { expected: [12, 2, 3], found: [12, 3, 2] });
    assert!(out.iter().all(|&value| value == 5.0), "nothing is written");
}

#[test]
#[should_panic(expected = "must be at least 1")]
fn a_factor_of_zero_is_a_broken_contract() {
    upsample_nearest(Array2::zeros((1, 1)).view(), 0);
}
