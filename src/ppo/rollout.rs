//! What a learner learns from: T steps of N environments.

use crate::backend::{Actions, Length, Memory};
use crate::error::{Error, Result};
use crate::ppo::PolicyKind;
use crate::shape::require_len;

/// How episodes ended within the rollout: the two conventions of the field.
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
        /// `[T·N]`, value of the state that each step reached.
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
    /// Those of the backend's allocations.
    pub fn new(
        backend: &mut B,
        steps: usize,
        envs: usize,
        observation_size: usize,
        policy: PolicyKind,
        bootstrap_truncated: bool,
    ) -> Result<Self> {
        let rows = steps * envs;
        Ok(Self {
            steps,
            envs,
            observations: backend.alloc_floats(rows * observation_size)?,
            actions: match policy {
                PolicyKind::Categorical { .. } => Actions::Discrete(backend.alloc_words(rows)?),
                PolicyKind::Gaussian { dim } => Actions::Continuous(backend.alloc_floats(rows * dim)?),
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

    /// Checks the lengths that no operation of the update checks by itself.
    pub(crate) fn check(&self, observation_size: usize, policy: PolicyKind) -> Result<()> {
        let rows = self.steps * self.envs;
        require_len("observations", self.observations.len(), rows * observation_size)?;
        match (policy, &self.actions) {
            (PolicyKind::Categorical { .. }, Actions::Discrete(actions)) => require_len("actions", actions.len(), rows)?,
            (PolicyKind::Gaussian { dim }, Actions::Continuous(actions)) => require_len("actions", actions.len(), rows * dim)?,
            _ => return Err(wrong_actions()),
        }
        require_len("logp", self.logp.len(), rows)?;
        require_len("values", self.values.len(), rows)
    }
}

pub(super) fn wrong_actions() -> Error {
    Error::value("actions", "the kind of actions the policy draws", "the other kind")
}
