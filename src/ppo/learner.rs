//! One PPO update: all its commands are recorded, and its results are read back once, at the end.

mod acting;
mod checkpoint;
mod memory;
mod stats;
#[cfg(test)]
mod tests;

pub use stats::{StopReason, UpdateStats};

use smallvec::{SmallVec, smallvec};

use super::rollout::wrong_actions;
use super::{Actions, AdvantageScope, Config, Ends, KlStop, Network, NetworkSpec, ParameterTensor, PolicyKind, Rollout};
use crate::backend::{Backend, Head, Length, Memory, Minibatch, MinibatchRows, Position, Trace, TrainState};
use crate::error::{Error, Result};
use crate::kernels::actor_critic::MinibatchStep;
use crate::kernels::advantage::{CleanRlGaeOperands, Gae, GaeOperands};
use crate::kernels::gather::{Gather, SamplesOperands};
use crate::kernels::nonfinite::{Unless, Watched};
use crate::kernels::normalize::Normalize;
use crate::kernels::optimizer::{Adam, GradientNorm};
use crate::kernels::policy::Categorical;
use crate::kernels::random::RandomStream;
use crate::layout::{control, sample, schedule, stat, stop};
use crate::shape::{require_len, require_range};

/// Tensors that an update searches for NaN and infinity. A device code is an index here plus 1.
const WATCHED: [&str; 8] = ["rewards", "values", "logp", "observations", "actions", "next_value", "next_values", "gradients"];
const GRADIENTS: usize = 7;
/// Minibatch steps in a submission: the device runs them while the host records the next.
const STEPS_A_SUBMISSION: usize = 8;
/// Most samples packed at once. A pack costs two dispatches, so small batches pack several epochs.
const SAMPLES_PACKED: usize = 1 << 15;

/// SB3 stops at one and a half times `target_kl`.
const SB3_KL_FACTOR: f64 = 1.5;

/// High bits of a random stream's number, so that purposes share no stream.
pub(crate) mod purpose {
    pub(crate) const PERMUTATION: u64 = 1 << 56;
    pub(crate) const ACTION_NOISE: u64 = 2 << 56;
    pub(crate) const STREAMS: u64 = 1 << 56;
}

/// A copy of the parameters and the optimiser's moments, flat.
#[derive(Debug)]
struct Snapshot<F> {
    params: F,
    m: F,
    v: F,
}

impl<F> Snapshot<F> {
    fn new<B: Memory<Floats = F>>(backend: &mut B, len: usize) -> Result<Self> {
        Ok(Self { params: backend.alloc_floats(len)?, m: backend.alloc_floats(len)?, v: backend.alloc_floats(len)? })
    }

    fn save<B: Memory<Floats = F>>(&mut self, backend: &mut B, state: &TrainState<F, B::Words>, len: usize) -> Result<()> {
        backend.copy_floats(state.params.flat(), 0, &mut self.params, 0, len)?;
        backend.copy_floats(&state.m, 0, &mut self.m, 0, len)?;
        backend.copy_floats(&state.v, 0, &mut self.v, 0, len)
    }

    fn restore<B: Memory<Floats = F>>(&self, backend: &mut B, state: &mut TrainState<F, B::Words>, len: usize) -> Result<()> {
        backend.copy_floats(&self.params, 0, state.params.flat_mut(), 0, len)?;
        backend.copy_floats(&self.m, 0, &mut state.m, 0, len)?;
        backend.copy_floats(&self.v, 0, &mut state.v, 0, len)
    }
}

/// Actor, critic and optimiser on a backend, with the buffers of an update.
#[derive(Debug)]
pub struct Learner<B: Memory> {
    config: Config,
    network: Network,
    minibatch_size: usize,
    updates: u64,
    optimizer_steps: u64,
    /// Rollouts with noise so far.
    draws: u64,
    pub(crate) state: TrainState<B::Floats, B::Words>,
    before: Snapshot<B::Floats>,
    pub(crate) advantages: B::Floats,
    pub(crate) returns: B::Floats,
    pub(crate) minibatch: Minibatch<B::Floats, B::Words>,
    /// Epochs packed at once.
    epochs_packed: usize,
    /// Their shuffled samples `[epochs·T·N, 4]`, and the moments of their advantages by minibatch.
    samples: B::Floats,
    moments: B::Floats,
    /// Activations of actor and critic.
    acting: [Trace<B::Floats>; 2],
    noise: Option<B::Floats>,
    /// Whether the noise belongs to a rollout not yet learned from.
    noise_is_new: bool,
    pub(crate) permutations: B::Words,
}

