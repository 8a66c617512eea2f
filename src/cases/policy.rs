//! Action distributions.

use super::Problem;
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::kernels::policy::*;

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
    let logits = &problem.input("logits", &shape)?;
    let mask = if masked { Some(problem.flags("mask", &shape)?) } else { None };
    let mask = mask.as_ref();
    let actions = &problem.indices("action", &[batch], actions)?;
    let n = op.elements();

    let [log_probs, probs, logsumexp] = &mut [problem.alloc(n)?, problem.alloc(n)?, problem.alloc(batch)?];
    let mode = &mut problem.backend.alloc_words(batch)?;
    let operands = CategoricalDistributionOperands { logits, mask, log_probs, probs, logsumexp, mode };
    problem.backend.categorical_distribution(&op, operands)?;
    problem.keep("out.logsumexp", logsumexp)?;
    problem.keep("out.log_probs", log_probs)?;
    problem.keep("out.probs", probs)?;
    let mode = problem.backend.read_words(mode, 0, batch)?;
    problem.keep_values("out.mode", mode.into_iter().map(f64::from).collect());

    let [logp, entropy] = &mut [problem.alloc(batch)?, problem.alloc(batch)?];
    problem.backend.categorical_evaluate(&op, CategoricalEvaluateOperands { logits, mask, actions, logp, entropy })?;
    problem.keep("out.logp", logp)?;
    problem.keep("out.entropy", entropy)?;

    let d_logits = &mut problem.alloc(n)?;
    if problem.file.wants(&["grad.logits_of_logp", "grad.logits_of_entropy"]) {
        let (w, zeros) = (problem.input("w", &[batch])?, problem.filled(batch, 0.0)?);
        for (name, d_logp, d_entropy) in [("logp", &w, &zeros), ("entropy", &zeros, &w)] {
            let operands = CategoricalBackwardOperands { logits, mask, actions, d_logp, d_entropy, d_logits };
            problem.backend.categorical_backward(&op, operands)?;
            problem.keep(format!("grad.logits_of_{name}"), d_logits)?;
        }
    }
    let gradients = ["grad.logits_of_kl", "grad.q_logits_of_kl"];
    if problem.file.wants(&["out.kl"]) || problem.file.wants(&gradients) {
        let (p_logits, q_logits, kl) = (logits, &problem.input("q_logits", &shape)?, &mut problem.alloc(batch)?);
        problem.backend.categorical_kl(&op, CategoricalKlOperands { p_logits, q_logits, mask, kl })?;
        problem.keep("out.kl", kl)?;
        if problem.file.wants(&gradients) {
            let d_kl = &problem.input("w", &[batch])?;
            for (name, argument) in gradients.into_iter().zip([KlArgument::P, KlArgument::Q]) {
                let operands = CategoricalKlBackwardOperands { p_logits, q_logits, mask, d_kl, d_logits };
                problem.backend.categorical_kl_backward(&op, argument, operands)?;
                problem.keep(name, d_logits)?;
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
    let [mean, actions] = &[problem.input("mean", &wide)?, problem.input("action", &wide)?];
    let log_std = &problem.input("logstd", log_std_shape)?;

    let [logp, entropy] = &mut [problem.alloc(batch)?, problem.alloc(batch)?];
    problem.backend.gaussian_evaluate(&op, GaussianEvaluateOperands { mean, log_std, actions, logp, entropy })?;
    logp_per_dim(problem, &op, mean, actions, log_std_shape)?;
    problem.keep("out.logp", logp)?;
    problem.keep("out.entropy", entropy)?;

    let [d_mean, d_log_std] = &mut [problem.alloc(batch * dim)?, problem.alloc(op.log_std_len())?];
    if file.wants(&["grad.mean_of_logp", "grad.logstd_of_logp", "grad.logstd_of_entropy"]) {
        let (w, zeros) = (problem.input("w", &[batch])?, problem.filled(batch, 0.0)?);
        let d_log_std_offset = 0;
        for (name, d_logp, d_entropy) in [("logp", &w, &zeros), ("entropy", &zeros, &w)] {
            let operands =
                GaussianBackwardOperands { mean, log_std, actions, d_logp, d_entropy, d_mean, d_log_std, d_log_std_offset };
            problem.backend.gaussian_backward(&op, operands)?;
            if name == "logp" {
                problem.keep("grad.mean_of_logp", d_mean)?;
            }
            problem.keep(format!("grad.logstd_of_{name}"), d_log_std)?;
        }
    }
    let gradients = ["grad.mean_of_kl", "grad.logstd_of_kl", "grad.q_mean_of_kl", "grad.q_logstd_of_kl"];
    if file.wants(&["out.kl"]) || file.wants(&gradients) {
        let (q_mean, q_log_std) = (&problem.input("q_mean", &wide)?, &problem.input("q_logstd", log_std_shape)?);
        let (p_mean, p_log_std, kl) = (mean, log_std, &mut problem.alloc(batch)?);
        problem.backend.gaussian_kl(&op, GaussianKlOperands { p_mean, p_log_std, q_mean, q_log_std, kl })?;
        problem.keep("out.kl", kl)?;
        if file.wants(&gradients) {
            let d_kl = &problem.input("w", &[batch])?;
            for (names, argument) in gradients.chunks(2).zip([KlArgument::P, KlArgument::Q]) {
                let operands = GaussianKlBackwardOperands { p_mean, p_log_std, q_mean, q_log_std, d_kl, d_mean, d_log_std };
                problem.backend.gaussian_kl_backward(&op, argument, operands)?;
                problem.keep(names[0], d_mean)?;
                problem.keep(names[1], d_log_std)?;
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
    actions: &B::Floats,
    log_std_shape: &[usize],
) -> Result<()> {
    let batch = op.batch * op.dim;
    let log_std = problem.file.f32s("logstd", log_std_shape)?;
    let each: Vec<f32> = log_std.iter().copied().cycle().take(batch).collect();
    let log_std = &problem.backend.upload_floats(&each)?;
    let alone = Gaussian { batch, dim: 1, state_dependent_std: true, log_std_offset: 0 };
    let [logp, entropy] = &mut [problem.alloc(batch)?, problem.alloc(batch)?];
    problem.backend.gaussian_evaluate(&alone, GaussianEvaluateOperands { mean, log_std, actions, logp, entropy })?;
    problem.keep("out.logp_per_dim", logp)
}

/// tanh-squashed Gaussians, `mean [batch, dim]`, `logstd [dim]`, of u and of mean + e^logstd·noise.
pub(super) fn tanh_gaussian<B: Backend>(problem: &mut Problem<'_, B>) -> Result<()> {
    let file = problem.file;
    let (batch, dim) = (file.size("batch")?, file.size("dim")?);
    let (low, high) = (file.number("low")?, file.number("high")?);
    let wide = [batch, dim];
    let gaussian = Gaussian { batch, dim, state_dependent_std: false, log_std_offset: 0 };
    let plain = SquashedGaussian { gaussian, low: -1.0, high: 1.0 };
    let [mean, u, log_std] = &[problem.input("mean", &wide)?, problem.input("u", &wide)?, problem.input("logstd", &[dim])?];
    let n = batch * dim;
    let [moved, actions, log_det] = &mut [problem.alloc(n)?, problem.alloc(n)?, problem.alloc(n)?];
    let logp = &mut problem.alloc(batch)?;

    for (op, suffix) in [(plain, ""), (SquashedGaussian { low, high, ..plain }, "_scaled")] {
        let operands = SquashedEvaluateOperands { mean, log_std, u, actions, log_det, logp };
        problem.backend.squashed_gaussian_evaluate(&op, operands)?;
        problem.keep(format!("out.action{suffix}"), actions)?;
        if suffix.is_empty() {
            problem.keep("out.log_det", log_det)?;
        }
        problem.keep(format!("out.logp{suffix}"), logp)?;
    }
    if file.wants(&["grad.mean_of_logp", "grad.logstd_of_logp"]) {
        squashed_gradients(problem, &plain, "", false, [mean, log_std, u])?;
    }
    let gradients = ["grad.mean_of_logp_reparam", "grad.logstd_of_logp_reparam"];
    if file.wants(&["out.logp_reparam"]) || file.wants(&gradients) {
        let noise = &problem.input("noise", &wide)?;
        let operands = GaussianSampleOperands { mean, log_std, noise, offset: 0, actions: moved, logp };
        problem.backend.gaussian_sample(&gaussian, operands)?;
        let operands = SquashedEvaluateOperands { mean, log_std, u: moved, actions, log_det, logp };
        problem.backend.squashed_gaussian_evaluate(&plain, operands)?;
        problem.keep("out.logp_reparam", logp)?;
        if file.wants(&gradients) {
            squashed_gradients(problem, &plain, "_reparam", true, [mean, log_std, moved])?;
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
    let d_logp = &problem.input("w", &[batch])?;
    let [d_mean, d_log_std] = &mut [problem.alloc(batch * dim)?, problem.alloc(dim)?];
    let operands = SquashedBackwardOperands { mean, log_std, u, d_logp, d_mean, d_log_std };
    problem.backend.squashed_gaussian_backward(op, reparameterised, operands)?;
    problem.keep(format!("grad.mean_of_logp{suffix}"), d_mean)?;
    problem.keep(format!("grad.logstd_of_logp{suffix}"), d_log_std)
}

/// Parameters of a policy's head on the backend, and actions.
pub(super) enum Head<B: Backend> {
    /// `logits [batch, actions]`, `action [batch]`.
    Categorical { op: Categorical, logits: B::Floats, actions: B::Words },
    /// `mean [batch, dim]`, `logstd [dim]`, `action [batch, dim]`.
    Gaussian { op: Gaussian, mean: B::Floats, log_std: B::Floats, actions: B::Floats },
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
            let actions = problem.indices("action", &[batch], dim)?;
            return Ok(Head::Categorical { op: Categorical { batch, actions: dim }, logits, actions });
        }
        let mean = problem.input(&format!("{prefix}mean"), &wide)?;
        let log_std = problem.input(&format!("{prefix}logstd"), &[dim])?;
        let actions = problem.input("action", &wide)?;
        let op = Gaussian { batch, dim, state_dependent_std: false, log_std_offset: 0 };
        Ok(Head::Gaussian { op, mean, log_std, actions })
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
        let (backend, mask) = (&mut *problem.backend, None);
        match (self, &mut logp, &mut entropy) {
            (Head::Categorical { op, logits, actions }, logp, entropy) => {
                backend.categorical_evaluate(op, CategoricalEvaluateOperands { logits, mask, actions, logp, entropy })?;
            }
            (Head::Gaussian { op, mean, log_std, actions }, logp, entropy) => {
                backend.gaussian_evaluate(op, GaussianEvaluateOperands { mean, log_std, actions, logp, entropy })?;
            }
        }
        Ok((logp, entropy))
    }

    /// Gradients of Σ d_logp·logp.
    pub(super) fn backward(&self, problem: &mut Problem<'_, B>, d_logp: &B::Floats) -> Result<HeadGradients> {
        let d_entropy = &problem.filled(self.batch(), 0.0)?;
        match self {
            Head::Categorical { op, logits, actions } => {
                let (mask, d_logits) = (None, &mut problem.alloc(op.elements())?);
                let operands = CategoricalBackwardOperands { logits, mask, actions, d_logp, d_entropy, d_logits };
                problem.backend.categorical_backward(op, operands)?;
                Ok(vec![("logits", problem.read(d_logits)?)])
            }
            Head::Gaussian { op, mean, log_std, actions } => {
                let [d_mean, d_log_std] = &mut [problem.alloc(op.elements())?, problem.alloc(op.dim)?];
                let d_log_std_offset = 0;
                let operands =
                    GaussianBackwardOperands { mean, log_std, actions, d_logp, d_entropy, d_mean, d_log_std, d_log_std_offset };
                problem.backend.gaussian_backward(op, operands)?;
                Ok(vec![("mean", problem.read(d_mean)?), ("logstd", problem.read(d_log_std)?)])
            }
        }
    }

    /// KL(self ‖ new) `[batch]`, and gradients of Σ d_kl·KL by the parameters of `new`.
    pub(super) fn kl_to(&self, problem: &mut Problem<'_, B>, new: &Self, d_kl: f64) -> Result<(Vec<f64>, HeadGradients)> {
        let batch = self.batch();
        let (kl, d_kl) = (&mut problem.alloc(batch)?, &problem.filled(batch, d_kl)?);
        let gradients = match (self, new) {
            (Head::Categorical { op, logits: p_logits, .. }, Head::Categorical { logits: q_logits, .. }) => {
                let (mask, d_logits) = (None, &mut problem.alloc(op.elements())?);
                problem.backend.categorical_kl(op, CategoricalKlOperands { p_logits, q_logits, mask, kl })?;
                let operands = CategoricalKlBackwardOperands { p_logits, q_logits, mask, d_kl, d_logits };
                problem.backend.categorical_kl_backward(op, KlArgument::Q, operands)?;
                vec![("logits", problem.read(d_logits)?)]
            }
            (
                Head::Gaussian { op, mean: p_mean, log_std: p_log_std, .. },
                Head::Gaussian { mean: q_mean, log_std: q_log_std, .. },
            ) => {
                let [d_mean, d_log_std] = &mut [problem.alloc(op.elements())?, problem.alloc(op.dim)?];
                problem.backend.gaussian_kl(op, GaussianKlOperands { p_mean, p_log_std, q_mean, q_log_std, kl })?;
                let operands = GaussianKlBackwardOperands { p_mean, p_log_std, q_mean, q_log_std, d_kl, d_mean, d_log_std };
                problem.backend.gaussian_kl_backward(op, KlArgument::Q, operands)?;
                vec![("mean", problem.read(d_mean)?), ("logstd", problem.read(d_log_std)?)]
            }
            _ => return Err(Error::value("policy", "two heads of the same kind", "a categorical and a Gaussian one")),
        };
        Ok((problem.read(kl)?, gradients))
    }
}
