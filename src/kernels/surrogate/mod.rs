//! PPO's losses and their gradients (Schulman et al. 2017, arXiv:1707.06347), and the statistics everybody logs.

#[cfg(feature = "gpu")]
mod binding;
mod tolerance;

#[cfg(feature = "gpu")]
pub(crate) use binding::*;
pub use tolerance::{CategoricalBounds, GaussianBounds, SurrogateBounds};

use crate::error::{Error, Result};
use crate::kernels::policy::{Categorical, Gaussian};
use crate::layout::{require_stats_row, sample, term};
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

/// A buffer's name and length.
type NamedLength = (&'static str, usize);

/// The smallest positive number that no device flushes to zero.
const SMALLEST: f64 = f32::MIN_POSITIVE as f64;

impl Surrogate {
    /// Coefficients, samples, values and the row of statistics.
    fn check(&self, values: usize, samples: usize, d_values: usize, stats: usize) -> Result<()> {
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
        require_len("values", values, self.batch)?;
        require_len("samples", samples, self.batch * sample::COLUMNS)?;
        require_len("d_values", d_values, self.batch)?;
        require_stats_row(stats, self.stats_row)
    }

    /// The buffers of the elementwise operation. `vectors` are `[batch]` each.
    pub(crate) fn check_elementwise(
        &self,
        vectors: [NamedLength; 3],
        values: usize,
        samples: usize,
        terms: usize,
        d_values: usize,
        stats: usize,
    ) -> Result<()> {
        self.check(values, samples, d_values, stats)?;
        for (name, len) in vectors {
            require_len(name, len, self.batch)?;
        }
        require_len("terms", terms, self.batch * term::COLUMNS)
    }

    fn check_batch(&self, batch: usize) -> Result<()> {
        if batch == self.batch {
            return Ok(());
        }
        Err(Error::shape("policy.batch", format!("op.batch, {}", self.batch), batch))
    }

    /// The buffers of the operation through a categorical head. `matrices` are `[batch, actions]` each.
    pub(crate) fn check_categorical(
        &self,
        policy: &Categorical,
        matrices: &[NamedLength],
        actions: usize,
        values: usize,
        samples: usize,
        d_values: usize,
        stats: usize,
    ) -> Result<()> {
        self.check(values, samples, d_values, stats)?;
        self.check_batch(policy.batch)?;
        require_size("actions per row", policy.actions)?;
        let needed = elements("logits", policy.batch, policy.actions)?;
        for &(name, len) in matrices {
            require_len(name, len, needed)?;
        }
        require_len("actions", actions, policy.batch)
    }

    /// The buffers of the operation through a Gaussian head. `matrices` are `[batch, dim]` each; `log_stds` are length and offset of
    /// log_std and its gradient.
    pub(crate) fn check_gaussian(
        &self,
        policy: &Gaussian,
        matrices: [NamedLength; 3],
        log_stds: [(&'static str, usize, usize); 2],
        values: usize,
        samples: usize,
        d_values: usize,
        stats: usize,
    ) -> Result<()> {
        self.check(values, samples, d_values, stats)?;
        self.check_batch(policy.batch)?;
        require_size("dim", policy.dim)?;
        let needed = elements("mean", policy.batch, policy.dim)?;
        for (name, len) in matrices {
            require_len(name, len, needed)?;
        }
        for (name, len, offset) in log_stds {
            let own = if policy.state_dependent_std { needed } else { policy.dim };
            let end = offset.checked_add(own).filter(|&end| end <= u32::MAX as usize);
            let end = end.ok_or_else(|| Error::shape(name, "an offset below 2^32", offset))?;
            require_len(name, len, end)?;
        }
        Ok(())
    }
}

pub(crate) fn check_stop_on_kl(threshold: f64, stats_row: usize, stats: usize, control: usize) -> Result<()> {
    require_finite("threshold", threshold)?;
    require_stats_row(stats, stats_row)?;
    require_len("control", control, crate::layout::control::WORDS)
}
