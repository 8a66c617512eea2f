//! What an update reports.

use crate::layout::stat;
/// Why an update ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// All epochs done.
    Completed,
    /// `target_kl` was passed.
    TargetKl,
}

/// What happened in an update. Means over the last minibatch that was learned from, as CleanRL logs them; `clipfrac` over all minibatches.
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
    /// Share of samples whose ratio was beyond the clip.
    pub clipfrac: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// 1 − Var(returns − values)/Var(returns) over the rollout.
    pub explained_variance: f64,
    /// Learning rate used.
    pub learning_rate: f64,
    /// Optimiser steps applied.
    pub steps: usize,
    /// Why it ended.
    pub stop: StopReason,
    /// One row a minibatch step applied; columns as in [`stat`].
    pub log: Vec<[f64; stat::COLUMNS]>,
}

impl UpdateStats {
    /// From a row a step, of which `steps` were applied, and the rollout's row behind them.
    pub(super) fn new(rows: &[[f64; stat::COLUMNS]], steps: usize, learning_rate: f64, stop: StopReason) -> Self {
        let log = rows[..steps].to_vec();
        // Where the very first step was stopped, its losses are still what there is to report.
        let last = rows[steps.saturating_sub(1)];
        Self {
            loss: last[stat::LOSS],
            pg_loss: last[stat::PG_LOSS],
            v_loss: last[stat::V_LOSS],
            entropy: last[stat::ENTROPY],
            old_approx_kl: last[stat::OLD_APPROX_KL],
            approx_kl: last[stat::APPROX_KL],
            clipfrac: log.iter().map(|row| row[stat::CLIPFRAC]).sum::<f64>() / steps.max(1) as f64,
            grad_norm: last[stat::GRAD_NORM],
            explained_variance: rows[rows.len() - 1][stat::EXPLAINED_VARIANCE],
            learning_rate,
            steps,
            stop,
            log,
        }
    }
}