impl<B: Backend> Learner<B> {
    /// A learner with initial parameters, for rollouts of `config.num_steps` × `config.num_envs`.
    ///
    /// # Errors
    /// Those of [`Config::validate`] and of the backend's allocations.
    pub fn new(backend: &mut B, observation_size: usize, policy: PolicyKind, config: Config) -> Result<Self> {
        config.validate()?;
        let minibatch_size = config.minibatch_size();
        Self::with_minibatch_size(backend, observation_size, policy, config, minibatch_size)
    }

    /// Like [`new`](Self::new), with a minibatch size that need not divide the rollout: the last
    /// minibatch of an epoch may be shorter.
    ///
    /// # Errors
    /// Those of [`new`](Self::new); [`Error::Shape`] for 0 or more samples than the batch.
    pub fn with_minibatch_size(
        backend: &mut B,
        observation_size: usize,
        policy: PolicyKind,
        config: Config,
        minibatch_size: usize,
    ) -> Result<Self> {
        let network = Self::network_of(observation_size, policy, &config, minibatch_size)?;
        let initial = network.initial_parameters(config.seed, config.log_std_init)?;
        let mut learner = Self::allocate(backend, network, config, minibatch_size)?;
        learner.reset(backend, &initial)?;
        Ok(learner)
    }

    fn network_of(observation_size: usize, policy: PolicyKind, config: &Config, minibatch_size: usize) -> Result<Network> {
        config.validate()?;
        let batch = config.batch_size();
        if minibatch_size == 0 || minibatch_size > batch {
            return Err(Error::shape("minibatch_size", format!("from 1 to the batch size {batch}"), minibatch_size));
        }
        Network::new(NetworkSpec { observation_size, hidden: config.hidden.clone(), activation: config.activation, policy })
    }
}

impl<B: Memory> Learner<B> {
    fn allocate(backend: &mut B, network: Network, config: Config, minibatch_size: usize) -> Result<Self> {
        let batch = config.batch_size();
        let policy = network.spec().policy;
        let steps = config.update_epochs * batch.div_ceil(minibatch_size);
        let is_categorical = matches!(policy, PolicyKind::Categorical { .. });
        // A shorter last minibatch keeps several epochs from forming a matrix.
        let most = if batch.is_multiple_of(minibatch_size) { SAMPLES_PACKED / batch } else { 1 };
        let epochs_packed = most.clamp(1, config.update_epochs);
        Ok(Self {
            minibatch_size,
            updates: 0,
            optimizer_steps: 0,
            draws: 0,
            state: TrainState::new(backend, network.len(), steps, steps + 1)?,
            before: Snapshot::new(backend, network.len())?,
            advantages: backend.alloc_floats(batch)?,
            returns: backend.alloc_floats(batch)?,
            minibatch: Minibatch::new(backend, &network.layers, is_categorical, minibatch_size)?,
            epochs_packed,
            samples: backend.alloc_floats(epochs_packed * batch * sample::COLUMNS)?,
            moments: backend.alloc_floats(epochs_packed * batch.div_ceil(minibatch_size) * Normalize::MOMENTS)?,
            acting: [
                Trace::new(backend, &network.layers.actor, config.num_envs)?,
                Trace::new(backend, &network.layers.critic, config.num_envs)?,
            ],
            noise: None,
            noise_is_new: false,
            permutations: backend.alloc_words(config.update_epochs * batch)?,
            network,
            config,
        })
    }

