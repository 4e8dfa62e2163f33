//! Plans and stitching: each pixel once, in the right place.

use proptest::prelude::*;
use s2_patches::ndarray::{Array2, Array3};
use s2_patches::{Error, Geometry, Window, WindowPlan, stitch};

fn geometries() -> impl Strategy<Value = Geometry> {
    (0..=4_usize, prop::sample::select(vec![1_usize, 3, 5]), any::<bool>()).prop_map(
        |(levels, kernel, padded)| {
            let geometry = Geometry::try_new(levels, kernel).expect("a usual network");
            if padded { geometry.with_padded_up_convolution() } else { geometry }
        },
    )
}

proptest! {
    #[test]
    fn every_pixel_is_in_exactly_one_window(
        geometry in geometries(), height in 0..200_usize, width in 0..200_usize, more in 0..150_usize,
        kind in 0..3_usize,
    ) {
        let contiguous = kind == 2;
        let skipped = if kind == 1 { geometry.spoiled().next_multiple_of(geometry.step()) } else { 0 };
        let needed = 2 * geometry.margin() + skipped + geometry.spoiled() + geometry.step();
        let input = geometry.valid_input_at_least(needed + more);
        let output = geometry.output_size(input).expect("a valid size");
        let plan = [WindowPlan::try_new, WindowPlan::for_all_views, WindowPlan::contiguous][kind];
        let plan = plan(height, width, geometry, input).expect("the size is large enough");
        let mut times = Array2::<u8>::zeros((height, width));
        for window in plan.iter() {
            for row in window.output.rows() {
                for col in window.output.cols() {
                    times[[row, col]] += 1;
                }
            }
        }
        prop_assert!(times.iter().all(|&times| times == 1));
        let largest = if contiguous { output } else { output - skipped - geometry.spoiled() };
        for (index, window) in plan.iter().enumerate() {
            prop_assert_eq!(plan.get(index), Some(window));
            prop_assert_eq!((window.input_size, window.output_size), (input, output));
            let Window { row, col, height, width } = window.output;
            prop_assert_eq!((row % plan.stride(), col % plan.stride()), (0, 0));
            prop_assert!((1..=largest).contains(&height) && (1..=largest).contains(&width));
            prop_assert_eq!(window.skipped, skipped);
            let margin = isize::try_from(geometry.margin() + skipped).expect("small");
            prop_assert_eq!(window.input_row + margin, isize::try_from(row).expect("small"));
            prop_assert_eq!(window.input_col + margin, isize::try_from(col).expect("small"));
        }
        prop_assert_eq!(plan.iter().len(), plan.len());
        prop_assert_eq!(plan.input_pixels(), plan.iter().map(|window| window.input_size.pow(2) as u64).sum());
        let first_row = plan.iter().filter(|window| window.output.row == 0).count();
        prop_assert_eq!(if plan.is_empty() { 0 } else { plan.per_row() }, first_row);
        prop_assert_eq!(plan.get(plan.len()), None);
        prop_assert_eq!(plan.is_empty(), height == 0 || width == 0);
        if !contiguous {
            prop_assert_eq!(plan.stride() % geometry.step(), 0);
            prop_assert!(plan.stride() + geometry.step() > largest, "the stride is the largest one");
        }
    }

    #[test]
    fn stitched_windows_make_the_scene(
        height in 1..90_usize, width in 1..90_usize, more in 0..60_usize, padded in any::<bool>(),
        all_views in any::<bool>(),
    ) {
        let geometry = Geometry::try_new(2, 3).expect("a small network");
        let geometry = if padded { geometry.with_padded_up_convolution() } else { geometry };
        let input = geometry.valid_input_at_least(geometry.smallest_input() + 2 * geometry.step() + more);
        let plan = if all_views { WindowPlan::for_all_views } else { WindowPlan::try_new };
        let plan = plan(height, width, geometry, input).expect("the size is large enough");
        let value = |channel: usize, row: usize, col: usize| {
            (channel * 1000).wrapping_add(row).wrapping_mul(1000).wrapping_add(col)
        };
        let mut scene = Array3::from_elem((2, height, width), usize::MAX);
        for window in plan.iter() {
            let (row, col, size) = (window.output.row, window.output.col, window.output_size);
            let place = |first: usize, i: usize| (first + i).wrapping_sub(window.skipped);
            let patch = Array3::from_shape_fn((2, size, size), |(c, i, j)| value(c, place(row, i), place(col, j)));
            stitch(scene.view_mut(), patch.view(), &window).expect("the patch fits");
        }
        prop_assert_eq!(scene, Array3::from_shape_fn((2, height, width), |(c, i, j)| value(c, i, j)));
    }
}

