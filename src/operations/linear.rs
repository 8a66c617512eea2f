//! Operations of [`kernels::linear`](crate::kernels::linear): bound by arithmetic where layers are wide.

use super::{Benches, Call, Domain, Draw, Inputs, Operation, Operations, Step, Work};
use crate::backend::Backend;
use crate::error::Result;
use crate::kernels::linear::{Activation, ForwardOperands, Linear};

/// Around the register tile of 8, tiles of 64 and 128, workgroups of 64 and 256, the shortest stretch of 256 samples; long sums; more
/// than 65 535 workgroups of 64.
const LAYERS: Domain = Domain {
    kernel: "linear",
    sizes: &["batch", "in", "out"],
    most: &[600, 150, 150],
    edges: &[
        &[1, 1, 1],
        &[7, 8, 9],
        &[8, 8, 8],
        &[9, 7, 8],
        &[1, 4, 64],
        &[1, 300, 63],
        &[63, 5, 65],
        &[64, 64, 64],
        &[65, 63, 1],
        &[129, 65, 127],
        &[127, 129, 130],
        &[255, 3, 2],
        &[256, 4, 17],
        &[257, 9, 3],
        &[3, 1025, 5],
        &[2049, 3, 4],
        &[4_194_400, 1, 1],
    ],
};

const ACTIVATIONS: [Activation; 7] = [
    Activation::Identity,
    Activation::Tanh,
    Activation::Relu,
    Activation::Elu,
    Activation::Silu,
    Activation::GeluErf,
    Activation::GeluTanh,
];

/// A layer somewhere in a parameter buffer.
fn layer(sizes: &[usize], draw: &mut Draw) -> Linear {
    let (batch, in_features, out_features) = (sizes[0], sizes[1], sizes[2]);
    let weight_offset = draw.below(5);
    let bias_offset = weight_offset + in_features * out_features + draw.below(5);
    Linear { batch, in_features, out_features, weight_offset, bias_offset }
}

fn parameters<B: Backend>(inputs: &mut Inputs<'_, B>, layer: &Linear) -> Result<B::Floats> {
    inputs.floats(layer.bias_offset + layer.out_features, 1.0 / (layer.in_features.max(1) as f32).sqrt())
}

/// Of a mean over the batch with respect to the pre-activations.
fn gradient<B: Backend>(inputs: &mut Inputs<'_, B>, layer: &Linear) -> Result<B::Floats> {
    inputs.floats(layer.batch * layer.out_features, 1.0 / layer.batch.max(1) as f32)
}

/// The forward pass keeps for the backward one the pre-activation, or the output, from which no derivative is steeper than it ever is.
fn saved<B: Backend>(inputs: &mut Inputs<'_, B>, activation: Activation, n: usize) -> Result<B::Floats> {
    let mut x = inputs.draw.long(n, 2.0);
    x.iter_mut().for_each(|x| {
        *x = match activation {
            Activation::Tanh => x.tanh(),
            Activation::Relu => x.max(0.0),
            Activation::Elu if *x < 0.0 => x.exp_m1(),
            _ => *x,
        }
    });
    inputs.upload(&x)
}

/// Two operations for each weight and sample.
fn product(layer: &Linear) -> usize {
    2 * layer.batch * layer.weights()
}

/// [`linear_forward`](crate::backend::LinearOps::linear_forward).
#[derive(Debug)]
pub struct Forward {
    layer: Linear,
    activation: Activation,
    x_offset: usize,
    y_offset: usize,
    keeps_pre: bool,
}

impl Call for Forward {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let &Self { layer, activation, x_offset, y_offset, keeps_pre } = self;
        let outputs = layer.batch * layer.out_features;
        let x = inputs.floats(x_offset + layer.batch * layer.in_features, 1.0)?;
        let params = parameters(inputs, &layer)?;
        let mut pre = if keeps_pre { Some(inputs.output(outputs)?) } else { None };
        let mut y = inputs.output(y_offset + outputs)?;
        Ok(Box::new(move |backend| {
            let (x, params, pre, y) = (&x, &params, pre.as_mut(), &mut y);
            backend.linear_forward(&layer, activation, ForwardOperands { x, x_offset, params, pre, y, y_offset })
        }))
    }

    fn work(&self) -> Work {
        let Linear { batch, in_features, out_features, .. } = self.layer;
        let words = batch * in_features + self.layer.weights() + out_features + batch * out_features;
        Work::new(product(&self.layer), words, ("samples_per_s", batch))
    }
}

