//! A minibatch step through actor and critic, checked and timed.

use std::collections::BTreeMap;

use super::{ACTIONS, OBSERVATIONS};
use crate::backend::{Backend, Cpu, Head, Minibatch, MinibatchRows, Precision, Rows, Trace, TrainState, forward};
use crate::bench::inputs::Inputs;
use crate::bench::measure::Effort;
use crate::bench::peaks::{Benchmarked, Peaks, time};
use crate::bench::{Record, Work, record};
use crate::error::{Error, Result};
use crate::kernels::actor_critic::{Layer, MinibatchStep};
use crate::kernels::linear::Activation;
use crate::kernels::optimizer::{Adam, GradientNorm};
use crate::kernels::policy::Categorical;
use crate::layout::{sample, stat};
use crate::operations::surrogate::{LOG_RATIO, categorical_logp, cleanrl, loss_flops, off_the_edges};
use crate::ppo::{Network, NetworkSpec, ParameterTensor, PolicyKind};

/// Samples, and units of each of the two hidden layers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub batch: usize,
    pub width: usize,
}

/// Most operations in double precision: about a second on a processor.
const CHECKED_FLOPS: f64 = 4e9;
/// Most distinct samples: enough for every division of a batch.
const MOST_DISTINCT: usize = 4096;
/// Relative deviation allowed of rows and losses in single precision: hundreds of roundings.
const ALLOWED: f64 = 1e-4;
/// On tensor cores: six products in sequence, each of two f16 operands with errors of 2⁻¹¹.
const ALLOWED_ON_TENSOR_CORES: f64 = 6.0 / 1024.0;
/// Factor for a parameter tensor's gradient, a mean in which terms of both signs cancel.
const CANCELLATION: f64 = 10.0;

/// Operations of clipping and Adam for each parameter.
const OPTIMIZER_FLOPS: f64 = 14.0;

impl Shape {
    fn network(&self) -> Result<Network> {
        Network::new(NetworkSpec {
            observation_size: OBSERVATIONS,
            hidden: vec![self.width; 2],
            activation: Activation::Tanh,
            policy: PolicyKind::Categorical { actions: ACTIONS },
        })
    }

    /// Operations of matrix products (forward, dW, and dx above the first layer) and the loss.
    fn flops(&self, batch: usize) -> f64 {
        let products = |outputs: usize| {
            let (first, others) = (OBSERVATIONS * self.width, self.width * (self.width + outputs));
            (batch * (4 * first + 6 * others)) as f64
        };
        products(ACTIONS) + products(1) + loss_flops(batch, ACTIONS) as f64
    }

    /// Operations and least bytes, with activations and gradients on the chip: observations,
    /// actions, packed samples in; outputs out; parameters and Adam's moments in and out.
    pub(super) fn work(&self) -> Work {
        let layers = |outputs: usize| self.width * (OBSERVATIONS + self.width + outputs + 2) + outputs;
        let parameters = layers(ACTIONS) + layers(1);
        let words = self.batch * (OBSERVATIONS + 1 + sample::COLUMNS + ACTIONS + 1) + 6 * parameters;
        let (flops, samples) = (self.flops(self.batch) + OPTIMIZER_FLOPS * parameters as f64, self.batch as f64);
        Work { flops, bytes: 4.0 * words as f64, items: Some(("samples_per_s", samples)) }
    }

    /// Number of distinct samples; the others repeat them. A power of two that divides the batch,
    /// so that the means of gradient and losses equal those of the distinct samples.
    fn distinct(&self) -> usize {
        let affordable = (CHECKED_FLOPS / self.flops(1)).max(1.0) as usize;
        let power = if affordable.is_power_of_two() { affordable } else { affordable.next_power_of_two() / 2 };
        power.min(MOST_DISTINCT).min(self.batch)
    }
}

/// Distinct samples on the host, from a slightly different policy.
struct Samples {
    network: Network,
    parameters: Vec<f32>,
    /// `[distinct, OBSERVATIONS]`.
    observations: Vec<f32>,
    actions: Vec<u32>,
    /// Packed, `[distinct, 4]`.
    packed: Vec<f32>,
}

/// Moves a value's distance from the old one away from the clip bounds.
fn off_the_clip(distance: f64) -> f64 {
    if (distance.abs() - 0.2).abs() < 1e-3 { 0.9 * distance } else { distance }
}

