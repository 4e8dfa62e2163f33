//! The operations as functions of burn's tensors. They take tensors of `f32` on flex; see [`takes`].

use burn::backend::{Dispatch, DispatchDevice};
use burn::nn::conv::Conv2d;
use burn::nn::{BatchNorm, PaddingConfig2d};
use burn::tensor::{DType, Device, Distribution, Tensor};

use super::Convolution;
use super::extension::CpuLayers;

/// Whether the tensor is one that the operations of this module take: `f32` on flex.
pub(crate) fn takes(x: &Tensor<4>) -> bool {
    x.dtype() == DType::F32 && has(&x.device())
}

/// Whether the device is the CPU.
pub(crate) fn has(device: &Device) -> bool {
    matches!(device.clone().inner().as_dispatch(), DispatchDevice::Flex(_))
}

/// A convolution of stride 1, plus bias, then ReLU if wanted.
///
/// `[batch, in, h, w]`, `[out, in, kh, kw]` and `[out]` → `[batch, out, h + top + bottom − kh + 1, …]`, with zeros
/// around the image: above, left, below and right of it.
pub(crate) fn convolve(
    images: Tensor<4>,
    weights: Tensor<4>,
    bias: Tensor<1>,
    padding: [usize; 4],
    relu: bool,
) -> Tensor<4> {
    let sizes = Convolution::new(images.dims(), weights.dims(), padding);
    dispatch(images, weights, bias, sizes, relu)
}

/// Nearest neighbour ×2, then a 2×2 convolution padded at the bottom and on the right, plus bias, then ReLU if wanted:
/// `[batch, in, h, w]` → `[batch, out, 2h, 2w]`.
pub(crate) fn up_convolve(images: Tensor<4>, weights: Tensor<4>, bias: Tensor<1>, relu: bool) -> Tensor<4> {
    let sizes = Convolution::doubled(images.dims(), weights.dims());
    dispatch(images, weights, bias, sizes, relu)
}

fn dispatch(
    images: Tensor<4>,
    weights: Tensor<4>,
    bias: Tensor<1>,
    sizes: Convolution,
    relu: bool,
) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as CpuLayers>::cpu_convolution(
        images.into_dispatch(),
        weights.into_dispatch(),
        bias.into_dispatch(),
        sizes,
        relu,
    ))
}

/// The largest of each 2×2: `[batch, c, h, w]` → `[batch, c, h/2, w/2]`, both sizes even.
pub(crate) fn pool(x: Tensor<4>) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as CpuLayers>::cpu_pool(x.into_dispatch()))
}

/// The channels of `x`, then those of the middle of `skip`.
pub(crate) fn concat_cropped(x: Tensor<4>, skip: Tensor<4>) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as CpuLayers>::cpu_concat_cropped(
        x.into_dispatch(),
        skip.into_dispatch(),
    ))
}

/// Zeros above, left, below and right of the image, where the convolution says them: those of the blocks do, and have
/// stride 1.
pub(crate) fn padding(conv: &Conv2d) -> Option<[usize; 4]> {
    match conv.padding {
        PaddingConfig2d::Valid => Some([0; 4]),
        PaddingConfig2d::Explicit(top, left, bottom, right) => Some([top, left, bottom, right]),
        PaddingConfig2d::Same => None,
    }
}

/// Batch norm by the statistics of the batch, which move the running ones as burn's own do, then ReLU if wanted.
pub(crate) fn normalise(norm: &BatchNorm, x: Tensor<4>, relu: bool) -> Tensor<4> {
    let [_, channels, ..] = x.dims();
    let found = statistics(x.clone());
    for (running, row) in [(&norm.running_mean, 0), (&norm.running_var, 1)] {
        let now = found.clone().narrow(0, row, 1).reshape([channels]);
        let before = running.value_sync().to_device(&x.device());
        running.update((before * (1.0 - norm.momentum) + now * norm.momentum).detach());
    }
    normalise_by(x, norm.gamma.val(), norm.beta.val(), found, norm.epsilon, relu)
}

/// Mean and biased variance of each channel, `[2, channels]`, without gradient.
fn statistics(x: Tensor<4>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as CpuLayers>::cpu_statistics(x.into_dispatch())).detach()
}

