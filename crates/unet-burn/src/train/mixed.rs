//! Mixed precision: maps between the layers in half precision, everything else in single (Micikevicius et al. 2018).
//!
//! Weights, norms, the loss, the gradients of the weights and the optimizer stay in `f32`. The gradient of a pixel's logit
//! is a millionth of the loss and less, where halves end at 6e-8, so it is made larger on its way back through the maps, and
//! the gradients of the weights smaller by as much. Micikevicius et al. look for that factor by trial over many steps; here
//! it follows from the batch, so that nothing has to be remembered for a run to go on as if it had not stopped. Each step waits
//! for one number from the device, the sum of the sizes of all gradients.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

/// The largest half.
const LARGEST: f64 = 65504.0;

/// Below this share of one, what is left of small gradients has too few digits.
const SMALLEST: f64 = 1e-5;

/// The gradients of the weights by those of the logits, which come in `f32`.
///
/// The largest gradient of a logit becomes an eighth of what all logits may have before their sum, the gradient of the last
/// bias, overflows. Should another one overflow, `logits` are computed again (so norms count the batch once more) and
/// everything is smaller by 16, as long as that leaves digits. Gradients that are no numbers come out then, and if those of
/// the logits are none themselves: as without mixed precision, the loss tells.
pub(super) fn gradients<M: Module>(
    module: &M,
    logits: impl Fn() -> Tensor<4>,
    mut gradient: impl FnMut(Tensor<4>) -> Tensor<4>,
) -> GradientsParams {
    let mut largest = LARGEST / 8.0;
    loop {
        let logits = logits();
        let gradient = gradient(logits.clone());
        #[expect(clippy::cast_precision_loss, reason = "pixels of a batch are far below 2^52")]
        let pixels = gradient.shape().num_elements() as f64;
        // f32 ends at 1e-38; where no pixel counts, all gradients are 0.
        let unit = gradient.clone().abs().max().clamp_min(1e-30) / (largest / pixels);
        let scaled = Tensor::from_inner(gradient / unit.clone().reshape([1, 1, 1, 1]));
        let gradients = GradientsParams::from_grads((logits * scaled).sum().backward(), module);
        let mut restore = Restore { gradients, unit: unit.clone(), size: None };
        module.visit(&mut restore);
        // What cannot be read at all, burn's loop will find out.
        let is_finite = |value: Tensor<1>| value.try_into_scalar::<f32>().map_or(true, f32::is_finite);
        largest /= 16.0;
        if restore.size.is_none_or(is_finite) || largest / pixels < SMALLEST || !is_finite(unit) {
            return restore.gradients;
        }
    }
}

/// Multiplies all gradients by the unit that they were computed in, and sums their sizes up: no number, if one of them is
/// none.
struct Restore {
    gradients: GradientsParams,
    unit: Tensor<1>,
    size: Option<Tensor<1>>,
}

impl ModuleVisitor for Restore {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            let gradient = gradient * self.unit.clone().reshape([1; D]);
            let size = gradient.clone().abs().sum();
            self.size = Some(match self.size.take() {
                Some(sum) => sum + size,
                None => size,
            });
            self.gradients.register(param.id, gradient);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use burn::module::ModuleMapper;
    use burn::tensor::{Device, Distribution, FloatDType};

    use super::*;
    use crate::{UNet, UNetConfig};

    struct Values(GradientsParams, Vec<Vec<f32>>);

