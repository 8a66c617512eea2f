//! The operations of [`kernels::advantage`](crate::kernels::advantage) on every backend.

use super::{Cpu, CrossCheck, Memory};
#[cfg(feature = "gpu")]
use super::{Gpu, Variant};
use crate::error::Result;
#[cfg(feature = "gpu")]
use crate::gpu::Buffer;
#[cfg(feature = "gpu")]
use crate::kernels::advantage as kernels;
use crate::kernels::advantage::{DiscountedReturns, Gae};
use crate::real::Real;
use crate::reference::advantage as reference;

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

#[cfg(feature = "gpu")]
impl Gpu {
    fn scan_method(&self, steps: usize, envs: usize) -> kernels::Method {
        match self.variant {
            Variant::Plain => kernels::Method::Row,
            Variant::Fast => kernels::Method::Scan,
            Variant::Auto => kernels::Method::for_shape(steps, envs, self.context.is_software()),
        }
    }
}

#[cfg(feature = "gpu")]
impl AdvantageOps for Gpu {
    fn gae(
        &mut self,
        op: &Gae,
        rewards: &Buffer<f32>,
        values: &Buffer<f32>,
        next_values: &Buffer<f32>,
        terminated: &Buffer<u32>,
        truncated: &Buffer<u32>,
        advantages: &mut Buffer<f32>,
        returns: &mut Buffer<f32>,
    ) -> Result<()> {
        let method = self.scan_method(op.steps, op.envs);
        let outputs = [&*advantages, &*returns];
        kernels::record_gae(&mut self.context, method, op, rewards, values, next_values, terminated, truncated, outputs)
    }

    fn gae_cleanrl(
        &mut self,
        op: &Gae,
        rewards: &Buffer<f32>,
        values: &Buffer<f32>,
        dones: &Buffer<f32>,
        next_value: &Buffer<f32>,
        next_done: &Buffer<f32>,
        advantages: &mut Buffer<f32>,
        returns: &mut Buffer<f32>,
    ) -> Result<()> {
        let method = self.scan_method(op.steps, op.envs);
        let outputs = [&*advantages, &*returns];
        kernels::record_gae_cleanrl(&mut self.context, method, op, rewards, values, dones, next_value, next_done, outputs)
    }

    fn discounted_returns(
        &mut self,
        op: &DiscountedReturns,
        rewards: &Buffer<f32>,
        next_values: &Buffer<f32>,
        next_value: &Buffer<f32>,
        terminated: &Buffer<u32>,
        truncated: &Buffer<u32>,
        returns: &mut Buffer<f32>,
    ) -> Result<()> {
        let method = self.scan_method(op.steps, op.envs);
        let flags = [terminated, truncated];
        kernels::record_discounted_returns(&mut self.context, method, op, rewards, next_values, next_value, flags, returns)
    }

    fn reward_to_go(
        &mut self,
        op: &DiscountedReturns,
        rewards: &Buffer<f32>,
        terminated: &Buffer<u32>,
        truncated: &Buffer<u32>,
        returns: &mut Buffer<f32>,
    ) -> Result<()> {
        let method = self.scan_method(op.steps, op.envs);
        kernels::record_reward_to_go(&mut self.context, method, op, rewards, [terminated, truncated], returns)
    }
}

impl<T: Real> AdvantageOps for Cpu<T> {
    fn gae(
        &mut self,
        op: &Gae,
        rewards: &Vec<T>,
        values: &Vec<T>,
        next_values: &Vec<T>,
        terminated: &Vec<u32>,
        truncated: &Vec<u32>,
        advantages: &mut Vec<T>,
        returns: &mut Vec<T>,
    ) -> Result<()> {
        let lens = [rewards.len(), values.len(), next_values.len(), terminated.len(), truncated.len()];
        op.check_gae(lens, [advantages.len(), returns.len()])?;
        reference::gae(op, rewards, values, next_values, terminated, truncated, advantages, returns);
        Ok(())
    }

    fn gae_cleanrl(
        &mut self,
        op: &Gae,
        rewards: &Vec<T>,
        values: &Vec<T>,
        dones: &Vec<T>,
        next_value: &Vec<T>,
        next_done: &Vec<T>,
        advantages: &mut Vec<T>,
        returns: &mut Vec<T>,
    ) -> Result<()> {
        let lens = [rewards.len(), values.len(), dones.len(), next_value.len(), next_done.len()];
        op.check_gae_cleanrl(lens, [advantages.len(), returns.len()])?;
        reference::gae_cleanrl(op, rewards, values, dones, next_value, next_done, advantages, returns);
        Ok(())
    }

    fn discounted_returns(
        &mut self,
        op: &DiscountedReturns,
        rewards: &Vec<T>,
        next_values: &Vec<T>,
        next_value: &Vec<T>,
        terminated: &Vec<u32>,
        truncated: &Vec<u32>,
        returns: &mut Vec<T>,
    ) -> Result<()> {
        let lens = [rewards.len(), next_values.len(), next_value.len(), terminated.len(), truncated.len()];
        op.check_discounted_returns(lens, returns.len())?;
        reference::discounted_returns(op, rewards, next_values, next_value, terminated, truncated, returns);
        Ok(())
    }

