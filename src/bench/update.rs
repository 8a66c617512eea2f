//! Four whole PPO updates: advantages, then epochs × minibatches of gather, forward, loss, backward, clip, Adam.

use std::collections::BTreeMap;

use super::inputs::Inputs;
use super::measure::{Clocks, Effort, Samples, Timed};
use super::peaks::{Benchmarked, Peaks};
use super::{Record, Work, record};
use crate::backend::{Backend, Cpu, Memory};
use crate::error::{Error, Result};
use crate::kernels::linear::Activation;
use crate::layout::stat;
use crate::ppo::{Actions, Config, Ends, Learner, Network, PolicyKind, Rollout};

/// An update that is measured.
#[derive(Debug, Clone)]
pub struct Workload {
    /// `update/…`
    pub name: &'static str,
    /// Elements of an observation.
    pub observation_size: usize,
    /// What the actor parametrises.
    pub policy: PolicyKind,
    /// Sizes and hyper-parameters.
    pub config: Config,
}

fn every() -> [Workload; 4] {
    let tanh = |hidden: usize| Config { hidden: vec![hidden, hidden], seed: 1, ..Config::default() };
    [
        Workload {
            name: "update/i_cartpole",
            observation_size: 4,
            policy: PolicyKind::Categorical { actions: 2 },
            config: Config { num_envs: 4, num_steps: 128, update_epochs: 4, num_minibatches: 4, ..tanh(64) },
        },
        Workload {
            name: "update/ii_mujoco",
            observation_size: 17,
            policy: PolicyKind::Gaussian { dim: 6 },
            config: Config {
                num_envs: 1,
                num_steps: 2048,
                update_epochs: 10,
                num_minibatches: 32,
                learning_rate: 3e-4,
                ent_coef: 0.0,
                ..tanh(64)
            },
        },
        Workload {
            name: "update/iii_isaac",
            observation_size: 48,
            policy: PolicyKind::Gaussian { dim: 12 },
            config: Config {
                num_envs: 4096,
                num_steps: 24,
                update_epochs: 5,
                num_minibatches: 4,
                learning_rate: 3e-4,
                ent_coef: 0.005,
                activation: Activation::Elu,
                hidden: vec![512, 256, 128],
                ..tanh(1)
            },
        },
        Workload {
            name: "update/iv_discrete",
            observation_size: 64,
            policy: PolicyKind::Categorical { actions: 16 },
            config: Config { num_envs: 2048, num_steps: 64, update_epochs: 4, num_minibatches: 4, ..tanh(256) },
        },
    ]
}

/// All workloads; with `small` those whose networks are.
pub fn workloads(small: bool) -> Vec<Workload> {
    every().into_iter().take(if small { 2 } else { 4 }).collect()
}

/// Their names.
pub(super) fn names(small: bool) -> impl Iterator<Item = String> {
    workloads(small).into_iter().map(|workload| workload.name.to_owned())
}

impl Workload {
    /// Matrix products alone: forward, dW, and dx below all layers but the first.
    fn flops(&self) -> f64 {
        let samples = (self.config.batch_size() * self.config.update_epochs) as f64;
        let widths = |outputs| [vec![self.observation_size], self.config.hidden.clone(), vec![outputs]].concat();
        [self.policy.outputs(), 1]
            .map(widths)
            .iter()
            .map(|widths| {
                let products: Vec<f64> = widths.windows(2).map(|w| (w[0] * w[1]) as f64).collect();
                samples * (6.0 * products.iter().sum::<f64>() - 2.0 * products[0])
            })
            .sum()
    }

    /// Parameters as peers draw them: normal, 1.4/√in for hidden layers and ½ or 1/√in for the heads, biases of 0.1.
    fn parameters(&self, network: &Network, inputs: &mut Inputs) -> Vec<f32> {
        let last = self.config.hidden.len();
        let mut parameters = Vec::with_capacity(network.len());
        for tensor in network.tensors() {
            let scale = match (tensor.shape.as_slice(), tensor.name.as_str()) {
                (&[_, inputs], name) if name == format!("actor.W{last}") => 0.5 / (inputs as f64).sqrt(),
                (&[_, inputs], name) if name == format!("critic.W{last}") => 1.0 / (inputs as f64).sqrt(),
                (&[_, inputs], _) => 1.4 / (inputs as f64).sqrt(),
                (_, "logstd") => 0.0,
                _ => 0.1,
            };
            parameters.extend(inputs.floats(tensor.len(), scale));
        }
        parameters
    }
}