impl Operation for Forward {
    const NAME: &'static str = "linear_forward";
    const DOMAIN: &'static Domain = &LAYERS;

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        let (layer, activation) = (layer(sizes, draw), draw.one(&ACTIVATIONS));
        Self { layer, activation, x_offset: draw.below(9), y_offset: draw.below(9), keeps_pre: draw.coin() }
    }
}

/// [`linear_backward_input`](crate::backend::LinearOps::linear_backward_input).
#[derive(Debug)]
pub struct BackwardInput {
    layer: Linear,
    through: Option<Activation>,
}

impl Call for BackwardInput {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let &Self { layer, through } = self;
        let n = layer.batch * layer.in_features;
        let (d_pre, params) = (gradient(inputs, &layer)?, parameters(inputs, &layer)?);
        let saved = saved(inputs, through.unwrap_or(Activation::Identity), n)?;
        let mut d_x = inputs.output(n)?;
        Ok(Box::new(move |backend| {
            let through = through.map(|activation| (activation, &saved));
            backend.linear_backward_input(&layer, &d_pre, &params, through, &mut d_x)
        }))
    }

    fn work(&self) -> Work {
        let Linear { batch, in_features, out_features, .. } = self.layer;
        let words = batch * out_features + self.layer.weights() + batch * in_features;
        Work::new(product(&self.layer), words, ("samples_per_s", batch))
    }
}

impl Operation for BackwardInput {
    const NAME: &'static str = "linear_backward_input";
    const DOMAIN: &'static Domain = &LAYERS;

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        let layer = layer(sizes, draw);
        Self { layer, through: draw.coin().then(|| draw.one(&ACTIVATIONS)) }
    }
}

/// [`linear_backward_params`](crate::backend::LinearOps::linear_backward_params).
#[derive(Debug)]
pub struct BackwardParams(Linear);

impl Call for BackwardParams {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let layer = self.0;
        let d_pre = gradient(inputs, &layer)?;
        let x = inputs.floats(layer.batch * layer.in_features, 1.0)?;
        let mut grads = inputs.output(layer.bias_offset + layer.out_features)?;
        Ok(Box::new(move |backend| backend.linear_backward_params(&layer, &d_pre, &x, &mut grads)))
    }

    fn work(&self) -> Work {
        let Linear { batch, in_features, out_features, .. } = self.0;
        let words = batch * out_features + batch * in_features + self.0.weights() + out_features;
        Work::new(product(&self.0), words, ("samples_per_s", batch))
    }
}

impl Operation for BackwardParams {
    const NAME: &'static str = "linear_backward_params";
    const DOMAIN: &'static Domain = &LAYERS;

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        Self(layer(sizes, draw))
    }
}

/// [`activation_backward`](crate::backend::LinearOps::activation_backward).
#[derive(Debug)]
pub struct ActivationBackward {
    activation: Activation,
    len: usize,
}

impl Call for ActivationBackward {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let &Self { activation, len } = self;
        let (saved, d_y) = (saved(inputs, activation, len)?, inputs.floats(len, 1.0)?);
        let mut d_pre = inputs.output(len)?;
        Ok(Box::new(move |backend| backend.activation_backward(activation, len, &saved, &d_y, &mut d_pre)))
    }

    fn work(&self) -> Work {
        Work::new(3 * self.len, 3 * self.len, ("elements_per_s", self.len))
    }
}

impl Operation for ActivationBackward {
    const NAME: &'static str = "activation_backward";
    const DOMAIN: &'static Domain = &Domain {
        kernel: "linear",
        sizes: &["len"],
        most: &[5000],
        edges: &[&[1], &[63], &[64], &[65], &[255], &[256], &[257], &[65_536 * 64 + 1]],
    };

    fn draw(sizes: &[usize], draw: &mut Draw) -> Self {
        Self { activation: draw.one(&ACTIVATIONS), len: sizes[0] }
    }
}

/// A perceptron with tanh between its layers, forward and perhaps the gradients of all parameters.
#[derive(Debug)]
struct Perceptron {
    batch: usize,
    widths: &'static [usize],
    with_backward: bool,
}

impl Perceptron {
    /// Layers whose parameters follow each other in one buffer.
    fn layers(&self) -> Vec<Linear> {
        let mut end = 0;
        let mut layer = |pair: &[usize]| {
            let (in_features, out_features) = (pair[0], pair[1]);
            let weight_offset = end;
            let bias_offset = weight_offset + in_features * out_features;
            end = bias_offset + out_features;
            Linear { batch: self.batch, in_features, out_features, weight_offset, bias_offset }
        };
        self.widths.windows(2).map(&mut layer).collect()
    }
}

