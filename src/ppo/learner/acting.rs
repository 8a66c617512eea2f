//! Acting: noise of a rollout, its steps, and the networks' outputs for observations.

use super::{Learner, purpose};
use crate::backend::{Actions, Backend, Drawn, Length, Memory, RolloutRows, Rows, forward};
use crate::error::{Error, Result};
use crate::kernels::policy::Categorical;
use crate::kernels::random::RandomStream;
use crate::ppo::rollout::wrong_actions;
use crate::ppo::{PolicyKind, Rollout};
use crate::shape::require_len;

impl<B: Memory> Learner<B> {
    pub(super) fn noise_len(&self) -> usize {
        match self.network.spec().policy {
            PolicyKind::Categorical { .. } => self.config.batch_size(),
            PolicyKind::Gaussian { dim } => self.config.batch_size() * dim,
        }
    }
}

impl<B: Backend> Learner<B> {
    /// Draws new random numbers for the next rollout's actions. An update uses them up.
    ///
    /// # Errors
    /// Those of the backend.
    pub fn draw_noise(&mut self, backend: &mut B) -> Result<()> {
        let len = self.noise_len();
        let stream = RandomStream { len, seed: self.config.seed, stream: purpose::ACTION_NOISE + self.draws };
        let mut noise = match self.noise.take() {
            Some(buffer) => buffer,
            None => backend.alloc_floats(len)?,
        };
        match self.network.spec().policy {
            PolicyKind::Categorical { .. } => backend.random_uniform(&stream, &mut noise)?,
            PolicyKind::Gaussian { .. } => backend.random_normal(&stream, &mut noise)?,
        }
        self.noise = Some(noise);
        self.noise_is_new = true;
        self.draws += 1;
        Ok(())
    }

    /// Draws the actions of step `step` from the rollout's observations of that step, and writes
    /// actions, log-probabilities and values to the rollout.
    ///
    /// # Errors
    /// A rollout of another size or kind, a `step` out of range, no noise since the last update;
    /// those of the backend.
    pub fn act(&mut self, backend: &mut B, rollout: &mut Rollout<B>, step: usize) -> Result<()> {
        rollout.check(&self.config, self.network.spec())?;
        if step >= rollout.steps {
            return Err(Error::shape("step", format!("less than {}", rollout.steps), step));
        }
        let noise = self
            .noise
            .as_ref()
            .filter(|_| self.noise_is_new)
            .ok_or_else(|| Error::value("noise", "a call of draw_noise before act", "none"))?;
        let (first, count) = (step * rollout.envs, rollout.envs);
        let offset = first * self.network.spec().observation_size;
        let x = Rows { buffer: &rollout.observations, offset, count };
        let drawn = match (self.network.spec().policy, &mut rollout.actions) {
            (PolicyKind::Categorical { actions: n }, Actions::Discrete(actions)) => {
                Drawn::Categorical(Categorical { batch: count, actions: n }, actions)
            }
            (PolicyKind::Gaussian { dim }, Actions::Continuous(actions)) => {
                Drawn::Gaussian(self.network.gaussian(count, dim), actions)
            }
            _ => return Err(wrong_actions()),
        };
        let rows = RolloutRows { first, noise, drawn, logp: &mut rollout.logp, values: &mut rollout.values };
        backend.act(&self.network.layers, &mut self.state.params, &x, rows, &mut self.acting)
    }

    /// Values of observations `[count, observation_size]`, written to `values` from `values_offset`
    /// on.
    ///
    /// # Errors
    /// [`Error::Shape`] for 0 rows, more than `num_envs`, or a small buffer; those of the backend.
    pub fn values(
        &mut self,
        backend: &mut B,
        observations: &B::Floats,
        count: usize,
        values: &mut B::Floats,
        values_offset: usize,
    ) -> Result<()> {
        self.require_rows(observations, count, ("values", values, values_offset, 1))?;
        let x = Rows { buffer: observations, offset: 0, count };
        let output = Some((values, values_offset));
        forward(backend, &self.network.layers.critic, self.state.params.flat(), &x, &mut self.acting[1], output)
    }

    /// The actor's outputs for observations `[count, observation_size]`: logits `[count, actions]`
    /// or means `[count, dim]`, written to `outputs` from `outputs_offset` on.
    ///
    /// # Errors
    /// Those of [`values`](Self::values).
    pub fn actor_outputs(
        &mut self,
        backend: &mut B,
        observations: &B::Floats,
        count: usize,
        outputs: &mut B::Floats,
        outputs_offset: usize,
    ) -> Result<()> {
        let width = self.network.spec().policy.outputs();
        self.require_rows(observations, count, ("outputs", outputs, outputs_offset, width))?;
        let x = Rows { buffer: observations, offset: 0, count };
        let output = Some((outputs, outputs_offset));
        forward(backend, &self.network.layers.actor, self.state.params.flat(), &x, &mut self.acting[0], output)
    }

    /// Checks that the buffers hold `count` rows, those of `output` from `offset` on.
    fn require_rows(
        &self,
        observations: &B::Floats,
        count: usize,
        (name, output, offset, width): (&str, &B::Floats, usize, usize),
    ) -> Result<()> {
        let most = self.config.num_envs;
        if count == 0 || count > most {
            return Err(Error::shape("count", format!("1 to num_envs = {most} rows"), count));
        }
        require_len("observations", observations.len(), count * self.network.spec().observation_size)?;
        match offset.checked_add(count * width) {
            Some(end) => require_len(name, output.len(), end),
            None => Err(Error::shape(format!("{name}_offset"), "an offset inside the buffer", offset)),
        }
    }
}
