//! PPO's losses and their gradients (Schulman et al. 2017, arXiv:1707.06347), and the statistics everybody logs.

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
    /// pg_loss − ent_coef·entropy + vf_coef·v_loss + kl_coef·approx_kl_k3.
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

/// The loss of the value function, per sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueLoss {
    /// ½(v − R)².
    Mse,
    /// ½·max((v − R)², (old + clamp(v − old, ±clip) − R)²) (CleanRL, baselines).
    Clipped {
        /// Clip range, > 0.
        clip: f64,
    },
    /// Smooth L1 as `torch.nn.functional.smooth_l1_loss`: ½d²/δ for |d| < δ, else |d| − ½δ.
    Huber {
        /// δ > 0.
        delta: f64,
    },
}

/// Coefficients of the PPO objective.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Surrogate {
    /// Samples.
    pub batch: usize,
    /// Lower clip: ratios below 1 − clip_low are clipped. `f64::INFINITY` for none.
    pub clip_low: f64,
    /// Upper clip: ratios above 1 + clip_high are clipped. `f64::INFINITY` for none.
    pub clip_high: f64,
    /// Dual clip (Ye et al. 2020, arXiv:1912.09729): for a negative advantage the loss is at most −c·A. c > 1.
    pub dual_clip: Option<f64>,
    /// Weight of the value loss.
    pub vf_coef: f64,
    /// Weight of the entropy bonus.
    pub ent_coef: f64,
    /// Weight of the KL penalty (k3 estimator, exp(−log ratio) − 1 + log ratio).
    pub kl_coef: f64,
    /// Kind of value loss.
    pub value_loss: ValueLoss,
    /// Row of the statistics buffer that takes the results.
    pub stats_row: usize,
}

#[cfg(feature = "gpu")]
pub(crate) use binding::*;

#[cfg(feature = "gpu")]
mod binding {
    use crate::kernels::ShaderInfo;

    pub(crate) const SHADERS: &[ShaderInfo] = &[];
}
