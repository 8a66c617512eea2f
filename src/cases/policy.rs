//! Action distributions.

use super::Problem;
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::kernels::policy::{Categorical, Gaussian, KlArgument, SquashedGaussian};

/// A batch of categorical distributions, `logits [batch, actions]`.
pub(super) fn categorical<B: Backend>(problem: &mut Problem<'_, B>) -> Result<()> {
    solve_categorical(problem, false)
}

/// A batch of categorical distributions under `mask [batch, actions]`.
pub(super) fn masked_categorical<B: Backend>(problem: &mut Problem<'_, B>) -> Result<()> {
    solve_categorical(problem, true)
}

fn solve_categorical<B: Backend>(problem: &mut Problem<'_, B>, masked: bool) -> Result<()> {
    let (batch, actions) = (problem.file.size("batch")?, problem.file.size("actions")?);
    let op = Categorical { batch, actions };
    let shape = [batch, actions];
    let logits = problem.input("logits", &shape)?;
    let mask = if masked { Some(problem.flags("mask", &shape)?) } else { None };
    let mask = mask.as_ref();
    let action = problem.indices("action", &[batch], actions)?;
    let n = batch * actions;

    let [mut log_probs, mut probs, mut logsumexp] = [problem.alloc(n)?, problem.alloc(n)?, problem.alloc(batch)?];
    let mut mode = problem.backend.alloc_words(batch)?;
    let Problem { backend, .. } = problem;
    backend.categorical_distribution(&op, &logits, mask, &mut log_probs, &mut probs, &mut logsumexp, &mut mode)?;
    problem.keep("out.logsumexp", &logsumexp)?;
    problem.keep("out.log_probs", &log_probs)?;
    problem.keep("out.probs", &probs)?;
    let mode = problem.backend.read_words(&mode, 0, batch)?;
    problem.keep_values("out.mode", mode.into_iter().map(f64::from).collect());

    let [mut logp, mut entropy] = [problem.alloc(batch)?, problem.alloc(batch)?];
    problem.backend.categorical_evaluate(&op, &logits, mask, &action, &mut logp, &mut entropy)?;
    problem.keep("out.logp", &logp)?;
    problem.keep("out.entropy", &entropy)?;

    let mut d_logits = problem.alloc(n)?;
    if problem.file.wants(&["grad.logits_of_logp", "grad.logits_of_entropy"]) {
        let (w, zeros) = (problem.input("w", &[batch])?, problem.filled(batch, 0.0)?);
        for (name, d_logp, d_entropy) in [("logp", &w, &zeros), ("entropy", &zeros, &w)] {
            problem.backend.categorical_backward(&op, &logits, mask, &action, d_logp, d_entropy, &mut d_logits)?;
            problem.keep(format!("grad.logits_of_{name}"), &d_logits)?;
        }
    }
    let gradients = ["grad.logits_of_kl", "grad.q_logits_of_kl"];
    if problem.file.wants(&["out.kl"]) || problem.file.wants(&gradients) {
        let (q_logits, mut kl) = (problem.input("q_logits", &shape)?, problem.alloc(batch)?);
        problem.backend.categorical_kl(&op, &logits, &q_logits, mask, &mut kl)?;
        problem.keep("out.kl", &kl)?;
        if problem.file.wants(&gradients) {
            let w = problem.input("w", &[batch])?;
            for (name, argument) in gradients.into_iter().zip([KlArgument::P, KlArgument::Q]) {
                problem.backend.categorical_kl_backward(&op, argument, &logits, &q_logits, mask, &w, &mut d_logits)?;
                problem.keep(name, &d_logits)?;
            }
        }
    }
    Ok(())
}

