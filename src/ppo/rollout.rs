//! A rollout: T steps of N environments.

use crate::backend::{Actions, Length, Memory};
use crate::error::{Error, Result};
use crate::ppo::{Config, NetworkSpec, PolicyKind};

/// Ends of episodes in a rollout, in one of two conventions. Flags are 0 or not.
#[derive(Debug)]
pub enum Ends<F, W> {
    /// CleanRL, baselines: `dones[t]` marks a step that starts an episode; every end terminates.
    BeforeStep {
        /// `[T·N]`, 0.0 or 1.0.
        dones: F,
        /// `[N]`, value of the observation after the last step.
        next_value: F,
        /// `[N]`, 0.0 or 1.0.
        next_done: F,
    },
    /// Gymnasium, TorchRL: each transition has flags; a truncation bootstraps.
    AfterStep {
        /// `[T·N]`, values of the states that steps reached: at an end, of the episode's last
        /// observation, not of the next episode's first. Elsewhere it is the next step's value from
        /// [`act`](crate::ppo::Learner::act); only ends and the last step need
        /// [`values`](crate::ppo::Learner::values). Ignored where `terminated`.
        next_values: F,
        /// `[T·N]`, 0 or 1.
        terminated: W,
        /// `[T·N]`, 0 or 1.
        truncated: W,
    },
}

/// Buffers of a rollout; row t·N + n is step t of environment n.
#[derive(Debug)]
pub struct Rollout<B: Memory> {
    /// T.
    pub steps: usize,
    /// N.
    pub envs: usize,
    /// `[T·N, observation_size]`.
    pub observations: B::Floats,
    /// Actions: `[T·N]` or `[T·N, dim]`.
    pub actions: Actions<B::Floats, B::Words>,
    /// `[T·N]`, log-probabilities of the actions under the policy that drew them.
    pub logp: B::Floats,
    /// `[T·N]`, predicted values.
    pub values: B::Floats,
    /// `[T·N]`.
    pub rewards: B::Floats,
    /// Ends of episodes.
    pub ends: Ends<B::Floats, B::Words>,
}

impl<B: Memory> Rollout<B> {
    /// Allocates the buffers for T steps of N environments.
    ///
    /// # Errors
    /// [`Error::Shape`] for a size that overflows; those of the backend's allocations.
    pub fn new(
        backend: &mut B,
        steps: usize,
        envs: usize,
        observation_size: usize,
        policy: PolicyKind,
        bootstrap_truncated: bool,
    ) -> Result<Self> {
        let rows = elements("steps x envs", steps, envs)?;
        Ok(Self {
            steps,
            envs,
            observations: backend.alloc_floats(elements("observations", rows, observation_size)?)?,
            actions: match policy {
                PolicyKind::Categorical { .. } => Actions::Discrete(backend.alloc_words(rows)?),
                PolicyKind::Gaussian { dim } => Actions::Continuous(backend.alloc_floats(elements("actions", rows, dim)?)?),
            },
            logp: backend.alloc_floats(rows)?,
            values: backend.alloc_floats(rows)?,
            rewards: backend.alloc_floats(rows)?,
            ends: if bootstrap_truncated {
                Ends::AfterStep {
                    next_values: backend.alloc_floats(rows)?,
                    terminated: backend.alloc_words(rows)?,
                    truncated: backend.alloc_words(rows)?,
                }
            } else {
                Ends::BeforeStep {
                    dones: backend.alloc_floats(rows)?,
                    next_value: backend.alloc_floats(envs)?,
                    next_done: backend.alloc_floats(envs)?,
                }
            },
        })
    }

    /// Checks the size and kind, with the rollout's names for tensors.
    pub(crate) fn check(&self, config: &Config, spec: &NetworkSpec) -> Result<()> {
        let &Config { num_steps, num_envs, .. } = config;
        if (self.steps, self.envs) != (num_steps, num_envs) {
            let actual = format!("{} x {}", self.steps, self.envs);
            return Err(Error::shape("rollout", format!("{num_steps} x {num_envs}"), actual));
        }
        let rows = num_steps * num_envs;
        require_exactly("observations", self.observations.len(), elements("observations", rows, spec.observation_size)?)?;
        match (spec.policy, &self.actions) {
            (PolicyKind::Categorical { .. }, Actions::Discrete(actions)) => require_exactly("actions", actions.len(), rows)?,
            (PolicyKind::Gaussian { dim }, Actions::Continuous(actions)) => {
                require_exactly("actions", actions.len(), elements("actions", rows, dim)?)?;
            }
            _ => return Err(wrong_actions()),
        }
        require_exactly("logp", self.logp.len(), rows)?;
        require_exactly("values", self.values.len(), rows)?;
        require_exactly("rewards", self.rewards.len(), rows)?;
        match (&self.ends, config.bootstrap_truncated) {
            (Ends::BeforeStep { dones, next_value, next_done }, false) => {
                require_exactly("dones", dones.len(), rows)?;
                require_exactly("next_value", next_value.len(), num_envs)?;
                require_exactly("next_done", next_done.len(), num_envs)
            }
            (Ends::AfterStep { next_values, terminated, truncated }, true) => {
                require_exactly("next_values", next_values.len(), rows)?;
                require_exactly("terminated", terminated.len(), rows)?;
                require_exactly("truncated", truncated.len(), rows)
            }
            (Ends::AfterStep { .. }, false) => Err(Error::value("ends", "BeforeStep without bootstrap_truncated", "AfterStep")),
            (Ends::BeforeStep { .. }, true) => Err(Error::value("ends", "AfterStep with bootstrap_truncated", "BeforeStep")),
        }
    }
}

/// Exactly: longer buffers may have rows of another width.
fn require_exactly(name: &str, len: usize, needed: usize) -> Result<()> {
    if len == needed { Ok(()) } else { Err(Error::shape(name, format!("{needed} elements"), len)) }
}

/// Elements of a matrix, also of ones too large to run, whose memory a plan can still report.
fn elements(name: &str, rows: usize, columns: usize) -> Result<usize> {
    let len = rows.checked_mul(columns).filter(|&len| len <= isize::MAX as usize / size_of::<f64>());
    len.ok_or_else(|| Error::shape(name, "a size whose bytes can be counted", format!("{rows} x {columns}")))
}

pub(super) fn wrong_actions() -> Error {
    Error::value("actions", "the policy's kind of actions", "the other kind")
}
