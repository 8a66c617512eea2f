//! The operations of [`kernels::advantage`](crate::kernels::advantage) on every backend.

use super::Memory;
use crate::error::Result;
use crate::kernels::advantage::{DiscountedReturns, Gae};

/// Advantages and returns. All rollout tensors are `[T, N]`; flags are 0 or 1.
pub trait AdvantageOps: Memory {
    /// GAE with a flag of its own for each transition (Gymnasium, TorchRL): `terminated` ends the value, `truncated` keeps the value
    /// of the state reached (`next_values`), both stop the recursion.
    ///
    /// δ_t = r_t + γ·next_values_t·(1 − terminated_t) − v_t;  A_t = δ_t + γλ·(1 − (terminated ∨ truncated)_t)·A_{t+1};  return = A + v.
    /// With `gae_lambda` 0 the advantages are the δ.
    ///
    /// # Errors
    /// A size of zero or 2³² and more; γ or λ outside [0, 1]; a buffer too small.
    fn gae(
        &mut self,
        op: &Gae,
        rewards: &Self::Floats,
        values: &Self::Floats,
        next_values: &Self::Floats,
        terminated: &Self::Words,
        truncated: &Self::Words,
        advantages: &mut Self::Floats,
        returns: &mut Self::Floats,
    ) -> Result<()>;

    /// GAE as CleanRL's `ppo.py` writes it: `dones[t]` (0.0 or 1.0) says that step t starts a new episode; `next_value` and
    /// `next_done` `[N]` belong to the observation after the last step. An end of any kind counts as a termination.
    ///
    /// # Errors
    /// As [`gae`](Self::gae).
    fn gae_cleanrl(
        &mut self,
        op: &Gae,
        rewards: &Self::Floats,
        values: &Self::Floats,
        dones: &Self::Floats,
        next_value: &Self::Floats,
        next_done: &Self::Floats,
        advantages: &mut Self::Floats,
        returns: &mut Self::Floats,
    ) -> Result<()>;

    /// G_t = r_t + γ·(next_values_t·(truncated ∧ ¬terminated)_t + (1 − done_t)·G_{t+1}), done = terminated ∨ truncated, G_T = next_value `[N]`.
    ///
    /// # Errors
    /// As [`gae`](Self::gae).
    fn discounted_returns(
        &mut self,
        op: &DiscountedReturns,
        rewards: &Self::Floats,
        next_values: &Self::Floats,
        next_value: &Self::Floats,
        terminated: &Self::Words,
        truncated: &Self::Words,
        returns: &mut Self::Floats,
    ) -> Result<()>;

    /// [`discounted_returns`](Self::discounted_returns) without any bootstrap: G_T = 0, and a truncation adds nothing.
    ///
    /// # Errors
    /// As [`gae`](Self::gae).
    fn reward_to_go(
        &mut self,
        op: &DiscountedReturns,
        rewards: &Self::Floats,
        terminated: &Self::Words,
        truncated: &Self::Words,
        returns: &mut Self::Floats,
    ) -> Result<()>;
}
