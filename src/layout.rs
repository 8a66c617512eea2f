//! Records that several layers share: columns of packed buffers, words of control, and which implementation runs.

use crate::error::{Error, Result};
use crate::shape::{elements, require_len};

/// Which variant of a kernel to run, where it has several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Variant {
    /// By shape and adapter.
    #[default]
    Auto,
    /// The plain one that the others are checked against.
    Plain,
    /// The faster one: register tiles, parallel scan, fused, losses by tile.
    Fast,
}

/// Words of the control buffer that lets recorded steps depend on what happened on the device.
pub mod control {
    /// Words in all.
    pub const WORDS: usize = 4;
    /// Why steps are no-ops from now on ([`stop`](super::stop)); 0 while they are not.
    pub const STOP: usize = 0;
    /// Optimiser steps applied so far.
    pub const STEPS_DONE: usize = 1;
    /// Code of the tensor in which a value that is not finite was found.
    pub const BAD_TENSOR: usize = 2;
    /// Flat index of the first such element. Starts at `u32::MAX`.
    pub const BAD_ELEMENT: usize = 3;
    /// What the buffer holds at the start of an update.
    pub const INITIAL: [u32; WORDS] = [0, 0, 0, u32::MAX];
}

/// Values of `control[STOP]`.
pub mod stop {
    /// Keep going.
    pub const NONE: u32 = 0;
    /// approx_kl passed `target_kl`.
    pub const TARGET_KL: u32 = 1;
    /// A value is not finite.
    pub const NON_FINITE: u32 = 2;
}

/// Columns of a row of the optimiser's schedule, one row a step: what depends on the step count alone and is best computed in double
/// precision on the host.
pub mod schedule {
    /// Columns in all.
    pub const COLUMNS: usize = 4;
    /// Learning rate.
    pub const LEARNING_RATE: usize = 0;
    /// learning rate / (1 − β₁ᵗ).
    pub const STEP_SIZE: usize = 1;
    /// 1 / √(1 − β₂ᵗ).
    pub const INV_SQRT_BIAS_CORRECTION2: usize = 2;

    /// The row of step `t` (counting from 1).
    pub fn row(learning_rate: f64, beta1: f64, beta2: f64, t: u64) -> [f32; COLUMNS] {
        let t = t as f64;
        let step_size = learning_rate / (1.0 - beta1.powf(t));
        [learning_rate as f32, step_size as f32, (1.0 / (1.0 - beta2.powf(t)).sqrt()) as f32, 0.0]
    }
}

/// Columns of a packed minibatch `[batch, 4]`, one row a sample.
pub mod sample {
    /// Columns in all.
    pub const COLUMNS: usize = 4;
    /// Log-probability of the action under the policy that took it.
    pub const OLD_LOGP: usize = 0;
    /// Advantage.
    pub const ADVANTAGE: usize = 1;
    /// Return, the target of the value function.
    pub const RETURN: usize = 2;
    /// Value predicted when the action was taken.
    pub const OLD_VALUE: usize = 3;
}

/// Columns of a row of statistics, one row a minibatch step.
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
    /// Share of samples with |ratio − 1| beyond the clip.
    pub const CLIPFRAC: usize = 6;
    /// Global norm of the gradient before clipping.
    pub const GRAD_NORM: usize = 7;
    /// Factor the gradient was multiplied by.
    pub const CLIP_COEF: usize = 8;
    /// 1 − Var(returns − values) / Var(returns).
    pub const EXPLAINED_VARIANCE: usize = 9;
    /// Mean of KL's k3 estimator in the other direction, exp(−log ratio) − 1 + log ratio: what `kl_coef` multiplies.
    pub const KL_PENALTY: usize = 10;
}

/// Columns of the per-sample terms `[batch, 8]` of [`SurrogateOps::surrogate`](crate::backend::SurrogateOps::surrogate).
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
    /// old_value + clamp(value − old_value, ±clip) (the value itself where values are not clipped).
    pub const CLIPPED_VALUE: usize = 4;
    /// The sample's value loss, with its ½.
    pub const V_LOSS: usize = 5;
}

/// Row `row` of the statistics buffer exists.
pub(crate) fn require_stats_row(stats: usize, row: usize) -> Result<()> {
    let rows = row.checked_add(1).ok_or_else(|| Error::shape("stats_row", "a row that can be counted", row))?;
    require_len("stats", stats, elements("stats", rows, stat::COLUMNS)?)
}
