//! Batch norm as a part of the convolution beside it: `y = scale·x + shift`, once its statistics stand still.

use burn::nn::BatchNorm;
use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;

/// What the norm does to each channel: scale and shift, `[channels]` each.
fn affine(norm: &BatchNorm) -> (Tensor<1>, Tensor<1>) {
    let scale = norm.gamma.val() / (norm.running_var.value() + norm.epsilon).sqrt();
    let shift = norm.beta.val() - norm.running_mean.value() * scale.clone();
    (scale, shift)
}

/// Folds a norm into the convolution in front of it: `s·(W∗x + b) + t = (sW)∗x + (s·b + t)`.
pub(crate) fn backward(conv: &mut Conv2d, norm: &BatchNorm) {
    let (scale, shift) = affine(norm); // [out]
    let [out] = scale.dims();
    conv.weight = conv.weight.clone().map(|weight| weight * scale.clone().reshape([out, 1, 1, 1]));
    conv.bias = conv.bias.clone().map(|bias| bias.map(|bias| bias * scale + shift));
}

/// Folds a norm into the convolution behind it: `W∗(s·x + t) + b = (Ws)∗x + (b + ΣWt)`, the sum over the inputs
/// and the kernel. Not so where the convolution pads: its zeros are not normalised.
pub(crate) fn forward(conv: &mut Conv2d, norm: &BatchNorm) {
    let (scale, shift) = affine(norm); // [in]
    let [out, channels, rows, cols] = conv.weight.dims();
    let moved = conv.weight.val() * shift.reshape([1, channels, 1, 1]);
    let moved = moved.reshape([out, channels * rows * cols]).sum_dim(1).reshape([out]);
    conv.weight = conv.weight.clone().map(|weight| weight * scale.reshape([1, channels, 1, 1]));
    conv.bias = conv.bias.clone().map(|bias| bias.map(|bias| bias + moved));
}
