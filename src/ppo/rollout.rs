//! What a learner learns from: T steps of N environments.

use crate::backend::{Actions, Length, Memory};
use crate::error::{Error, Result};
use crate::ppo::{Config, NetworkSpec, PolicyKind};

/// How episodes ended within the rollout: the two conventions of the field. A flag is set unless it is 0.
#[derive(Debug)]
pub enum Ends<F, W> {
    /// CleanRL, baselines: `dones[t]` says that step t starts a new episode, and every end counts as a termination.
    BeforeStep {
        /// `[T·N]`, 0.0 or 1.0.
        dones: F,
        /// `[N]`, value of the observation after the last step.
        next_value: F,
        /// `[N]`, 0.0 or 1.0.
        next_done: F,
    },
    /// Gymnasium, TorchRL: each transition has its flags, and a truncation keeps the value of the state reached.
    AfterStep {
        /// `[T·N]`, value of the state that each step reached: that of an episode's last observation where one ended, not of the first observation of
        /// the next. Where none ended it is the value that [`act`](crate::ppo::Learner::act) finds for the next step, so only ends, and the rollout's
        /// last step, need a call of [`values`](crate::ppo::Learner::values). Not looked at where `terminated`.
        next_values: F,
        /// `[T·N]`, 0 or 1.
        terminated: W,
        /// `[T·N]`, 0 or 1.
        truncated: W,
    },
}

/// Buffers of a rollout; row t·N + n belongs to step t of environment n.
#[derive(Debug)]
pub struct Rollout<B: Memory> {
    /// T.
    pub steps: usize,
    /// N.
    pub envs: usize,
    /// `[T·N, observation_size]`.
    pub observations: B::Floats,
    /// Actions taken.
    pub actions: Actions<B::Floats, B::Words>,
    /// `[T·N]`, log-probabilities of those under the policy that took them.
    pub logp: B::Floats,
    /// `[T·N]`, values predicted then.
    pub values: B::Floats,
    /// `[T·N]`.
    pub rewards: B::Floats,
    /// Where episodes ended.
    pub ends: Ends<B::Floats, B::Words>,
}

impl<B: Memory> Rollout<B> {
    /// Room for T steps of N environments.
    ///
    /// # Errors
    /// A size whose bytes cannot be counted; those of the backend's allocations.
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

    /// Checks that it is of a learner's size and kind, by its own names for what operations call otherwise.
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

/// Not one element more: rows of another width would be misread.
fn require_exactly(name: &str, len: usize, needed: usize) -> Result<()> {
    if len == needed { Ok(()) } else { Err(Error::shape(name, format!("{needed} elements"), len)) }
}

/// Elements of a matrix whose bytes can be counted: more than operations take, so that the memory of what is too large can still be told.
fn elements(name: &str, rows: usize, columns: usize) -> Result<usize> {
    let len = rows.checked_mul(columns).filter(|&len| len <= isize::MAX as usize / size_of::<f64>());
    len.ok_or_else(|| Error::shape(name, "a size whose bytes can be counted", format!("{rows} x {columns}")))
}

pub(super) fn wrong_actions() -> Error {
    Error::value("actions", "the kind of actions the policy draws", "the other kind")
}
