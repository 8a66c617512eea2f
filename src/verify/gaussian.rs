//! Cases of the Gaussian half of [`kernels::policy`](crate::kernels::policy), squashed ones included.

use super::runner::Runner;
use crate::backend::PolicyOps;
use crate::error::Result;
use crate::kernels::policy::{Gaussian, KlArgument, SquashedGaussian};
use crate::operations::Draw;

/// `[batch, dim]`: around workgroups of 64 and 256 in both directions.
const EDGES: &[[usize; 2]] =
    &[[1, 1], [1, 17], [63, 3], [64, 2], [65, 1], [255, 2], [256, 1], [257, 3], [7, 63], [8, 64], [9, 65], [1025, 6]];
const MOST: [usize; 2] = [1000, 20];

pub(super) fn cases<B: PolicyOps>(runner: &mut Runner<B>) -> Result<()> {
    for (i, [batch, dim]) in runner.shapes(EDGES, MOST).enumerate() {
        let op = Gaussian { batch, dim, state_dependent_std: i % 2 == 1, log_std_offset: i % 3 };
        let case = format!("batch {batch}, dim {dim}{}", if op.state_dependent_std { ", state-dependent std" } else { "" });
        runner.case("gaussian_evaluate", &case, |backend, draw| evaluate(backend, &op, draw))?;
        runner.case("gaussian_sample", &case, |backend, draw| sample(backend, &op, draw))?;
        runner.case("gaussian_backward", &case, |backend, draw| backward(backend, &op, draw))?;
        runner.case("gaussian_kl", &case, |backend, draw| kl(backend, &op, draw))?;
        runner.case("gaussian_kl_backward", &case, |backend, draw| kl_backward(backend, &op, draw))?;
        runner.case("squashed_gaussian_evaluate", &case, |backend, draw| squashed_evaluate(backend, &op, draw))?;
        runner.case("squashed_gaussian_backward", &case, |backend, draw| squashed_backward(backend, &op, draw))?;
    }
    refusals(runner)
}

fn log_stds(op: &Gaussian) -> usize {
    if op.state_dependent_std { op.batch * op.dim } else { op.dim }
}

fn means<B: PolicyOps>(backend: &mut B, op: &Gaussian, draw: &mut Draw) -> Result<B::Floats> {
    backend.upload_floats(&draw.floats(op.batch * op.dim, 1.0))
}

fn log_std<B: PolicyOps>(backend: &mut B, op: &Gaussian, draw: &mut Draw) -> Result<B::Floats> {
    backend.upload_floats(&draw.normal(op.log_std_offset + log_stds(op), -0.5, 0.5))
}

fn evaluate<B: PolicyOps>(backend: &mut B, op: &Gaussian, draw: &mut Draw) -> Result<()> {
    let (mean, log_std, actions) = (means(backend, op, draw)?, log_std(backend, op, draw)?, means(backend, op, draw)?);
    let (mut logp, mut entropy) = (backend.alloc_floats(op.batch)?, backend.alloc_floats(op.batch)?);
    backend.gaussian_evaluate(op, &mean, &log_std, &actions, &mut logp, &mut entropy)
}

fn sample<B: PolicyOps>(backend: &mut B, op: &Gaussian, draw: &mut Draw) -> Result<()> {
    let offset = draw.below(4);
    let rows = offset + op.batch;
    let (mean, log_std) = (means(backend, op, draw)?, log_std(backend, op, draw)?);
    let noise = backend.upload_floats(&draw.floats(rows * op.dim, 1.0))?;
    let (mut actions, mut logp) = (backend.alloc_floats(rows * op.dim)?, backend.alloc_floats(rows)?);
    backend.gaussian_sample(op, &mean, &log_std, &noise, offset, &mut actions, &mut logp)
}

fn backward<B: PolicyOps>(backend: &mut B, op: &Gaussian, draw: &mut Draw) -> Result<()> {
    let (mean, log_std, actions) = (means(backend, op, draw)?, log_std(backend, op, draw)?, means(backend, op, draw)?);
    let (d_logp, d_entropy) =
        (backend.upload_floats(&draw.floats(op.batch, 1.0))?, backend.upload_floats(&draw.floats(op.batch, 0.1))?);
    let offset = draw.below(4);
    let (mut d_mean, mut d_log_std) = (backend.alloc_floats(op.batch * op.dim)?, backend.alloc_floats(offset + log_stds(op))?);
    backend.gaussian_backward(op, &mean, &log_std, &actions, &d_logp, &d_entropy, &mut d_mean, &mut d_log_std, offset)
}

fn kl<B: PolicyOps>(backend: &mut B, op: &Gaussian, draw: &mut Draw) -> Result<()> {
    let (p_mean, p_log_std) = (means(backend, op, draw)?, log_std(backend, op, draw)?);
    let (q_mean, q_log_std) = (means(backend, op, draw)?, log_std(backend, op, draw)?);
    let mut kl = backend.alloc_floats(op.batch)?;
    backend.gaussian_kl(op, &p_mean, &p_log_std, &q_mean, &q_log_std, &mut kl)
}