    fn reward_to_go(
        &mut self,
        op: &DiscountedReturns,
        rewards: &Vec<T>,
        terminated: &Vec<u32>,
        truncated: &Vec<u32>,
        returns: &mut Vec<T>,
    ) -> Result<()> {
        op.check_reward_to_go([rewards.len(), terminated.len(), truncated.len()], returns.len())?;
        reference::reward_to_go(op, rewards, terminated, truncated, returns);
        Ok(())
    }
}

impl<A: AdvantageOps, B: AdvantageOps> AdvantageOps for CrossCheck<A, B> {
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
    ) -> Result<()> {
        let (flags_a, flags_b) = ((&terminated.a, &truncated.a), (&terminated.b, &truncated.b));
        let (outputs_a, outputs_b) = ((&mut advantages.a, &mut returns.a), (&mut advantages.b, &mut returns.b));
        self.a.gae(op, &rewards.a, &values.a, &next_values.a, flags_a.0, flags_a.1, outputs_a.0, outputs_a.1)?;
        self.b.gae(op, &rewards.b, &values.b, &next_values.b, flags_b.0, flags_b.1, outputs_b.0, outputs_b.1)?;
        let n = op.len();
        let (of_advantages, of_returns) = op.tolerances(
            &self.b.read_f64(&rewards.b, 0, n)?,
            &self.b.read_f64(&values.b, 0, n)?,
            &self.b.read_f64(&next_values.b, 0, n)?,
            &self.b.read_words(flags_b.0, 0, n)?,
            &self.b.read_words(flags_b.1, 0, n)?,
        );
        self.compare("gae", "advantages", advantages, 0..n, &of_advantages)?;
        self.compare("gae", "returns", returns, 0..n, &of_returns)
    }

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
    ) -> Result<()> {
        let (next_a, next_b) = ((&next_value.a, &next_done.a), (&next_value.b, &next_done.b));
        let (outputs_a, outputs_b) = ((&mut advantages.a, &mut returns.a), (&mut advantages.b, &mut returns.b));
        self.a.gae_cleanrl(op, &rewards.a, &values.a, &dones.a, next_a.0, next_a.1, outputs_a.0, outputs_a.1)?;
        self.b.gae_cleanrl(op, &rewards.b, &values.b, &dones.b, next_b.0, next_b.1, outputs_b.0, outputs_b.1)?;
        let n = op.len();
        let (of_advantages, of_returns) = op.tolerances_cleanrl(
            &self.b.read_f64(&rewards.b, 0, n)?,
            &self.b.read_f64(&values.b, 0, n)?,
            &self.b.read_f64(&dones.b, 0, n)?,
            &self.b.read_f64(next_b.0, 0, op.envs)?,
            &self.b.read_f64(next_b.1, 0, op.envs)?,
        );
        self.compare("gae_cleanrl", "advantages", advantages, 0..n, &of_advantages)?;
        self.compare("gae_cleanrl", "returns", returns, 0..n, &of_returns)
    }

    fn discounted_returns(
        &mut self,
        op: &DiscountedReturns,
        rewards: &Self::Floats,
        next_values: &Self::Floats,
        next_value: &Self::Floats,
        terminated: &Self::Words,
        truncated: &Self::Words,
        returns: &mut Self::Floats,
    ) -> Result<()> {
        let (flags_a, flags_b) = ((&terminated.a, &truncated.a), (&terminated.b, &truncated.b));
        self.a.discounted_returns(op, &rewards.a, &next_values.a, &next_value.a, flags_a.0, flags_a.1, &mut returns.a)?;
        self.b.discounted_returns(op, &rewards.b, &next_values.b, &next_value.b, flags_b.0, flags_b.1, &mut returns.b)?;
        let n = op.len();
        let tolerance = op.tolerance(
            &self.b.read_f64(&rewards.b, 0, n)?,
            &self.b.read_f64(&next_values.b, 0, n)?,
            &self.b.read_f64(&next_value.b, 0, op.envs)?,
            &self.b.read_words(flags_b.0, 0, n)?,
            &self.b.read_words(flags_b.1, 0, n)?,
        );
        self.compare("discounted_returns", "returns", returns, 0..n, &tolerance)
    }

    fn reward_to_go(
        &mut self,
        op: &DiscountedReturns,
        rewards: &Self::Floats,
        terminated: &Self::Words,
        truncated: &Self::Words,
        returns: &mut Self::Floats,
    ) -> Result<()> {
        self.a.reward_to_go(op, &rewards.a, &terminated.a, &truncated.a, &mut returns.a)?;
        self.b.reward_to_go(op, &rewards.b, &terminated.b, &truncated.b, &mut returns.b)?;
        let n = op.len();
        let tolerance = op.tolerance_reward_to_go(
            &self.b.read_f64(&rewards.b, 0, n)?,
            &self.b.read_words(&terminated.b, 0, n)?,
            &self.b.read_words(&truncated.b, 0, n)?,
        );
        self.compare("reward_to_go", "returns", returns, 0..n, &tolerance)
    }
}
