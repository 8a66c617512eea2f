//! PPO's losses and their gradients (Schulman et al. 2017, arXiv:1707.06347), and the statistics everybody logs.

#[cfg(feature = "gpu")]
mod binding;
mod tolerance;

#[cfg(feature = "gpu")]
pub(crate) use binding::*;
pub use tolerance::{CategoricalBounds, Exact, GaussianBounds, SurrogateBounds};

use crate::error::{Error, Result};
use crate::kernels::policy::{Categorical, Gaussian};
use crate::layout::{control, require_stats_row, sample, term};
use crate::operands::{Length, operands, require_lens};
use crate::shape::{elements, require_finite, require_len, require_range, require_size};

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

operands! {
    /// Operands of [`surrogate`](crate::backend::SurrogateOps::surrogate).
    pub struct SurrogateOperands<F> {
        /// `[batch]`: log-probabilities of the actions taken.
        logp: Floats,
        /// `[batch]`: entropies of the distributions.
        entropy: Floats,
        /// `[batch]`: predicted returns.
        values: Floats,
        /// `[batch, 4]`, see [`sample`].
        samples: Floats,
        /// `[batch, 8]`, see [`term`].
        terms: FloatsMut,
        /// `[batch]`.
        d_logp: FloatsMut,
        /// `[batch]`.
        d_values: FloatsMut,
        /// `[rows, 16]`, see [`stat`](crate::layout::stat).
        stats: FloatsMut,
    }
}

operands! {
    /// Operands of [`surrogate_categorical`](crate::backend::SurrogateOps::surrogate_categorical).
    pub struct CategoricalOperands<F, W> {
        /// `[batch, actions]`.
        logits: Floats,
        /// `[batch, actions]`: 0 where an action is invalid.
        mask: OptionalWords,
        /// `[batch]`: actions taken.
        actions: Words,
        /// `[batch]`: predicted returns.
        values: Floats,
        /// `[batch, 4]`, see [`sample`].
        samples: Floats,
        /// `[batch, actions]`.
        d_logits: FloatsMut,
        /// `[batch]`.
        d_values: FloatsMut,
        /// `[rows, 16]`, see [`stat`](crate::layout::stat).
        stats: FloatsMut,
    }
}

operands! {
    /// Operands of [`surrogate_gaussian`](crate::backend::SurrogateOps::surrogate_gaussian).
    pub struct GaussianOperands<F> {
        /// `[batch, dim]`.
        mean: Floats,
        /// As the distribution says.
        log_std: Floats,
        /// `[batch, dim]`: actions taken.
        actions: Floats,
        /// `[batch]`: predicted returns.
        values: Floats,
        /// `[batch, 4]`, see [`sample`].
        samples: Floats,
        /// `[batch, dim]`.
        d_mean: FloatsMut,
        /// In the shape of the log-std, from `d_log_std_offset` on.
        d_log_std: FloatsMut,
        /// First element of that gradient.
        d_log_std_offset: Size,
        /// `[batch]`.
        d_values: FloatsMut,
        /// `[rows, 16]`, see [`stat`](crate::layout::stat).
        stats: FloatsMut,
    }
}

/// The policy's part of the loss: of one sample with numbers for `F`, or of several side by side. Gradients are of the mean loss.
#[derive(Debug, Clone, Copy)]
pub struct PolicyLoss<F> {
    /// logp − old_logp.
    pub log_ratio: F,
    /// e^log_ratio.
    pub ratio: F,
    /// The ratio within its clip.
    pub clipped_ratio: F,
    /// Surrogate loss.
    pub pg_loss: F,
    /// ratio − 1 − log_ratio.
    pub k3: F,
    /// e^(−log_ratio) − 1 + log_ratio.
    pub kl_penalty: F,
    /// 1 where the ratio is beyond its clip, else 0.
    pub outside: F,
    /// Derivative with respect to logp.
    pub d_logp: F,
}

/// The critic's part, likewise.
#[derive(Debug, Clone, Copy)]
pub struct CriticLoss<F> {
    /// The value within its clip.
    pub clipped_value: F,
    /// Value loss.
    pub v_loss: F,
    /// Derivative with respect to the value.
    pub d_value: F,
}

const WORKGROUP_SIZE: usize = 256;
/// Columns of partial sums for the statistics; those of d_log_std follow, rounded up to as many again.
#[cfg(feature = "gpu")]
const SUMS: usize = 8;