/// A batch of diagonal Gaussians, `mean [batch, dim]`, `logstd [dim]` or `[batch, dim]`.
pub(super) fn diag_gaussian<B: Backend>(problem: &mut Problem<'_, B>) -> Result<()> {
    let file = problem.file;
    let (batch, dim) = (file.size("batch")?, file.size("dim")?);
    let state_dependent_std = file.one_of("logstd_shape", &[("(D,)", false), ("(B,D)", true)])?;
    let op = Gaussian { batch, dim, state_dependent_std, log_std_offset: 0 };
    let wide = [batch, dim];
    let log_std_shape = if state_dependent_std { &wide[..] } else { &wide[1..] };
    let [mean, action] = [problem.input("mean", &wide)?, problem.input("action", &wide)?];
    let log_std = problem.input("logstd", log_std_shape)?;

    let [mut logp, mut entropy] = [problem.alloc(batch)?, problem.alloc(batch)?];
    problem.backend.gaussian_evaluate(&op, &mean, &log_std, &action, &mut logp, &mut entropy)?;
    logp_per_dim(problem, &op, &mean, &action, log_std_shape)?;
    problem.keep("out.logp", &logp)?;
    problem.keep("out.entropy", &entropy)?;

    let [mut d_mean, mut d_log_std] = [problem.alloc(batch * dim)?, problem.alloc(op.log_std_len())?];
    if file.wants(&["grad.mean_of_logp", "grad.logstd_of_logp", "grad.logstd_of_entropy"]) {
        let (w, zeros) = (problem.input("w", &[batch])?, problem.filled(batch, 0.0)?);
        let Problem { backend, .. } = problem;
        backend.gaussian_backward(&op, &mean, &log_std, &action, &w, &zeros, &mut d_mean, &mut d_log_std, 0)?;
        problem.keep("grad.mean_of_logp", &d_mean)?;
        problem.keep("grad.logstd_of_logp", &d_log_std)?;
        let Problem { backend, .. } = problem;
        backend.gaussian_backward(&op, &mean, &log_std, &action, &zeros, &w, &mut d_mean, &mut d_log_std, 0)?;
        problem.keep("grad.logstd_of_entropy", &d_log_std)?;
    }
    let gradients = ["grad.mean_of_kl", "grad.logstd_of_kl", "grad.q_mean_of_kl", "grad.q_logstd_of_kl"];
    if file.wants(&["out.kl"]) || file.wants(&gradients) {
        let (q_mean, q_log_std) = (problem.input("q_mean", &wide)?, problem.input("q_logstd", log_std_shape)?);
        let mut kl = problem.alloc(batch)?;
        problem.backend.gaussian_kl(&op, &mean, &log_std, &q_mean, &q_log_std, &mut kl)?;
        problem.keep("out.kl", &kl)?;
        if file.wants(&gradients) {
            let w = problem.input("w", &[batch])?;
            for (names, argument) in gradients.chunks(2).zip([KlArgument::P, KlArgument::Q]) {
                let Problem { backend, .. } = problem;
                let (to_mean, to_log_std) = (&mut d_mean, &mut d_log_std);
                backend.gaussian_kl_backward(&op, argument, &mean, &log_std, &q_mean, &q_log_std, &w, to_mean, to_log_std)?;
                problem.keep(names[0], &d_mean)?;
                problem.keep(names[1], &d_log_std)?;
            }
        }
    }
    Ok(())
}

/// log N(action; mean, σ) for each dimension: batch·dim one-dimensional distributions.
fn logp_per_dim<B: Backend>(
    problem: &mut Problem<'_, B>,
    op: &Gaussian,
    mean: &B::Floats,
    action: &B::Floats,
    log_std_shape: &[usize],
) -> Result<()> {
    let batch = op.batch * op.dim;
    let log_std = problem.file.f32s("logstd", log_std_shape)?;
    let each: Vec<f32> = log_std.iter().copied().cycle().take(batch).collect();
    let each = problem.backend.upload_floats(&each)?;
    let alone = Gaussian { batch, dim: 1, state_dependent_std: true, log_std_offset: 0 };
    let [mut logp, mut entropy] = [problem.alloc(batch)?, problem.alloc(batch)?];
    problem.backend.gaussian_evaluate(&alone, mean, &each, action, &mut logp, &mut entropy)?;
    problem.keep("out.logp_per_dim", &logp)
}