    impl ModuleVisitor for Values {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.0.remove::<D>(param.id) {
                self.1.push(gradient.into_data().try_to_vec().unwrap());
            }
        }
    }

    /// Gradients of all weights, in `f32` and by halves, where that of the logits is some values; and how often the maps were
    /// computed for it.
    fn both(model: &UNet, images: &Tensor<4>, gradient: &Tensor<4>) -> ([Vec<Vec<f32>>; 2], usize) {
        let forward =
            |maps: FloatDType| model.forward(images.clone().cast(maps)).unwrap().cast(FloatDType::F32);
        let weighted = (forward(FloatDType::F32) * Tensor::from_inner(gradient.clone())).sum();
        let single = GradientsParams::from_grads(weighted.backward(), model);
        let passes = Cell::new(0);
        let halves = || {
            passes.set(passes.get() + 1);
            forward(FloatDType::F16)
        };
        let mixed = gradients(model, halves, |_| gradient.clone());
        let values = [single, mixed].map(|gradients| {
            let mut values = Values(gradients, Vec::new());
            model.visit(&mut values);
            values.1
        });
        (values, passes.get())
    }

    fn norm(values: impl Iterator<Item = f32>) -> f64 {
        values.map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt()
    }

    fn assert_near([single, mixed]: [Vec<Vec<f32>>; 2], tolerance: f64) {
        assert!(single.len() == mixed.len() && single.len() > 15, "{} tensors", single.len());
        for (index, (single, mixed)) in single.iter().zip(&mixed).enumerate() {
            let size = norm(single.iter().copied());
            let off = norm(single.iter().zip(mixed).map(|(a, b)| a - b)) / size;
            assert!(size > 0.0 && off < tolerance, "tensor {index}: off by {off} of {size}");
        }
    }

    /// Makes convolutions means: with positive maps, no ReLU cuts, and no rounding makes one do so.
    struct Means;

    impl ModuleMapper for Means {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|values| {
                let shape = values.dims();
                let rows = values.abs().reshape([shape[0] as i64, -1]) + 1e-3;
                (rows.clone() / rows.sum_dim(1)).reshape(shape)
            })
        }
    }

    /// Makes norms give 3 ± 1, of which a ReLU cuts little.
    #[derive(Default)]
    struct Lifted(Vec<String>);

    impl ModuleMapper for Lifted {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.into());
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }

        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            match self.0.last().map(String::as_str) {
                Some("gamma") => param.map(|values| values * 0.0 + 1.0),
                Some("beta") => param.map(|values| values * 0.0 + 3.0),
                _ => param,
            }
        }
    }

    #[test]
    fn gradients_by_halves_come_through_norms() {
        let device = Device::flex();
        device.seed(3);
        let config = UNetConfig { in_channels: 2, levels: 1, filters: 4, dropout: 0.0, ..UNetConfig::seed() };
        let model = config.init(&device).unwrap().map(&mut Lifted::default());
        let device = device.autodiff();
        let model = model.to_device(&device).train();
        let images = Tensor::random([2, 2, 60, 60], Distribution::Uniform(-1.0, 1.0), &device);
        let gradient = Tensor::random([2, 1, 44, 44], Distribution::Default, &device.clone().inner());
        let ([single, mixed], passes) = both(&model, &images, &(gradient * 1e-9));
        // A norm takes the bias before it away, what is left of its gradient is rounding: 2⁻¹² of sums of thousands.
        let sizes: Vec<f64> = single.iter().map(|values| norm(values.iter().copied())).collect();
        let largest = sizes.iter().copied().fold(0.0, f64::max);
        let (rest, nothing): (Vec<_>, Vec<_>) =
            single.into_iter().zip(mixed).zip(sizes).partition(|(_, size)| *size > 1e-5 * largest);
        for ((_, mixed), _) in nothing {
            let left = norm(mixed.into_iter());
            assert!(left < 1e-3 * largest, "{left} is left of nothing, beside {largest}");
        }
        let (single, mixed) = rest.into_iter().map(|(pair, _)| pair).unzip();
        // Of values around 3 that are 2⁻⁹ apart and spread by 1, two change places in some windows of pooling, and some change
        // sign behind the up-convolution, which has no norm: in a hundredth of all, their gradient goes another way, √0.01.
        assert_near([single, mixed], 0.2);
        assert_eq!(passes, 1, "the factor fits");
    }

    #[test]
    fn gradients_by_halves_are_those_of_single_precision_to_their_digits() {
        let device = Device::flex();
        device.seed(2);
        let config =
            UNetConfig { in_channels: 2, levels: 2, filters: 4, dropout: 0.0, ..UNetConfig::vanilla() };
        let config = UNetConfig { num_classes: 1, ..config };
        let model = config.init(&device).unwrap().map(&mut Means);
        let device = device.autodiff();
        let model = model.to_device(&device).train();
        let images = Tensor::random([2, 2, 60, 60], Distribution::Uniform(0.5, 1.0), &device);
        let draw = || Tensor::random([2, 1, 20, 20], Distribution::Default, &device.clone().inner());
        // As small as those of a loss over many pixels, and smaller than any half.
        let (gradients, passes) = both(&model, &images, &(draw() * 1e-9));
        // 2⁻¹² = 2.4e-4 at most for each of 20 roundings on the way: up or down, so their root, 1.1e-3, of errors that are
        // half of that in the mean (5e-4); pooling may choose another pixel.
        assert_near(gradients, 1e-3);
        assert_eq!(passes, 1, "the factor fits");
        // Large maps: sums of their products that do not fit.
        let (gradients, passes) = both(&model, &(images * 100.0), &draw());
        assert_near(gradients, 1e-3);
        assert!(passes > 1, "the factor did not fit");
    }
}
