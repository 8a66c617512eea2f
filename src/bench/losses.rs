//! PPO's loss and its gradient through a head.

use super::inputs::Inputs;
use crate::backend::Backend;
use crate::error::Result;
use crate::kernels::normalize::{EpsilonMode, Normalize};
use crate::kernels::policy::{Categorical, Gaussian};
use crate::kernels::surrogate::{Surrogate, ValueLoss};
use crate::layout::{sample, stat};
use crate::operations::Step;

/// What the loss goes through. For the first two it includes the normalisation of the advantages and the loss of the value function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// Logits of a few actions.
    Categorical { actions: usize },
    /// Means, with a log-std shared by the batch.
    Gaussian { dim: usize },
    /// Logits of a vocabulary; no value function, no entropy bonus, advantages as they are.
    Tokens { vocabulary: usize },
}

impl Head {
    fn width(self) -> usize {
        match self {
            Head::Categorical { actions: n } | Head::Gaussian { dim: n } | Head::Tokens { vocabulary: n } => n,
        }
    }

    /// Per logit: maximum, difference, exponential, sum, and entropy and gradient in twice as many; per dimension about as many.
    /// Per sample: normalisation, ratio, both losses and their gradients.
    pub(super) fn flops(self, batch: usize) -> f64 {
        12.0 * (batch * self.width()) as f64 + 40.0 * batch as f64
    }

    /// Four-byte words read and written at least.
    pub(super) fn words(self, batch: usize) -> usize {
        // Four packed numbers and the value are read, its gradient written.
        let per_sample = sample::COLUMNS + 2;
        match self {
            Head::Categorical { actions } => batch * (2 * actions + 1 + per_sample),
            Head::Gaussian { dim } => batch * (3 * dim + per_sample),
            // Beside a vocabulary the rest is nothing.
            Head::Tokens { vocabulary } => 2 * batch * vocabulary,
        }
    }
}

/// Distance of old from new log-probabilities: a tenth to a third of the ratios is beyond the clip.
pub(super) const LOG_RATIO: f64 = 0.15;

/// A log-ratio that is not on the edge of the clip, where rounding decides whether a sample has a gradient: one of a million is.
pub(super) fn off_the_edges(log_ratio: f64) -> f64 {
    let near = |edge: f64| (log_ratio - edge.ln()).abs() < 1e-3;
    if near(0.8) || near(1.2) { 0.9 * log_ratio } else { log_ratio }
}

/// Log-probability of each row's action under softmax, on the host.
pub(super) fn categorical_logp(logits: &[f32], actions: &[u32]) -> Vec<f64> {
    let width = logits.len() / actions.len();
    let logp = |(row, &action): (&[f32], &u32)| {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&x| f64::from(x - max).exp()).sum();
        f64::from(row[action as usize] - max) - sum.ln()
    };
    logits.chunks_exact(width).zip(actions).map(logp).collect()
}

/// Log-probability of each row's action under a normal distribution, on the host.
fn gaussian_logp(mean: &[f32], log_std: &[f32], actions: &[f32]) -> Vec<f64> {
    let half_log_two_pi = 0.5 * (2.0 * std::f64::consts::PI).ln();
    let row = |(mean, action): (&[f32], &[f32])| {
        let element = |((&m, &a), &s): ((&f32, &f32), &f32)| {
            let z = f64::from(a - m) * f64::from(-s).exp();
            -0.5 * z * z - f64::from(s) - half_log_two_pi
        };
        mean.iter().zip(action).zip(log_std).map(element).sum()
    };
    mean.chunks_exact(log_std.len()).zip(actions.chunks_exact(log_std.len())).map(row).collect()
}

/// Packed rows `[batch, 4]` and values near the old ones, so that value clipping acts.
fn samples(inputs: &mut Inputs, logp: &[f64]) -> (Vec<f32>, Vec<f32>) {
    let mut samples = Vec::with_capacity(logp.len() * sample::COLUMNS);
    let mut values = Vec::with_capacity(logp.len());
    for logp in logp {
        let old_logp = logp - off_the_edges(LOG_RATIO * inputs.normal());
        let (advantage, old_value) = (inputs.normal(), inputs.normal());
        let target = old_value + inputs.normal();
        samples.extend([old_logp, advantage, target, old_value].map(|x| x as f32));
        values.push((old_value + 0.2 * inputs.normal()) as f32);
    }
    (samples, values)
}

