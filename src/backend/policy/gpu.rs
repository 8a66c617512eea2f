//! On wgpu.

use super::PolicyOps;
use crate::backend::Gpu;
use crate::error::Result;
use crate::gpu::Buffer;
use crate::kernels::policy::{self as kernels, Categorical, Gaussian, KlArgument, SquashedGaussian};

impl PolicyOps for Gpu {
    fn categorical_distribution(
        &mut self,
        op: &Categorical,
        logits: &Buffer<f32>,
        mask: Option<&Buffer<u32>>,
        log_probs: &mut Buffer<f32>,
        probs: &mut Buffer<f32>,
        logsumexp: &mut Buffer<f32>,
        mode: &mut Buffer<u32>,
    ) -> Result<()> {
        let outputs = [&*log_probs, &*probs, &*logsumexp];
        kernels::record_distribution(&mut self.context, op, logits, mask, outputs, mode)
    }

    fn categorical_evaluate(
        &mut self,
        op: &Categorical,
        logits: &Buffer<f32>,
        mask: Option<&Buffer<u32>>,
        actions: &Buffer<u32>,
        logp: &mut Buffer<f32>,
        entropy: &mut Buffer<f32>,
    ) -> Result<()> {
        kernels::record_evaluate(&mut self.context, op, logits, mask, actions, logp, entropy)
    }

    fn categorical_sample(
        &mut self,
        op: &Categorical,
        logits: &Buffer<f32>,
        mask: Option<&Buffer<u32>>,
        uniforms: &Buffer<f32>,
        offset: usize,
        actions: &mut Buffer<u32>,
        logp: &mut Buffer<f32>,
    ) -> Result<()> {
        kernels::record_sample(&mut self.context, op, logits, mask, uniforms, offset, actions, logp)
    }

    fn categorical_backward(
        &mut self,
        op: &Categorical,
        logits: &Buffer<f32>,
        mask: Option<&Buffer<u32>>,
        actions: &Buffer<u32>,
        d_logp: &Buffer<f32>,
        d_entropy: &Buffer<f32>,
        d_logits: &mut Buffer<f32>,
    ) -> Result<()> {
        kernels::record_backward(&mut self.context, op, logits, mask, actions, [d_logp, d_entropy], d_logits)
    }

    fn categorical_kl(
        &mut self,
        op: &Categorical,
        p_logits: &Buffer<f32>,
        q_logits: &Buffer<f32>,
        mask: Option<&Buffer<u32>>,
        kl: &mut Buffer<f32>,
    ) -> Result<()> {
        kernels::record_kl(&mut self.context, op, [p_logits, q_logits], mask, kl)
    }

    fn categorical_kl_backward(
        &mut self,
        op: &Categorical,
        argument: KlArgument,
        p_logits: &Buffer<f32>,
        q_logits: &Buffer<f32>,
        mask: Option<&Buffer<u32>>,
        d_kl: &Buffer<f32>,
        d_logits: &mut Buffer<f32>,
    ) -> Result<()> {
        kernels::record_kl_backward(&mut self.context, op, argument, [p_logits, q_logits], mask, d_kl, d_logits)
    }

    fn gaussian_evaluate(
        &mut self,
        op: &Gaussian,
        mean: &Buffer<f32>,
        log_std: &Buffer<f32>,
        actions: &Buffer<f32>,
        logp: &mut Buffer<f32>,
        entropy: &mut Buffer<f32>,
    ) -> Result<()> {
        kernels::record_gaussian_evaluate(&mut self.context, op, [mean, log_std, actions], logp, entropy)
    }

    fn gaussian_sample(
        &mut self,
        op: &Gaussian,
        mean: &Buffer<f32>,
        log_std: &Buffer<f32>,
        noise: &Buffer<f32>,
        offset: usize,
        actions: &mut Buffer<f32>,
        logp: &mut Buffer<f32>,
    ) -> Result<()> {
        kernels::record_gaussian_sample(&mut self.context, op, [mean, log_std, noise], offset, actions, logp)
    }

    fn gaussian_backward(
        &mut self,
        op: &Gaussian,
        mean: &Buffer<f32>,
        log_std: &Buffer<f32>,
        actions: &Buffer<f32>,
        d_logp: &Buffer<f32>,
        d_entropy: &Buffer<f32>,
        d_mean: &mut Buffer<f32>,
        d_log_std: &mut Buffer<f32>,
        d_log_std_offset: usize,
    ) -> Result<()> {
        let (inputs, gradients) = ([mean, log_std, actions], [d_logp, d_entropy]);
        let d_log_std = (&*d_log_std, d_log_std_offset);
        kernels::record_gaussian_backward(&mut self.context, op, inputs, gradients, d_mean, d_log_std)
    }

    fn gaussian_kl(
        &mut self,
        op: &Gaussian,
        p_mean: &Buffer<f32>,
        p_log_std: &Buffer<f32>,
        q_mean: &Buffer<f32>,
        q_log_std: &Buffer<f32>,
        kl: &mut Buffer<f32>,
    ) -> Result<()> {
        kernels::record_gaussian_kl(&mut self.context, op, [p_mean, p_log_std, q_mean, q_log_std], kl)
    }

    fn gaussian_kl_backward(
        &mut self,
        op: &Gaussian,
        argument: KlArgument,
        p_mean: &Buffer<f32>,
        p_log_std: &Buffer<f32>,
        q_mean: &Buffer<f32>,
        q_log_std: &Buffer<f32>,
        d_kl: &Buffer<f32>,
        d_mean: &mut Buffer<f32>,
        d_log_std: &mut Buffer<f32>,
    ) -> Result<()> {
        let inputs = [p_mean, p_log_std, q_mean, q_log_std];
        kernels::record_gaussian_kl_backward(&mut self.context, op, argument, inputs, d_kl, d_mean, d_log_std)
    }

    fn squashed_gaussian_evaluate(
        &mut self,
        op: &SquashedGaussian,
        mean: &Buffer<f32>,
        log_std: &Buffer<f32>,
        u: &Buffer<f32>,
        actions: &mut Buffer<f32>,
        log_det: &mut Buffer<f32>,
        logp: &mut Buffer<f32>,
    ) -> Result<()> {
        let outputs = [&*actions, &*log_det];
        kernels::record_squashed_evaluate(&mut self.context, op, [mean, log_std, u], outputs, logp)
    }

    fn squashed_gaussian_backward(
        &mut self,
        op: &SquashedGaussian,
        reparameterised: bool,
        mean: &Buffer<f32>,
        log_std: &Buffer<f32>,
        u: &Buffer<f32>,
        d_logp: &Buffer<f32>,
        d_mean: &mut Buffer<f32>,
        d_log_std: &mut Buffer<f32>,
    ) -> Result<()> {
        let inputs = [mean, log_std, u];
        kernels::record_squashed_backward(&mut self.context, op, reparameterised, inputs, d_logp, d_mean, d_log_std)
    }
}
