//! The operations as an extension of flex, burn's CPU backend, with their gradients.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use burn::tensor::{AllocationProperty, Bytes, DType, Shape, TensorData};
use rayon::prelude::*;

use super::layers::{self, Normalised, rounded};
use super::memory::Buffer;
use super::{Convolution, Instructions};

/// What flex can do beside burn's own operations.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait CpuLayers: Backend {
    /// See [`convolve`](super::convolve) and [`up_convolve`](super::up_convolve).
    fn cpu_convolution(
        images: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        sizes: Convolution,
        relu: bool,
    ) -> FloatTensor<Self>;

    /// See [`pool`](super::pool).
    fn cpu_pool(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`concat_cropped`](super::concat_cropped).
    fn cpu_concat_cropped(x: FloatTensor<Self>, skip: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Batch norm by the statistics that [`cpu_statistics`](Self::cpu_statistics) has given for the same `x`; see
    /// [`normalise`](super::normalise).
    fn cpu_normalise(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        epsilon: f64,
        relu: bool,
    ) -> FloatTensor<Self>;

    /// Mean and biased variance of each channel, `[2, channels]`.
    fn cpu_statistics(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`drop_out`](super::drop_out).
    fn cpu_drop_out(x: FloatTensor<Self>, seed: u64, share: f64) -> FloatTensor<Self>;
}

type Values = FloatTensor<Flex>;

/// The values in the order of the shape.
fn slice(values: &Values) -> &[f32] {
    values.as_slice().expect("contiguous f32")
}

fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> Values {
    Flex::float_from_data(TensorData::new(values, shape), &Default::default())
}

/// A tensor that gives its memory back.
fn map(values: Buffer, shape: impl Into<Shape>) -> Values {
    let bytes = Bytes::from_shared(bytes::Bytes::from_owner(values), AllocationProperty::Native);
    Flex::float_from_data(TensorData::from_bytes(bytes, shape, DType::F32), &Default::default())
}

impl CpuLayers for Flex {
    fn cpu_convolution(
        images: Values,
        weights: Values,
        bias: Values,
        sizes: Convolution,
        relu: bool,
    ) -> Values {
        let [images, weights, bias] = [images, weights, bias].map(|values| values.to_contiguous());
        let [height, width] = sizes.output;
        let mut out = Buffer::any(sizes.batch * sizes.out_channels * height * width);
        let (images, weights, bias) = (slice(&images), slice(&weights), slice(&bias));
        sizes.forward(Instructions::best(), images, weights, Some(bias), relu, &mut out);
        map(out, [sizes.batch, sizes.out_channels, height, width])
    }

    fn cpu_pool(x: Values) -> Values {
        let x = x.to_contiguous();
        let [batch, channels, height, width] = sizes(&x);
        map(layers::pool(slice(&x), size(&x)), [batch, channels, height / 2, width / 2])
    }

    fn cpu_concat_cropped(x: Values, skip: Values) -> Values {
        let [x, skip] = [x, skip].map(|values| values.to_contiguous());
        let ([batch, channels, height, width], [_, skip_channels, ..]) = (sizes(&x), sizes(&skip));
        let out = layers::concat_cropped((slice(&x), sizes(&x)), (slice(&skip), sizes(&skip)));
        map(out, [batch, channels + skip_channels, height, width])
    }

    fn cpu_normalise(
        x: Values,
        gamma: Values,
        beta: Values,
        statistics: Values,
        epsilon: f64,
        relu: bool,
    ) -> Values {
        let x = x.to_contiguous();
        let normalised = normalised(gamma, beta, statistics, epsilon, relu);
        map(normalised.forward(slice(&x), area(&x)), x.shape())
    }

    fn cpu_statistics(x: Values) -> Values {
        let x = x.to_contiguous();
        let [_, channels, ..] = sizes(&x);
        let (mean, variance) = layers::statistics(slice(&x), channels, area(&x));
        tensor([mean, variance].concat(), [2, channels])
    }

    fn cpu_drop_out(x: Values, seed: u64, share: f64) -> Values {
        let x = x.to_contiguous();
        map(layers::drop_out(Instructions::best(), slice(&x), area(&x), seed, share), x.shape())
    }
}

fn sizes(values: &Values) -> [usize; 4] {
    values.shape().dims()
}