/// CleanRL's loss; of a vocabulary, its policy part alone.
pub(super) fn objective(head: Head, batch: usize) -> Surrogate {
    let op = Surrogate {
        batch,
        clip_low: 0.2,
        clip_high: 0.2,
        dual_clip: None,
        vf_coef: 0.5,
        ent_coef: 0.01,
        kl_coef: 0.0,
        value_loss: ValueLoss::Clipped { clip: 0.2 },
        stats_row: 0,
    };
    match head {
        Head::Tokens { .. } => Surrogate { vf_coef: 0.0, ent_coef: 0.0, value_loss: ValueLoss::Mse, ..op },
        Head::Categorical { .. } | Head::Gaussian { .. } => op,
    }
}

/// Uploads the inputs and returns the call. A second call normalises advantages that already are: the same work.
pub(super) fn prepare<B: Backend>(backend: &mut B, inputs: &mut Inputs, head: Head, batch: usize) -> Result<Step<B>> {
    let op = objective(head, batch);
    let width = head.width();
    let normalize = Normalize {
        len: batch,
        vectors: 1,
        offset: sample::ADVANTAGE,
        stride: sample::COLUMNS,
        ddof: 1,
        epsilon: 1e-8,
        epsilon_mode: EpsilonMode::AddToStd,
    };
    let scale = if matches!(head, Head::Tokens { .. }) { 2.0 } else { 1.0 };
    let host = inputs.floats(batch * width, scale);
    let outputs = backend.upload_floats(&host)?;
    let mut d_outputs = backend.alloc_floats(batch * width)?;
    let (mut d_values, mut stats) = (backend.alloc_floats(batch)?, backend.alloc_floats(stat::COLUMNS)?);
    let mut moments = backend.alloc_floats(Normalize::MOMENTS)?;
    match head {
        Head::Categorical { .. } | Head::Tokens { .. } => {
            let policy = Categorical { batch, actions: width };
            let actions = inputs.words(batch, width);
            let (samples, values) = samples(inputs, &categorical_logp(&host, &actions));
            let actions = backend.upload_words(&actions)?;
            let (mut samples, values) = (backend.upload_floats(&samples)?, backend.upload_floats(&values)?);
            Ok(Box::new(move |backend: &mut B| {
                if matches!(head, Head::Categorical { .. }) {
                    backend.normalize(&normalize, &mut samples, &mut moments)?;
                }
                backend.surrogate_categorical(
                    &op,
                    &policy,
                    &outputs,
                    None,
                    &actions,
                    &values,
                    &samples,
                    &mut d_outputs,
                    &mut d_values,
                    &mut stats,
                )
            }))
        }
        Head::Gaussian { dim } => {
            let policy = Gaussian { batch, dim, state_dependent_std: false, log_std_offset: 0 };
            let log_std = inputs.floats(dim, 0.3);
            let noise = inputs.floats(batch * dim, 1.0);
            let actions: Vec<f32> =
                host.iter().zip(&noise).enumerate().map(|(i, (mean, z))| mean + z * log_std[i % dim].exp()).collect();
            let (samples, values) = samples(inputs, &gaussian_logp(&host, &log_std, &actions));
            let (log_std, actions) = (backend.upload_floats(&log_std)?, backend.upload_floats(&actions)?);
            let (mut samples, values) = (backend.upload_floats(&samples)?, backend.upload_floats(&values)?);
            let mut d_log_std = backend.alloc_floats(dim)?;
            Ok(Box::new(move |backend: &mut B| {
                backend.normalize(&normalize, &mut samples, &mut moments)?;
                backend.surrogate_gaussian(
                    &op,
                    &policy,
                    &outputs,
                    &log_std,
                    &actions,
                    &values,
                    &samples,
                    &mut d_outputs,
                    &mut d_log_std,
                    0,
                    &mut d_values,
                    &mut stats,
                )
            }))
        }
    }
}
