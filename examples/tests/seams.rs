//! Prediction in windows equals prediction of the whole scene at once, with the real network.

use examples::predict::geometry;
use ndarray::{Array2, Array3, ArrayViewD, Axis};
use s2_patches::{Dihedral, WindowPlan, extract, stitch};
use unet_burn::burn::module::Module;
use unet_burn::burn::tensor::{Device, Distribution, Tensor};
use unet_burn::{PredictorConfig, UNet, UNetConfig, predict};

fn network(levels: usize, kernel: usize) -> UNet {
    let device = Device::flex();
    device.seed(3);
    let model = UNetConfig { in_channels: 2, levels, filters: 3, kernel, ..UNetConfig::default() }
        .init(&device)
        .unwrap();
    // Some life for the batch norms, whose statistics are 0 and 1 at the start: a step on an autodiff device.
    let size = model.config().output_size(1).map_or_else(smallest, |_| 1);
    let images = Tensor::random([2, 2, size, size], Distribution::Normal(0.3, 2.0), &device.autodiff());
    let model = model.train();
    let _ = model.forward(images).unwrap();
    model.valid()
}

fn smallest(error: unet_burn::Error) -> usize {
    match error {
        unet_burn::Error::InvalidSize { above, .. } => above,
        other => panic!("{other}"),
    }
}

fn in_windows(model: &UNet, scene: &Array3<f32>, window: usize) -> (Array2<f32>, usize) {
    let (_, height, width) = scene.dim();
    let plan = WindowPlan::try_new(height, width, geometry(model.config()).unwrap(), window).unwrap();
    let mut map = Array3::from_elem((1, height, width), f32::NAN);
    for window in plan.iter() {
        let size = window.input_size;
        let patch = extract(scene.view(), window.input_row, window.input_col, size, size);
        let output = predict(model, patch.insert_axis(Axis(0)).view(), &Device::flex()).unwrap();
        stitch(map.view_mut(), output.index_axis(Axis(0), 0), &window).unwrap();
    }
    (map.index_axis_move(Axis(0), 0), plan.len())
}

#[test]
fn windows_of_any_size_give_the_map_of_the_whole_scene() {
    for (levels, kernel) in [(1, 3), (2, 3), (3, 3), (2, 5)] {
        let model = network(levels, kernel);
        let scene = scene(157, 203);
        let sizes = geometry(model.config()).unwrap();
        let whole = sizes.valid_input_at_least(203 + 2 * sizes.margin() + sizes.spoiled());
        let (expected, windows) = in_windows(&model, &scene, whole);
        assert_eq!(windows, 1, "one window holds the scene");
        assert!(expected.iter().all(|p| p.is_finite()), "each pixel is predicted");
        let spread = expected.iter().fold(0.0_f32, |a, &p| a.max((p - expected[[0, 0]]).abs()));
        assert!(spread > 1e-4, "the map says something: {spread}");
        for extra in [0, 17, 60] {
            let least = 2 * sizes.margin() + sizes.spoiled() + sizes.step();
            let window = sizes.valid_input_at_least(least + extra);
            let (map, windows) = in_windows(&model, &scene, window);
            assert!(windows > 1, "more than one window");
            let difference = largest_difference(map.view().into_dyn(), expected.view().into_dyn());
            // The same sums in f32, whose order may depend on the size of the map: a few roundings of 6e-8.
            assert!(
                difference <= 1e-6 * 4.0,
                "levels {levels}, kernel {kernel}, window {window}: {difference}"
            );
        }
    }
}

fn scene(height: usize, width: usize) -> Array3<f32> {
    Array3::from_shape_fn((2, height, width), |(c, row, col)| {
        ((row * 7 + col * 13 + c * 5) * 2_654_435_761 % 1000) as f32 / 500.0 - 1.0
    })
}

/// Each pixel has to have a value: one that no window covers has none.
fn largest_difference(a: ArrayViewD<'_, f32>, b: ArrayViewD<'_, f32>) -> f32 {
    assert_eq!(a.shape(), b.shape());
    a.iter().zip(&b).fold(0.0, |worst, (a, b)| {
        assert!(a.is_finite() && b.is_finite(), "{a} and {b}");
        worst.max((a - b).abs())
    })
}