/// Invocations that share a row of logits: neighbours read neighbouring logits, which pays once a row is longer than a few.
fn lanes(actions: usize) -> usize {
    match actions {
        0..=16 => 1,
        17..=128 => 8,
        _ => 32,
    }
}

/// The smallest positive number that no device flushes to zero.
const SMALLEST: f64 = f32::MIN_POSITIVE as f64;

impl Surrogate {
    /// Coefficients and the row of statistics.
    fn check(&self, stats: &impl Length) -> Result<()> {
        require_size("batch", self.batch)?;
        for (name, clip) in [("clip_low", self.clip_low), ("clip_high", self.clip_high)] {
            if clip.is_nan() || clip < 0.0 {
                return Err(Error::value(name, "a number >= 0, or infinity", clip));
            }
        }
        if let Some(dual_clip) = self.dual_clip
            && !(dual_clip > 1.0 && dual_clip <= f64::from(f32::MAX))
        {
            return Err(Error::value("dual_clip", "a finite number > 1", dual_clip));
        }
        require_range("vf_coef", self.vf_coef, 0.0, f64::from(f32::MAX))?;
        require_range("kl_coef", self.kl_coef, 0.0, f64::from(f32::MAX))?;
        require_finite("ent_coef", self.ent_coef)?;
        match self.value_loss {
            ValueLoss::Mse => {}
            ValueLoss::Clipped { clip } => require_range("value clip", clip, SMALLEST, f64::from(f32::MAX))?,
            ValueLoss::Huber { delta } => require_range("huber delta", delta, SMALLEST, f64::from(f32::MAX))?,
        }
        // Eight terms a sample are the widest of all buffers of this kernel.
        elements("terms", self.batch, term::COLUMNS)?;
        require_stats_row(stats.len(), self.stats_row)
    }

    /// The buffers of the elementwise operation.
    pub(crate) fn check_elementwise<F: Length>(&self, operands: &SurrogateOperands<'_, F>) -> Result<()> {
        self.check(operands.stats)?;
        require_lens!(operands, self.batch => values, d_values, logp, entropy, d_logp);
        require_lens!(operands, self.batch * sample::COLUMNS => samples; self.batch * term::COLUMNS => terms);
        Ok(())
    }

    fn check_batch(&self, batch: usize) -> Result<()> {
        if batch == self.batch {
            return Ok(());
        }
        Err(Error::shape("policy.batch", format!("op.batch, {}", self.batch), batch))
    }

    /// The buffers of the operation through a categorical head.
    pub(crate) fn check_categorical<F: Length, W: Length>(
        &self,
        policy: &Categorical,
        operands: &CategoricalOperands<'_, F, W>,
    ) -> Result<()> {
        self.check(operands.stats)?;
        self.check_batch(policy.batch)?;
        require_size("actions per row", policy.actions)?;
        let n = elements("logits", policy.batch, policy.actions)?;
        operands.mask.map_or(Ok(()), |mask| require_len("mask", mask.len(), n))?;
        require_lens!(operands, n => logits, d_logits; self.batch => actions, values, d_values);
        require_lens!(operands, self.batch * sample::COLUMNS => samples);
        Ok(())
    }

    /// The buffers of the operation through a Gaussian head.
    pub(crate) fn check_gaussian<F: Length>(&self, policy: &Gaussian, operands: &GaussianOperands<'_, F>) -> Result<()> {
        self.check(operands.stats)?;
        self.check_batch(policy.batch)?;
        require_size("dim", policy.dim)?;
        let n = elements("mean", policy.batch, policy.dim)?;
        let log_std_end = policy.log_std_end("log_std", policy.log_std_offset)?;
        let d_log_std_end = policy.log_std_end("d_log_std", operands.d_log_std_offset)?;
        require_lens!(operands, n => mean, actions, d_mean; log_std_end => log_std; d_log_std_end => d_log_std);
        require_lens!(operands, self.batch => values, d_values; self.batch * sample::COLUMNS => samples);
        Ok(())
    }
}

pub(crate) fn check_stop_on_kl(threshold: f64, stats_row: usize, stats: usize, control: usize) -> Result<()> {
    require_finite("threshold", threshold)?;
    require_stats_row(stats, stats_row)?;
    require_len("control", control, control::WORDS)
}