/// tanh-squashed Gaussians, `mean [batch, dim]`, `logstd [dim]`, of u and of mean + e^logstd·noise.
pub(super) fn tanh_gaussian<B: Backend>(problem: &mut Problem<'_, B>) -> Result<()> {
    let file = problem.file;
    let (batch, dim) = (file.size("batch")?, file.size("dim")?);
    let (low, high) = (file.number("low")?, file.number("high")?);
    let wide = [batch, dim];
    let gaussian = Gaussian { batch, dim, state_dependent_std: false, log_std_offset: 0 };
    let plain = SquashedGaussian { gaussian, low: -1.0, high: 1.0 };
    let [mean, u, log_std] = [problem.input("mean", &wide)?, problem.input("u", &wide)?, problem.input("logstd", &[dim])?];
    let n = batch * dim;
    let [mut moved, mut actions, mut log_det] = [problem.alloc(n)?, problem.alloc(n)?, problem.alloc(n)?];
    let mut logp = problem.alloc(batch)?;

    for (op, suffix) in [(plain, ""), (SquashedGaussian { low, high, ..plain }, "_scaled")] {
        let Problem { backend, .. } = problem;
        backend.squashed_gaussian_evaluate(&op, &mean, &log_std, &u, &mut actions, &mut log_det, &mut logp)?;
        problem.keep(format!("out.action{suffix}"), &actions)?;
        if suffix.is_empty() {
            problem.keep("out.log_det", &log_det)?;
        }
        problem.keep(format!("out.logp{suffix}"), &logp)?;
    }
    if file.wants(&["grad.mean_of_logp", "grad.logstd_of_logp"]) {
        squashed_gradients(problem, &plain, "", false, [&mean, &log_std, &u])?;
    }
    let gradients = ["grad.mean_of_logp_reparam", "grad.logstd_of_logp_reparam"];
    if file.wants(&["out.logp_reparam"]) || file.wants(&gradients) {
        let noise = problem.input("noise", &wide)?;
        problem.backend.gaussian_sample(&gaussian, &mean, &log_std, &noise, 0, &mut moved, &mut logp)?;
        let Problem { backend, .. } = problem;
        backend.squashed_gaussian_evaluate(&plain, &mean, &log_std, &moved, &mut actions, &mut log_det, &mut logp)?;
        problem.keep("out.logp_reparam", &logp)?;
        if file.wants(&gradients) {
            squashed_gradients(problem, &plain, "_reparam", true, [&mean, &log_std, &moved])?;
        }
    }
    Ok(())
}

/// Gradients of Σ w·logp at (mean, log-std, u).
fn squashed_gradients<B: Backend>(
    problem: &mut Problem<'_, B>,
    op: &SquashedGaussian,
    suffix: &str,
    reparameterised: bool,
    [mean, log_std, u]: [&B::Floats; 3],
) -> Result<()> {
    let Gaussian { batch, dim, .. } = op.gaussian;
    let w = problem.input("w", &[batch])?;
    let [mut d_mean, mut d_log_std] = [problem.alloc(batch * dim)?, problem.alloc(dim)?];
    let Problem { backend, .. } = problem;
    backend.squashed_gaussian_backward(op, reparameterised, mean, log_std, u, &w, &mut d_mean, &mut d_log_std)?;
    problem.keep(format!("grad.mean_of_logp{suffix}"), &d_mean)?;
    problem.keep(format!("grad.logstd_of_logp{suffix}"), &d_log_std)
}

/// Parameters of a policy's head on the backend, and actions.
pub(super) enum Head<B: Backend> {
    /// `logits [batch, actions]`, `action [batch]`.
    Categorical { op: Categorical, logits: B::Floats, action: B::Words },
    /// `mean [batch, dim]`, `logstd [dim]`, `action [batch, dim]`.
    Gaussian { op: Gaussian, mean: B::Floats, log_std: B::Floats, action: B::Floats },
}