/// A rollout on the host, drawn from a slightly older policy, so that ratios differ from 1 and clipping acts.
struct HostRollout {
    parameters: Vec<f32>,
    observations: Vec<f32>,
    discrete: Vec<u32>,
    continuous: Vec<f32>,
    logp: Vec<f32>,
    values: Vec<f32>,
    rewards: Vec<f32>,
    dones: Vec<f32>,
    next_value: Vec<f32>,
    next_done: Vec<f32>,
}

impl HostRollout {
    fn draw(workload: &Workload) -> Result<Self> {
        let mut inputs = Inputs::new();
        let mut cpu = Cpu::<f32>::new();
        let Config { num_steps, num_envs, .. } = workload.config;
        let rows = num_steps * num_envs;
        let mut older = Learner::new(&mut cpu, workload.observation_size, workload.policy, workload.config.clone())?;
        let parameters = workload.parameters(older.network(), &mut inputs);
        let mut moved = parameters.clone();
        for tensor in older.network().tensors() {
            if let &[_, in_features] = tensor.shape.as_slice() {
                let scale = 0.05 / (in_features as f64).sqrt();
                let noise = inputs.floats(tensor.len(), scale);
                moved[tensor.offset..].iter_mut().zip(noise).for_each(|(weight, by)| *weight += by);
            }
        }
        older.set_parameters(&mut cpu, &moved)?;
        let observations = inputs.floats(rows * workload.observation_size, 1.0);
        let (rewards, next_value) = (inputs.floats(rows, 1.0), inputs.floats(num_envs, 1.0));
        let (dones, next_done) = (inputs.ends(rows), inputs.ends(num_envs));
        let mut rollout = older.new_rollout(&mut cpu)?;
        cpu.write_floats(&mut rollout.observations, 0, &observations)?;
        older.draw_noise(&mut cpu)?;
        (0..num_steps).try_for_each(|step| older.act(&mut cpu, &mut rollout, step))?;
        let (mut discrete, mut continuous) = (Vec::new(), Vec::new());
        match rollout.actions {
            Actions::Discrete(actions) => discrete = actions,
            Actions::Continuous(actions) => continuous = actions,
        }
        let (logp, values) = (rollout.logp, rollout.values);
        Ok(Self { parameters, observations, discrete, continuous, logp, values, rewards, dones, next_value, next_done })
    }

    fn upload<B: Backend>(&self, backend: &mut B, learner: &Learner<B>) -> Result<Rollout<B>> {
        let mut rollout = learner.new_rollout(backend)?;
        backend.write_floats(&mut rollout.observations, 0, &self.observations)?;
        match &mut rollout.actions {
            Actions::Discrete(actions) => backend.write_words(actions, 0, &self.discrete)?,
            Actions::Continuous(actions) => backend.write_floats(actions, 0, &self.continuous)?,
        }
        backend.write_floats(&mut rollout.logp, 0, &self.logp)?;
        backend.write_floats(&mut rollout.values, 0, &self.values)?;
        backend.write_floats(&mut rollout.rewards, 0, &self.rewards)?;
        if let Ends::BeforeStep { dones, next_value, next_done } = &mut rollout.ends {
            backend.write_floats(dones, 0, &self.dones)?;
            backend.write_floats(next_value, 0, &self.next_value)?;
            backend.write_floats(next_done, 0, &self.next_done)?;
        }
        Ok(rollout)
    }
}