impl Samples {
    fn draw(shape: &Shape) -> Result<Self> {
        let (mut inputs, mut cpu) = (Inputs::new(), Cpu::<f32>::new());
        let network = shape.network()?;
        let rows = shape.distinct();
        let mut parameters = Vec::with_capacity(network.len());
        for tensor in network.tensors() {
            let scale = if let &[_, fan_in] = tensor.shape.as_slice() { 1.0 / (fan_in as f64).sqrt() } else { 0.1 };
            parameters.extend(inputs.floats(tensor.len(), scale));
        }
        let observations = inputs.floats(rows * OBSERVATIONS, 1.0);
        let actions = inputs.words(rows, ACTIONS);
        let mut output = |layers: &[Layer]| -> Result<Vec<f32>> {
            let mut trace = Trace::new(&mut cpu, layers, rows)?;
            let x = Rows { buffer: &observations, offset: 0, count: rows };
            forward(&mut cpu, layers, &parameters, &x, &mut trace, None)?;
            Ok(trace.head().clone())
        };
        let logits = output(&network.layers.actor)?;
        let values = output(&network.layers.critic)?;
        let mut packed = Vec::with_capacity(rows * sample::COLUMNS);
        for (logp, value) in categorical_logp(ACTIONS, &logits, None, &actions).into_iter().zip(values) {
            let old_logp = logp - off_the_edges(LOG_RATIO * inputs.normal());
            let old_value = f64::from(value) - off_the_clip(0.2 * inputs.normal());
            // Returns exceed values, so that the gradients of the value loss do not cancel.
            let (advantage, target) = (inputs.normal(), old_value + 0.5 + inputs.normal());
            packed.extend([old_logp, advantage, target, old_value].map(|x| x as f32));
        }
        Ok(Self { network, parameters, observations, actions, packed })
    }
}

struct Buffers<B: Backend> {
    network: Network,
    op: MinibatchStep,
    observations: B::Floats,
    actions: B::Words,
    packed: B::Floats,
    indices: B::Words,
    minibatch: Minibatch<B::Floats, B::Words>,
    state: TrainState<B::Floats, B::Words>,
}

impl<B: Backend> Buffers<B> {
    /// `batch` is a multiple of the distinct samples.
    fn upload(backend: &mut B, samples: &Samples, batch: usize) -> Result<Self> {
        let times = batch / samples.actions.len();
        let network = samples.network.clone();
        let indices: Vec<u32> = (0..batch as u32).collect();
        let len = network.len();
        // The schedule's zeros are a learning rate of 0: all calls are equal.
        let mut state = TrainState::new(backend, len, 1, 1)?;
        backend.write_floats(state.params.flat_mut(), 0, &samples.parameters)?;
        let loss = cleanrl(batch);
        let norm = GradientNorm { len, max_grad_norm: 0.5, epsilon: 1e-6, stats_row: loss.stats_row };
        let (schedule_row, stats_row) = (0, loss.stats_row);
        let (weight_decay, decoupled) = (0.0, false);
        let adam = Adam { len, beta1: 0.9, beta2: 0.999, epsilon: 1e-5, weight_decay, decoupled, schedule_row, stats_row };
        Ok(Self {
            op: MinibatchStep { loss, tensor: 1, norm, max_kl: None, adam },
            observations: backend.upload_floats(&samples.observations.repeat(times))?,
            actions: backend.upload_words(&samples.actions.repeat(times))?,
            packed: backend.upload_floats(&samples.packed.repeat(times))?,
            indices: backend.upload_words(&indices)?,
            minibatch: Minibatch::new(backend, &network.layers, true, batch)?,
            state,
            network,
        })
    }

    fn call(&mut self, backend: &mut B) -> Result<()> {
        let Self { network, op, minibatch, state, .. } = self;
        let batch = op.loss.batch;
        let rows = MinibatchRows {
            indices: &self.indices,
            start: 0,
            rows: batch,
            observations: &self.observations,
            head: Head::Categorical(Categorical { batch, actions: ACTIONS }, &self.actions),
            samples: &self.packed,
            first_sample: 0,
        };
        backend.minibatch_step(&network.layers, op, &rows, minibatch, state)
    }

    fn read(&mut self, backend: &mut B) -> Result<Outcome> {
        let (logits, values) = (self.minibatch.actor.head(), self.minibatch.critic.head());
        Ok(Outcome {
            rows: [
                ("logits", backend.read_f64(logits, 0, self.op.loss.batch * ACTIONS)?),
                ("values", backend.read_f64(values, 0, self.op.loss.batch)?),
            ],
            stats: backend.read_f64(&self.state.stats, stat::LOSS, stat::CLIPFRAC + 1)?,
            grads: backend.read_f64(&self.state.grads, 0, self.network.len())?,
        })
    }
}

