//! Activations and multilayer perceptrons, forward and backward.

use super::Problem;
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::kernels::linear::{Activation, ForwardOperands, Linear};

/// Activations by their names in case files.
pub(super) const ACTIVATIONS: [(&str, Activation); 7] = [
    ("identity", Activation::Identity),
    ("tanh", Activation::Tanh),
    ("relu", Activation::Relu),
    ("elu", Activation::Elu),
    ("silu", Activation::Silu),
    ("gelu_erf", Activation::GeluErf),
    ("gelu_tanh", Activation::GeluTanh),
];

/// Value and derivative of every activation at `x [n]`: a 1 × 1 layer with weight 1 and bias 0.
pub(super) fn activations<B: Backend>(problem: &mut Problem<'_, B>) -> Result<()> {
    let shape = problem.file.shape("x")?.to_vec();
    let n = shape.iter().product();
    let x = problem.input("x", &shape)?;
    let params = problem.backend.upload_floats(&[1.0, 0.0])?;
    let ones = problem.filled(n, 1.0)?;
    let layer = Linear { batch: n, in_features: 1, out_features: 1, weight_offset: 0, bias_offset: 1 };
    for (name, activation) in ACTIVATIONS {
        let [mut pre, mut y, mut d_pre] = [problem.alloc(n)?, problem.alloc(n)?, problem.alloc(n)?];
        problem.backend.linear_forward(
            &layer,
            activation,
            ForwardOperands { x: &x, x_offset: 0, params: &params, pre: Some(&mut pre), y: &mut y, y_offset: 0 },
        )?;
        let saved = if activation.needs_pre_activation() { &pre } else { &y };
        problem.backend.activation_backward(activation, n, saved, &ones, &mut d_pre)?;
        problem.keep(format!("out.{name}"), &y)?;
        problem.keep(format!("grad.{name}"), &d_pre)?;
    }
    Ok(())
}

/// A layer on the backend: parameters `[out·in + out]`, activation, and forward results.
struct Layer<F> {
    linear: Linear,
    activation: Activation,
    params: F,
    /// `[batch, out]`.
    pre: F,
    /// `[batch, out]`.
    act: F,
}

/// y of an MLP, the gradients of Σ y·dy, and everything between.
pub(super) fn mlp<B: Backend>(problem: &mut Problem<'_, B>) -> Result<()> {
    let file = problem.file;
    let (batch, dims) = (file.size("batch")?, file.sizes("dims")?);
    let layers = file.size("layers")?;
    if layers == 0 || layers.checked_add(1) != Some(dims.len()) {
        return Err(Error::value("dims", format!("one size more than layers, {layers} + 1, and at least 2"), file.text("dims")?));
    }
    let hidden = file.one_of("activation", &ACTIVATIONS)?;
    let last = file.one_of("output_activation", &ACTIVATIONS)?;
    let x = problem.input("x", &[batch, dims[0]])?;
    let mut trace: Vec<Layer<B::Floats>> = Vec::new();
    for (i, pair) in dims.windows(2).enumerate() {
        let activation = if i + 1 == layers { last } else { hidden };
        let layer = forward(problem, i, batch, (pair[0], pair[1]), activation, trace.last().map_or(&x, |below| &below.act))?;
        trace.push(layer);
    }
    let dy_shape = [batch, dims[layers]];
    let dy = problem.input("dy", &dy_shape)?;
    let y = problem.computed[&format!("out.act{}", layers - 1)].values.clone();
    // The number whose gradients follow; no kernel computes it.
    let scalar = y.iter().zip(file.f32s("dy", &dy_shape)?).map(|(y, &dy)| y * f64::from(dy)).sum();
    problem.keep_values("out.scalar", vec![scalar]);
    problem.keep_values("out.y", y);
    backward(problem, &x, &trace, dy)
}

fn forward<B: Backend>(
    problem: &mut Problem<'_, B>,
    i: usize,
    batch: usize,
    (in_features, out_features): (usize, usize),
    activation: Activation,
    input: &B::Floats,
) -> Result<Layer<B::Floats>> {
    let mut flat = problem.file.f32s(&format!("W{i}"), &[out_features, in_features])?.to_vec();
    let bias_offset = flat.len();
    flat.extend(problem.file.f32s(&format!("b{i}"), &[out_features])?);
    let params = problem.backend.upload_floats(&flat)?;
    let linear = Linear { batch, in_features, out_features, weight_offset: 0, bias_offset };
    let outputs = batch
        .checked_mul(out_features)
        .ok_or_else(|| Error::shape("batch x out_features", "a size that can be counted", format!("{batch} x {out_features}")))?;
    let [mut pre, mut act] = [problem.alloc(outputs)?, problem.alloc(outputs)?];
    problem.backend.linear_forward(
        &linear,
        activation,
        ForwardOperands { x: input, x_offset: 0, params: &params, pre: Some(&mut pre), y: &mut act, y_offset: 0 },
    )?;
    problem.keep(format!("out.pre{i}"), &pre)?;
    problem.keep(format!("out.act{i}"), &act)?;
    Ok(Layer { linear, activation, params, pre, act })
}

fn backward<B: Backend>(problem: &mut Problem<'_, B>, x: &B::Floats, trace: &[Layer<B::Floats>], dy: B::Floats) -> Result<()> {
    let mut d_act = dy;
    for (i, layer) in trace.iter().enumerate().rev() {
        let Linear { batch, in_features, out_features, bias_offset, .. } = layer.linear;
        let outputs = batch * out_features;
        problem.keep(format!("grad.act{i}"), &d_act)?;
        let saved = if layer.activation.needs_pre_activation() { &layer.pre } else { &layer.act };
        let mut d_pre = problem.alloc(outputs)?;
        problem.backend.activation_backward(layer.activation, outputs, saved, &d_act, &mut d_pre)?;
        problem.keep(format!("grad.pre{i}"), &d_pre)?;
        let mut grads = problem.alloc(bias_offset + out_features)?;
        let input = if i == 0 { x } else { &trace[i - 1].act };
        problem.backend.linear_backward_params(&layer.linear, &d_pre, input, &mut grads)?;
        let mut d_weights = problem.read(&grads)?;
        let d_bias = d_weights.split_off(bias_offset);
        problem.keep_values(format!("grad.W{i}"), d_weights);
        problem.keep_values(format!("grad.b{i}"), d_bias);
        d_act = problem.alloc(batch * in_features)?;
        problem.backend.linear_backward_input(&layer.linear, &d_pre, &layer.params, None, &mut d_act)?;
    }
    problem.keep("grad.x", &d_act)
}
