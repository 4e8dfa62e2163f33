//! Views, spread and half precision, each beside the slow and obvious way.

use ndarray::{Array3, Array4, ArrayView3, Axis, concatenate, s};
use unet_burn::burn::module::Module;
use unet_burn::burn::tensor::{Device, Distribution, Tensor};
use unet_burn::{Error, Layout, PredictorConfig, UNet, UNetConfig, predict, prediction_bytes};

/// Random weights, and batch norms with a life behind them.
fn network() -> UNet {
    let device = Device::flex();
    device.seed(5);
    let config = UNetConfig { in_channels: 3, levels: 2, filters: 4, ..UNetConfig::default() };
    let model = config.init(&device).unwrap().train();
    let images = Tensor::random([2, 3, 60, 60], Distribution::Normal(0.3, 2.0), &device.autodiff());
    let _ = model.forward(images).unwrap();
    model.valid()
}

fn patches(batch: usize) -> Array4<f32> {
    Array4::from_shape_fn((batch, 3, 60, 60), |(b, c, row, col)| {
        ((row * 7 + col * 13 + c * 5 + b * 31) * 2_654_435_761 % 1000) as f32 / 500.0 - 1.0
    })
}

fn largest_difference(a: impl IntoIterator<Item = f64>, b: impl IntoIterator<Item = f64>) -> f64 {
    a.into_iter().zip(b).fold(0.0, |worst, (a, b)| {
        let difference = (a - b).abs();
        assert!(difference.is_finite(), "{a} and {b}");
        worst.max(difference)
    })
}

/// The eight, by quarter turns of a patch and of its mirror image: another way than the crate's.
fn turned(patch: ArrayView3<'_, f32>, view: usize) -> Array3<f32> {
    let mut patch = patch.to_owned();
    if view >= 4 {
        patch.invert_axis(Axis(2));
    }
    for _ in 0..view % 4 {
        patch.swap_axes(1, 2);
        patch.invert_axis(Axis(1));
    }
    patch.as_standard_layout().into_owned()
}

fn turned_back(map: ArrayView3<'_, f32>, view: usize) -> Array3<f32> {
    let mut map = map.to_owned();
    for _ in 0..view % 4 {
        map.invert_axis(Axis(1));
        map.swap_axes(1, 2);
    }
    if view >= 4 {
        map.invert_axis(Axis(2));
    }
    map.as_standard_layout().into_owned()
}

#[test]
fn all_views_give_mean_and_deviation_of_eight_predictions() {
    let device = Device::flex();
    let model = network();
    let patches = patches(2);
    let config = PredictorConfig { all_views: true, spread: true, ..PredictorConfig::default() };
    let predictor = config.init(&model, &device).unwrap();
    assert_eq!(predictor.num_maps(), 2);
    let maps = predictor.predict(patches.view()).unwrap();
    assert_eq!(maps.dim(), (2, 2, 20, 20));
    for (patch, maps) in patches.outer_iter().zip(maps.outer_iter()) {
        let views: Vec<_> = (0..8)
            .map(|view| {
                let turned = turned(patch, view).insert_axis(Axis(0));
                let map = predict(&model, turned, &device).unwrap();
                turned_back(map.index_axis(Axis(0), 0), view).mapv(f64::from)
            })
            .collect();
        let mean = views.iter().fold(Array3::zeros((1, 20, 20)), |sum, view| sum + view) / 8.0;
        let variance = views
            .iter()
            .fold(Array3::zeros((1, 20, 20)), |sum, view| sum + (view - &mean).mapv(|d: f64| d * d))
            / 8.0;
        let spread = variance.mapv(f64::sqrt);
        assert!(spread.iter().any(|&spread| spread > 1e-3), "the views differ");
        let expected = concatenate![Axis(0), mean, spread];
        // A few roundings of values up to 1 (6e-8 each), which a small spread does not cancel: it is a root of squares.
        let difference = largest_difference(maps.mapv(f64::from), expected);
        assert!(difference < 1e-6, "{difference}");
    }
    let config = PredictorConfig { spread: false, ..config };
    let mean = config.init(&model, &device).unwrap().predict(patches).unwrap();
    assert_eq!(mean, maps.slice(s![.., ..1, .., ..]), "the mean is the same without the spread");
}

#[test]
fn half_precision_is_near_and_leaves_the_network_as_it_was() {
    let device = Device::flex();
    let model = network();
    let before = predict(&model, patches(1), &device).unwrap();
    let config = PredictorConfig { half: true, ..PredictorConfig::default() };
    let half = config.init(&model, &device).unwrap().predict(patches(1)).unwrap();
    let difference = largest_difference(half.mapv(f64::from), before.mapv(f64::from));
    // 11 bits a value, 2^-11 = 5e-4 relative; ten layers add up, and the sigmoid's slope takes a quarter of the logit's.
    assert!(difference < 5e-3, "{difference}");
    assert!(difference > 0.0, "it is another precision");
    assert_eq!(predict(&model, patches(1), &device).unwrap(), before, "the network itself is not changed");
}

