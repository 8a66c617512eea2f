//! The operations of [`kernels::surrogate`](crate::kernels::surrogate) on every backend.

use super::{Memory, PolicyOps};
use crate::error::Result;
use crate::kernels::policy::{Categorical, Gaussian};
use crate::kernels::surrogate::Surrogate;

/// PPO's objective and its gradient.
///
/// `samples [batch, 4]` are packed minibatch rows ([`sample`](crate::kernels::surrogate::sample)); `stats [rows, 16]`
/// ([`stat`](crate::kernels::surrogate::stat)) takes losses, KL estimates and clip fraction in row `op.stats_row`. Gradients are of the
/// mean loss. At an exact clip boundary the unclipped branch counts (as `torch.max` of equal arguments gives half to each, the gradient
/// there is that of the ratio not yet clipped).
pub trait SurrogateOps: PolicyOps {
    /// From log-probabilities, for any distribution: per-sample `terms [batch, 8]` ([`term`](crate::kernels::surrogate::term)),
    /// `d_logp [batch]`, `d_values [batch]`. The entropy enters the loss; its gradient is −ent_coef/batch for every sample.
    ///
    /// # Errors
    /// A size of zero or 2³² and more; a coefficient that is not finite or out of range; a buffer too small.
    fn surrogate(
        &mut self,
        op: &Surrogate,
        logp: &Self::Floats,
        entropy: &Self::Floats,
        values: &Self::Floats,
        samples: &Self::Floats,
        terms: &mut Self::Floats,
        d_logp: &mut Self::Floats,
        d_values: &mut Self::Floats,
        stats: &mut Self::Floats,
    ) -> Result<()>;

    /// The same through a categorical head: `d_logits [batch, actions]` and `d_values [batch]`. This default is the plain composition of
    /// evaluate, [`surrogate`](Self::surrogate) and backward; a backend may fuse it into one kernel.
    ///
    /// # Errors
    /// As [`surrogate`](Self::surrogate); `op.batch` and `policy.batch` have to be equal.
    fn surrogate_categorical(
        &mut self,
        op: &Surrogate,
        policy: &Categorical,
        logits: &Self::Floats,
        mask: Option<&Self::Words>,
        actions: &Self::Words,
        values: &Self::Floats,
        samples: &Self::Floats,
        d_logits: &mut Self::Floats,
        d_values: &mut Self::Floats,
        stats: &mut Self::Floats,
    ) -> Result<()>;

    /// The same through a Gaussian head: `d_mean [batch, dim]`, `d_log_std` from `d_log_std_offset` on, `d_values [batch]`.
    ///
    /// # Errors
    /// As [`surrogate`](Self::surrogate); `op.batch` and `policy.batch` have to be equal.
    fn surrogate_gaussian(
        &mut self,
        op: &Surrogate,
        policy: &Gaussian,
        mean: &Self::Floats,
        log_std: &Self::Floats,
        actions: &Self::Floats,
        values: &Self::Floats,
        samples: &Self::Floats,
        d_mean: &mut Self::Floats,
        d_log_std: &mut Self::Floats,
        d_log_std_offset: usize,
        d_values: &mut Self::Floats,
        stats: &mut Self::Floats,
    ) -> Result<()>;

    /// Sets `control[STOP]` to [`TARGET_KL`](crate::kernels::optimizer::stop::TARGET_KL) if it is 0 and approx_kl (k3) of row `stats_row` is greater
    /// than `threshold`: every optimiser step recorded after it becomes a no-op.
    ///
    /// # Errors
    /// As [`surrogate`](Self::surrogate).
    fn stop_on_kl(&mut self, threshold: f64, stats_row: usize, stats: &Self::Floats, control: &mut Self::Words) -> Result<()>;
}
