//! Natively, by the twins.

use super::PolicyOps;
use crate::backend::Cpu;
use crate::error::Result;
use crate::kernels::policy::{Categorical, Gaussian, KlArgument, SquashedGaussian};
use crate::real::Real;
use crate::reference::policy::{categorical, gaussian};

/// A mask's length, and the mask itself as a slice.
fn parts(mask: Option<&Vec<u32>>) -> (Option<usize>, Option<&[u32]>) {
    (mask.map(Vec::len), mask.map(Vec::as_slice))
}

impl<T: Real> PolicyOps for Cpu<T> {
    fn categorical_distribution(
        &mut self,
        op: &Categorical,
        logits: &Vec<T>,
        mask: Option<&Vec<u32>>,
        log_probs: &mut Vec<T>,
        probs: &mut Vec<T>,
        logsumexp: &mut Vec<T>,
        mode: &mut Vec<u32>,
    ) -> Result<()> {
        let (mask_len, mask) = parts(mask);
        let wide = [("logits", logits.len()), ("log_probs", log_probs.len()), ("probs", probs.len())];
        op.check(mask_len, &wide, &[("logsumexp", logsumexp.len()), ("mode", mode.len())])?;
        categorical::distribution(op, logits, mask, log_probs, probs, logsumexp, mode);
        Ok(())
    }

    fn categorical_evaluate(
        &mut self,
        op: &Categorical,
        logits: &Vec<T>,
        mask: Option<&Vec<u32>>,
        actions: &Vec<u32>,
        logp: &mut Vec<T>,
        entropy: &mut Vec<T>,
    ) -> Result<()> {
        let (mask_len, mask) = parts(mask);
        let narrow = [("actions", actions.len()), ("logp", logp.len()), ("entropy", entropy.len())];
        op.check(mask_len, &[("logits", logits.len())], &narrow)?;
        categorical::evaluate(op, logits, mask, actions, logp, entropy);
        Ok(())
    }

    fn categorical_sample(
        &mut self,
        op: &Categorical,
        logits: &Vec<T>,
        mask: Option<&Vec<u32>>,
        uniforms: &Vec<T>,
        offset: usize,
        actions: &mut Vec<u32>,
        logp: &mut Vec<T>,
    ) -> Result<()> {
        let (mask_len, mask) = parts(mask);
        let rows = [("uniforms", uniforms.len()), ("actions", actions.len()), ("logp", logp.len())];
        op.check_sample(mask_len, logits.len(), offset, &rows)?;
        categorical::sample(op, logits, mask, &uniforms[offset..], &mut actions[offset..], &mut logp[offset..]);
        Ok(())
    }

    fn categorical_backward(
        &mut self,
        op: &Categorical,
        logits: &Vec<T>,
        mask: Option<&Vec<u32>>,
        actions: &Vec<u32>,
        d_logp: &Vec<T>,
        d_entropy: &Vec<T>,
        d_logits: &mut Vec<T>,
    ) -> Result<()> {
        let (mask_len, mask) = parts(mask);
        let narrow = [("actions", actions.len()), ("d_logp", d_logp.len()), ("d_entropy", d_entropy.len())];
        op.check(mask_len, &[("logits", logits.len()), ("d_logits", d_logits.len())], &narrow)?;
        categorical::backward(op, logits, mask, actions, d_logp, d_entropy, d_logits);
        Ok(())
    }

    fn categorical_kl(
        &mut self,
        op: &Categorical,
        p_logits: &Vec<T>,
        q_logits: &Vec<T>,
        mask: Option<&Vec<u32>>,
        kl: &mut Vec<T>,
    ) -> Result<()> {
        let (mask_len, mask) = parts(mask);
        let wide = [("p_logits", p_logits.len()), ("q_logits", q_logits.len())];
        op.check(mask_len, &wide, &[("kl", kl.len())])?;
        categorical::kl(op, p_logits, q_logits, mask, kl);
        Ok(())
    }

    fn categorical_kl_backward(
        &mut self,
        op: &Categorical,
        argument: KlArgument,
        p_logits: &Vec<T>,
        q_logits: &Vec<T>,
        mask: Option<&Vec<u32>>,
        d_kl: &Vec<T>,
        d_logits: &mut Vec<T>,
    ) -> Result<()> {
        let (mask_len, mask) = parts(mask);
        let wide = [("p_logits", p_logits.len()), ("q_logits", q_logits.len()), ("d_logits", d_logits.len())];
        op.check(mask_len, &wide, &[("d_kl", d_kl.len())])?;
        categorical::kl_backward(op, argument, p_logits, q_logits, mask, d_kl, d_logits);
        Ok(())
    }

    fn gaussian_evaluate(
        &mut self,
        op: &Gaussian,
        mean: &Vec<T>,
        log_std: &Vec<T>,
        actions: &Vec<T>,
        logp: &mut Vec<T>,
        entropy: &mut Vec<T>,
    ) -> Result<()> {
        let wide = [("mean", mean.len()), ("actions", actions.len())];
        op.check(&[("log_std", log_std.len())], &wide, &[("logp", logp.len()), ("entropy", entropy.len())])?;
        gaussian::evaluate(op, mean, log_std, actions, logp, entropy);
        Ok(())
    }

