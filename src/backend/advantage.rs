//! The operations of [`kernels::advantage`](crate::kernels::advantage) on every backend.

use super::{Cpu, CrossCheck, Memory};
#[cfg(feature = "gpu")]
use super::{Gpu, Variant};
use crate::cpu::advantage as cpu;
use crate::error::Result;
#[cfg(feature = "gpu")]
use crate::gpu::Buffer;
#[cfg(feature = "gpu")]
use crate::kernels::advantage as kernels;
use crate::kernels::advantage::{CleanRlGaeOperands, DiscountedReturns, Gae, GaeOperands, ReturnsOperands, RewardToGoOperands};
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
    fn gae(&mut self, op: &Gae, operands: GaeOperands<'_, Self::Floats, Self::Words>) -> Result<()>;

    /// GAE as CleanRL's `ppo.py` writes it: `dones[t]` (0.0 or 1.0) says that step t starts a new episode; `next_value` and
    /// `next_done` `[N]` belong to the observation after the last step. An end of any kind counts as a termination.
    ///
    /// # Errors
    /// As [`gae`](Self::gae).
    fn gae_cleanrl(&mut self, op: &Gae, operands: CleanRlGaeOperands<'_, Self::Floats>) -> Result<()>;

    /// G_t = r_t + γ·(next_values_t·(truncated ∧ ¬terminated)_t + (1 − done_t)·G_{t+1}), done = terminated ∨ truncated, G_T = next_value `[N]`.
    ///
    /// # Errors
    /// As [`gae`](Self::gae).
    fn discounted_returns(
        &mut self,
        op: &DiscountedReturns,
        operands: ReturnsOperands<'_, Self::Floats, Self::Words>,
    ) -> Result<()>;

    /// [`discounted_returns`](Self::discounted_returns) without any bootstrap: G_T = 0, and a truncation adds nothing.
    ///
    /// # Errors
    /// As [`gae`](Self::gae).
    fn reward_to_go(&mut self, op: &DiscountedReturns, operands: RewardToGoOperands<'_, Self::Floats, Self::Words>)
    -> Result<()>;
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
    fn gae(&mut self, op: &Gae, operands: GaeOperands<'_, Buffer<f32>, Buffer<u32>>) -> Result<()> {
        let method = self.scan_method(op.steps, op.envs);
        kernels::record_gae(&mut self.context, method, op, &operands)
    }

    fn gae_cleanrl(&mut self, op: &Gae, operands: CleanRlGaeOperands<'_, Buffer<f32>>) -> Result<()> {
        let method = self.scan_method(op.steps, op.envs);
        kernels::record_gae_cleanrl(&mut self.context, method, op, &operands)
    }

    fn discounted_returns(
        &mut self,
        op: &DiscountedReturns,
        operands: ReturnsOperands<'_, Buffer<f32>, Buffer<u32>>,
    ) -> Result<()> {
        let method = self.scan_method(op.steps, op.envs);
        kernels::record_discounted_returns(&mut self.context, method, op, &operands)
    }

    fn reward_to_go(&mut self, op: &DiscountedReturns, operands: RewardToGoOperands<'_, Buffer<f32>, Buffer<u32>>) -> Result<()> {
        let method = self.scan_method(op.steps, op.envs);
        kernels::record_reward_to_go(&mut self.context, method, op, &operands)
    }
}

/// On the host in `$real`, by the functions of `$arithmetic`.
macro_rules! on_the_host {
    ($real:ty, $arithmetic:ident) => {
        impl AdvantageOps for Cpu<$real> {
            fn gae(&mut self, op: &Gae, operands: GaeOperands<'_, Vec<$real>, Vec<u32>>) -> Result<()> {
                op.check_gae(&operands)?;
                $arithmetic::gae(op, operands);
                Ok(())
            }

            fn gae_cleanrl(&mut self, op: &Gae, operands: CleanRlGaeOperands<'_, Vec<$real>>) -> Result<()> {
                op.check_gae_cleanrl(&operands)?;
                $arithmetic::gae_cleanrl(op, operands);
                Ok(())
            }

            fn discounted_returns(
                &mut self,
                op: &DiscountedReturns,
                operands: ReturnsOperands<'_, Vec<$real>, Vec<u32>>,
            ) -> Result<()> {
                op.check_returns(&operands)?;
                $arithmetic::discounted_returns(op, operands);
                Ok(())
            }

            fn reward_to_go(
                &mut self,
                op: &DiscountedReturns,
                operands: RewardToGoOperands<'_, Vec<$real>, Vec<u32>>,
            ) -> Result<()> {
                op.check_reward_to_go(&operands)?;
                $arithmetic::reward_to_go(op, operands);
                Ok(())
            }
        }
    };
}
on_the_host!(f32, cpu);
on_the_host!(f64, reference);

impl<A: AdvantageOps, B: AdvantageOps> AdvantageOps for CrossCheck<A, B> {
    fn gae(&mut self, op: &Gae, mut operands: GaeOperands<'_, Self::Floats, Self::Words>) -> Result<()> {
        let (a, b) = operands.sides();
        self.a.gae(op, a)?;
        self.b.gae(op, b)?;
        let (n, GaeOperands { rewards, values, next_values, terminated, truncated, advantages, returns }) = (op.len(), operands);
        let (of_advantages, of_returns) = op.tolerances(
            &self.b.read_f64(&rewards.b, 0, n)?,
            &self.b.read_f64(&values.b, 0, n)?,
            &self.b.read_f64(&next_values.b, 0, n)?,
            &self.b.read_words(&terminated.b, 0, n)?,
            &self.b.read_words(&truncated.b, 0, n)?,
        );
        self.compare("gae", "advantages", advantages, 0..n, &of_advantages)?;
        self.compare("gae", "returns", returns, 0..n, &of_returns)
    }

    fn gae_cleanrl(&mut self, op: &Gae, mut operands: CleanRlGaeOperands<'_, Self::Floats>) -> Result<()> {
        let (a, b) = operands.sides();
        self.a.gae_cleanrl(op, a)?;
        self.b.gae_cleanrl(op, b)?;
        let (n, CleanRlGaeOperands { rewards, values, dones, next_value, next_done, advantages, returns }) = (op.len(), operands);
        let (of_advantages, of_returns) = op.tolerances_cleanrl(
            &self.b.read_f64(&rewards.b, 0, n)?,
            &self.b.read_f64(&values.b, 0, n)?,
            &self.b.read_f64(&dones.b, 0, n)?,
            &self.b.read_f64(&next_value.b, 0, op.envs)?,
            &self.b.read_f64(&next_done.b, 0, op.envs)?,
        );
        self.compare("gae_cleanrl", "advantages", advantages, 0..n, &of_advantages)?;
        self.compare("gae_cleanrl", "returns", returns, 0..n, &of_returns)
    }

    fn discounted_returns(
        &mut self,
        op: &DiscountedReturns,
        mut operands: ReturnsOperands<'_, Self::Floats, Self::Words>,
    ) -> Result<()> {
        let (a, b) = operands.sides();
        self.a.discounted_returns(op, a)?;
        self.b.discounted_returns(op, b)?;
        let (n, ReturnsOperands { rewards, next_values, next_value, terminated, truncated, returns }) = (op.len(), operands);
        let tolerance = op.tolerance(
            &self.b.read_f64(&rewards.b, 0, n)?,
            &self.b.read_f64(&next_values.b, 0, n)?,
            &self.b.read_f64(&next_value.b, 0, op.envs)?,
            &self.b.read_words(&terminated.b, 0, n)?,
            &self.b.read_words(&truncated.b, 0, n)?,
        );
        self.compare("discounted_returns", "returns", returns, 0..n, &tolerance)
    }

    fn reward_to_go(
        &mut self,
        op: &DiscountedReturns,
        mut operands: RewardToGoOperands<'_, Self::Floats, Self::Words>,
    ) -> Result<()> {
        let (a, b) = operands.sides();
        self.a.reward_to_go(op, a)?;
        self.b.reward_to_go(op, b)?;
        let (n, RewardToGoOperands { rewards, terminated, truncated, returns }) = (op.len(), operands);
        let tolerance = op.tolerance_reward_to_go(
            &self.b.read_f64(&rewards.b, 0, n)?,
            &self.b.read_words(&terminated.b, 0, n)?,
            &self.b.read_words(&truncated.b, 0, n)?,
        );
        self.compare("reward_to_go", "returns", returns, 0..n, &tolerance)
    }
}
