//! Cases of [`kernels::linear`](crate::kernels::linear).

use super::runner::Runner;
use crate::backend::LinearOps;
use crate::error::Result;
use crate::kernels::linear::{Activation, Linear};
use crate::operations::Draw;

/// `[batch, in, out]`: around the register tile of 8, tiles of 64 and 128, workgroups of 64 and 256, and long sums.
const EDGES: &[[usize; 3]] = &[
    [1, 1, 1],
    [7, 8, 9],
    [8, 8, 8],
    [9, 7, 8],
    [1, 4, 64],
    [63, 5, 65],
    [64, 64, 64],
    [65, 63, 1],
    [127, 129, 130],
    [255, 3, 2],
    [256, 4, 17],
    [257, 1, 3],
    [3, 1025, 5],
    [2049, 3, 4],
];
const MOST: [usize; 3] = [600, 150, 150];
/// Around the workgroup of 256, and beyond 65 535 workgroups of 64.
const EDGE_LENGTHS: &[[usize; 1]] = &[[1], [63], [64], [65], [255], [256], [257], [65_536 * 64 + 1]];

const ACTIVATIONS: [Activation; 7] = [
    Activation::Identity,
    Activation::Tanh,
    Activation::Relu,
    Activation::Elu,
    Activation::Silu,
    Activation::GeluErf,
    Activation::GeluTanh,
];

pub(super) fn cases<B: LinearOps>(runner: &mut Runner<B>) -> Result<()> {
    for (i, [batch, in_features, out_features]) in runner.shapes(EDGES, MOST).enumerate() {
        let activation = ACTIVATIONS[i % ACTIVATIONS.len()];
        let case = format!("batch {batch}, in {in_features}, out {out_features}, {activation:?}");
        let shape = |draw: &mut Draw| layer(draw, [batch, in_features, out_features]);
        runner.case("linear_forward", &case, |backend, draw| forward(backend, &shape(draw), activation, draw))?;
        runner.case("linear_backward_input", &case, |backend, draw| backward_input(backend, &shape(draw), activation, draw))?;
        runner.case("linear_backward_params", &case, |backend, draw| backward_params(backend, &shape(draw), draw))?;
    }
    for (i, [len]) in runner.shapes(EDGE_LENGTHS, [5000]).enumerate() {
        let activation = ACTIVATIONS[i % ACTIVATIONS.len()];
        runner.case("activation_backward", format!("len {len}, {activation:?}"), |backend, draw| {
            activation_backward(backend, activation, len, draw)
        })?;
    }
    refusals(runner)
}

/// A layer somewhere in a parameter buffer.
fn layer(draw: &mut Draw, [batch, in_features, out_features]: [usize; 3]) -> Linear {
    let weight_offset = draw.below(5);
    let bias_offset = weight_offset + in_features * out_features + draw.below(5);
    Linear { batch, in_features, out_features, weight_offset, bias_offset }
}

fn parameters<B: LinearOps>(backend: &mut B, layer: &Linear, draw: &mut Draw) -> Result<B::Floats> {
    let scale = 1.0 / (layer.in_features as f32).sqrt();
    backend.upload_floats(&draw.floats(layer.bias_offset + layer.out_features, scale))
}

/// Of a mean over the batch with respect to the pre-activations.
fn gradient(layer: &Linear, draw: &mut Draw) -> Vec<f32> {
    draw.floats(layer.batch * layer.out_features, 1.0 / layer.batch as f32)
}

fn forward<B: LinearOps>(backend: &mut B, layer: &Linear, activation: Activation, draw: &mut Draw) -> Result<()> {
    let (inputs, outputs) = (layer.batch * layer.in_features, layer.batch * layer.out_features);
    let (x_offset, y_offset) = (draw.below(9), draw.below(9));
    let x = backend.upload_floats(&draw.floats(x_offset + inputs, 1.0))?;
    let params = parameters(backend, layer, draw)?;
    let mut pre = if draw.coin() { Some(backend.alloc_floats(outputs)?) } else { None };
    let mut y = backend.alloc_floats(y_offset + outputs)?;
    backend.linear_forward(layer, activation, &x, x_offset, &params, pre.as_mut(), &mut y, y_offset)
}