/// One update from the same start: losses of all minibatches, parameters after it.
fn one_update<B: Backend>(backend: &mut B, workload: &Workload, host: &HostRollout) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut learner = Learner::new(backend, workload.observation_size, workload.policy, workload.config.clone())?;
    learner.set_parameters(backend, &host.parameters)?;
    let rollout = host.upload(backend, &learner)?;
    let stats = learner.update(backend, &rollout, workload.config.learning_rate)?;
    let [parameters, ..] = learner.state_f64(backend)?;
    Ok((stats.log.iter().map(|row| row[stat::LOSS]).collect(), parameters))
}

/// The first minibatch is compared tightly and the end loosely: one sample that crosses a clip edge by rounding moves all that follows.
fn compare(
    host: &HostRollout,
    (losses, parameters): &(Vec<f64>, Vec<f64>),
    (expected_losses, expected): &(Vec<f64>, Vec<f64>),
) -> Result<BTreeMap<String, f64>> {
    let first = (losses[0] - expected_losses[0]).abs() / expected_losses[0].abs();
    let deviation: f64 = losses.iter().zip(expected_losses).map(|(a, b)| (a - b).abs()).sum();
    let mean = deviation / expected_losses.iter().map(|b| b.abs()).sum::<f64>();
    let square = |a: f64, b: f64| (a - b) * (a - b);
    let moved: f64 = host.parameters.iter().zip(expected).map(|(&a, &b)| square(f64::from(a), b)).sum();
    let apart: f64 = parameters.iter().zip(expected).map(|(&a, &b)| square(a, b)).sum();
    let relative = (apart / moved).sqrt();
    for (name, value, limit) in [("first loss", first, 1e-3), ("losses", mean, 1e-2), ("parameters", relative, 0.2)] {
        if !(value <= limit) {
            return Err(Error::value(name, format!("within {limit} of double precision"), value));
        }
    }
    Ok([("first_loss_rel", first), ("losses_rel", mean), ("params_rel_to_move", relative)]
        .map(|(name, value)| (name.to_owned(), value))
        .into())
}

struct Updating<'a, B: Benchmarked> {
    backend: &'a mut B,
    learner: Learner<B>,
    rollout: Rollout<B>,
    host: &'a HostRollout,
}

impl<B: Benchmarked> Timed for Updating<'_, B> {
    /// A second update would start from other parameters, beyond the clip, where there is less to do.
    const REPEATABLE: bool = false;

    fn prepare(&mut self) -> Result<()> {
        self.learner.reset(self.backend, &self.host.parameters)?;
        // Waits, so that the writes are not part of the sample.
        self.learner.parameters(self.backend).map(drop)
    }

    fn call(&mut self) -> Result<()> {
        let learning_rate = self.learner.config().learning_rate;
        self.learner.update(self.backend, &self.rollout, learning_rate).map(drop)
    }

    /// An update reads its statistics back before it returns.
    fn wait(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_clocks(&mut self) -> Result<Clocks> {
        self.backend.take_clocks()
    }
}

/// Checks one update against double precision, then times it.
pub(super) fn run<B: Benchmarked>(backend: &mut B, workload: &Workload, effort: Effort, peaks: &Peaks) -> Result<Record> {
    let host = HostRollout::draw(workload)?;
    let found = one_update(backend, workload, &host)?;
    let check = compare(&host, &found, &one_update(&mut Cpu::<f64>::new(), workload, &host)?)?;
    let learner = Learner::new(backend, workload.observation_size, workload.policy, workload.config.clone())?;
    let rollout = host.upload(backend, &learner)?;
    let samples = Samples::collect(effort, &mut Updating { backend, learner, rollout, host: &host })?;
    let learned = (workload.config.batch_size() * workload.config.update_epochs) as f64;
    let work = Work { flops: workload.flops(), bytes: 0.0, items: Some(("learner_samples_per_s", learned)) };
    let mut record = record(workload.name, backend, &samples, work, Some(peaks), check);
    let Workload { observation_size, policy, config, .. } = workload;
    let memory = Learner::planned_memory_bytes(backend, *observation_size, *policy, config)?;
    record.derived.insert("memory_bytes", memory as f64);
    Ok(record)
}
