//! Cases of [`kernels::surrogate`](crate::kernels::surrogate).

use super::runner::Runner;
use crate::backend::SurrogateOps;
use crate::error::Result;
use crate::kernels::policy::{Categorical, Gaussian};
use crate::kernels::surrogate::{Surrogate, ValueLoss};
use crate::layout::{control, stat, term};
use crate::operations::Draw;

/// `[batch, actions or dimensions]`: around workgroups of 64 and 256, and around the rows that several invocations share.
const EDGES: &[[usize; 2]] =
    &[[1, 1], [1, 2], [63, 3], [64, 4], [65, 2], [255, 6], [256, 2], [257, 3], [8, 16], [9, 17], [7, 65], [5, 129], [4097, 2]];
const MOST: [usize; 2] = [2000, 40];

/// Rows of statistics that a case chooses from.
pub(super) const ROWS: usize = 3;

pub(super) fn cases<B: SurrogateOps>(runner: &mut Runner<B>) -> Result<()> {
    for (i, [batch, width]) in runner.shapes(EDGES, MOST).enumerate() {
        runner.case("surrogate", format!("batch {batch}"), |backend, draw| elementwise(backend, batch, draw))?;
        let (policy, masked) = (Categorical { batch, actions: width }, i % 2 == 1);
        let case = format!("batch {batch}, actions {width}{}", if masked { ", masked" } else { "" });
        runner.case("surrogate_categorical", case, |backend, draw| categorical(backend, &policy, masked, draw))?;
        let policy = Gaussian { batch, dim: width, state_dependent_std: i % 3 == 2, log_std_offset: i % 4 };
        let case = format!("batch {batch}, dim {width}{}", if policy.state_dependent_std { ", state-dependent std" } else { "" });
        runner.case("surrogate_gaussian", case, |backend, draw| gaussian(backend, &policy, draw))?;
        runner.case("stop_on_kl", format!("case {i}"), |backend, draw| {
            let stats = backend.upload_floats(&draw.floats(ROWS * stat::COLUMNS, 0.02))?;
            let mut words = control::INITIAL;
            words[control::STOP] = draw.one(&[0, 0, 2]);
            let mut words = backend.upload_words(&words)?;
            backend.stop_on_kl(0.015, draw.below(ROWS), &stats, &mut words)
        })?;
    }
    refusals(runner)
}

/// An objective with any of its options.
pub(super) fn objective(draw: &mut Draw, batch: usize) -> Surrogate {
    let value_loss = draw.one(&[ValueLoss::Mse, ValueLoss::Clipped { clip: 0.2 }, ValueLoss::Huber { delta: 1.0 }]);
    let (clip_low, clip_high) = draw.one(&[(0.2, 0.2), (0.2, 0.28), (f64::INFINITY, f64::INFINITY)]);
    Surrogate {
        batch,
        clip_low,
        clip_high,
        dual_clip: draw.one(&[None, None, Some(3.0)]),
        vf_coef: 0.5,
        ent_coef: draw.one(&[0.0, 0.01]),
        kl_coef: draw.one(&[0.0, 0.1]),
        value_loss,
        stats_row: draw.below(ROWS),
    }
}

/// Packed rows: old log-probabilities near `logp`, advantages, returns, old values.
pub(super) fn samples<B: SurrogateOps>(backend: &mut B, batch: usize, logp: f32, draw: &mut Draw) -> Result<B::Floats> {
    let columns = [draw.normal(batch, logp, 0.3), draw.floats(batch, 1.0), draw.floats(batch, 1.0), draw.floats(batch, 1.0)];
    let packed: Vec<f32> = (0..batch).flat_map(|i| columns.each_ref().map(|column| column[i])).collect();
    backend.upload_floats(&packed)
}

pub(super) fn empty_stats<B: SurrogateOps>(backend: &mut B) -> Result<B::Floats> {
    backend.upload_floats(&[0.0; ROWS * stat::COLUMNS])
}

fn elementwise<B: SurrogateOps>(backend: &mut B, batch: usize, draw: &mut Draw) -> Result<()> {
    let op = objective(draw, batch);
    let logp = backend.upload_floats(&draw.normal(batch, -1.0, 0.3))?;
    let entropy = backend.upload_floats(&draw.normal(batch, 1.0, 0.1))?;
    let values = backend.upload_floats(&draw.floats(batch, 1.0))?;
    let samples = samples(backend, batch, -1.0, draw)?;
    let (mut terms, mut d_logp) = (backend.alloc_floats(batch * term::COLUMNS)?, backend.alloc_floats(batch)?);
    let (mut d_values, mut stats) = (backend.alloc_floats(batch)?, empty_stats(backend)?);
    backend.surrogate(&op, &logp, &entropy, &values, &samples, &mut terms, &mut d_logp, &mut d_values, &mut stats)
}

