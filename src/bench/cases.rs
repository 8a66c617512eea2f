//! One kernel, or a few that belong together, at one shape.

use std::collections::BTreeMap;

use super::inputs::Inputs;
use super::losses::{self, Head};
use super::measure::{Clocks, Effort, Samples, Timed};
use super::peaks::{Benchmarked, Peaks};
use super::{Record, record};
use crate::backend::{Backend, Cpu, CrossCheck};
use crate::error::Result;
use crate::kernels::gather::Gather;
use crate::kernels::linear::{Activation, Linear};
use crate::kernels::nonfinite::Watched;
use crate::kernels::optimizer::{Adam, GradientNorm};
use crate::kernels::policy::{Categorical, Gaussian};
use crate::kernels::random::RandomStream;
use crate::layout::{control, schedule, stat};
use crate::operations::{self, Call, Draw, Step, Work};

#[derive(Debug)]
pub(super) struct Case {
    pub name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A perceptron with tanh between its layers, forward and perhaps the gradients of all parameters.
    Mlp { batch: usize, widths: &'static [usize], backward: bool },
    /// Loss and gradient through a head.
    Loss { head: Head, batch: usize },
    /// A minibatch's rows of observations.
    Gather { rows: usize, width: usize, count: usize },
    /// Clip and Adam over a flat buffer.
    Optimizer { len: usize },
    /// Looking for NaN.
    Nonfinite { len: usize },
    /// A shuffle.
    Permutation { len: usize },
    /// Gaussian noise.
    Normal { len: usize },
    /// Drawing actions from logits.
    CategoricalSample { batch: usize, actions: usize },
    /// Drawing actions from means.
    GaussianSample { batch: usize, dim: usize },
}

type MlpShape = (usize, &'static [usize]);

const MLPS: [MlpShape; 5] = [
    (64, &[4, 64, 64, 2]),
    (2048, &[17, 64, 64, 6]),
    (4096, &[48, 256, 256, 12]),
    (16_384, &[64, 512, 256, 128, 16]),
    (65_536, &[128, 1024, 1024, 32]),
];
const BATCHES: [usize; 2] = [1 << 14, 1 << 20];

/// All cases; with `small` those that are done in no time.
pub(super) fn all(small: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: String, kind| cases.push(Case { name, kind });
    for &(batch, widths) in &MLPS[..if small { 3 } else { 5 }] {
        let sizes = widths.iter().map(ToString::to_string).collect::<Vec<_>>().join("-");
        add(format!("mlp_fwd/B{batch}_{sizes}"), Kind::Mlp { batch, widths, backward: false });
        add(format!("mlp_fwdbwd/B{batch}_{sizes}"), Kind::Mlp { batch, widths, backward: true });
    }
    let batches = &BATCHES[..if small { 1 } else { 2 }];
    for actions in [2, 6, 18] {
        for &batch in batches {
            add(format!("loss_cat/A{actions}_B{batch}"), Kind::Loss { head: Head::Categorical { actions }, batch });
        }
    }
    for dim in [6, 21] {
        for &batch in batches {
            add(format!("loss_gauss/A{dim}_B{batch}"), Kind::Loss { head: Head::Gaussian { dim }, batch });
        }
    }
    let (batch, vocabulary) = (if small { 512 } else { 4096 }, 32_000);
    add(format!("loss_token/N{batch}_V{vocabulary}"), Kind::Loss { head: Head::Tokens { vocabulary }, batch });
    // What an update needs besides, at the sizes of its larger workloads.
    for (rows, width, count) in [(98_304, 48, 24_576), (131_072, 64, 32_768)] {
        add(format!("gather/R{rows}_W{width}_C{count}"), Kind::Gather { rows, width, count });
    }
    for len in [20_000, 400_000] {
        add(format!("optimizer/P{len}"), Kind::Optimizer { len });
    }
    add("nonfinite/L8388608".to_owned(), Kind::Nonfinite { len: 1 << 23 });
    add("random_permutation/L131072".to_owned(), Kind::Permutation { len: 131_072 });
    add("random_normal/L1179648".to_owned(), Kind::Normal { len: 98_304 * 12 });
    add("sample_cat/A16_B2048".to_owned(), Kind::CategoricalSample { batch: 2048, actions: 16 });
    add("sample_gauss/A12_B4096".to_owned(), Kind::GaussianSample { batch: 4096, dim: 12 });
    cases
}

/// Layers of a perceptron whose parameters follow each other in one buffer.
fn layers(batch: usize, widths: &[usize]) -> Vec<Linear> {
    let mut end = 0;
    let mut layer = |pair: &[usize]| {
        let (in_features, out_features) = (pair[0], pair[1]);
        let weight_offset = end;
        let bias_offset = weight_offset + in_features * out_features;
        end = bias_offset + out_features;
        Linear { batch, in_features, out_features, weight_offset, bias_offset }
    };
    widths.windows(2).map(&mut layer).collect()
}

impl Call for Case {
    fn work(&self) -> Work {
        let (flops, words, items) = match self.kind {
            Kind::Mlp { batch, widths, backward } => {
                let layers = layers(batch, widths);
                let product = |l: &Linear| (2 * l.batch * l.weights()) as f64;
                let forward: f64 = layers.iter().map(product).sum();
                let parameters: usize = layers.iter().map(|l| l.weights() + l.out_features).sum();
                let inputs = |layers: &[Linear]| layers.iter().map(|l| l.batch * l.in_features).sum::<usize>();
                let outputs: usize = layers.iter().map(|l| l.batch * l.out_features).sum();
                let mut words = inputs(&layers) + outputs + parameters;
                let mut flops = forward;
                if backward {
                    // Nobody needs the gradient of the observations: below the first layer there is nothing. Parameter gradients read
                    // outputs' gradients and inputs; input gradients read both again and write.
                    flops += 2.0 * forward - product(&layers[0]);
                    words += outputs + inputs(&layers) + parameters;
                    words += outputs - batch * widths[1] + 2 * inputs(&layers[1..]) + parameters;
                }
                (flops, words, ("samples_per_s", batch))
            }
            Kind::Loss { head, batch } => {
                let items = if matches!(head, Head::Tokens { .. }) { "tokens_per_s" } else { "samples_per_s" };
                (head.flops(batch), head.words(batch), (items, batch))
            }
            Kind::Gather { width, count, .. } => (0.0, count * (2 * width + 1), ("samples_per_s", count)),
            // The norm reads the gradient once more: 2 and 12 operations.
            Kind::Optimizer { len } => (14.0 * len as f64, 8 * len, ("elements_per_s", len)),
            Kind::Nonfinite { len } => (0.0, len, ("elements_per_s", len)),
            // Nothing but integers.
            Kind::Permutation { len } => (0.0, len, ("elements_per_s", len)),
            Kind::Normal { len } => (0.0, len, ("elements_per_s", len)),
            Kind::CategoricalSample { batch, actions } => {
                (4.0 * (batch * actions) as f64, batch * (actions + 3), ("samples_per_s", batch))
            }
            Kind::GaussianSample { batch, dim } => (7.0 * (batch * dim) as f64, batch * (3 * dim + 1), ("samples_per_s", batch)),
        };
        Work { flops, bytes: 4.0 * words as f64, items: Some((items.0, items.1 as f64)) }
    }

    fn prepare<B: Backend>(&self, buffers: &mut operations::Inputs<'_, B>) -> Result<Step<B>> {
        let (backend, mut inputs) = (&mut *buffers.backend, Inputs::new());
        match self.kind {
            Kind::Mlp { batch, widths, backward } => mlp(backend, &mut inputs, batch, widths, backward),
            Kind::Loss { head, batch } => losses::prepare(backend, &mut inputs, head, batch),
            Kind::Gather { rows, width, count } => gather(backend, &mut inputs, Gather { rows, width, start: 0, count }),
            Kind::Optimizer { len } => optimizer(backend, &mut inputs, len),
            Kind::Nonfinite { len } => {
                let x = backend.upload_floats(&inputs.floats(len, 1.0))?;
                let mut control = backend.upload_words(&control::INITIAL)?;
                Ok(Box::new(move |backend| backend.find_nonfinite(&[Watched { tensor: 1, len, x: &x }], &mut control)))
            }
            Kind::Permutation { len } => {
                let mut out = backend.alloc_words(len)?;
                Ok(Box::new(move |backend| {
                    backend.random_permutations(&RandomStream { len, seed: 1, stream: 0 }, 1, &mut out, 0)
                }))
            }
            Kind::Normal { len } => {
                let mut out = backend.alloc_floats(len)?;
                Ok(Box::new(move |backend| backend.random_normal(&RandomStream { len, seed: 1, stream: 0 }, &mut out)))
            }
            Kind::CategoricalSample { batch, actions } => {
                let logits = backend.upload_floats(&inputs.floats(batch * actions, 1.0))?;
                let uniforms = backend.upload_floats(&inputs.uniforms(batch))?;
                let (mut drawn, mut logp) = (backend.alloc_words(batch)?, backend.alloc_floats(batch)?);
                let op = Categorical { batch, actions };
                Ok(Box::new(move |backend| backend.categorical_sample(&op, &logits, None, &uniforms, 0, &mut drawn, &mut logp)))
            }
            Kind::GaussianSample { batch, dim } => {
                let mean = backend.upload_floats(&inputs.floats(batch * dim, 1.0))?;
                let log_std = backend.upload_floats(&inputs.floats(dim, 0.3))?;
                let noise = backend.upload_floats(&inputs.floats(batch * dim, 1.0))?;
                let (mut drawn, mut logp) = (backend.alloc_floats(batch * dim)?, backend.alloc_floats(batch)?);
                let op = Gaussian { batch, dim, state_dependent_std: false, log_std_offset: 0 };
                Ok(Box::new(move |backend| backend.gaussian_sample(&op, &mean, &log_std, &noise, 0, &mut drawn, &mut logp)))
            }
        }
    }
}

fn mlp<B: Backend>(backend: &mut B, inputs: &mut Inputs, batch: usize, widths: &[usize], with_backward: bool) -> Result<Step<B>> {
    let layers = layers(batch, widths);
    let last = layers.len() - 1;
    let mut params = Vec::new();
    for (i, layer) in layers.iter().enumerate() {
        let gain = if i == last { 1.0 } else { 1.4 };
        params.extend(inputs.floats(layer.weights(), gain / (layer.in_features as f64).sqrt()));
        params.extend(inputs.floats(layer.out_features, 0.1));
    }
    let mut grads = backend.alloc_floats(params.len())?;
    let params = backend.upload_floats(&params)?;
    // Below the first layer: the input. Above it: outputs [batch, out].
    let mut x = vec![backend.upload_floats(&inputs.floats(batch * widths[0], 1.0))?];
    let mut d_pre = Vec::new();
    for layer in &layers {
        x.push(backend.alloc_floats(batch * layer.out_features)?);
        d_pre.push(backend.alloc_floats(batch * layer.out_features)?);
    }
    let d_head = inputs.floats(batch * widths[widths.len() - 1], 1.0);
    backend.write_floats(&mut d_pre[last], 0, &d_head)?;
    Ok(Box::new(move |backend: &mut B| {
        for (i, layer) in layers.iter().enumerate() {
            let activation = if i == last { Activation::Identity } else { Activation::Tanh };
            let (below, above) = x.split_at_mut(i + 1);
            backend.linear_forward(layer, activation, &below[i], 0, &params, None, &mut above[0], 0)?;
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

fn gather<B: Backend>(backend: &mut B, inputs: &mut Inputs, op: Gather) -> Result<Step<B>> {
    let source = backend.upload_floats(&inputs.floats(op.rows * op.width, 1.0))?;
    let indices = backend.upload_words(&inputs.words(op.count, op.rows))?;
    let mut target = backend.alloc_floats(op.count * op.width)?;
    Ok(Box::new(move |backend| backend.gather_floats(&op, &source, &indices, &mut target)))
}

fn optimizer<B: Backend>(backend: &mut B, inputs: &mut Inputs, len: usize) -> Result<Step<B>> {
    let mut params = backend.upload_floats(&inputs.floats(len, 0.1))?;
    let grads = backend.upload_floats(&inputs.floats(len, 1e-2))?;
    let mut m = backend.upload_floats(&inputs.floats(len, 1e-2))?;
    let squares: Vec<f32> = inputs.floats(len, 1e-2).iter().map(|g| g * g).collect();
    let mut v = backend.upload_floats(&squares)?;
    let rows = backend.upload_floats(&schedule::row(2.5e-4, 0.9, 0.999, 10))?;
    let mut stats = backend.upload_floats(&inputs.floats(stat::COLUMNS, 1.0))?;
    let mut control = backend.upload_words(&control::INITIAL)?;
    let norm = GradientNorm { len, max_grad_norm: 0.5, epsilon: 1e-6, stats_row: 0 };
    let adam =
        Adam { len, beta1: 0.9, beta2: 0.999, epsilon: 1e-5, weight_decay: 0.0, decoupled: false, schedule_row: 0, stats_row: 0 };
    Ok(Box::new(move |backend| {
        backend.gradient_norm(&norm, &grads, &mut stats)?;
        backend.adam_step(&adam, &mut params, &grads, &mut m, &mut v, &rows, &stats, &mut control)
    }))
}

struct Repeated<'a, B: Benchmarked> {
    backend: &'a mut B,
    step: Step<B>,
    /// Whose read-back waits for all that was recorded.
    waited_for: B::Words,
}

impl<B: Benchmarked> Timed for Repeated<'_, B> {
    const REPEATABLE: bool = true;

    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    fn call(&mut self) -> Result<()> {
        (self.step)(self.backend)
    }

    fn wait(&mut self) -> Result<()> {
        self.backend.read_words(&self.waited_for, 0, 1).map(drop)
    }

    fn take_clocks(&mut self) -> Result<Clocks> {
        self.backend.take_clocks()
    }
}

/// Checks one call against double precision, then times it. The backend always comes back.
pub(super) fn run<B: Benchmarked>(
    backend: B,
    name: &str,
    call: &impl Call,
    effort: Effort,
    peaks: &Peaks,
) -> (B, Result<Record>) {
    let mut checked = CrossCheck::new(backend, Cpu::<f64>::new());
    let outcome = prepare(call, &mut checked).and_then(|mut step| step(&mut checked));
    let check = |(&(operation, tensor), worst): (&(&str, &str), &crate::backend::Worst)| {
        (format!("{operation}: {tensor}"), worst.ratio())
    };
    let check: BTreeMap<String, f64> = checked.worst().iter().map(check).collect();
    let mut backend = checked.a;
    let outcome = outcome.and_then(|()| {
        let step = prepare(call, &mut backend)?;
        let samples = time(&mut backend, step, effort)?;
        Ok(record(name, &mut backend, &samples, call.work(), Some(peaks), check))
    });
    (backend, outcome)
}

/// With the same inputs on every backend.
fn prepare<B: Backend>(call: &impl Call, backend: &mut B) -> Result<Step<B>> {
    call.prepare(&mut operations::Inputs { backend, draw: Draw::new(1, 0) })
}

/// Times a call that has been checked.
pub(super) fn time<B: Benchmarked>(backend: &mut B, step: Step<B>, effort: Effort) -> Result<Samples> {
    let waited_for = backend.alloc_words(1)?;
    Samples::collect(effort, &mut Repeated { backend, step, waited_for })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_the_small_ones_are_a_part() {
        let names = |small| all(small).into_iter().map(|case| case.name).collect::<Vec<_>>();
        let (small, full) = (names(true), names(false));
        let distinct: std::collections::BTreeSet<&String> = full.iter().collect();
        assert_eq!(distinct.len(), full.len());
        let token = |name: &&String| name.starts_with("loss_token");
        assert!(small.iter().all(|name| full.contains(name) || token(&name)), "{small:?}");
    }

    #[test]
    fn a_perceptron_counts_three_products_but_for_the_first_layer() {
        let case = |backward| Case { name: String::new(), kind: Kind::Mlp { batch: 10, widths: &[3, 5, 2], backward } };
        assert_eq!(case(false).work().flops, 20.0 * 25.0);
        assert_eq!(case(true).work().flops, 20.0 * (3.0 * 25.0 - 15.0));
        let parameters = (15 + 5) + (10 + 2);
        assert_eq!(case(false).work().bytes, 4.0 * (10.0 * (3.0 + 5.0 + 5.0 + 2.0) + f64::from(parameters)));
    }

    #[test]
    fn a_loss_moves_its_head_twice_and_six_numbers_a_sample() {
        let work = |head| Case { name: String::new(), kind: Kind::Loss { head, batch: 10 } }.work();
        assert_eq!(work(Head::Categorical { actions: 6 }).bytes, 4.0 * 10.0 * (12.0 + 1.0 + 6.0));
        assert_eq!(work(Head::Gaussian { dim: 6 }).bytes, 4.0 * 10.0 * (18.0 + 6.0));
    }
}
