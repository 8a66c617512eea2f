//! Statistics of an update.

use crate::layout::stat;
/// The reason why an update ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// All epochs are done.
    Completed,
    /// The KL exceeded `target_kl`.
    TargetKl,
}

/// Means over the last applied minibatch, as CleanRL logs them; `clipfrac` over all minibatches.
#[derive(Debug, Clone, PartialEq)]
pub struct UpdateStats {
    /// Total loss.
    pub loss: f64,
    /// Surrogate loss.
    pub pg_loss: f64,
    /// Value loss, with its ½.
    pub v_loss: f64,
    /// Entropy of the policy.
    pub entropy: f64,
    /// KL, k1 estimator.
    pub old_approx_kl: f64,
    /// KL, k3 estimator.
    pub approx_kl: f64,
    /// The KL (k3) that stopped the update: of the last minibatch with
    /// [`KlStop::AfterEpoch`](crate::ppo::KlStop::AfterEpoch), of the skipped one with
    /// [`KlStop::BeforeStep`](crate::ppo::KlStop::BeforeStep).
    pub stopping_kl: Option<f64>,
    /// Share of samples with a ratio outside the clip range.
    pub clipfrac: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// 1 − Var(returns − values)/Var(returns) over the rollout.
    pub explained_variance: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Optimiser steps applied.
    pub steps: usize,
    /// The reason why it ended.
    pub stop: StopReason,
    /// One row for each applied minibatch step; columns as in [`stat`].
    pub log: Vec<[f64; stat::COLUMNS]>,
}

impl UpdateStats {
    /// `rows` has a row for each step, of which `steps` were applied, then the rollout's row.
    /// `stopping` is the row whose KL stopped the update.
    pub(super) fn new(rows: &[[f64; stat::COLUMNS]], steps: usize, learning_rate: f64, stopping: Option<usize>) -> Self {
        let log = rows[..steps].to_vec();
        // If the first step was skipped, its losses are reported.
        let last = rows[steps.saturating_sub(1)];
        Self {
            loss: last[stat::LOSS],
            pg_loss: last[stat::PG_LOSS],
            v_loss: last[stat::V_LOSS],
            entropy: last[stat::ENTROPY],
            old_approx_kl: last[stat::OLD_APPROX_KL],
            approx_kl: last[stat::APPROX_KL],
            stopping_kl: stopping.map(|row| rows[row][stat::APPROX_KL]),
            clipfrac: log.iter().map(|row| row[stat::CLIPFRAC]).sum::<f64>() / steps.max(1) as f64,
            grad_norm: last[stat::GRAD_NORM],
            explained_variance: rows[rows.len() - 1][stat::EXPLAINED_VARIANCE],
            learning_rate,
            steps,
            stop: if stopping.is_some() { StopReason::TargetKl } else { StopReason::Completed },
            log,
        }
    }
}
