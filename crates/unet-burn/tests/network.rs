//! The published numbers, windows, folded norms, and what does not fit.

mod common;

use common::{filled, image, relative_error, values};
use ndarray::Array4;
use unet_burn::burn::module::Module;
use unet_burn::burn::tensor::{Device, Tensor};
use unet_burn::{Error, Layout, Padding, UNetConfig, UpConvolution, predict};

const LAYOUTS: [Layout; 4] = [Layout::AsmMap, Layout::Seed, Layout::Vanilla, Layout::Residual];
const WAYS: [(Padding, UpConvolution); 4] = [
    (Padding::Valid, UpConvolution::Upsample),
    (Padding::Valid, UpConvolution::Transposed),
    (Padding::Same, UpConvolution::Upsample),
    (Padding::Same, UpConvolution::Transposed),
];

/// 4,480 of those of the released network are running statistics of batch norm; burn counts these too. The other
/// layouts' numbers are those of the same network in PyTorch (`data/make_golden.py`).
#[test]
fn the_published_networks_have_their_numbers_of_parameters() {
    let device = Device::flex();
    let networks = [
        (UNetConfig::asm_map(), 31_052_801),
        (UNetConfig { in_channels: 22, ..UNetConfig::asm_map() }, 31_051_649),
        (UNetConfig::seed(), 31_066_241),
        (UNetConfig::vanilla(), 31_030_658),
        (UNetConfig::residual(), 32_463_233),
    ];
    for (config, published) in networks {
        let model = config.init(&device).unwrap();
        assert_eq!(model.num_params(), published, "{config:?}");
    }
    let stored = UNetConfig::asm_map().init(&device).unwrap().to_safetensors().unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&stored).unwrap();
    let total: usize =
        tensors.tensors().iter().map(|(_, tensor)| tensor.shape().iter().product::<usize>()).sum();
    assert_eq!(total, 31_052_801, "in the file");
}

#[test]
fn a_window_of_572_gives_388() {
    let device = Device::flex();
    let model = UNetConfig { in_channels: 2, filters: 1, ..UNetConfig::default() }.init(&device).unwrap();
    let logits = model.forward(Tensor::zeros([1, 2, 572, 572], &device)).unwrap();
    assert_eq!(logits.dims(), [1, 1, 388, 388], "Ronneberger 2015, figure 1");
}

#[test]
fn an_input_that_does_not_fit_is_refused() {
    let device = Device::flex();
    let config = UNetConfig { in_channels: 2, filters: 1, ..UNetConfig::default() };
    let refused = |config: &UNetConfig, channels, size| {
        let model = config.init(&device).unwrap();
        predict(&model, Array4::zeros((1, channels, size, size)).view(), &device).unwrap_err()
    };
    assert_eq!(
        refused(&config, 2, 190).to_string(),
        "190 is no valid input size for 4 levels and kernel 3: use 188 or 204",
        "size"
    );
    let wrong_channels = refused(&config, 3, 188);
    assert!(matches!(wrong_channels, Error::InputShape { in_channels: 2, .. }), "{wrong_channels}");
    let same = UNetConfig { padding: Padding::Same, ..config };
    assert!(matches!(refused(&same, 2, 40), Error::InvalidSize { below: Some(32), above: 48, .. }), "same");
    assert!(matches!(refused(&same, 2, 8), Error::InvalidSize { below: None, above: 16, .. }), "too small");
}

