//! The operations of [`kernels::policy`](crate::kernels::policy) on every backend.

mod cpu;
mod cross_check;
#[cfg(feature = "gpu")]
mod gpu;

use super::Memory;
use crate::error::Result;
use crate::kernels::policy::{Categorical, Gaussian, KlArgument, SquashedGaussian};

/// Log-probabilities, entropies, KL divergences, samples, and the gradients of all of them.
pub trait PolicyOps: Memory {
    /// All there is to know of each row: `log_probs [batch, actions]` (0 where masked), `probs [batch, actions]`, `logsumexp [batch]`,
    /// and the most likely action `mode [batch]` (the first of equals).
    ///
    /// # Errors
    /// A size of zero or 2³² and more; a buffer too small. On a GPU also more actions or dimensions (524 288, 65 000) than one loop of a
    /// shader may take.
    fn categorical_distribution(
        &mut self,
        op: &Categorical,
        logits: &Self::Floats,
        mask: Option<&Self::Words>,
        log_probs: &mut Self::Floats,
        probs: &mut Self::Floats,
        logsumexp: &mut Self::Floats,
        mode: &mut Self::Words,
    ) -> Result<()>;

    /// `logp [batch]` of the given `actions [batch]` and `entropy [batch]`. An action outside 0..actions gives NaN.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn categorical_evaluate(
        &mut self,
        op: &Categorical,
        logits: &Self::Floats,
        mask: Option<&Self::Words>,
        actions: &Self::Words,
        logp: &mut Self::Floats,
        entropy: &mut Self::Floats,
    ) -> Result<()>;

    /// Draws actions by inverting the cumulative distribution: the first valid action whose cumulative probability exceeds
    /// `uniforms[offset + i]`, which is in [0, 1); what other numbers draw differs between backends. Writes `actions` and `logp` at `offset + i`
    /// too, so that whole rollouts share one buffer.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn categorical_sample(
        &mut self,
        op: &Categorical,
        logits: &Self::Floats,
        mask: Option<&Self::Words>,
        uniforms: &Self::Floats,
        offset: usize,
        actions: &mut Self::Words,
        logp: &mut Self::Floats,
    ) -> Result<()>;

    /// `d_logits [batch, actions]` of Σ d_logp·logp + d_entropy·entropy, with `d_logp` and `d_entropy [batch]`.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn categorical_backward(
        &mut self,
        op: &Categorical,
        logits: &Self::Floats,
        mask: Option<&Self::Words>,
        actions: &Self::Words,
        d_logp: &Self::Floats,
        d_entropy: &Self::Floats,
        d_logits: &mut Self::Floats,
    ) -> Result<()>;

    /// `kl [batch]` = KL(p ‖ q) of two batches of logits under one mask.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn categorical_kl(
        &mut self,
        op: &Categorical,
        p_logits: &Self::Floats,
        q_logits: &Self::Floats,
        mask: Option<&Self::Words>,
        kl: &mut Self::Floats,
    ) -> Result<()>;

    /// Gradient of Σ d_kl·KL(p ‖ q) with respect to the logits of `argument`, `[batch, actions]`.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn categorical_kl_backward(
        &mut self,
        op: &Categorical,
        argument: KlArgument,
        p_logits: &Self::Floats,
        q_logits: &Self::Floats,
        mask: Option<&Self::Words>,
        d_kl: &Self::Floats,
        d_logits: &mut Self::Floats,
    ) -> Result<()>;

    /// `logp [batch]` of `actions [batch, dim]` and `entropy [batch]`, summed over dimensions.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn gaussian_evaluate(
        &mut self,
        op: &Gaussian,
        mean: &Self::Floats,
        log_std: &Self::Floats,
        actions: &Self::Floats,
        logp: &mut Self::Floats,
        entropy: &mut Self::Floats,
    ) -> Result<()>;

    /// actions = mean + e^log_std·noise and their `logp`. `offset` counts rows: `noise` and `actions` (`[.., dim]`) and `logp` are read and
    /// written from row `offset` on; `mean` starts at its row 0.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn gaussian_sample(
        &mut self,
        op: &Gaussian,
        mean: &Self::Floats,
        log_std: &Self::Floats,
        noise: &Self::Floats,
        offset: usize,
        actions: &mut Self::Floats,
        logp: &mut Self::Floats,
    ) -> Result<()>;

    /// `d_mean [batch, dim]` and `d_log_std` (from element `d_log_std_offset` on) of Σ d_logp·logp + d_entropy·entropy.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn gaussian_backward(
        &mut self,
        op: &Gaussian,
        mean: &Self::Floats,
        log_std: &Self::Floats,
        actions: &Self::Floats,
        d_logp: &Self::Floats,
        d_entropy: &Self::Floats,
        d_mean: &mut Self::Floats,
        d_log_std: &mut Self::Floats,
        d_log_std_offset: usize,
    ) -> Result<()>;

    /// `kl [batch]` = KL(p ‖ q), summed over dimensions. Both log-stds have the shape that `op` says.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn gaussian_kl(
        &mut self,
        op: &Gaussian,
        p_mean: &Self::Floats,
        p_log_std: &Self::Floats,
        q_mean: &Self::Floats,
        q_log_std: &Self::Floats,
        kl: &mut Self::Floats,
    ) -> Result<()>;

    /// Gradient of Σ d_kl·KL(p ‖ q) with respect to mean and log-std of `argument`.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn gaussian_kl_backward(
        &mut self,
        op: &Gaussian,
        argument: KlArgument,
        p_mean: &Self::Floats,
        p_log_std: &Self::Floats,
        q_mean: &Self::Floats,
        q_log_std: &Self::Floats,
        d_kl: &Self::Floats,
        d_mean: &mut Self::Floats,
        d_log_std: &mut Self::Floats,
    ) -> Result<()>;

    /// For given u `[batch, dim]`: the scaled `actions [batch, dim]`, `log_det [batch, dim]` = log(1 − tanh²u) of the squashing alone, and
    /// `logp [batch]` of the scaled action: Σ_d log N(u) − log_det − log((high − low)/2).
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn squashed_gaussian_evaluate(
        &mut self,
        op: &SquashedGaussian,
        mean: &Self::Floats,
        log_std: &Self::Floats,
        u: &Self::Floats,
        actions: &mut Self::Floats,
        log_det: &mut Self::Floats,
        logp: &mut Self::Floats,
    ) -> Result<()>;

    /// Gradient of Σ d_logp·logp. With `reparameterised`, u counts as mean + e^log_std·noise and moves with mean and log-std; otherwise it
    /// stands still.
    ///
    /// # Errors
    /// As [`categorical_distribution`](Self::categorical_distribution).
    fn squashed_gaussian_backward(
        &mut self,
        op: &SquashedGaussian,
        reparameterised: bool,
        mean: &Self::Floats,
        log_std: &Self::Floats,
        u: &Self::Floats,
        d_logp: &Self::Floats,
        d_mean: &mut Self::Floats,
        d_log_std: &mut Self::Floats,
    ) -> Result<()>;
}
