//! On two backends, compared.

use super::PolicyOps;
use crate::backend::{CrossCheck, Memory, Pair};
use crate::error::{Error, Result};
use crate::kernels::policy::tolerance::CategoricalBounds;
use crate::kernels::policy::{
    Categorical, CategoricalBackwardOperands, CategoricalDistributionOperands, CategoricalEvaluateOperands,
    CategoricalKlBackwardOperands, CategoricalKlOperands, CategoricalSampleOperands, Gaussian, GaussianBackwardOperands,
    GaussianEvaluateOperands, GaussianKlBackwardOperands, GaussianKlOperands, GaussianSampleOperands, KlArgument,
    SquashedBackwardOperands, SquashedEvaluateOperands, SquashedGaussian,
};
use crate::reference::policy::categorical::Softmax;
use crate::tolerance::Tolerance;

impl<A: PolicyOps, B: PolicyOps> CrossCheck<A, B> {
    /// The reference's numbers: the first `len` elements.
    fn reference(&mut self, buffer: &Pair<A::Floats, B::Floats>, len: usize) -> Result<Vec<f64>> {
        self.b.read_f64(&buffer.b, 0, len)
    }

    fn reference_mask(&mut self, op: &Categorical, mask: Option<&Pair<A::Words, B::Words>>) -> Result<Option<Vec<u32>>> {
        mask.map(|mask| self.b.read_words(&mask.b, 0, op.elements())).transpose()
    }

    fn bounds(
        &mut self,
        op: &Categorical,
        logits: &Pair<A::Floats, B::Floats>,
        mask: Option<&Pair<A::Words, B::Words>>,
    ) -> Result<CategoricalBounds> {
        let logits = self.reference(logits, op.elements())?;
        Ok(op.bounds(&logits, self.reference_mask(op, mask)?.as_deref()))
    }

    /// Mean, log-std and a third tensor of a Gaussian batch as the reference has them. The log-std comes with what lies before it in its buffer.
    fn gaussian_inputs(&mut self, op: &Gaussian, [mean, log_std, x]: [&Pair<A::Floats, B::Floats>; 3]) -> Result<[Vec<f64>; 3]> {
        let log_std_end = op.log_std_offset + op.log_std_len();
        Ok([self.reference(mean, op.elements())?, self.reference(log_std, log_std_end)?, self.reference(x, op.elements())?])
    }

    fn kl_inputs(
        &mut self,
        op: &Gaussian,
        [p_mean, p_log_std, q_mean, q_log_std]: [&Pair<A::Floats, B::Floats>; 4],
    ) -> Result<[Vec<f64>; 4]> {
        let [p_mean, p_log_std, q_mean] = self.gaussian_inputs(op, [p_mean, p_log_std, q_mean])?;
        Ok([p_mean, p_log_std, q_mean, self.reference(q_log_std, op.log_std_offset + op.log_std_len())?])
    }

    /// Drawn actions may differ where the uniform number falls within rounding of the border between two actions; then `B` continues with `A`'s action
    /// and its log-probability. Any other difference is a mismatch.
    fn settle_actions(
        &mut self,
        op: &Categorical,
        bounds: &CategoricalBounds,
        operands: &mut CategoricalSampleOperands<'_, <Self as Memory>::Floats, <Self as Memory>::Words>,
    ) -> Result<()> {
        let CategoricalSampleOperands { logits, mask, uniforms, offset, actions, logp } = operands;
        let offset = *offset;
        let drawn = self.a.read_words(&actions.a, offset, op.batch)?;
        let expected = self.b.read_words(&actions.b, offset, op.batch)?;
        if drawn == expected {
            return self.judge_words("categorical_sample", "actions", offset, &drawn, &expected);
        }
        let logits = self.reference(logits, op.elements())?;
        let mask = self.reference_mask(op, *mask)?;
        let uniforms = self.b.read_f64(&uniforms.b, offset, op.batch)?;
        for (i, (&action, &other)) in drawn.iter().zip(&expected).enumerate().filter(|(_, (a, b))| a != b) {
            let softmax = Softmax::new(op, &logits, mask.as_ref(), i);
            let is_tie = distance_from_stretch(&softmax, action as usize, uniforms[i]) <= bounds.cumulative();
            let settled = softmax.log_p.get(action as usize).copied().flatten().filter(|_| is_tie);
            let Some(settled) = settled else {
                return self.judge_words("categorical_sample", "actions", offset + i, &[action], &[other]);
            };
            self.b.write_f64(&mut logp.b, offset + i, &[settled])?;
        }
        self.b.write_words(&mut actions.b, offset, &drawn)
    }