/// One pass changes each number by some roundings, and a fold adds two more to each weight; so the difference is
/// that of two networks against PyTorch (see `pytorch.rs`): twice 1e-5.
#[test]
fn folded_norms_do_not_change_the_logits() {
    let device = Device::flex();
    for layout in LAYOUTS {
        for (padding, up) in WAYS {
            let config = UNetConfig {
                layout,
                padding,
                up,
                in_channels: 3,
                levels: 3,
                filters: 4,
                ..UNetConfig::default()
            };
            let size = smallest(&config);
            let images = || image([2, 3, size, size + config.step()], &device);
            let model = filled(&config, &device);
            let expected: Vec<f64> =
                values(model.forward(images()).unwrap()).into_iter().map(f64::from).collect();
            let parameters = model.num_params();
            let folded = model.fold_norms();
            let error = relative_error(&values(folded.forward(images()).unwrap()), &expected);
            println!("{layout:?} {padding:?} {up:?}: relative error {error:.2e}");
            assert!(error <= 2e-5, "relative error {error} of {config:?}");
            // A norm has four numbers a channel; what is left is a network without norms.
            let convolutions =
                UNetConfig { layout: Layout::Vanilla, ..config.clone() }.init(&device).unwrap();
            let left = folded.num_params();
            let expected = match (layout, padding) {
                (Layout::AsmMap, Padding::Same) => Some(parameters),
                (Layout::Residual, _) => None,
                _ => Some(convolutions.num_params()),
            };
            assert!(expected.is_none_or(|expected| left == expected), "{left} are left of {config:?}");
            assert_eq!(
                left < parameters,
                expected != Some(parameters),
                "{left} of {parameters} in {config:?}"
            );
        }
    }
}

fn smallest(config: &UNetConfig) -> usize {
    match config.output_size(1) {
        Err(Error::InvalidSize { above, .. }) => above,
        other => panic!("one pixel is too small: {other:?}"),
    }
}

/// A window within a larger one, on its grid of poolings: the same logits but for the spoiled rows and columns.
#[test]
fn windows_agree_but_for_their_spoiled_rows() {
    let device = Device::flex();
    for layout in LAYOUTS {
        for (padding, up) in WAYS {
            let config = UNetConfig {
                layout,
                padding,
                up,
                in_channels: 2,
                levels: 2,
                filters: 4,
                ..UNetConfig::default()
            };
            let model = filled(&config, &device);
            let [top, bottom] = config.spoiled();
            let step = config.step();
            // 12 clean rows and more in the small window, and as much of the large one around it as gets spoiled.
            let shift = top.next_multiple_of(step) + step;
            let valid_at_least = |size| match config.output_size(size) {
                Ok(_) => size,
                Err(Error::InvalidSize { above, .. }) => above,
                Err(other) => panic!("{other}"),
            };
            let small = valid_at_least(top + bottom + 12 + smallest(&config));
            let large = valid_at_least(small + shift + bottom + step);
            let whole = image([1, 2, large, large], &device);
            let part = whole.clone().narrow(2, shift, small).narrow(3, shift, small);
            let (whole, part) = (model.forward(whole).unwrap(), model.forward(part).unwrap());
            let output = config.output_size(small).unwrap();
            let same_pixels = whole.narrow(2, shift, output).narrow(3, shift, output);
            let differences =
                Array4::from_shape_vec((1, 1, output, output), values((same_pixels - part).abs())).unwrap();
            let worst = |rows: std::ops::Range<usize>, cols: std::ops::Range<usize>| {
                let part = differences.slice(ndarray::s![0, 0, rows, cols]);
                assert!(part.iter().all(|value| value.is_finite()), "numbers");
                part.iter().fold(0.0_f32, |worst, &value| worst.max(value))
            };
            let clean = top..output - bottom;
            // Logits are about 1; the same f32 sums may come in another order.
            let rounding = 1e-5;
            let difference = worst(clean.clone(), clean.clone());
            assert!(difference <= rounding, "{difference} in the clean part of {config:?}");
            // The rows and columns beside the clean part, and the outermost ones.
            let mut spoiled = Vec::new();
            if top > 0 {
                spoiled.extend([0, top - 1]);
            }
            if bottom > 0 {
                spoiled.extend([output - bottom, output - 1]);
            }
            for edge in spoiled {
                let seam = worst(edge..edge + 1, clean.clone()).min(worst(clean.clone(), edge..edge + 1));
                assert!(seam > 10.0 * rounding, "{seam} in row or column {edge} of {output}: {config:?}");
            }
        }
    }
}
