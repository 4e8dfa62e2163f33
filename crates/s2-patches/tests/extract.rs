//! Mirroring and turning against numpy (values by `data/make_golden.py`); footprints against a slow loop.

use std::fmt::Debug;
use std::str::FromStr;

use proptest::prelude::*;
use s2_patches::ndarray::{Array3, Axis, Slice};
use s2_patches::{Dihedral, Geometry, Window, WindowPlan, extract, footprint, mirror};

fn numbers<T: FromStr<Err: Debug>>(words: &str) -> Vec<T> {
    words.split_whitespace().map(|word| word.parse().expect("a number")).collect()
}

fn signed(value: usize) -> isize {
    isize::try_from(value).expect("small")
}

/// The part of a scene that a window names.
fn part(scene: &Array3<u32>, window: Window) -> Array3<u32> {
    let mut view = scene.view();
    view.slice_axis_inplace(Axis(1), Slice::from(window.rows()));
    view.slice_axis_inplace(Axis(2), Slice::from(window.cols()));
    view.to_owned()
}

fn numbered(height: usize, width: usize) -> Array3<u32> {
    Array3::from_shape_vec((2, height, width), (0..).take(2 * height * width).collect())
        .expect("the shape fits")
}

#[test]
fn mirrored_indices_equal_numpy_pad_reflect() {
    let mut cases = 0;
    for line in include_str!("data/pad_reflect.txt").lines() {
        let (case, expected) = line.split_once(':').expect("case : values");
        let [len, before, after] = numbers::<usize>(case)[..] else { panic!("length before after") };
        let found: Vec<usize> =
            (-signed(before)..signed(len + after)).map(|index| mirror(index, len)).collect();
        assert_eq!(found, numbers::<usize>(expected), "length {len}, {before} before, {after} after");
        cases += 1;
    }
    assert_eq!(cases, 25, "all cases are read");
}

#[test]
fn patches_beyond_the_edges_equal_numpy_pad_reflect() {
    let golden: Vec<u32> = numbers(include_str!("data/pad_reflect_scene.txt"));
    let golden = Array3::from_shape_vec((2, 5 + 18, 7 + 18), golden).expect("[2, 23, 25]");
    let scene = numbered(5, 7);
    for row in 0..23 {
        for col in 0..25 {
            for (height, width) in [(1, 1), (4, 9), (23 - row, 25 - col)] {
                let (height, width) = (height.min(23 - row), width.min(25 - col));
                let found = extract(scene.view(), signed(row) - 9, signed(col) - 9, height, width);
                assert_eq!(found, part(&golden, Window { row, col, height, width }), "{row} {col}");
            }
        }
    }
}

#[test]
fn turns_and_flips_equal_numpy() {
    let patch = numbered(3, 4);
    let mut elements = Dihedral::ALL.into_iter();
    for line in include_str!("data/dihedral.txt").lines() {
        let element = elements.next().expect("eight lines");
        let (case, expected) = line.split_once(':').expect("case : values");
        let (name, shape) = case.split_once(' ').expect("name rows columns");
        let [rows, cols] = numbers::<usize>(shape)[..] else { panic!("rows columns") };
        let expected = Array3::from_shape_vec((2, rows, cols), numbers(expected)).expect("the shape fits");
        assert_eq!(format!("{element:?}"), name, "the order of the file");
        assert_eq!(element.apply(patch.view()), expected, "{name}");
    }
    assert_eq!(elements.next(), None, "all elements are compared");
}

#[test]
fn each_turn_and_flip_is_undone_by_its_inverse() {
    let patch = numbered(3, 4);
    for element in Dihedral::ALL {
        let moved = element.apply(patch.view());
        assert_eq!(element.inverse().apply(moved), patch, "{element:?}");
    }
}

#[test]
#[should_panic(expected = "nothing to mirror")]
fn an_axis_without_pixels_cannot_be_mirrored() {
    mirror(0, 0);
}

proptest! {
    #[test]
    fn a_footprint_is_just_what_extraction_touches(
        scene_height in 1..20_usize, scene_width in 1..20_usize,
        row in -50..50_isize, col in -50..50_isize, height in 1..40_usize, width in 1..40_usize,
    ) {
        let scene = numbered(scene_height, scene_width);
        let window = footprint(row, col, height, width, scene_height, scene_width);
        let patch = extract(scene.view(), row, col, height, width);
        let found = extract(
            part(&scene, window).view(), row - signed(window.row), col - signed(window.col), height, width,
        );
        prop_assert_eq!(&found, &patch, "a patch of the part is a patch of the scene");

        // No smaller: the first and last row and column are read, where the patch meets the scene.
        let meets = |start: isize, count: usize, len: usize| start < signed(len) && start + signed(count) > 0;
        let reads = |row: usize, col: usize| patch.iter().any(|&value| value == scene[[0, row, col]]);
        if meets(row, height, scene_height) {
            prop_assert!(window.cols().any(|col| reads(window.row, col)));
            prop_assert!(window.cols().any(|col| reads(window.rows().end - 1, col)));
        } else {
            prop_assert_eq!(window.rows(), 0..scene_height);
        }
        if meets(col, width, scene_width) {
            prop_assert!(window.rows().any(|row| reads(row, window.col)));
            prop_assert!(window.rows().any(|row| reads(row, window.cols().end - 1)));
        } else {
            prop_assert_eq!(window.cols(), 0..scene_width);
        }
    }
}

#[test]
fn a_window_extracts_the_same_from_its_footprint_as_from_the_scene() {
    let geometry = Geometry::try_new(2, 3).expect("a small network");
    let scene = numbered(70, 45);
    let plan = WindowPlan::try_new(70, 45, geometry, 64).expect("64 - 40 = 24");
    let mut smaller = 0;
    for window in plan.iter() {
        let from = window.footprint(70, 45);
        let part = part(&scene, from);
        let (row, col) = (window.input_row - signed(from.row), window.input_col - signed(from.col));
        assert_eq!(extract(part.view(), row, col, 64, 64), window.extract(scene.view()), "{window:?}");
        smaller += usize::from(part.len() < scene.len());
    }
    assert!(smaller > 0, "some windows need a part of the scene only");
}