/// Height and width.
fn size(values: &Values) -> [usize; 2] {
    let [_, _, height, width] = sizes(values);
    [height, width]
}

fn area(values: &Values) -> usize {
    let [height, width] = size(values);
    height * width
}

fn pool_with_places(x: &Values) -> (Values, Vec<u8>) {
    let [batch, channels, height, width] = sizes(x);
    let (out, places) = layers::pool_with_places(slice(x), [height, width]);
    (map(out, [batch, channels, height / 2, width / 2]), places)
}

fn normalised(gamma: Values, beta: Values, statistics: Values, epsilon: f64, relu: bool) -> Normalised {
    let [gamma, beta, statistics] =
        [gamma, beta, statistics].map(|values| slice(&values.to_contiguous()).to_vec());
    let (mean, variance) = statistics.split_at(gamma.len());
    let inverse = |&variance: &f32| rounded(1.0 / (f64::from(variance) + epsilon).sqrt());
    let inverse_deviation = variance.iter().map(inverse).collect();
    Normalised { mean: mean.to_vec(), inverse_deviation, gamma, beta, relu }
}

impl<C: CheckpointStrategy> CpuLayers for Autodiff<Flex, C> {
    fn cpu_convolution(
        images: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        sizes: Convolution,
        relu: bool,
    ) -> FloatTensor<Self> {
        let nodes = [images.node(), weights.node(), bias.node()];
        let images = images.into_primitive().to_contiguous();
        let weights = weights.into_primitive().to_contiguous();
        let out = Flex::cpu_convolution(images.clone(), weights.clone(), bias.into_primitive(), sizes, relu);
        match ConvolutionBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let rectified = relu.then(|| out.clone());
                prep.finish((images, weights, rectified, sizes), out)
            }
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn cpu_pool(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let node = x.node();
        let x = x.into_primitive().to_contiguous();
        let (out, places) = pool_with_places(&x);
        match PoolBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((Arc::new(places), sizes(&x)), out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn cpu_concat_cropped(x: FloatTensor<Self>, skip: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node(), skip.node()];
        let (x, skip) = (x.into_primitive(), skip.into_primitive());
        let state = (sizes(&x), sizes(&skip));
        let out = Flex::cpu_concat_cropped(x, skip);
        match ConcatBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(state, out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn cpu_normalise(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        epsilon: f64,
        relu: bool,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), gamma.node(), beta.node()];
        let x = x.into_primitive().to_contiguous();
        let normalised = normalised(
            gamma.into_primitive(),
            beta.into_primitive(),
            statistics.into_primitive(),
            epsilon,
            relu,
        );
        let out = map(normalised.forward(slice(&x), area(&x)), x.shape());
        match NormaliseBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, normalised), out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn cpu_drop_out(x: FloatTensor<Self>, seed: u64, share: f64) -> FloatTensor<Self> {
        let node = x.node();
        let out = Flex::cpu_drop_out(x.into_primitive(), seed, share);
        match DropOutBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((seed, share), out),
            OpsKind::UnTracked(prep) => prep.finish(out),
        }
    }

    fn cpu_statistics(x: FloatTensor<Self>) -> FloatTensor<Self> {
        // No gradient goes through: that of the statistics is part of the norm's.
        FloatTensor::<Self>::new(Flex::cpu_statistics(x.into_primitive()))
    }
}

#[derive(Debug)]
struct DropOutBackward;

impl Backward<Flex, 1> for DropOutBackward {
    /// Seed and share: what was dropped follows from them.
    type State = (u64, f64);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let ([node], (seed, share)) = (ops.parents, ops.state);
        if let Some(node) = node {
            gradients.register::<Flex>(node.id, Flex::cpu_drop_out(gradient, seed, share));
        }
    }
}

#[derive(Debug)]
struct PoolBackward;

impl Backward<Flex, 1> for PoolBackward {
    /// Which of each 2×2 was the largest, and the sizes of the input.
    type State = (Arc<Vec<u8>>, [usize; 4]);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node).to_contiguous();
        let ([node], (places, sizes)) = (ops.parents, ops.state);
        if let Some(node) = node {
            let out = layers::pool_backward(slice(&gradient), &places, [sizes[2], sizes[3]]);
            gradients.register::<Flex>(node.id, map(out, sizes));
        }
    }
}

#[derive(Debug)]
struct ConcatBackward;