fn backward_input<B: LinearOps>(backend: &mut B, layer: &Linear, activation: Activation, draw: &mut Draw) -> Result<()> {
    let inputs = layer.batch * layer.in_features;
    let d_pre = backend.upload_floats(&gradient(layer, draw))?;
    let params = parameters(backend, layer, draw)?;
    let saved = backend.upload_floats(&saved(activation, draw.floats(inputs, 2.0)))?;
    let mut d_x = backend.alloc_floats(inputs)?;
    let through = draw.coin().then_some((activation, &saved));
    backend.linear_backward_input(layer, &d_pre, &params, through, &mut d_x)
}

fn backward_params<B: LinearOps>(backend: &mut B, layer: &Linear, draw: &mut Draw) -> Result<()> {
    let d_pre = backend.upload_floats(&gradient(layer, draw))?;
    let x = backend.upload_floats(&draw.floats(layer.batch * layer.in_features, 1.0))?;
    let mut grads = backend.alloc_floats(layer.bias_offset + layer.out_features)?;
    backend.linear_backward_params(layer, &d_pre, &x, &mut grads)
}

fn activation_backward<B: LinearOps>(backend: &mut B, activation: Activation, len: usize, draw: &mut Draw) -> Result<()> {
    let saved = backend.upload_floats(&saved(activation, draw.long(len, 2.0)))?;
    let d_y = backend.upload_floats(&draw.long(len, 1.0))?;
    let mut d_pre = backend.alloc_floats(len)?;
    backend.activation_backward(activation, len, &saved, &d_y, &mut d_pre)
}

/// What the forward pass keeps for the backward one: the pre-activation, or the output.
fn saved(activation: Activation, mut pre: Vec<f32>) -> Vec<f32> {
    pre.iter_mut().for_each(|x| {
        *x = match activation {
            Activation::Tanh => x.tanh(),
            Activation::Relu => x.max(0.0),
            Activation::Elu if *x < 0.0 => x.exp_m1(),
            _ => *x,
        }
    });
    pre
}

fn refusals<B: LinearOps>(runner: &mut Runner<B>) -> Result<()> {
    let fits = Linear { batch: 1, in_features: 1, out_features: 1, weight_offset: 0, bias_offset: 1 };
    for (what, layer) in [
        ("batch 0", Linear { batch: 0, ..fits }),
        ("in 0", Linear { in_features: 0, ..fits }),
        ("out 0", Linear { out_features: 0, ..fits }),
    ] {
        runner.refuses("linear_forward", what, |backend| {
            let (x, params, mut y) =
                (backend.upload_floats(&[0.0])?, backend.upload_floats(&[0.0; 2])?, backend.alloc_floats(1)?);
            backend.linear_forward(&layer, Activation::Identity, &x, 0, &params, None, &mut y, 0)
        })?;
        runner.refuses("linear_backward_input", what, |backend| {
            let (d_pre, params) = (backend.upload_floats(&[0.0])?, backend.upload_floats(&[0.0; 2])?);
            let mut d_x = backend.alloc_floats(1)?;
            backend.linear_backward_input(&layer, &d_pre, &params, None, &mut d_x)
        })?;
        runner.refuses("linear_backward_params", what, |backend| {
            let (d_pre, x, mut grads) =
                (backend.upload_floats(&[0.0])?, backend.upload_floats(&[0.0])?, backend.alloc_floats(2)?);
            backend.linear_backward_params(&layer, &d_pre, &x, &mut grads)
        })?;
    }
    runner.refuses("activation_backward", "len 0", |backend| {
        let (saved, d_y, mut d_pre) = (backend.upload_floats(&[0.0])?, backend.upload_floats(&[0.0])?, backend.alloc_floats(1)?);
        backend.activation_backward(Activation::Tanh, 0, &saved, &d_y, &mut d_pre)
    })
}