impl Call for Perceptron {
    fn prepare<B: Backend>(&self, inputs: &mut Inputs<'_, B>) -> Result<Step<B>> {
        let (layers, with_backward) = (self.layers(), self.with_backward);
        let last = layers.len() - 1;
        let mut params = Vec::new();
        for (i, layer) in layers.iter().enumerate() {
            let gain = if i == last { 1.0 } else { 1.4 };
            params.extend(inputs.draw.long(layer.weights(), gain / (layer.in_features as f32).sqrt()));
            params.extend(inputs.draw.long(layer.out_features, 0.1));
        }
        let (mut grads, params) = (inputs.output(params.len())?, inputs.upload(&params)?);
        // Below the first layer: the input. Above it: outputs [batch, out].
        let mut x = vec![inputs.floats(self.batch * self.widths[0], 1.0)?];
        let mut d_pre = Vec::new();
        for (i, layer) in layers.iter().enumerate() {
            let n = layer.batch * layer.out_features;
            x.push(inputs.output(n)?);
            d_pre.push(if i == last { inputs.floats(n, 1.0)? } else { inputs.output(n)? });
        }
        Ok(Box::new(move |backend: &mut B| {
            for (i, layer) in layers.iter().enumerate() {
                let activation = if i == last { Activation::Identity } else { Activation::Tanh };
                let (below, above) = x.split_at_mut(i + 1);
                let (x, params, y) = (&below[i], &params, &mut above[0]);
                let operands = ForwardOperands { x, x_offset: 0, params, pre: None, y, y_offset: 0 };
                backend.linear_forward(layer, activation, operands)?;
            }
            for (i, layer) in layers.iter().enumerate().rev().filter(|_| with_backward) {
                let (below, here) = d_pre.split_at_mut(i);
                backend.linear_backward_params(layer, &here[0], &x[i], &mut grads)?;
                if let Some(d_x) = below.last_mut() {
                    backend.linear_backward_input(layer, &here[0], &params, Some((Activation::Tanh, &x[i])), d_x)?;
                }
            }
            Ok(())
        }))
    }

    fn work(&self) -> Work {
        let layers = self.layers();
        let forward: usize = layers.iter().map(product).sum();
        let parameters: usize = layers.iter().map(|l| l.weights() + l.out_features).sum();
        let inputs = |layers: &[Linear]| layers.iter().map(|l| l.batch * l.in_features).sum::<usize>();
        let outputs: usize = layers.iter().map(|l| l.batch * l.out_features).sum();
        let mut words = inputs(&layers) + outputs + parameters;
        let mut flops = forward;
        if self.with_backward {
            // Nobody needs the gradient of the observations: below the first layer there is nothing. Parameter gradients read
            // outputs' gradients and inputs; input gradients read both again and write.
            flops += 2 * forward - product(&layers[0]);
            words += outputs + inputs(&layers) + parameters;
            words += outputs - self.batch * self.widths[1] + 2 * inputs(&layers[1..]) + parameters;
        }
        Work::new(flops, words, ("samples_per_s", self.batch))
    }
}

pub(super) fn operations(list: &mut impl Operations) -> Result<()> {
    list.add::<Forward>()?;
    list.add::<BackwardInput>()?;
    list.add::<BackwardParams>()?;
    list.add::<ActivationBackward>()
}

pub(super) fn benches(list: &mut impl Benches) {
    let perceptrons: [(usize, &'static [usize]); 5] = [
        (64, &[4, 64, 64, 2]),
        (2048, &[17, 64, 64, 6]),
        (4096, &[48, 256, 256, 12]),
        (16_384, &[64, 512, 256, 128, 16]),
        (65_536, &[128, 1024, 1024, 32]),
    ];
    for (i, (batch, widths)) in perceptrons.into_iter().enumerate() {
        let sizes = widths.iter().map(ToString::to_string).collect::<Vec<_>>().join("-");
        for (section, with_backward) in [("mlp_fwd", false), ("mlp_fwdbwd", true)] {
            list.add(format!("{section}/B{batch}_{sizes}"), i < 3, Perceptron { batch, widths, with_backward });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_perceptron_counts_three_products_but_for_the_first_layer() {
        let work = |with_backward| Perceptron { batch: 10, widths: &[3, 5, 2], with_backward }.work();
        assert_eq!(work(false).flops, 20.0 * 25.0);
        assert_eq!(work(true).flops, 20.0 * (3.0 * 25.0 - 15.0));
        let parameters = (15 + 5) + (10 + 2);
        assert_eq!(work(false).bytes, 4.0 * (10.0 * (3.0 + 5.0 + 5.0 + 2.0) + f64::from(parameters)));
    }
}