/// Results of a minibatch.
struct Outcome {
    /// Outputs of the networks, one row a sample.
    rows: [(&'static str, Vec<f64>); 2],
    stats: Vec<f64>,
    grads: Vec<f64>,
}

/// ‖x − expected‖ / ‖expected‖ over the elements of `x`.
fn deviation(x: &[f64], expected: impl Iterator<Item = f64>) -> f64 {
    let (apart, norm) =
        x.iter().zip(expected).fold((0.0, 0.0), |(apart, norm), (x, e)| (apart + (x - e) * (x - e), norm + e * e));
    f64::sqrt(apart / norm)
}

fn require_near(name: &str, deviation: f64, allowed: f64) -> Result<f64> {
    if deviation <= allowed {
        return Ok(deviation);
    }
    Err(Error::value(name, format!("within {allowed} of double precision"), deviation))
}

/// Relative deviations of `found` from `expected`: of rows, losses, and the worst parameter tensor.
fn compare(tensors: &[ParameterTensor], found: &Outcome, expected: &Outcome, allowed: f64) -> Result<BTreeMap<String, f64>> {
    let mut check = BTreeMap::new();
    for ((name, rows), (_, distinct)) in found.rows.iter().zip(&expected.rows) {
        let near = require_near(name, deviation(rows, distinct.iter().copied().cycle()), allowed)?;
        check.insert((*name).to_owned(), near);
    }
    check.insert("stats".to_owned(), require_near("stats", deviation(&found.stats, expected.stats.iter().copied()), allowed)?);
    let mut worst = 0.0f64;
    for tensor in tensors {
        let range = tensor.offset..tensor.offset + tensor.len();
        let apart = deviation(&found.grads[range.clone()], expected.grads[range].iter().copied());
        worst = worst.max(require_near(&format!("gradient of {}", tensor.name), apart, CANCELLATION * allowed)?);
    }
    check.insert("grads".to_owned(), worst);
    Ok(check)
}

/// Checks one call against double precision, then times it.
pub(super) fn run<B: Benchmarked>(backend: &mut B, name: &str, shape: &Shape, effort: Effort, peaks: &Peaks) -> Result<Record> {
    let samples = Samples::draw(shape)?;
    let mut minibatch = Buffers::upload(backend, &samples, shape.batch)?;
    minibatch.call(backend)?;
    let found = minibatch.read(backend)?;
    let mut oracle = Cpu::<f64>::new();
    let mut twin = Buffers::upload(&mut oracle, &samples, shape.distinct())?;
    twin.call(&mut oracle)?;
    let allowed = if backend.take_used_precision() == Precision::F16TensorCore { ALLOWED_ON_TENSOR_CORES } else { ALLOWED };
    let check = compare(samples.network.tensors(), &found, &twin.read(&mut oracle)?, allowed)?;
    drop((found, twin, samples));
    let step = Box::new(move |backend: &mut B| minibatch.call(backend));
    let timed = time(backend, step, effort)?;
    Ok(record(name, backend, &timed, shape.work(), Some(peaks), check))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome<B: Backend>(backend: &mut B, samples: &Samples, batch: usize) -> Outcome {
        let mut minibatch = Buffers::upload(backend, samples, batch).unwrap();
        minibatch.call(backend).unwrap();
        minibatch.read(backend).unwrap()
    }

    #[test]
    fn repeated_samples_have_the_gradient_of_the_distinct_ones() {
        let samples = Samples::draw(&Shape { batch: 128, width: 32 }).unwrap();
        let expected = outcome(&mut Cpu::<f64>::new(), &samples, 128);
        let found = outcome(&mut Cpu::<f64>::new(), &samples, 8 * 128);
        let check = compare(samples.network.tensors(), &found, &expected, ALLOWED).unwrap();
        assert!(check.values().all(|&deviation| deviation < 1e-12), "{check:?}");
        assert_eq!(check.len(), 4);
    }

    #[test]
    fn what_differs_is_named() {
        let samples = Samples::draw(&Shape { batch: 64, width: 32 }).unwrap();
        let expected = outcome(&mut Cpu::<f64>::new(), &samples, 64);
        let tensors = samples.network.tensors();
        let bias = tensors.iter().find(|tensor| tensor.name == "critic.b1").unwrap().offset;
        let spoilt = |spoil: fn(&mut Outcome, usize)| {
            let mut found = outcome(&mut Cpu::<f32>::new(), &samples, 256);
            spoil(&mut found, bias);
            compare(tensors, &found, &expected, ALLOWED)
        };
        spoilt(|_, _| {}).unwrap();
        type Fault = fn(&mut Outcome, usize);
        let faults: [(&str, Fault); 4] = [
            ("logits", |found, _| found.rows[0].1[255 * ACTIONS] = 9.0),
            ("values", |found, _| found.rows[1].1[3] = f64::NAN),
            ("stats", |found, _| found.stats[stat::ENTROPY] += 0.1),
            ("gradient of critic.b1", |found, bias| found.grads[bias] = 0.0),
        ];
        for (name, fault) in faults {
            match spoilt(fault) {
                Err(Error::InvalidValue { argument, expected, .. }) => {
                    assert_eq!(argument, name);
                    assert!(expected.contains("double precision"), "{expected}");
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn distinct_samples_divide_the_batch() {
        for (batch, width, distinct) in [(64, 64, 64), (1 << 20, 64, 4096), (4096, 32, 4096), (4096, 2048, 64)] {
            assert_eq!(Shape { batch, width }.distinct(), distinct, "{batch} x {width}");
        }
    }

    #[test]
    fn work_counts_products_and_what_has_to_move() {
        let shape = Shape { batch: 10, width: 32 };
        let products = |outputs: usize| (6 * (64 * 32 + 32 * 32 + 32 * outputs) - 2 * 64 * 32) as f64;
        let work = shape.work();
        let parameters = shape.network().unwrap().len();
        assert_eq!(work.flops, 10.0 * (products(16) + products(1)) + loss_flops(10, 16) as f64 + 14.0 * parameters as f64);
        assert_eq!(work.bytes, 4.0 * (10 * (64 + 1 + 4 + 17) + 6 * parameters) as f64);
    }
}
