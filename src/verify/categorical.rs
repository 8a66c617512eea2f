//! Cases of the categorical half of [`kernels::policy`](crate::kernels::policy).

use super::runner::Runner;
use crate::backend::PolicyOps;
use crate::error::Result;
use crate::kernels::policy::{Categorical, KlArgument};
use crate::operations::Draw;

/// `[batch, actions]`: around workgroups of 64 and 256 in both directions.
const EDGES: &[[usize; 2]] =
    &[[1, 1], [1, 2], [63, 3], [64, 4], [65, 5], [255, 2], [256, 3], [257, 2], [7, 63], [8, 64], [9, 65], [3, 257], [2, 1025]];
const MOST: [usize; 2] = [1000, 40];

/// Chance that an action is valid where there is a mask. Some rows of few actions then have none.
const VALID: f64 = 0.7;

pub(super) fn cases<B: PolicyOps>(runner: &mut Runner<B>) -> Result<()> {
    for (i, [batch, actions]) in runner.shapes(EDGES, MOST).enumerate() {
        let (op, masked) = (Categorical { batch, actions }, i % 2 == 1);
        let case = format!("batch {batch}, actions {actions}{}", if masked { ", masked" } else { "" });
        runner.case("categorical_distribution", &case, |backend, draw| distribution(backend, &op, masked, draw))?;
        runner.case("categorical_evaluate", &case, |backend, draw| evaluate(backend, &op, masked, draw))?;
        runner.case("categorical_sample", &case, |backend, draw| sample(backend, &op, masked, draw))?;
        runner.case("categorical_backward", &case, |backend, draw| backward(backend, &op, masked, draw))?;
        runner.case("categorical_kl", &case, |backend, draw| kl(backend, &op, masked, draw))?;
        runner.case("categorical_kl_backward", &case, |backend, draw| kl_backward(backend, &op, masked, draw))?;
    }
    refusals(runner)
}

/// Logits of mild or sharp distributions, far from zero now and then, for a softmax does not care.
fn logits<B: PolicyOps>(backend: &mut B, op: &Categorical, draw: &mut Draw) -> Result<B::Floats> {
    let (mean, std) = (draw.one(&[0.0, 0.0, 50.0]), draw.one(&[0.1, 1.0, 5.0]));
    backend.upload_floats(&draw.normal(op.batch * op.actions, mean, std))
}

fn mask<B: PolicyOps>(backend: &mut B, op: &Categorical, masked: bool, draw: &mut Draw) -> Result<Option<B::Words>> {
    let flags = masked.then(|| draw.flags(op.batch * op.actions, VALID));
    flags.map(|flags| backend.upload_words(&flags)).transpose()
}

fn distribution<B: PolicyOps>(backend: &mut B, op: &Categorical, masked: bool, draw: &mut Draw) -> Result<()> {
    let (logits, mask) = (logits(backend, op, draw)?, mask(backend, op, masked, draw)?);
    let n = op.batch * op.actions;
    let (mut log_probs, mut probs) = (backend.alloc_floats(n)?, backend.alloc_floats(n)?);
    let (mut logsumexp, mut mode) = (backend.alloc_floats(op.batch)?, backend.alloc_words(op.batch)?);
    backend.categorical_distribution(op, &logits, mask.as_ref(), &mut log_probs, &mut probs, &mut logsumexp, &mut mode)
}

fn evaluate<B: PolicyOps>(backend: &mut B, op: &Categorical, masked: bool, draw: &mut Draw) -> Result<()> {
    let (logits, mask) = (logits(backend, op, draw)?, mask(backend, op, masked, draw)?);
    let actions = backend.upload_words(&draw.words(op.batch, op.actions))?;
    let (mut logp, mut entropy) = (backend.alloc_floats(op.batch)?, backend.alloc_floats(op.batch)?);
    backend.categorical_evaluate(op, &logits, mask.as_ref(), &actions, &mut logp, &mut entropy)
}

fn sample<B: PolicyOps>(backend: &mut B, op: &Categorical, masked: bool, draw: &mut Draw) -> Result<()> {
    let (logits, mask) = (logits(backend, op, draw)?, mask(backend, op, masked, draw)?);
    let offset = draw.below(5);
    let uniforms = backend.upload_floats(&draw.uniforms(offset + op.batch))?;
    let (mut actions, mut logp) = (backend.alloc_words(offset + op.batch)?, backend.alloc_floats(offset + op.batch)?);
    backend.categorical_sample(op, &logits, mask.as_ref(), &uniforms, offset, &mut actions, &mut logp)
}