    /// A rollout of this learner's sizes and convention for episode ends.
    ///
    /// # Errors
    /// Those of the backend's allocations.
    pub fn new_rollout(&self, backend: &mut B) -> Result<Rollout<B>> {
        let spec = self.network.spec();
        let Config { num_steps, num_envs, bootstrap_truncated, .. } = self.config;
        Rollout::new(backend, num_steps, num_envs, spec.observation_size, spec.policy, bootstrap_truncated)
    }
}

impl<B: Backend> Learner<B> {
    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The layout of the parameters.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Parameters `[len]`, in the order of [`Network::tensors`].
    ///
    /// # Errors
    /// Those of the backend's read-back.
    pub fn parameters(&self, backend: &mut B) -> Result<Vec<f32>> {
        backend.read_floats(self.state.params.flat(), 0, self.network.len())
    }

    /// Parameters, first and second moments of Adam `[len]` each, without rounding.
    ///
    /// # Errors
    /// Those of the backend's read-back.
    pub fn state_f64(&self, backend: &mut B) -> Result<[Vec<f64>; 3]> {
        let len = self.network.len();
        let TrainState { params, m, v, .. } = &self.state;
        Ok([backend.read_f64(params.flat(), 0, len)?, backend.read_f64(m, 0, len)?, backend.read_f64(v, 0, len)?])
    }

    /// Replaces all parameters.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number than [`Network::len`].
    pub fn set_parameters(&mut self, backend: &mut B, parameters: &[f32]) -> Result<()> {
        if parameters.len() != self.network.len() {
            return Err(Error::shape("parameters", format!("{} elements", self.network.len()), parameters.len()));
        }
        backend.write_floats(self.state.params.flat_mut(), 0, parameters)
    }

    /// Restarts with these parameters, a new optimiser and the random numbers of the first update.
    ///
    /// # Errors
    /// Those of [`set_parameters`](Self::set_parameters).
    pub fn reset(&mut self, backend: &mut B, parameters: &[f32]) -> Result<()> {
        self.set_parameters(backend, parameters)?;
        (self.updates, self.optimizer_steps, self.draws) = (0, 0, 0);
        self.noise_is_new = false;
        let zeros = vec![0.0; parameters.len()];
        [&mut self.state.m, &mut self.state.v].into_iter().try_for_each(|moments| backend.write_floats(moments, 0, &zeros))
    }

    /// Minibatch steps of an epoch.
    pub fn steps_per_epoch(&self) -> usize {
        self.config.batch_size().div_ceil(self.minibatch_size)
    }

    /// A whole update, in the order of CleanRL's `ppo.py`:
    ///
    /// ```text
    /// advantages, returns = gae(rewards, values, ends)
    /// for epoch in 0..update_epochs:
    ///     indices = permutation(num_steps * num_envs)
    ///     for minibatch in indices.split(num_minibatches):
    ///         outputs, values = networks(observations[minibatch])
    ///         loss, gradient = surrogate(outputs, values, normalise(advantages[minibatch]), …)
    ///         if kl_stop is before_step and approx_kl > 1.5 * target_kl: stop
    ///         params = adam(params, gradient * min(1, max_grad_norm / norm(gradient)))
    ///     if kl_stop is after_epoch and approx_kl > target_kl: stop
    /// ```
    ///
    /// # Errors
    /// A rollout of another size or kind: [`Error::Shape`], [`Error::InvalidValue`]. A rollout or
    /// gradient with NaN or infinity: [`Error::NonFinite`]; an action out of range makes gradients
    /// NaN. After an overflow of a loss (`pg_loss`, `v_loss`, `loss`, …) or of the norm to be
    /// clipped (`grad_norm`), `element` is the minibatch step. Values after a termination and
    /// skipped steps may hold anything. Those of the backend. After an error, parameters and
    /// optimiser are as before.
    pub fn update(&mut self, backend: &mut B, rollout: &Rollout<B>, learning_rate: f64) -> Result<UpdateStats> {
        backend.run_together(|backend| {
            self.begin(backend, rollout, learning_rate, None).inspect_err(|_| backend.set_position(Position::default()))?;
            let steps = self.config.update_epochs * self.steps_per_epoch();
            let recorded = (0..steps)
                .try_for_each(|step| {
                    self.step(backend, rollout, step)?;
                    // Submits the first step at once, so that the device starts early.
                    if step.is_multiple_of(STEPS_A_SUBMISSION) { backend.submit_ahead() } else { Ok(()) }
                })
                .and_then(|()| self.finish(backend, learning_rate));
            if recorded.is_err() {
                self.roll_back(backend)?;
            }
            backend.set_position(Position::default());
            recorded
        })
    }