/// Mean and spread of the eight views, in windows.
fn in_windows_in_all_views(model: &UNet, scene: &Array3<f32>, window: usize) -> (Array3<f32>, usize) {
    let (_, height, width) = scene.dim();
    let config = PredictorConfig { all_views: true, spread: true, ..PredictorConfig::default() };
    let predictor = config.init(model, &Device::flex()).unwrap();
    let plan = WindowPlan::for_all_views(height, width, geometry(model.config()).unwrap(), window).unwrap();
    let mut map = Array3::from_elem((2, height, width), f32::NAN);
    for window in plan.iter() {
        let output = predictor.predict(window.extract(scene.view()).insert_axis(Axis(0))).unwrap();
        stitch(map.view_mut(), output.index_axis(Axis(0), 0), &window).unwrap();
    }
    (map, plan.len())
}

#[test]
fn all_views_of_windows_are_all_views_of_the_scene() {
    for levels in [1, 2] {
        let model = network(levels, 3);
        let sizes = geometry(model.config()).unwrap();
        // The turned scene by itself pools the pixels that the turned windows pool where its size is an output's.
        let [height, width] = [80, 112]
            .map(|least| sizes.output_size(sizes.valid_input_at_least(least + 2 * sizes.margin())).unwrap());
        let scene = scene(height, width);
        let whole = sizes.valid_input_at_least(width + 2 * sizes.margin() + sizes.spoiled());
        let views: Vec<_> = Dihedral::ALL
            .iter()
            .map(|view| {
                let turned = view.apply(scene.view()).as_standard_layout().into_owned();
                let (map, windows) = in_windows(&model, &turned, whole);
                assert_eq!(windows, 1, "the turned scene at once");
                view.inverse().apply(map.insert_axis(Axis(0)).view()).mapv(f64::from)
            })
            .collect();
        let zeros = Array3::zeros((1, height, width));
        let mean = views.iter().fold(zeros.clone(), |sum, view| sum + view) / 8.0;
        let spread = views.iter().fold(zeros, |sum, view| sum + (view - &mean).mapv(|d: f64| d * d)) / 8.0;
        let spread = spread.mapv(f64::sqrt);
        assert!(spread.iter().any(|&spread| spread > 1e-3), "the views differ");
        let expected = ndarray::concatenate![Axis(0), mean, spread].mapv(|value| value as f32);
        let least = 2 * sizes.margin() + 2 * sizes.step() + sizes.spoiled();
        for extra in [0, 17, 40] {
            let (map, windows) =
                in_windows_in_all_views(&model, &scene, sizes.valid_input_at_least(least + extra));
            assert!(windows > 1, "more than one window");
            let difference = largest_difference(map.view().into_dyn(), expected.view().into_dyn());
            // As for one view: the same sums in another order.
            assert!(difference <= 4e-6, "levels {levels}, {extra}: {difference}");
        }
    }
}

#[test]
fn all_views_have_no_seams_whatever_the_scene() {
    let model = network(3, 3);
    let sizes = geometry(model.config()).unwrap();
    let scene = scene(93, 131);
    let lost = 2 * sizes.margin() + sizes.step() + sizes.spoiled();
    let (expected, windows) = in_windows_in_all_views(&model, &scene, sizes.valid_input_at_least(lost + 131));
    assert_eq!(windows, 1, "one window holds the scene");
    for extra in [8, 25, 60] {
        let (map, windows) =
            in_windows_in_all_views(&model, &scene, sizes.valid_input_at_least(lost + extra));
        assert!(windows > 1, "more than one window");
        let difference = largest_difference(map.view().into_dyn(), expected.view().into_dyn());
        assert!(difference <= 4e-6, "{extra}: {difference}");
    }
}

#[test]
fn geometry_and_network_agree_on_every_size() {
    for (levels, kernel) in [(1, 3), (3, 3), (4, 3), (4, 5), (4, 7)] {
        let config = UNetConfig { levels, kernel, ..UNetConfig::default() };
        let sizes = geometry(&config).unwrap();
        for size in 1..700 {
            assert_eq!(
                config.output_size(size).ok(),
                sizes.output_size(size).ok(),
                "{size} of {levels}, {kernel}"
            );
        }
    }
}
