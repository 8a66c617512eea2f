//! Layouts that several layers share: columns of packed buffers, control words, kernel variants.

use crate::error::{Error, Result};
use crate::shape::{elements, require_len};

/// Kernel variant to run, where a kernel has several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Variant {
    /// Chosen by shape and adapter.
    #[default]
    Auto,
    /// The plain variant, the reference for the others.
    Plain,
    /// The faster variant: register tiles, parallel scan, fused losses.
    Fast,
}

/// Words of the control buffer: recorded steps read results of earlier steps on the device.
pub mod control {
    /// Words in all.
    pub const WORDS: usize = 4;
    /// A reason of [`stop`](super::stop) that turns later steps into no-ops; 0 for none.
    pub const STOP: usize = 0;
    /// Optimiser steps applied.
    pub const STEPS_DONE: usize = 1;
    /// Code of a tensor with a non-finite value.
    pub const BAD_TENSOR: usize = 2;
    /// Flat index of the first such element; initially `u32::MAX`.
    pub const BAD_ELEMENT: usize = 3;
    /// Contents at the start of an update.
    pub const INITIAL: [u32; WORDS] = [0, 0, 0, u32::MAX];
}

/// Values of `control[STOP]`.
pub mod stop {
    /// Keep going.
    pub const NONE: u32 = 0;
    /// approx_kl exceeded `target_kl`.
    pub const TARGET_KL: u32 = 1;
    /// A value is not finite.
    pub const NON_FINITE: u32 = 2;
}

/// Columns of the optimiser's schedule, one row for each step: numbers that depend only on the step
/// count. The host computes them in double precision.
pub mod schedule {
    /// Columns in all.
    pub const COLUMNS: usize = 4;
    /// Learning rate.
    pub const LEARNING_RATE: usize = 0;
    /// learning rate / (1 − β₁ᵗ).
    pub const STEP_SIZE: usize = 1;
    /// 1 / √(1 − β₂ᵗ).
    pub const INV_SQRT_BIAS_CORRECTION2: usize = 2;

    /// The row of step `t`, counted from 1.
    pub fn row(learning_rate: f64, beta1: f64, beta2: f64, t: u64) -> [f32; COLUMNS] {
        let t = t as f64;
        let step_size = learning_rate / (1.0 - beta1.powf(t));
        [learning_rate as f32, step_size as f32, (1.0 / (1.0 - beta2.powf(t)).sqrt()) as f32, 0.0]
    }
}

/// Columns of packed samples `[batch, 4]`.
pub mod sample {
    /// Columns in all.
    pub const COLUMNS: usize = 4;
    /// Log-probability of the action under the policy that drew it.
    pub const OLD_LOGP: usize = 0;
    /// Advantage.
    pub const ADVANTAGE: usize = 1;
    /// Return, the target of the value function.
    pub const RETURN: usize = 2;
    /// Value predicted at the time of the action.
    pub const OLD_VALUE: usize = 3;
}

/// Columns of statistics `[minibatch steps, 16]`.
pub mod stat {
    /// Columns in all.
    pub const COLUMNS: usize = 16;
    /// pg_loss − ent_coef·entropy + vf_coef·v_loss + kl_coef·kl_penalty.
    pub const LOSS: usize = 0;
    /// Mean of the (clipped) surrogate loss.
    pub const PG_LOSS: usize = 1;
    /// Mean value loss, with its ½.
    pub const V_LOSS: usize = 2;
    /// Mean entropy.
    pub const ENTROPY: usize = 3;
    /// k1 = mean(−log ratio).
    pub const OLD_APPROX_KL: usize = 4;
    /// k3 = mean(ratio − 1 − log ratio) (Schulman, "Approximating KL divergence").
    pub const APPROX_KL: usize = 5;
    /// Share of samples with |ratio − 1| outside the clip range.
    pub const CLIPFRAC: usize = 6;
    /// Global norm of the gradient before clipping.
    pub const GRAD_NORM: usize = 7;
    /// Factor that clips the gradient.
    pub const CLIP_COEF: usize = 8;
    /// 1 − Var(returns − values) / Var(returns).
    pub const EXPLAINED_VARIANCE: usize = 9;
    /// Mean k3 of the reverse KL, exp(−log ratio) − 1 + log ratio, which `kl_coef` multiplies.
    pub const KL_PENALTY: usize = 10;
}

/// Columns of the per-sample terms `[batch, 8]` of
/// [`SurrogateOps::surrogate`](crate::backend::SurrogateOps::surrogate).
pub mod term {
    /// Columns in all.
    pub const COLUMNS: usize = 8;
    /// log ratio = logp − old_logp.
    pub const LOG_RATIO: usize = 0;
    /// ratio = e^(log ratio).
    pub const RATIO: usize = 1;
    /// ratio clamped to [1 − clip_low, 1 + clip_high].
    pub const CLIPPED_RATIO: usize = 2;
    /// The sample's surrogate loss.
    pub const PG_LOSS: usize = 3;
    /// old_value + clamp(value − old_value, ±clip), or the value itself without value clipping.
    pub const CLIPPED_VALUE: usize = 4;
    /// The sample's value loss, with its ½.
    pub const V_LOSS: usize = 5;
}

pub(crate) fn require_stats_row(stats: usize, row: usize) -> Result<()> {
    let rows = row.checked_add(1).ok_or_else(|| Error::shape("stats_row", "a row that can be counted", row))?;
    require_len("stats", stats, elements("stats", rows, stat::COLUMNS)?)
}
