//! Splits are refused where pixels of two of them are neighbours.

use std::collections::HashSet;

use proptest::prelude::*;
use s2_patches::{Error, Split, Window, check_split};

const fn window(row: usize, col: usize, height: usize, width: usize) -> Window {
    Window { row, col, height, width }
}

fn windows() -> impl Strategy<Value = Vec<Window>> {
    let window = (0..25_usize, 0..25_usize, 1..8_usize, 1..8_usize);
    prop::collection::vec(
        window.prop_map(|(row, col, height, width)| self::window(row, col, height, width)),
        0..4,
    )
}

fn pixels(windows: &[Window]) -> HashSet<(usize, usize)> {
    windows
        .iter()
        .flat_map(|window| window.rows().flat_map(|row| window.cols().map(move |col| (row, col))))
        .collect()
}

proptest! {
    #[test]
    fn the_distance_equals_that_of_the_nearest_two_pixels(
        train in windows(), validation in windows(), test in windows(),
    ) {
        let splits = [("train", &train), ("validation", &validation), ("test", &test)]
            .map(|(name, footprints)| Split { name, footprints });
        let pixels = [&train, &validation, &test].map(|windows| pixels(windows));
        let mut nearest = None;
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            for p in &pixels[a] {
                for q in &pixels[b] {
                    let steps = p.0.abs_diff(q.0).max(p.1.abs_diff(q.1));
                    nearest = Some(nearest.map_or(steps, |nearest: usize| nearest.min(steps)));
                }
            }
        }
        match (check_split(&splits), nearest) {
            (Ok(gap), None) => prop_assert_eq!(gap, None),
            // Pixels n steps apart have n - 1 pixels between them.
            (Ok(gap), Some(steps)) => prop_assert_eq!(gap, steps.checked_sub(1)),
            (Err(_), steps) => prop_assert!(steps <= Some(1)),
        }
        if let Some(0 | 1) = nearest {
            prop_assert!(check_split(&splits).is_err());
        }
    }
}

#[test]
fn the_refusal_names_the_splits_the_footprints_and_the_overlap() {
    let train = [window(0, 0, 572, 572), window(0, 1000, 572, 572)];
    let test = [window(560, 1500, 572, 572)];
    let splits = [Split { name: "train", footprints: &train }, Split { name: "test", footprints: &test }];
    let error = check_split(&splits).expect_err("12 rows overlap");
    assert_eq!(
        error.to_string(),
        "splits train and test overlap by 12 pixels: window of 572 rows and 572 columns at row 0, column 1000 and \
         window of 572 rows and 572 columns at row 560, column 1500; keep at least one pixel between them"
    );
}

#[test]
fn footprints_that_touch_at_a_corner_are_refused() {
    let (train, test) = ([window(0, 0, 10, 10)], [window(10, 10, 5, 5)]);
    let splits = [Split { name: "train", footprints: &train }, Split { name: "test", footprints: &test }];
    let error = check_split(&splits).expect_err("a corner is shared");
    assert!(matches!(error, Error::SplitsTouch { overlap: 0, .. }), "{error}");
    assert!(error.to_string().contains("train and test touch:"), "{error}");
}

#[test]
fn footprints_of_one_split_may_overlap() {
    let train = [window(0, 0, 10, 10), window(5, 5, 10, 10)];
    assert_eq!(check_split(&[Split { name: "train", footprints: &train }]), Ok(None));
}