    fn gaussian_sample(
        &mut self,
        op: &Gaussian,
        mean: &Vec<T>,
        log_std: &Vec<T>,
        noise: &Vec<T>,
        offset: usize,
        actions: &mut Vec<T>,
        logp: &mut Vec<T>,
    ) -> Result<()> {
        let wide = [("noise", noise.len()), ("actions", actions.len())];
        op.check_sample(mean.len(), log_std.len(), offset, &wide, logp.len())?;
        let first = offset * op.dim;
        gaussian::sample(op, mean, log_std, &noise[first..], &mut actions[first..], &mut logp[offset..]);
        Ok(())
    }

    fn gaussian_backward(
        &mut self,
        op: &Gaussian,
        mean: &Vec<T>,
        log_std: &Vec<T>,
        actions: &Vec<T>,
        d_logp: &Vec<T>,
        d_entropy: &Vec<T>,
        d_mean: &mut Vec<T>,
        d_log_std: &mut Vec<T>,
        d_log_std_offset: usize,
    ) -> Result<()> {
        let wide = [("mean", mean.len()), ("actions", actions.len()), ("d_mean", d_mean.len())];
        op.check(&[("log_std", log_std.len())], &wide, &[("d_logp", d_logp.len()), ("d_entropy", d_entropy.len())])?;
        op.check_d_log_std(d_log_std.len(), d_log_std_offset)?;
        let d_log_std = &mut d_log_std[d_log_std_offset..];
        gaussian::backward(op, mean, log_std, actions, d_logp, d_entropy, d_mean, d_log_std);
        Ok(())
    }

    fn gaussian_kl(
        &mut self,
        op: &Gaussian,
        p_mean: &Vec<T>,
        p_log_std: &Vec<T>,
        q_mean: &Vec<T>,
        q_log_std: &Vec<T>,
        kl: &mut Vec<T>,
    ) -> Result<()> {
        let log_stds = [("p_log_std", p_log_std.len()), ("q_log_std", q_log_std.len())];
        op.check(&log_stds, &[("p_mean", p_mean.len()), ("q_mean", q_mean.len())], &[("kl", kl.len())])?;
        gaussian::kl(op, [p_mean, p_log_std, q_mean, q_log_std], kl);
        Ok(())
    }

    fn gaussian_kl_backward(
        &mut self,
        op: &Gaussian,
        argument: KlArgument,
        p_mean: &Vec<T>,
        p_log_std: &Vec<T>,
        q_mean: &Vec<T>,
        q_log_std: &Vec<T>,
        d_kl: &Vec<T>,
        d_mean: &mut Vec<T>,
        d_log_std: &mut Vec<T>,
    ) -> Result<()> {
        let log_stds = [("p_log_std", p_log_std.len()), ("q_log_std", q_log_std.len())];
        let wide = [("p_mean", p_mean.len()), ("q_mean", q_mean.len()), ("d_mean", d_mean.len())];
        op.check(&log_stds, &wide, &[("d_kl", d_kl.len())])?;
        op.check_d_log_std(d_log_std.len(), 0)?;
        gaussian::kl_backward(op, argument, [p_mean, p_log_std, q_mean, q_log_std], d_kl, d_mean, d_log_std);
        Ok(())
    }

    fn squashed_gaussian_evaluate(
        &mut self,
        op: &SquashedGaussian,
        mean: &Vec<T>,
        log_std: &Vec<T>,
        u: &Vec<T>,
        actions: &mut Vec<T>,
        log_det: &mut Vec<T>,
        logp: &mut Vec<T>,
    ) -> Result<()> {
        op.check_interval()?;
        let wide = [("mean", mean.len()), ("u", u.len()), ("actions", actions.len()), ("log_det", log_det.len())];
        op.gaussian.check(&[("log_std", log_std.len())], &wide, &[("logp", logp.len())])?;
        gaussian::squashed_evaluate(op, mean, log_std, u, actions, log_det, logp);
        Ok(())
    }

    fn squashed_gaussian_backward(
        &mut self,
        op: &SquashedGaussian,
        reparameterised: bool,
        mean: &Vec<T>,
        log_std: &Vec<T>,
        u: &Vec<T>,
        d_logp: &Vec<T>,
        d_mean: &mut Vec<T>,
        d_log_std: &mut Vec<T>,
    ) -> Result<()> {
        op.check_interval()?;
        let wide = [("mean", mean.len()), ("u", u.len()), ("d_mean", d_mean.len())];
        op.gaussian.check(&[("log_std", log_std.len())], &wide, &[("d_logp", d_logp.len())])?;
        op.gaussian.check_d_log_std(d_log_std.len(), 0)?;
        gaussian::squashed_backward(op, reparameterised, mean, log_std, u, d_logp, d_mean, d_log_std);
        Ok(())
    }
}