fn categorical<B: SurrogateOps>(backend: &mut B, policy: &Categorical, masked: bool, draw: &mut Draw) -> Result<()> {
    let (batch, n) = (policy.batch, policy.batch * policy.actions);
    let op = objective(draw, batch);
    let logits = backend.upload_floats(&draw.floats(n, 0.5))?;
    let mask = masked.then(|| draw.flags(n, 0.7)).map(|flags| backend.upload_words(&flags)).transpose()?;
    let actions = backend.upload_words(&draw.words(batch, policy.actions))?;
    let values = backend.upload_floats(&draw.floats(batch, 1.0))?;
    let samples = samples(backend, batch, -(policy.actions as f32).ln(), draw)?;
    let (mut d_logits, mut d_values) = (backend.alloc_floats(n)?, backend.alloc_floats(batch)?);
    let mut stats = empty_stats(backend)?;
    let mask = mask.as_ref();
    backend.surrogate_categorical(
        &op,
        policy,
        &logits,
        mask,
        &actions,
        &values,
        &samples,
        &mut d_logits,
        &mut d_values,
        &mut stats,
    )
}

fn gaussian<B: SurrogateOps>(backend: &mut B, policy: &Gaussian, draw: &mut Draw) -> Result<()> {
    let (batch, n) = (policy.batch, policy.batch * policy.dim);
    let log_stds = if policy.state_dependent_std { n } else { policy.dim };
    let op = objective(draw, batch);
    let mean = backend.upload_floats(&draw.floats(n, 0.1))?;
    let log_std = backend.upload_floats(&draw.floats(policy.log_std_offset + log_stds, 0.1))?;
    let actions = backend.upload_floats(&draw.floats(n, 0.5))?;
    let values = backend.upload_floats(&draw.floats(batch, 1.0))?;
    // E[log-probability] of a unit Gaussian at actions of standard deviation ½.
    let samples = samples(backend, batch, policy.dim as f32 * -1.05, draw)?;
    let offset = draw.below(4);
    let (mut d_mean, mut d_log_std) = (backend.alloc_floats(n)?, backend.alloc_floats(offset + log_stds)?);
    let (mut d_values, mut stats) = (backend.alloc_floats(batch)?, empty_stats(backend)?);
    backend.surrogate_gaussian(
        &op,
        policy,
        &mean,
        &log_std,
        &actions,
        &values,
        &samples,
        &mut d_mean,
        &mut d_log_std,
        offset,
        &mut d_values,
        &mut stats,
    )
}

fn refusals<B: SurrogateOps>(runner: &mut Runner<B>) -> Result<()> {
    let op = |batch| Surrogate {
        batch,
        clip_low: 0.2,
        clip_high: 0.2,
        dual_clip: None,
        vf_coef: 0.5,
        ent_coef: 0.0,
        kl_coef: 0.0,
        value_loss: ValueLoss::Mse,
        stats_row: 0,
    };
    runner.refuses("surrogate", "batch 0", |backend| {
        let (x, samples) = (backend.upload_floats(&[0.0])?, backend.upload_floats(&[0.0; 4])?);
        let (mut terms, mut d_logp) = (backend.alloc_floats(term::COLUMNS)?, backend.alloc_floats(1)?);
        let (mut d_values, mut stats) = (backend.alloc_floats(1)?, empty_stats(backend)?);
        backend.surrogate(&op(0), &x, &x, &x, &samples, &mut terms, &mut d_logp, &mut d_values, &mut stats)
    })?;
    for (what, batch, width) in [("batch 0", 0, 1), ("width 0", 1, 0)] {
        runner.refuses("surrogate_categorical", what, |backend| {
            let (x, samples, actions) =
                (backend.upload_floats(&[0.0])?, backend.upload_floats(&[0.0; 4])?, backend.upload_words(&[0])?);
            let (mut d_logits, mut d_values, mut stats) =
                (backend.alloc_floats(1)?, backend.alloc_floats(1)?, empty_stats(backend)?);
            let policy = Categorical { batch, actions: width };
            backend.surrogate_categorical(
                &op(batch),
                &policy,
                &x,
                None,
                &actions,
                &x,
                &samples,
                &mut d_logits,
                &mut d_values,
                &mut stats,
            )
        })?;
        runner.refuses("surrogate_gaussian", what, |backend| {
            let (x, samples, mut stats) =
                (backend.upload_floats(&[0.0])?, backend.upload_floats(&[0.0; 4])?, empty_stats(backend)?);
            let (mut d_mean, mut d_log_std, mut d_values) =
                (backend.alloc_floats(1)?, backend.alloc_floats(1)?, backend.alloc_floats(1)?);
            let policy = Gaussian { batch, dim: width, state_dependent_std: false, log_std_offset: 0 };
            backend.surrogate_gaussian(
                &op(batch),
                &policy,
                &x,
                &x,
                &x,
                &x,
                &samples,
                &mut d_mean,
                &mut d_log_std,
                0,
                &mut d_values,
                &mut stats,
            )
        })?;
    }
    Ok(())
}