#[test]
fn strides_of_the_paper_are_384_and_368_and_388_by_choice() {
    let unet = Geometry::try_new(4, 3).expect("the network of the paper");
    let stride = |geometry| WindowPlan::try_new(1000, 1000, geometry, 572).expect("572 is valid").stride();
    assert_eq!(stride(unet), 384);
    assert_eq!(stride(unet.with_padded_up_convolution()), 368);
    let contiguous = WindowPlan::contiguous(1000, 1000, unet, 572).expect("572 is valid");
    assert_eq!((contiguous.stride(), contiguous.len()), (388, 9));
}

#[test]
fn the_cheapest_plan_is_the_one_that_a_slow_search_finds() {
    let unet = Geometry::try_new(4, 3).expect("the network of the paper").with_padded_up_convolution();
    for (height, width, largest) in
        [(5490, 5490, 1100), (5490, 700, 2108), (300, 200, 4000), (10_980, 10_980, 600)]
    {
        let plan = |size| WindowPlan::try_new(height, width, unet, size).ok();
        let cheapest = WindowPlan::cheapest(plan, unet, largest).expect("there is one");
        let costs = (1..=largest).filter_map(|size| Some((plan(size)?.input_pixels(), size)));
        assert_eq!(
            Some((cheapest.input_pixels(), cheapest.input_size())),
            costs.min(),
            "{height} {width} {largest}"
        );
    }
    assert_eq!(WindowPlan::cheapest(|size| WindowPlan::try_new(50, 50, unet, size).ok(), unet, 219), None);
}

#[test]
fn a_scene_that_fits_one_output_needs_one_window() {
    let unet = Geometry::try_new(4, 3).expect("the network of the paper");
    let plan = WindowPlan::try_new(388, 300, unet, 572).expect("572 is valid");
    let windows: Vec<Window> = plan.iter().map(|window| window.output).collect();
    assert_eq!(windows, [Window { row: 0, col: 0, height: 388, width: 300 }]);
}

#[test]
fn an_input_without_a_whole_step_is_refused_with_the_smallest_that_has_one() {
    let unet = Geometry::try_new(4, 3).expect("the network of the paper").with_padded_up_convolution();
    let error = WindowPlan::try_new(1000, 1000, unet, 188).expect_err("the output has 4 rows");
    assert_eq!(error, Error::Step { input: 188, usable: 0, step: 16, smallest: 220 });
    assert_eq!(WindowPlan::try_new(1000, 1000, unet, 220).map(|plan| plan.stride()), Ok(16));
    let before = WindowPlan::try_new(1000, 1000, unet, 204).expect_err("20 rows, 15 of them spoiled");
    assert_eq!(before, Error::Step { input: 204, usable: 5, step: 16, smallest: 220 });
    let invalid = WindowPlan::contiguous(1000, 1000, unet, 570).expect_err("not ≡ 12 mod 16");
    assert!(matches!(invalid, Error::InputSize { below: Some(556), above: 572, .. }), "{invalid}");
}

#[test]
fn a_patch_of_another_shape_and_a_window_of_another_scene_are_refused() {
    let geometry = Geometry::try_new(1, 3).expect("a small network");
    let plan = WindowPlan::try_new(40, 40, geometry, 36).expect("36 - 16 = 20");
    let window = plan.get(3).expect("2 by 2 windows");
    let mut scene = Array3::<f32>::zeros((1, 40, 40));
    let input = Array3::ones((1, 36, 36));
    assert_eq!(
        stitch(scene.view_mut(), input.view(), &window),
        Err(Error::PatchShape { expected: [1, 20, 20], found: [1, 36, 36] }),
        "the input instead of the output"
    );
    let patch = Array3::ones((1, 20, 20));
    let mut small = Array3::<f32>::zeros((1, 40, 39));
    assert_eq!(
        stitch(small.view_mut(), patch.view(), &window),
        Err(Error::OutsideScene { window: window.output, height: 40, width: 39 })
    );
    assert!(scene.iter().chain(&small).all(|&value| value == 0.0), "nothing is copied");
}