impl Backward<Flex, 2> for ConcatBackward {
    /// The sizes of both maps.
    type State = ([usize; 4], [usize; 4]);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node).to_contiguous();
        let ([x_node, skip_node], (sizes, skip_sizes)) = (ops.parents, ops.state);
        let (x, skip) = layers::concat_cropped_backward(slice(&gradient), sizes, skip_sizes);
        if let Some(node) = x_node {
            gradients.register::<Flex>(node.id, map(x, sizes));
        }
        if let Some(node) = skip_node {
            gradients.register::<Flex>(node.id, map(skip, skip_sizes));
        }
    }
}

#[derive(Debug)]
struct NormaliseBackward;

impl Backward<Flex, 3> for NormaliseBackward {
    type State = (Values, Normalised);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node).to_contiguous();
        let ([x_node, gamma_node, beta_node], (x, normalised)) = (ops.parents, ops.state);
        let channels = normalised.gamma.len();
        let (out, gamma, beta) = normalised.backward(slice(&x), slice(&gradient), area(&x));
        if let Some(node) = x_node {
            gradients.register::<Flex>(node.id, map(out, x.shape()));
        }
        if let Some(node) = gamma_node {
            gradients.register::<Flex>(node.id, tensor(gamma, [channels]));
        }
        if let Some(node) = beta_node {
            gradients.register::<Flex>(node.id, tensor(beta, [channels]));
        }
    }
}

#[derive(Debug)]
struct ConvolutionBackward;

impl Backward<Flex, 3> for ConvolutionBackward {
    /// Images, weights, the output if ReLU has cut it, sizes.
    type State = (Values, Values, Option<Values>, Convolution);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [images_node, weights_node, bias_node] = ops.parents;
        let (images, weights, rectified, sizes) = ops.state;
        let gradient = gradients.consume::<Flex>(&ops.node).to_contiguous();
        let (gradient, bias) = rectify_gradient(slice(&gradient), rectified.as_ref().map(slice), &sizes);
        let instructions = Instructions::best();
        if let Some(node) = images_node {
            let mut out = Buffer::any(slice(&images).len());
            sizes.input_gradient(instructions, &gradient, slice(&weights), &mut out);
            gradients.register::<Flex>(node.id, map(out, images.shape()));
        }
        if let Some(node) = weights_node {
            let out = sizes.weight_gradient(instructions, slice(&images), &gradient);
            gradients.register::<Flex>(node.id, tensor(out, weights.shape()));
        }
        if let Some(node) = bias_node {
            gradients.register::<Flex>(node.id, tensor(bias, [sizes.out_channels]));
        }
    }
}

/// A gradient before ReLU.
enum Rectified<'a> {
    Same(&'a [f32]),
    Cut(Buffer),
}

impl std::ops::Deref for Rectified<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::Same(gradient) => gradient,
            Self::Cut(gradient) => gradient,
        }
    }
}

/// The gradient before ReLU, 0 where it has cut, and its sum for each output channel.
fn rectify_gradient<'a>(
    gradient: &'a [f32],
    rectified: Option<&[f32]>,
    sizes: &Convolution,
) -> (Rectified<'a>, Vec<f32>) {
    let sum = |values: &[f32]| layers::sums_of_plane(values, values, |value, _| [value, 0.0])[0];
    let area = sizes.output[0] * sizes.output[1];
    let (gradient, sums): (_, Vec<f64>) = match rectified {
        None => (Rectified::Same(gradient), gradient.par_chunks_exact(area).map(sum).collect()),
        Some(rectified) => {
            let mut out = Buffer::any(gradient.len());
            let planes = out.par_chunks_exact_mut(area).zip(gradient.par_chunks_exact(area));
            let sums = planes
                .zip(rectified.par_chunks_exact(area))
                .map(|((out, gradient), rectified)| {
                    for ((out, &gradient), &rectified) in out.iter_mut().zip(gradient).zip(rectified) {
                        *out = if rectified > 0.0 { gradient } else { 0.0 };
                    }
                    sum(out)
                })
                .collect();
            (Rectified::Cut(out), sums)
        }
    };
    let bias = (0..sizes.out_channels)
        .map(|channel| rounded(sums.iter().skip(channel).step_by(sizes.out_channels).sum()))
        .collect();
    (gradient, bias)
}
