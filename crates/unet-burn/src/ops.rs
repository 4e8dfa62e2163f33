//! The operations that the blocks are made of: every tensor of the network passes through these.
//!
//! On the CPU they are those of [`cpu`](crate::cpu), on other devices burn's.
//!
//! The type of a map is that of the network's input. In half precision a convolution rounds its weights to it, if they are
//! not halves themselves, and a norm computes in its own type, which is always `f32`. The CPU has no arithmetic of halves: it computes them
//! in single precision, and stores the result as halves.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::conv::{Conv2d, ConvTranspose2d};
use burn::nn::{BatchNorm, Dropout};
use burn::tensor::activation;
use burn::tensor::module::{interpolate, max_pool2d};
use burn::tensor::ops::{InterpolateMode, InterpolateOptions, MaxPoolOptions};
use burn::tensor::{FloatDType, Tensor};

#[cfg(feature = "flex")]
use crate::cpu;

/// Convolution and bias, then ReLU if asked for: `[batch, in, h, w]` → `[batch, out, h + padding − k + 1, …]`.
pub(crate) fn convolve(conv: &Conv2d, x: Tensor<4>, relu: bool) -> Tensor<4> {
    in_storage_dtype(conv, x, |conv, x| {
        #[cfg(feature = "flex")]
        if cpu::takes(&x)
            && let Some(bias) = &conv.bias
            && let Some(padding) = cpu::padding(conv)
        {
            return cpu::convolve(x, conv.weight.val(), bias.val(), padding, relu);
        }
        rectify(conv.forward(x), relu)
    })
}

/// Batch norm, by the batch's statistics in training and by the running ones else; then ReLU if asked for.
pub(crate) fn normalise(norm: &BatchNorm, x: Tensor<4>, relu: bool) -> Tensor<4> {
    computed_as(norm.gamma.val().dtype().into(), x, |x| {
        #[cfg(feature = "flex")]
        if cpu::takes(&x) && x.device().is_autodiff() && norm.training.is_enabled() {
            return cpu::normalise(norm, x, relu);
        }
        rectify(norm.forward(x), relu)
    })
}

/// Dropout in training.
pub(crate) fn drop_out(dropout: &Dropout, x: Tensor<4>) -> Tensor<4> {
    computed(x, |x| {
        #[cfg(feature = "flex")]
        if cpu::takes(&x) && x.device().is_autodiff() && dropout.training.is_enabled() && dropout.prob > 0.0 {
            return cpu::drop_out(x, dropout.prob);
        }
        dropout.forward(x)
    })
}

/// The largest of each 2×2: `[batch, c, h, w]` → `[batch, c, h/2, w/2]`.
pub(crate) fn pool(x: Tensor<4>) -> Tensor<4> {
    computed(x, |x| {
        #[cfg(feature = "flex")]
        if cpu::takes(&x) {
            return cpu::pool(x);
        }
        max_pool2d(x, MaxPoolOptions::new([2, 2]))
    })
}

/// Nearest neighbour ×2, then a 2×2 convolution padded at the bottom and on the right, then ReLU:
/// `[batch, in, h, w]` → `[batch, out, 2h, 2w]`.
pub(crate) fn up_convolve(conv: &Conv2d, x: Tensor<4>) -> Tensor<4> {
    in_storage_dtype(conv, x, |conv, x| {
        #[cfg(feature = "flex")]
        if cpu::takes(&x)
            && let Some(bias) = &conv.bias
        {
            return cpu::up_convolve(x, conv.weight.val(), bias.val(), true);
        }
        let twice = InterpolateOptions::new(InterpolateMode::Nearest).with_scale_factor([2.0, 2.0]);
        rectify(conv.forward(interpolate(x, twice)), true)
    })
}

/// Transposed 2×2 convolution of stride 2, then ReLU: `[batch, in, h, w]` → `[batch, out, 2h, 2w]`.
pub(crate) fn up_transposed(conv: &ConvTranspose2d, x: Tensor<4>) -> Tensor<4> {
    in_storage_dtype(conv, x, |conv, x| activation::relu(conv.forward(x)))
}

/// The channels of `x`, then those of the middle of `skip`.
pub(crate) fn concat_cropped(x: Tensor<4>, skip: Tensor<4>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if cpu::takes(&x) {
        return cpu::concat_cropped(x, skip);
    }
    let skip = crop(skip, &x);
    Tensor::cat(vec![x, skip], 1)
}