    fn judge_words(
        &mut self,
        operation: &'static str,
        tensor: &'static str,
        first: usize,
        values: &[u32],
        references: &[u32],
    ) -> Result<()> {
        let wide = |words: &[u32]| words.iter().map(|&w| f64::from(w)).collect::<Vec<_>>();
        self.judge(operation, tensor, first, &wide(values), &wide(references), &Tolerance::Exact)
    }
}

/// Distance of `u` from the stretch of the cumulative distribution that belongs to `action`; infinite for an action that cannot be drawn.
fn distance_from_stretch(softmax: &Softmax, action: usize, u: f64) -> f64 {
    let before: f64 = softmax.p().take(action).sum();
    match softmax.p().nth(action) {
        Some(p) if p > 0.0 => (before - u).max(u - (before + p)).max(0.0),
        _ => f64::INFINITY,
    }
}

/// Fails on an action out of range, whose NaN no comparison could pass.
fn require_actions(op: &Categorical, actions: &[u32]) -> Result<()> {
    match actions.iter().find(|&&a| a as usize >= op.actions) {
        None => Ok(()),
        Some(action) => Err(Error::value("actions", format!("less than {}", op.actions), action)),
    }
}

impl<A: PolicyOps, B: PolicyOps> PolicyOps for CrossCheck<A, B> {
    fn categorical_distribution(
        &mut self,
        op: &Categorical,
        mut operands: CategoricalDistributionOperands<'_, Self::Floats, Self::Words>,
    ) -> Result<()> {
        let (a, b) = operands.sides();
        self.a.categorical_distribution(op, a)?;
        self.b.categorical_distribution(op, b)?;
        let CategoricalDistributionOperands { logits, mask, log_probs, probs, logsumexp, mode } = operands;
        let bounds = self.bounds(op, logits, mask)?;
        self.compare("categorical_distribution", "log_probs", log_probs, 0..op.elements(), &bounds.log_probs())?;
        self.compare("categorical_distribution", "probs", probs, 0..op.elements(), &bounds.probs())?;
        self.compare("categorical_distribution", "logsumexp", logsumexp, 0..op.batch, &bounds.logsumexp())?;
        self.compare_words("categorical_distribution", "mode", mode, 0..op.batch)
    }

    fn categorical_evaluate(
        &mut self,
        op: &Categorical,
        mut operands: CategoricalEvaluateOperands<'_, Self::Floats, Self::Words>,
    ) -> Result<()> {
        let (a, b) = operands.sides();
        self.a.categorical_evaluate(op, a)?;
        self.b.categorical_evaluate(op, b)?;
        let CategoricalEvaluateOperands { logits, mask, actions, logp, entropy } = operands;
        require_actions(op, &self.b.read_words(&actions.b, 0, op.batch)?)?;
        let bounds = self.bounds(op, logits, mask)?;
        self.compare("categorical_evaluate", "logp", logp, 0..op.batch, &bounds.log_probs())?;
        self.compare("categorical_evaluate", "entropy", entropy, 0..op.batch, &bounds.entropies())
    }

    fn categorical_sample(
        &mut self,
        op: &Categorical,
        mut operands: CategoricalSampleOperands<'_, Self::Floats, Self::Words>,
    ) -> Result<()> {
        let (a, b) = operands.sides();
        self.a.categorical_sample(op, a)?;
        self.b.categorical_sample(op, b)?;
        let bounds = self.bounds(op, operands.logits, operands.mask)?;
        self.settle_actions(op, &bounds, &mut operands)?;
        let CategoricalSampleOperands { offset, logp, .. } = operands;
        self.compare("categorical_sample", "logp", logp, offset..offset + op.batch, &bounds.log_probs())
    }

    fn categorical_backward(
        &mut self,
        op: &Categorical,
        mut operands: CategoricalBackwardOperands<'_, Self::Floats, Self::Words>,
    ) -> Result<()> {
        let (a, b) = operands.sides();
        self.a.categorical_backward(op, a)?;
        self.b.categorical_backward(op, b)?;
        let CategoricalBackwardOperands { logits, mask, actions, d_logp, d_entropy, d_logits } = operands;
        require_actions(op, &self.b.read_words(&actions.b, 0, op.batch)?)?;
        let bounds = self.bounds(op, logits, mask)?;
        let (d_logp, d_entropy) = (self.reference(d_logp, op.batch)?, self.reference(d_entropy, op.batch)?);
        let tolerance = bounds.backward(op.actions, &d_logp, &d_entropy);
        self.compare("categorical_backward", "d_logits", d_logits, 0..op.elements(), &tolerance)
    }

