//! Prediction in windows equals prediction of the whole scene at once, with the real network.

use examples::predict::geometry;
use ndarray::{Array2, Array3, Axis};
use s2_patches::{WindowPlan, extract, stitch};
use unet_burn::burn::module::Module;
use unet_burn::burn::tensor::{Device, Distribution, Tensor};
use unet_burn::{UNet, UNetConfig, predict};

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
        let scene = Array3::from_shape_fn((2, 157, 203), |(c, row, col)| {
            ((row * 7 + col * 13 + c * 5) * 2_654_435_761 % 1000) as f32 / 500.0 - 1.0
        });
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
            let difference =
                map.iter().zip(&expected).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs()));
            // The same sums in f32, whose order may depend on the size of the map: a few roundings of 6e-8.
            assert!(
                difference <= 1e-6 * 4.0,
                "levels {levels}, kernel {kernel}, window {window}: {difference}"
            );
        }
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