/// `relu(x + shortcut)`, both of one shape.
pub(crate) fn add(x: Tensor<4>, shortcut: Tensor<4>) -> Tensor<4> {
    let compute = compute_dtype(&x);
    computed_as(compute, x, |x| activation::relu(x + shortcut.cast(compute)))
}

/// The middle of a map, as large as another.
pub(crate) fn crop(map: Tensor<4>, to: &Tensor<4>) -> Tensor<4> {
    let [.., full_height, full_width] = map.dims();
    let [.., height, width] = to.dims();
    let (row, col) = ((full_height - height) / 2, (full_width - width) / 2);
    map.narrow(2, row, height).narrow(3, col, width)
}

/// Gives all weights another type, but for those of norms.
pub(crate) struct Cast {
    dtype: FloatDType,
    in_norm: bool,
}

impl Cast {
    pub(crate) fn to(dtype: FloatDType) -> Self {
        Self { dtype, in_norm: false }
    }
}

impl ModuleMapper for Cast {
    fn enter_module(&mut self, _name: &str, container: &str) {
        self.in_norm = container == "Struct:BatchNorm";
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.in_norm = false;
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.in_norm { param } else { param.map(|tensor| tensor.cast(self.dtype)) }
    }
}

/// A convolution of a map, with its weights rounded to the type that the map is stored in.
fn in_storage_dtype<M: Module>(
    conv: &M,
    x: Tensor<4>,
    apply: impl FnOnce(&M, Tensor<4>) -> Tensor<4>,
) -> Tensor<4> {
    let (storage, compute) = (FloatDType::from(x.dtype()), compute_dtype(&x));
    computed_as(compute, x, |x| match storage {
        FloatDType::F32 => apply(conv, x),
        _ => apply(&conv.clone().map(&mut Cast::to(storage)).map(&mut Cast::to(compute)), x),
    })
}

/// The type that the device computes a map in.
fn compute_dtype(x: &Tensor<4>) -> FloatDType {
    #[cfg(feature = "flex")]
    if cpu::has(&x.device()) {
        return FloatDType::F32;
    }
    x.dtype().into()
}

/// An operation on a map, computed in another type than it is stored in.
fn computed_as(compute: FloatDType, x: Tensor<4>, apply: impl FnOnce(Tensor<4>) -> Tensor<4>) -> Tensor<4> {
    let storage: FloatDType = x.dtype().into();
    if storage == compute { apply(x) } else { apply(x.cast(compute)).cast(storage) }
}

/// An operation on a map in the type that the device computes it in.
fn computed(x: Tensor<4>, apply: impl FnOnce(Tensor<4>) -> Tensor<4>) -> Tensor<4> {
    computed_as(compute_dtype(&x), x, apply)
}

fn rectify(x: Tensor<4>, relu: bool) -> Tensor<4> {
    if relu { activation::relu(x) } else { x }
}

#[cfg(test)]
mod tests {
    use burn::module::ModuleVisitor;
    use burn::tensor::{DType, Device};

    use super::*;
    use crate::UNetConfig;

    /// Types of the weights: those of norms, and all others.
    #[derive(Default)]
    struct Types {
        path: Vec<String>,
        of_norms: Vec<DType>,
        of_others: Vec<DType>,
    }

    impl ModuleVisitor for Types {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.into());
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let is_norm = ["gamma", "beta", "running_mean", "running_var"]
                .map(Some)
                .contains(&self.path.last().map(|name| name.as_str()));
            let types = if is_norm { &mut self.of_norms } else { &mut self.of_others };
            types.push(param.val().dtype());
        }
    }

    #[test]
    fn norms_keep_their_type_by_the_name_that_burn_gives_them() {
        let network = UNetConfig { levels: 1, filters: 2, ..UNetConfig::seed() };
        let network = network.init(&Device::flex()).unwrap().map(&mut Cast::to(FloatDType::F16));
        let mut types = Types::default();
        network.visit(&mut types);
        assert!(
            types.of_norms.len() >= 12 && types.of_norms.iter().all(|dtype| *dtype == DType::F32),
            "norms"
        );
        assert!(
            types.of_others.len() >= 12 && types.of_others.iter().all(|dtype| *dtype == DType::F16),
            "others"
        );
    }
}