    /// Records the work before the first minibatch. `permutations [epochs, T·N]` replaces its own.
    pub(crate) fn begin(
        &mut self,
        backend: &mut B,
        rollout: &Rollout<B>,
        learning_rate: f64,
        permutations: Option<&[u32]>,
    ) -> Result<()> {
        rollout.check(&self.config, self.network.spec())?;
        require_range("learning_rate", learning_rate, 0.0, f64::from(f32::MAX))?;
        backend.set_position(Position { update: Some(self.updates as usize), minibatch: None });
        self.before.save(backend, &self.state, self.network.len())?;
        backend.write_words(&mut self.state.control, 0, &control::INITIAL)?;
        self.write_schedule(backend, learning_rate)?;
        self.watch_inputs(backend, rollout)?;
        self.compute_advantages(backend, rollout)?;
        match permutations {
            Some(given) => {
                let len = self.permutations.len();
                require_len("permutations", given.len(), len)?;
                backend.write_words(&mut self.permutations, 0, &given[..len])
            }
            None => {
                let epochs = self.config.update_epochs;
                let stream = purpose::PERMUTATION + self.updates * epochs as u64;
                let op = RandomStream { len: self.config.batch_size(), seed: self.config.seed, stream };
                backend.random_permutations(&op, epochs, &mut self.permutations, 0)
            }
        }
    }

    fn write_schedule(&mut self, backend: &mut B, learning_rate: f64) -> Result<()> {
        let Config { adam_beta1, adam_beta2, .. } = self.config;
        let steps = self.config.update_epochs * self.steps_per_epoch();
        let rows: Vec<f32> = (1..=steps as u64)
            .flat_map(|i| schedule::row(learning_rate, adam_beta1, adam_beta2, self.optimizer_steps + i))
            .collect();
        backend.write_floats(&mut self.state.schedule, 0, &rows)
    }

    fn watch_inputs(&mut self, backend: &mut B, rollout: &Rollout<B>) -> Result<()> {
        let rows = self.config.batch_size();
        let spec = self.network.spec();
        let watched = |name: &str, len: usize, x| Watched {
            tensor: WATCHED.iter().position(|w| *w == name).map_or(0, |i| i as u32 + 1),
            len,
            x,
        };
        let mut tensors: SmallVec<[_; GRADIENTS]> = smallvec![
            watched("rewards", rows, &rollout.rewards),
            watched("values", rows, &rollout.values),
            watched("logp", rows, &rollout.logp),
        ];
        if let Actions::Continuous(actions) = &rollout.actions {
            tensors.push(watched("actions", rows * spec.policy.outputs(), actions));
        }
        // The longest comes last: one dispatch searches all before it.
        tensors.push(watched("observations", rows * spec.observation_size, &rollout.observations));
        backend.find_nonfinite(&tensors, &mut self.state.control)?;
        // Values after a termination are unspecified.
        let (watched, unless) = match &rollout.ends {
            Ends::BeforeStep { next_value, next_done, .. } => {
                (watched("next_value", self.config.num_envs, next_value), Unless::Floats(next_done))
            }
            Ends::AfterStep { next_values, terminated, .. } => {
                (watched("next_values", rows, next_values), Unless::Words(terminated))
            }
        };
        backend.find_nonfinite_unless(&watched, &unless, &mut self.state.control)
    }