/// Gradients by parameter name.
pub(super) type HeadGradients = Vec<(&'static str, Vec<f64>)>;

impl<B: Backend> Head<B> {
    /// The head with parameters `in.PREFIX…`, and policy, batch and dim of the file.
    pub(super) fn input(problem: &mut Problem<'_, B>, prefix: &str) -> Result<Self> {
        let file = problem.file;
        let (batch, dim) = (file.size("batch")?, file.size("dim")?);
        let wide = [batch, dim];
        if file.one_of("policy", &[("categorical", true), ("gaussian", false)])? {
            let logits = problem.input(&format!("{prefix}logits"), &wide)?;
            let action = problem.indices("action", &[batch], dim)?;
            return Ok(Head::Categorical { op: Categorical { batch, actions: dim }, logits, action });
        }
        let mean = problem.input(&format!("{prefix}mean"), &wide)?;
        let log_std = problem.input(&format!("{prefix}logstd"), &[dim])?;
        let action = problem.input("action", &wide)?;
        let op = Gaussian { batch, dim, state_dependent_std: false, log_std_offset: 0 };
        Ok(Head::Gaussian { op, mean, log_std, action })
    }

    pub(super) fn batch(&self) -> usize {
        match self {
            Head::Categorical { op, .. } => op.batch,
            Head::Gaussian { op, .. } => op.batch,
        }
    }

    /// logp and entropy, `[batch]` each.
    pub(super) fn evaluate(&self, problem: &mut Problem<'_, B>) -> Result<(B::Floats, B::Floats)> {
        let batch = self.batch();
        let [mut logp, mut entropy] = [problem.alloc(batch)?, problem.alloc(batch)?];
        let Problem { backend, .. } = problem;
        match self {
            Head::Categorical { op, logits, action } => {
                backend.categorical_evaluate(op, logits, None, action, &mut logp, &mut entropy)?;
            }
            Head::Gaussian { op, mean, log_std, action } => {
                backend.gaussian_evaluate(op, mean, log_std, action, &mut logp, &mut entropy)?;
            }
        }
        Ok((logp, entropy))
    }

    /// Gradients of Σ d_logp·logp.
    pub(super) fn backward(&self, problem: &mut Problem<'_, B>, d_logp: &B::Floats) -> Result<HeadGradients> {
        let no_entropy = problem.filled(self.batch(), 0.0)?;
        match self {
            Head::Categorical { op, logits, action } => {
                let mut d_logits = problem.alloc(op.elements())?;
                problem.backend.categorical_backward(op, logits, None, action, d_logp, &no_entropy, &mut d_logits)?;
                Ok(vec![("logits", problem.read(&d_logits)?)])
            }
            Head::Gaussian { op, mean, log_std, action } => {
                let [mut d_mean, mut d_log_std] = [problem.alloc(op.elements())?, problem.alloc(op.dim)?];
                let Problem { backend, .. } = problem;
                backend.gaussian_backward(op, mean, log_std, action, d_logp, &no_entropy, &mut d_mean, &mut d_log_std, 0)?;
                Ok(vec![("mean", problem.read(&d_mean)?), ("logstd", problem.read(&d_log_std)?)])
            }
        }
    }

    /// KL(self ‖ new) `[batch]`, and gradients of Σ d_kl·KL by the parameters of `new`.
    pub(super) fn kl_to(&self, problem: &mut Problem<'_, B>, new: &Self, d_kl: f64) -> Result<(Vec<f64>, HeadGradients)> {
        let batch = self.batch();
        let mut kl = problem.alloc(batch)?;
        let d_kl = problem.filled(batch, d_kl)?;
        let gradients = match (self, new) {
            (Head::Categorical { op, logits: old, .. }, Head::Categorical { logits: new, .. }) => {
                let mut d_logits = problem.alloc(op.elements())?;
                problem.backend.categorical_kl(op, old, new, None, &mut kl)?;
                problem.backend.categorical_kl_backward(op, KlArgument::Q, old, new, None, &d_kl, &mut d_logits)?;
                vec![("logits", problem.read(&d_logits)?)]
            }
            (Head::Gaussian { op, mean: old, log_std: old_std, .. }, Head::Gaussian { mean: new, log_std: new_std, .. }) => {
                let [mut d_mean, mut d_std] = [problem.alloc(op.elements())?, problem.alloc(op.dim)?];
                let Problem { backend, .. } = problem;
                backend.gaussian_kl(op, old, old_std, new, new_std, &mut kl)?;
                backend.gaussian_kl_backward(op, KlArgument::Q, old, old_std, new, new_std, &d_kl, &mut d_mean, &mut d_std)?;
                vec![("mean", problem.read(&d_mean)?), ("logstd", problem.read(&d_std)?)]
            }
            _ => return Err(Error::value("policy", "two heads of the same kind", "a categorical and a Gaussian one")),
        };
        Ok((problem.read(&kl)?, gradients))
    }
}