fn kl_backward<B: PolicyOps>(backend: &mut B, op: &Gaussian, draw: &mut Draw) -> Result<()> {
    let argument = draw.one(&[KlArgument::P, KlArgument::Q]);
    let (p_mean, p_log_std) = (means(backend, op, draw)?, log_std(backend, op, draw)?);
    let (q_mean, q_log_std) = (means(backend, op, draw)?, log_std(backend, op, draw)?);
    let d_kl = backend.upload_floats(&draw.floats(op.batch, 1.0))?;
    let (mut d_mean, mut d_log_std) = (backend.alloc_floats(op.batch * op.dim)?, backend.alloc_floats(log_stds(op))?);
    backend.gaussian_kl_backward(op, argument, &p_mean, &p_log_std, &q_mean, &q_log_std, &d_kl, &mut d_mean, &mut d_log_std)
}

fn squashed(gaussian: &Gaussian, draw: &mut Draw) -> SquashedGaussian {
    let (low, high) = draw.one(&[(-1.0, 1.0), (-2.0, 2.0), (0.0, 3.0)]);
    SquashedGaussian { gaussian: *gaussian, low, high }
}

fn squashed_evaluate<B: PolicyOps>(backend: &mut B, op: &Gaussian, draw: &mut Draw) -> Result<()> {
    let (mean, log_std, u) = (means(backend, op, draw)?, log_std(backend, op, draw)?, means(backend, op, draw)?);
    let n = op.batch * op.dim;
    let (mut actions, mut log_det, mut logp) =
        (backend.alloc_floats(n)?, backend.alloc_floats(n)?, backend.alloc_floats(op.batch)?);
    let op = squashed(op, draw);
    backend.squashed_gaussian_evaluate(&op, &mean, &log_std, &u, &mut actions, &mut log_det, &mut logp)
}

fn squashed_backward<B: PolicyOps>(backend: &mut B, op: &Gaussian, draw: &mut Draw) -> Result<()> {
    let (mean, log_std, u) = (means(backend, op, draw)?, log_std(backend, op, draw)?, means(backend, op, draw)?);
    let d_logp = backend.upload_floats(&draw.floats(op.batch, 1.0))?;
    let (mut d_mean, mut d_log_std) = (backend.alloc_floats(op.batch * op.dim)?, backend.alloc_floats(log_stds(op))?);
    let (op, reparameterised) = (squashed(op, draw), draw.coin());
    backend.squashed_gaussian_backward(&op, reparameterised, &mean, &log_std, &u, &d_logp, &mut d_mean, &mut d_log_std)
}

fn refusals<B: PolicyOps>(runner: &mut Runner<B>) -> Result<()> {
    let fits = Gaussian { batch: 1, dim: 1, state_dependent_std: false, log_std_offset: 0 };
    for (what, op) in [("batch 0", Gaussian { batch: 0, ..fits }), ("dim 0", Gaussian { dim: 0, ..fits })] {
        runner.refuses("gaussian_evaluate", what, |backend| {
            let (x, mut logp, mut entropy) = (backend.upload_floats(&[0.0])?, backend.alloc_floats(1)?, backend.alloc_floats(1)?);
            backend.gaussian_evaluate(&op, &x, &x, &x, &mut logp, &mut entropy)
        })?;
        runner.refuses("gaussian_sample", what, |backend| {
            let (x, mut actions, mut logp) = (backend.upload_floats(&[0.0])?, backend.alloc_floats(1)?, backend.alloc_floats(1)?);
            backend.gaussian_sample(&op, &x, &x, &x, 0, &mut actions, &mut logp)
        })?;
        runner.refuses("gaussian_backward", what, |backend| {
            let (x, mut d_mean, mut d_log_std) =
                (backend.upload_floats(&[0.0])?, backend.alloc_floats(1)?, backend.alloc_floats(1)?);
            backend.gaussian_backward(&op, &x, &x, &x, &x, &x, &mut d_mean, &mut d_log_std, 0)
        })?;
        runner.refuses("gaussian_kl", what, |backend| {
            let (x, mut kl) = (backend.upload_floats(&[0.0])?, backend.alloc_floats(1)?);
            backend.gaussian_kl(&op, &x, &x, &x, &x, &mut kl)
        })?;
        runner.refuses("gaussian_kl_backward", what, |backend| {
            let (x, mut d_mean, mut d_log_std) =
                (backend.upload_floats(&[0.0])?, backend.alloc_floats(1)?, backend.alloc_floats(1)?);
            backend.gaussian_kl_backward(&op, KlArgument::P, &x, &x, &x, &x, &x, &mut d_mean, &mut d_log_std)
        })?;
        let op = SquashedGaussian { gaussian: op, low: -1.0, high: 1.0 };
        runner.refuses("squashed_gaussian_evaluate", what, |backend| {
            let x = backend.upload_floats(&[0.0])?;
            let (mut actions, mut log_det, mut logp) =
                (backend.alloc_floats(1)?, backend.alloc_floats(1)?, backend.alloc_floats(1)?);
            backend.squashed_gaussian_evaluate(&op, &x, &x, &x, &mut actions, &mut log_det, &mut logp)
        })?;
        runner.refuses("squashed_gaussian_backward", what, |backend| {
            let (x, mut d_mean, mut d_log_std) =
                (backend.upload_floats(&[0.0])?, backend.alloc_floats(1)?, backend.alloc_floats(1)?);
            backend.squashed_gaussian_backward(&op, true, &x, &x, &x, &x, &mut d_mean, &mut d_log_std)
        })?;
    }
    Ok(())
}