    fn compute_advantages(&mut self, backend: &mut B, rollout: &Rollout<B>) -> Result<()> {
        let Config { num_steps: steps, num_envs: envs, gamma, gae_lambda, .. } = self.config;
        let op = Gae { steps, envs, gamma, gae_lambda };
        let Rollout { rewards, values, .. } = rollout;
        let (advantages, returns) = (&mut self.advantages, &mut self.returns);
        match &rollout.ends {
            Ends::BeforeStep { dones, next_value, next_done } => {
                let operands = CleanRlGaeOperands { rewards, values, dones, next_value, next_done, advantages, returns };
                backend.gae_cleanrl(&op, operands)?;
            }
            Ends::AfterStep { next_values, terminated, truncated } => {
                let operands = GaeOperands { rewards, values, next_values, terminated, truncated, advantages, returns };
                backend.gae(&op, operands)?;
            }
        }
        // The row after the minibatch steps.
        let row = self.config.update_epochs * self.steps_per_epoch();
        backend.explained_variance(steps * envs, values, &self.returns, &mut self.state.stats, row)?;
        if self.config.norm_adv == AdvantageScope::Rollout {
            let op = self.config.normalization(1, steps * envs, 0, 1);
            backend.normalize(&op, &mut self.advantages, &mut self.moments)?;
        }
        Ok(())
    }

    pub(crate) fn step(&mut self, backend: &mut B, rollout: &Rollout<B>, step: usize) -> Result<()> {
        backend.set_position(Position { update: Some(self.updates as usize), minibatch: Some(step) });
        if step.is_multiple_of(self.epochs_packed * self.steps_per_epoch()) {
            self.pack(backend, rollout, step / self.steps_per_epoch())?;
        }
        self.learn(backend, rollout, step)?;
        match (self.config.target_kl, self.config.kl_stop) {
            (Some(target_kl), KlStop::AfterEpoch) if (step + 1).is_multiple_of(self.steps_per_epoch()) => {
                let TrainState { stats, control, .. } = &mut self.state;
                backend.stop_on_kl(target_kl, step, stats, control)
            }
            _ => Ok(()),
        }
    }

    /// Packs samples of whole epochs in shuffled order, and normalises each minibatch's advantages.
    fn pack(&mut self, backend: &mut B, rollout: &Rollout<B>, first_epoch: usize) -> Result<()> {
        let (batch, len) = (self.config.batch_size(), self.minibatch_size);
        let count = batch * self.epochs_packed.min(self.config.update_epochs - first_epoch);
        let op = Gather { rows: batch, width: 1, start: first_epoch * batch, count };
        let Self { permutations: indices, advantages, returns, samples, .. } = self;
        let Rollout { logp: old_logp, values: old_values, .. } = rollout;
        backend.gather_samples(&op, SamplesOperands { indices, old_logp, advantages, returns, old_values, samples })?;
        if self.config.norm_adv != AdvantageScope::Minibatch {
            return Ok(());
        }
        let (whole, rest) = (count / len, count % len);
        let op = self.config.normalization(whole, len, sample::ADVANTAGE, sample::COLUMNS);
        backend.normalize(&op, &mut self.samples, &mut self.moments)?;
        if rest == 0 {
            return Ok(());
        }
        let op = Normalize { vectors: 1, len: rest, offset: op.offset + whole * len * op.stride, ..op };
        backend.normalize(&op, &mut self.samples, &mut self.moments)
    }

    fn learn(&mut self, backend: &mut B, rollout: &Rollout<B>, step: usize) -> Result<()> {
        let (batch, per_epoch) = (self.config.batch_size(), self.steps_per_epoch());
        let (epoch, start) = (step / per_epoch, step % per_epoch * self.minibatch_size);
        let count = self.minibatch_size.min(batch - start);
        let policy = self.network.spec().policy;
        let head = match (policy, &rollout.actions) {
            (PolicyKind::Categorical { actions: n }, Actions::Discrete(actions)) => {
                Head::Categorical(Categorical { batch: count, actions: n }, actions)
            }
            (PolicyKind::Gaussian { dim }, Actions::Continuous(actions)) => {
                Head::Gaussian(self.network.gaussian(count, dim), actions)
            }
            _ => return Err(wrong_actions()),
        };
        let rows = MinibatchRows {
            indices: &self.permutations,
            start: epoch * batch + start,
            rows: batch,
            observations: &rollout.observations,
            head,
            samples: &self.samples,
            first_sample: epoch % self.epochs_packed * batch + start,
        };
        let op = self.minibatch_step(count, step);
        backend.minibatch_step(&self.network.layers, &op, &rows, &mut self.minibatch, &mut self.state)
    }