    fn categorical_kl(
        &mut self,
        op: &Categorical,
        mut operands: CategoricalKlOperands<'_, Self::Floats, Self::Words>,
    ) -> Result<()> {
        let (a, b) = operands.sides();
        self.a.categorical_kl(op, a)?;
        self.b.categorical_kl(op, b)?;
        let CategoricalKlOperands { p_logits, q_logits, mask, kl } = operands;
        let (p, q) = (self.bounds(op, p_logits, mask)?, self.bounds(op, q_logits, mask)?);
        self.compare("categorical_kl", "kl", kl, 0..op.batch, &p.kl(&q))
    }

    fn categorical_kl_backward(
        &mut self,
        op: &Categorical,
        argument: KlArgument,
        mut operands: CategoricalKlBackwardOperands<'_, Self::Floats, Self::Words>,
    ) -> Result<()> {
        let (a, b) = operands.sides();
        self.a.categorical_kl_backward(op, argument, a)?;
        self.b.categorical_kl_backward(op, argument, b)?;
        let CategoricalKlBackwardOperands { p_logits, q_logits, mask, d_kl, d_logits } = operands;
        let (p, q) = (self.bounds(op, p_logits, mask)?, self.bounds(op, q_logits, mask)?);
        let tolerance = p.kl_backward(&q, op.actions, &self.reference(d_kl, op.batch)?);
        self.compare("categorical_kl_backward", "d_logits", d_logits, 0..op.elements(), &tolerance)
    }

    fn gaussian_evaluate(&mut self, op: &Gaussian, mut operands: GaussianEvaluateOperands<'_, Self::Floats>) -> Result<()> {
        let (a, b) = operands.sides();
        self.a.gaussian_evaluate(op, a)?;
        self.b.gaussian_evaluate(op, b)?;
        let GaussianEvaluateOperands { mean, log_std, actions, logp, entropy } = operands;
        let [mean, log_std, actions] = self.gaussian_inputs(op, [mean, log_std, actions])?;
        self.compare("gaussian_evaluate", "logp", logp, 0..op.batch, &op.logp_tolerance(&mean, &log_std, &actions))?;
        self.compare("gaussian_evaluate", "entropy", entropy, 0..op.batch, &op.entropy_tolerance(&log_std))
    }

    fn gaussian_sample(&mut self, op: &Gaussian, mut operands: GaussianSampleOperands<'_, Self::Floats>) -> Result<()> {
        let (a, b) = operands.sides();
        self.a.gaussian_sample(op, a)?;
        self.b.gaussian_sample(op, b)?;
        let GaussianSampleOperands { mean, log_std, noise, offset, actions, logp } = operands;
        let first = offset * op.dim;
        let (mean, log_std) =
            (self.reference(mean, op.elements())?, self.reference(log_std, op.log_std_offset + op.log_std_len())?);
        let noise = self.b.read_f64(&noise.b, first, op.elements())?;
        let tolerance = op.sample_tolerance(&mean, &log_std, &noise);
        self.compare("gaussian_sample", "actions", actions, first..first + op.elements(), &tolerance)?;
        // The log-density is that of the noise itself, which has no error: a bound for a mean of 0 and x = e^s·noise covers it.
        let scaled = |(i, n): (usize, &f64)| n * log_std[op.log_std_index(i / op.dim, i % op.dim)].exp();
        let x: Vec<f64> = noise.iter().enumerate().map(scaled).collect();
        let tolerance = op.logp_tolerance(&vec![0.0; x.len()], &log_std, &x);
        self.compare("gaussian_sample", "logp", logp, offset..offset + op.batch, &tolerance)
    }

    fn gaussian_backward(&mut self, op: &Gaussian, mut operands: GaussianBackwardOperands<'_, Self::Floats>) -> Result<()> {
        let (a, b) = operands.sides();
        self.a.gaussian_backward(op, a)?;
        self.b.gaussian_backward(op, b)?;
        let GaussianBackwardOperands { mean, log_std, actions, d_logp, d_entropy, d_mean, d_log_std, d_log_std_offset } =
            operands;
        let [mean, log_std, actions] = self.gaussian_inputs(op, [mean, log_std, actions])?;
        let (d_logp, d_entropy) = (self.reference(d_logp, op.batch)?, self.reference(d_entropy, op.batch)?);
        let (to_mean, to_log_std) = op.backward_tolerance(&mean, &log_std, &actions, &d_logp, &d_entropy);
        let end = d_log_std_offset + op.log_std_len();
        self.compare("gaussian_backward", "d_mean", d_mean, 0..op.elements(), &to_mean)?;
        self.compare("gaussian_backward", "d_log_std", d_log_std, d_log_std_offset..end, &to_log_std)
    }