/// Batch norm with the statistics of this batch, as [`statistics`] gives them, then ReLU if wanted. The gradient is that
/// of all of it: the statistics depend on `x`.
fn normalise_by(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    statistics: Tensor<2>,
    epsilon: f64,
    relu: bool,
) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as CpuLayers>::cpu_normalise(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        statistics.into_dispatch(),
        epsilon,
        relu,
    ))
}

/// Sets a share of the values to zero and makes the others larger, so that their mean stays (Srivastava et al. 2014).
///
/// Which ones follows from two numbers that burn's generator of the device gives.
pub(crate) fn drop_out(x: Tensor<4>, share: f64) -> Tensor<4> {
    let drawn = Tensor::<1>::random([2], Distribution::Default, &x.device().inner()).into_data();
    let seed = drawn.iter::<f32>().fold(0, |seed, number| seed << 32 | u64::from(number.to_bits()));
    Tensor::from_dispatch(<Dispatch as CpuLayers>::cpu_drop_out(x.into_dispatch(), seed, share))
}

#[cfg(test)]
mod tests {
    use burn::nn::conv::Conv2dConfig;
    use burn::nn::{BatchNormConfig, Initializer};
    use burn::tensor::Tolerance;
    use burn::tensor::activation::relu;
    use burn::tensor::module::{interpolate, max_pool2d};
    use burn::tensor::ops::{InterpolateMode, InterpolateOptions, MaxPoolOptions};

    use super::*;

    fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
        let values = Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), device);
        if device.is_autodiff() { values.require_grad() } else { values }
    }

    /// Differences in units of the largest value: sums of up to 2,000 products in `f32` lose some 1e-6 on both sides.
    const ROUNDING: f32 = 5e-6;

    fn assert_near(ours: Tensor<4>, burns: Tensor<4>, tolerance: f32) {
        let largest = burns.clone().abs().max().into_scalar::<f32>();
        let off = (ours - burns).abs().max().into_scalar::<f32>() / largest;
        assert!(off < tolerance, "off by {off} of the largest value, {largest}");
    }

    /// Compares values and gradients of two ways to compute the same.
    fn assert_same<const N: usize>(
        inputs: [Tensor<4>; N],
        ours: Tensor<4>,
        burns: Tensor<4>,
        tolerance: f32,
    ) {
        assert_near(ours.clone(), burns.clone(), tolerance);
        let gradient = Tensor::random(ours.dims(), Distribution::Uniform(-1.0, 1.0), &ours.device());
        let [ours, burns] = [ours, burns].map(|output| (output * gradient.clone()).sum().backward());
        for input in inputs {
            let [ours, burns] =
                [&ours, &burns].map(|gradients| input.grad(gradients).expect("a gradient of each input"));
            assert_near(ours, burns, tolerance);
        }
    }

    #[test]
    fn convolutions_equal_burns_with_their_gradients() {
        let device = Device::flex().autodiff();
        for (kernel, padding, rectified) in [
            (3, PaddingConfig2d::Valid, true),
            (3, PaddingConfig2d::Explicit(1, 1, 1, 1), false),
            (5, PaddingConfig2d::Valid, true),
        ] {
            let conv = Conv2dConfig::new([5, 8], [kernel, kernel])
                .with_padding(padding)
                .with_initializer(Initializer::Uniform { min: -0.3, max: 0.3 })
                .init(&device);
            let x = random([2, 5, 21, 34], &device);
            let weights = conv.weight.val();
            let bias = conv.bias.as_ref().expect("a bias by default").val();
            let ours = convolve(
                x.clone(),
                weights.clone(),
                bias,
                self::padding(&conv).expect("explicit"),
                rectified,
            );
            let burns = conv.forward(x.clone());
            assert_same([x, weights], ours, if rectified { relu(burns) } else { burns }, ROUNDING);
        }
    }

    #[test]
    fn up_convolutions_equal_burns_with_their_gradients() {
        let device = Device::flex().autodiff();
        let conv = Conv2dConfig::new([6, 3], [2, 2])
            .with_padding(PaddingConfig2d::Explicit(0, 0, 1, 1))
            .init(&device);
        let x = random([2, 6, 7, 11], &device);
        let (weights, bias) = (conv.weight.val(), conv.bias.as_ref().expect("a bias by default").val());
        let ours = up_convolve(x.clone(), weights.clone(), bias, true);
        let twice = InterpolateOptions::new(InterpolateMode::Nearest).with_scale_factor([2.0, 2.0]);
        let burns = relu(conv.forward(interpolate(x.clone(), twice)));
        assert_same([x, weights], ours, burns, ROUNDING);
    }

    #[test]
    fn pooling_and_concatenation_equal_burns_with_their_gradients() {
        let device = Device::flex().autodiff();
        let (x, skip) = (random([2, 3, 8, 10], &device), random([2, 4, 14, 18], &device));
        let burns = max_pool2d(x.clone(), MaxPoolOptions::new([2, 2]));
        assert_same([x.clone()], pool(x.clone()), burns, ROUNDING);
        let cropped = skip.clone().narrow(2, 3, 8).narrow(3, 4, 10);
        let burns = Tensor::cat(vec![x.clone(), cropped], 1);
        assert_same([x.clone(), skip.clone()], concat_cropped(x, skip), burns, ROUNDING);
    }

    #[test]
    fn batch_norm_equals_burns_with_its_gradients_and_running_statistics() {
        let device = Device::flex().autodiff();
        // Also 1,700 deviations from 0, where differences of large numbers would leave few digits, as they do in burn's
        // mean: its operation gets the same values about 0, which normalise to the same.
        for (mean, rectified) in [(0.0, false), (0.0, true), (30.0, false), (1000.0, false)] {
            let x = (random([3, 5, 17, 23], &device) + mean).detach().require_grad();
            let [ours, burns] = [(); 2].map(|()| BatchNormConfig::new(5).with_epsilon(1e-3).init(&device));
            let burns_output = burns.forward(x.clone() - mean);
            let burns_output = if rectified { relu(burns_output) } else { burns_output };
            // The mean is kept in f32, half a unit of its last place off, and the deviation is 1 / √3.
            let tolerance = ROUNDING + mean * f32::EPSILON / 2.0 * 3.0_f32.sqrt();
            assert_same([x.clone()], normalise(&ours, x.clone(), rectified), burns_output, tolerance);
            for (ours, burns) in [
                (&ours.running_mean, burns.running_mean.value_sync() + burns.momentum * f64::from(mean)),
                (&ours.running_var, burns.running_var.value_sync()),
            ] {
                let tolerance = Tolerance::<f32>::rel_abs(1e-5, 1e-6);
                ours.value_sync().to_data().assert_approx_eq(&burns.to_data(), tolerance);
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let device = Device::flex();
        let x = Tensor::<4>::full([1, 2, 6, 6], f32::NAN, &device);
        let weights = Tensor::ones([2, 2, 3, 3], &device);
        let out = convolve(x, weights, Tensor::zeros([2], &device), [0; 4], true);
        assert!(out.is_nan().all().into_scalar::<bool>(), "ReLU does not hide a loss that has diverged");
    }

    #[test]
    fn dropout_keeps_its_share_and_gradients_go_where_values_went() {
        let device = Device::flex().autodiff();
        let x = Tensor::<4>::ones([2, 8, 100, 101], &device).require_grad();
        device.seed(5);
        let out = drop_out(x.clone(), 0.3);
        let again = drop_out(x.clone(), 0.3);
        device.seed(5);
        let same = drop_out(x.clone(), 0.3);
        assert_eq!(out.to_data(), same.to_data(), "by the seed of the device");
        assert_ne!(out.to_data(), again.to_data(), "other ones the next time");
        let gradient = x.grad(&out.clone().sum().backward()).expect("a gradient");
        assert_eq!(gradient.to_data(), out.to_data(), "of ones");
        let values = out.into_data().try_to_vec::<f32>().expect("f32");
        let kept = values.iter().filter(|value| **value != 0.0).count();
        assert!(values.iter().all(|&value| value == 0.0 || (value - 1.0 / 0.7).abs() < 1e-6), "0 or 1 / 0.7");
        // Four standard deviations of a count of 161,600 draws: 4 · √(0.3 · 0.7 / 161600) = 0.0046.
        let share = kept as f64 / values.len() as f64;
        assert!((share - 0.7).abs() < 0.0046, "{share} kept");
        // Neighbours are independent: of pairs in a row and of the same pixel in two channels, 0.49 are both kept.
        for distance in [1, 101, 100 * 101] {
            let pairs =
                values.iter().zip(&values[distance..]).filter(|(a, b)| **a != 0.0 && **b != 0.0).count();
            let share = pairs as f64 / (values.len() - distance) as f64;
            assert!((share - 0.49).abs() < 0.008, "{share} of the pairs at {distance} kept");
        }
    }
}