    fn minibatch_step(&self, count: usize, step: usize) -> MinibatchStep {
        let config = &self.config;
        let loss = config.surrogate(count, step);
        let norm = GradientNorm {
            len: self.network.len(),
            max_grad_norm: config.max_grad_norm,
            epsilon: config.max_grad_norm_epsilon,
            stats_row: step,
        };
        let adam = Adam {
            len: self.network.len(),
            beta1: config.adam_beta1,
            beta2: config.adam_beta2,
            epsilon: config.adam_eps,
            weight_decay: config.weight_decay,
            decoupled: config.decoupled_weight_decay,
            schedule_row: step,
            stats_row: step,
        };
        let max_kl = config.target_kl.filter(|_| config.kl_stop == KlStop::BeforeStep).map(|kl| SB3_KL_FACTOR * kl);
        MinibatchStep { loss, tensor: GRADIENTS as u32 + 1, norm, max_kl, adam }
    }

    /// Waits for the recorded commands and returns the statistics.
    pub(crate) fn finish(&mut self, backend: &mut B, learning_rate: f64) -> Result<UpdateStats> {
        let (control, rows) = backend.read_both(&self.state.control, &self.state.stats)?;
        if control[control::STOP] == stop::NON_FINITE {
            return Err(self.non_finite(control[control::BAD_TENSOR] as usize, control[control::BAD_ELEMENT] as usize));
        }
        let (rows, _) = rows.as_chunks::<{ stat::COLUMNS }>();
        let steps = control[control::STEPS_DONE] as usize;
        for (element, row) in rows[..steps].iter().enumerate() {
            if let Some(tensor) = self.non_finite_statistic(row) {
                return Err(Error::NonFinite { tensor: tensor.to_owned(), element });
            }
        }
        self.updates += 1;
        self.noise_is_new = false;
        self.optimizer_steps += steps as u64;
        // The minibatch after which the epochs ended, or the one that was skipped.
        let stopping = (control[control::STOP] == stop::TARGET_KL).then_some(match self.config.kl_stop {
            KlStop::AfterEpoch => steps.saturating_sub(1),
            KlStop::BeforeStep => steps,
        });
        Ok(UpdateStats::new(rows, steps, learning_rate, stopping))
    }

    /// The statistic of a step that overflowed while its gradient did not: a loss, or the norm, for
    /// which clipping made a step of zero. KL may be infinite from samples outside the gradient.
    fn non_finite_statistic(&self, row: &[f64; stat::COLUMNS]) -> Option<&'static str> {
        let Config { ent_coef, vf_coef, kl_coef, max_grad_norm, .. } = self.config;
        let counted = [
            ("pg_loss", stat::PG_LOSS, true),
            ("v_loss", stat::V_LOSS, vf_coef != 0.0),
            ("entropy", stat::ENTROPY, ent_coef != 0.0),
            ("kl_penalty", stat::KL_PENALTY, kl_coef != 0.0),
            ("loss", stat::LOSS, true),
            ("grad_norm", stat::GRAD_NORM, max_grad_norm.is_finite()),
        ];
        counted.into_iter().find(|&(_, column, counts)| counts && !row[column].is_finite()).map(|(name, ..)| name)
    }

    fn non_finite(&self, code: usize, element: usize) -> Error {
        let holds_element = |t: &&ParameterTensor| (t.offset..t.offset + t.len()).contains(&element);
        if let (true, Some(tensor)) = (code == GRADIENTS + 1, self.network.tensors().iter().find(holds_element)) {
            return Error::NonFinite { tensor: format!("gradient of {}", tensor.name), element: element - tensor.offset };
        }
        let tensor = code.checked_sub(1).and_then(|i| WATCHED.get(i)).unwrap_or(&"unknown");
        Error::NonFinite { tensor: (*tensor).to_owned(), element }
    }

    pub(crate) fn roll_back(&mut self, backend: &mut B) -> Result<()> {
        self.before.restore(backend, &mut self.state, self.network.len())
    }
}