#[test]
fn a_batch_gives_what_its_patches_give_in_any_memory_layout() {
    let device = Device::flex();
    let model = network();
    let patches = patches(3);
    let together = predict(&model, patches.view(), &device).unwrap();
    for (patch, expected) in patches.outer_iter().zip(together.outer_iter()) {
        let alone = predict(&model, patch.insert_axis(Axis(0)), &device).unwrap();
        assert!(largest_difference(alone.mapv(f64::from), expected.mapv(f64::from)) < 1e-6, "one patch");
    }
    let by_channel = patches.view().permuted_axes([1, 0, 2, 3]).as_standard_layout().into_owned();
    let view = by_channel.view().permuted_axes([1, 0, 2, 3]);
    assert_eq!(predict(&model, view, &device).unwrap(), together, "a view");
    let owned = by_channel.permuted_axes([1, 0, 2, 3]);
    assert_eq!(predict(&model, owned, &device).unwrap(), together, "an array");
}

#[test]
fn an_image_by_rows_gives_what_it_gives_at_once() {
    let device = Device::flex();
    let predictor = PredictorConfig::default().init(&network(), &device).unwrap();
    let image = Array3::from_shape_fn((3, 100, 60), |(c, row, col)| {
        ((row * 7 + col * 13 + c * 5) * 2_654_435_761 % 1000) as f32 / 500.0 - 1.0
    });
    let expected = predictor.predict(image.view().insert_axis(Axis(0))).unwrap();
    let mut rows = predictor.by_rows(100, 60).unwrap().expect("on the CPU");
    let mut map = Vec::new();
    for range in [0..1, 1..40, 40..40, 40..99] {
        map.push(rows.push(image.slice(s![.., range, ..])).unwrap());
    }
    for wrong in [(3, 1, 56), (2, 1, 60), (3, 2, 60)] {
        let error = rows.push(Array3::zeros(wrong).view()).unwrap_err();
        assert!(matches!(error, Error::InputShape { .. }), "{wrong:?}: {error}");
    }
    // The last one, in another memory layout.
    let last = image.slice(s![.., 99.., ..]).reversed_axes().as_standard_layout().into_owned();
    map.push(rows.push(last.view().reversed_axes()).unwrap());
    let views: Vec<_> = map.iter().map(|rows| rows.view()).collect();
    assert_eq!(concatenate(Axis(0), &views).unwrap(), expected.slice(s![0, 0, .., ..]), "to the bit");

    let bytes = |height| predictor.by_rows(height, 60).unwrap().unwrap().bytes();
    assert!(bytes(100) > 0 && bytes(100_000) == bytes(200_000), "the memory is that of some rows");
    assert!(matches!(predictor.by_rows(100, 58), Err(Error::InvalidSize { size: 58, .. })));
    let all_views = PredictorConfig { all_views: true, ..PredictorConfig::default() };
    assert!(all_views.init(&network(), &device).unwrap().by_rows(100, 60).unwrap().is_none());
}

/// Row by row a large image needs less than its maps; layer by layer these count.
#[test]
fn a_network_that_goes_by_rows_needs_little_memory() {
    let bytes = |layout, views| {
        let config = UNetConfig { in_channels: 22, filters: 16, layout, ..UNetConfig::default() };
        let model = config.init(&Device::flex()).unwrap();
        let predictor = PredictorConfig { all_views: views, ..PredictorConfig::default() };
        let predictor = predictor.init(&model, &Device::flex()).unwrap();
        assert!(matches!(predictor.bytes(1, 2045), Err(Error::InvalidSize { .. })));
        let whole = prediction_bytes(&config, 2044).unwrap();
        [1, 3].map(|batch| predictor.bytes(batch, 2044).unwrap() as f64 / whole as f64)
    };
    let [one, three] = bytes(Layout::Vanilla, false);
    // Seen for 2044 columns: 0.24 GB of rows and 0.04 of the map.
    assert!(one > 0.1 && one < 0.4, "{one} of all maps");
    assert!(three < 1.5 * one, "patches go one after the other: {three} and {one}");
    let [with_views, _] = bytes(Layout::Vanilla, true);
    assert!(with_views > one + 0.3, "eight maps and a turned patch: {with_views}");
    let [one, three] = bytes(Layout::Residual, false);
    assert!(one > 1.0 && (three / one - 3.0).abs() < 1e-9, "{one} and {three} of all maps");
}

#[test]
fn what_cannot_be_looked_at_so_is_refused() {
    let device = Device::flex();
    let model = network();
    let config = PredictorConfig { spread: true, ..PredictorConfig::default() };
    let error = config.init(&model, &device).unwrap_err();
    assert!(matches!(error, Error::InvalidConfig { field: "spread", .. }), "{error}");
    let config = PredictorConfig { all_views: true, ..config };
    let oblong = Array4::zeros((1, 3, 60, 64));
    let error = config.init(&model, &device).unwrap().predict(oblong).unwrap_err();
    assert!(matches!(error, Error::InputShape { .. }), "a quarter turn has another shape: {error}");
}