fn backward<B: PolicyOps>(backend: &mut B, op: &Categorical, masked: bool, draw: &mut Draw) -> Result<()> {
    let (logits, mask) = (logits(backend, op, draw)?, mask(backend, op, masked, draw)?);
    let actions = backend.upload_words(&draw.words(op.batch, op.actions))?;
    let (d_logp, d_entropy) =
        (backend.upload_floats(&draw.floats(op.batch, 1.0))?, backend.upload_floats(&draw.floats(op.batch, 0.1))?);
    let mut d_logits = backend.alloc_floats(op.batch * op.actions)?;
    backend.categorical_backward(op, &logits, mask.as_ref(), &actions, &d_logp, &d_entropy, &mut d_logits)
}

fn kl<B: PolicyOps>(backend: &mut B, op: &Categorical, masked: bool, draw: &mut Draw) -> Result<()> {
    let (p, q, mask) = (logits(backend, op, draw)?, logits(backend, op, draw)?, mask(backend, op, masked, draw)?);
    let mut kl = backend.alloc_floats(op.batch)?;
    backend.categorical_kl(op, &p, &q, mask.as_ref(), &mut kl)
}

fn kl_backward<B: PolicyOps>(backend: &mut B, op: &Categorical, masked: bool, draw: &mut Draw) -> Result<()> {
    let argument = draw.one(&[KlArgument::P, KlArgument::Q]);
    let (p, q, mask) = (logits(backend, op, draw)?, logits(backend, op, draw)?, mask(backend, op, masked, draw)?);
    let d_kl = backend.upload_floats(&draw.floats(op.batch, 1.0))?;
    let mut d_logits = backend.alloc_floats(op.batch * op.actions)?;
    backend.categorical_kl_backward(op, argument, &p, &q, mask.as_ref(), &d_kl, &mut d_logits)
}

fn refusals<B: PolicyOps>(runner: &mut Runner<B>) -> Result<()> {
    for (what, op) in [("batch 0", Categorical { batch: 0, actions: 1 }), ("actions 0", Categorical { batch: 1, actions: 0 })] {
        runner.refuses("categorical_distribution", what, |backend| {
            let logits = backend.upload_floats(&[0.0])?;
            let (mut log_probs, mut probs) = (backend.alloc_floats(1)?, backend.alloc_floats(1)?);
            let (mut logsumexp, mut mode) = (backend.alloc_floats(1)?, backend.alloc_words(1)?);
            backend.categorical_distribution(&op, &logits, None, &mut log_probs, &mut probs, &mut logsumexp, &mut mode)
        })?;
        runner.refuses("categorical_evaluate", what, |backend| {
            let (logits, actions) = (backend.upload_floats(&[0.0])?, backend.upload_words(&[0])?);
            let (mut logp, mut entropy) = (backend.alloc_floats(1)?, backend.alloc_floats(1)?);
            backend.categorical_evaluate(&op, &logits, None, &actions, &mut logp, &mut entropy)
        })?;
        runner.refuses("categorical_sample", what, |backend| {
            let (logits, uniforms) = (backend.upload_floats(&[0.0])?, backend.upload_floats(&[0.5])?);
            let (mut actions, mut logp) = (backend.alloc_words(1)?, backend.alloc_floats(1)?);
            backend.categorical_sample(&op, &logits, None, &uniforms, 0, &mut actions, &mut logp)
        })?;
        runner.refuses("categorical_backward", what, |backend| {
            let (x, actions, mut d_logits) =
                (backend.upload_floats(&[0.0])?, backend.upload_words(&[0])?, backend.alloc_floats(1)?);
            backend.categorical_backward(&op, &x, None, &actions, &x, &x, &mut d_logits)
        })?;
        runner.refuses("categorical_kl", what, |backend| {
            let (x, mut kl) = (backend.upload_floats(&[0.0])?, backend.alloc_floats(1)?);
            backend.categorical_kl(&op, &x, &x, None, &mut kl)
        })?;
        runner.refuses("categorical_kl_backward", what, |backend| {
            let (x, mut d_logits) = (backend.upload_floats(&[0.0])?, backend.alloc_floats(1)?);
            backend.categorical_kl_backward(&op, KlArgument::P, &x, &x, None, &x, &mut d_logits)
        })?;
    }
    Ok(())
}