    fn gaussian_kl(&mut self, op: &Gaussian, mut operands: GaussianKlOperands<'_, Self::Floats>) -> Result<()> {
        let (a, b) = operands.sides();
        self.a.gaussian_kl(op, a)?;
        self.b.gaussian_kl(op, b)?;
        let GaussianKlOperands { p_mean, p_log_std, q_mean, q_log_std, kl } = operands;
        let inputs = self.kl_inputs(op, [p_mean, p_log_std, q_mean, q_log_std])?;
        let tolerance = op.kl_tolerance(inputs.each_ref().map(Vec::as_slice));
        self.compare("gaussian_kl", "kl", kl, 0..op.batch, &tolerance)
    }

    fn gaussian_kl_backward(
        &mut self,
        op: &Gaussian,
        argument: KlArgument,
        mut operands: GaussianKlBackwardOperands<'_, Self::Floats>,
    ) -> Result<()> {
        let (a, b) = operands.sides();
        self.a.gaussian_kl_backward(op, argument, a)?;
        self.b.gaussian_kl_backward(op, argument, b)?;
        let GaussianKlBackwardOperands { p_mean, p_log_std, q_mean, q_log_std, d_kl, d_mean, d_log_std } = operands;
        let inputs = self.kl_inputs(op, [p_mean, p_log_std, q_mean, q_log_std])?;
        let d_kl = self.reference(d_kl, op.batch)?;
        let (to_mean, to_log_std) = op.kl_backward_tolerance(inputs.each_ref().map(Vec::as_slice), &d_kl);
        self.compare("gaussian_kl_backward", "d_mean", d_mean, 0..op.elements(), &to_mean)?;
        self.compare("gaussian_kl_backward", "d_log_std", d_log_std, 0..op.log_std_len(), &to_log_std)
    }

    fn squashed_gaussian_evaluate(
        &mut self,
        op: &SquashedGaussian,
        mut operands: SquashedEvaluateOperands<'_, Self::Floats>,
    ) -> Result<()> {
        let (a, b) = operands.sides();
        self.a.squashed_gaussian_evaluate(op, a)?;
        self.b.squashed_gaussian_evaluate(op, b)?;
        let SquashedEvaluateOperands { mean, log_std, u, actions, log_det, logp } = operands;
        let gaussian = &op.gaussian;
        let [mean, log_std, u] = self.gaussian_inputs(gaussian, [mean, log_std, u])?;
        let all = 0..gaussian.elements();
        self.compare("squashed_gaussian_evaluate", "actions", actions, all.clone(), &op.actions_tolerance())?;
        self.compare("squashed_gaussian_evaluate", "log_det", log_det, all, &op.log_det_tolerance(&u))?;
        let tolerance = op.logp_tolerance(&mean, &log_std, &u);
        self.compare("squashed_gaussian_evaluate", "logp", logp, 0..gaussian.batch, &tolerance)
    }

    fn squashed_gaussian_backward(
        &mut self,
        op: &SquashedGaussian,
        reparameterised: bool,
        mut operands: SquashedBackwardOperands<'_, Self::Floats>,
    ) -> Result<()> {
        let (a, b) = operands.sides();
        self.a.squashed_gaussian_backward(op, reparameterised, a)?;
        self.b.squashed_gaussian_backward(op, reparameterised, b)?;
        let SquashedBackwardOperands { mean, log_std, u, d_logp, d_mean, d_log_std } = operands;
        let gaussian = &op.gaussian;
        let [mean, log_std, u] = self.gaussian_inputs(gaussian, [mean, log_std, u])?;
        let d_logp = self.reference(d_logp, gaussian.batch)?;
        let (to_mean, to_log_std) = op.backward_tolerance(reparameterised, &mean, &log_std, &u, &d_logp);
        self.compare("squashed_gaussian_backward", "d_mean", d_mean, 0..gaussian.elements(), &to_mean)?;
        self.compare("squashed_gaussian_backward", "d_log_std", d_log_std, 0..gaussian.log_std_len(), &to_log_std)
    }
}
