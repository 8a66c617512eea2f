//! Buffers of the operations by name, and how long each has to be.

use super::{Categorical, Gaussian, SquashedGaussian};
use crate::error::{Error, Result};
use crate::operands::{Length, operands, require_lens};
use crate::shape::{elements, require_finite, require_len, require_size};

operands! {
    /// Operands of [`categorical_distribution`](crate::backend::PolicyOps::categorical_distribution).
    pub struct CategoricalDistributionOperands<F, W> {
        /// `[batch, actions]`.
        logits: Floats,
        /// `[batch, actions]`: 0 where an action is invalid.
        mask: OptionalWords,
        /// `[batch, actions]`, 0 where masked.
        log_probs: FloatsMut,
        /// `[batch, actions]`.
        probs: FloatsMut,
        /// `[batch]`.
        logsumexp: FloatsMut,
        /// `[batch]`: the most likely action, the first of equals.
        mode: WordsMut,
    }
}

operands! {
    /// Operands of [`categorical_evaluate`](crate::backend::PolicyOps::categorical_evaluate).
    pub struct CategoricalEvaluateOperands<F, W> {
        /// `[batch, actions]`.
        logits: Floats,
        /// `[batch, actions]`: 0 where an action is invalid.
        mask: OptionalWords,
        /// `[batch]`: actions taken.
        actions: Words,
        /// `[batch]`: log-probabilities of the actions.
        logp: FloatsMut,
        /// `[batch]`.
        entropy: FloatsMut,
    }
}

operands! {
    /// Operands of [`categorical_sample`](crate::backend::PolicyOps::categorical_sample).
    pub struct CategoricalSampleOperands<F, W> {
        /// `[batch, actions]`.
        logits: Floats,
        /// `[batch, actions]`: 0 where an action is invalid.
        mask: OptionalWords,
        /// In [0, 1), from row `offset` on.
        uniforms: Floats,
        /// First row of the numbers and of the outputs.
        offset: Size,
        /// Actions drawn, from row `offset` on.
        actions: WordsMut,
        /// Their log-probabilities, from row `offset` on.
        logp: FloatsMut,
    }
}

operands! {
    /// Operands of [`categorical_backward`](crate::backend::PolicyOps::categorical_backward).
    pub struct CategoricalBackwardOperands<F, W> {
        /// `[batch, actions]`.
        logits: Floats,
        /// `[batch, actions]`: 0 where an action is invalid.
        mask: OptionalWords,
        /// `[batch]`: actions taken.
        actions: Words,
        /// `[batch]`.
        d_logp: Floats,
        /// `[batch]`.
        d_entropy: Floats,
        /// `[batch, actions]`.
        d_logits: FloatsMut,
    }
}

operands! {
    /// Operands of [`categorical_kl`](crate::backend::PolicyOps::categorical_kl).
    pub struct CategoricalKlOperands<F, W> {
        /// `[batch, actions]` of p.
        p_logits: Floats,
        /// `[batch, actions]` of q.
        q_logits: Floats,
        /// `[batch, actions]`: 0 where an action is invalid.
        mask: OptionalWords,
        /// `[batch]`.
        kl: FloatsMut,
    }
}

operands! {
    /// Operands of [`categorical_kl_backward`](crate::backend::PolicyOps::categorical_kl_backward).
    pub struct CategoricalKlBackwardOperands<F, W> {
        /// `[batch, actions]` of p.
        p_logits: Floats,
        /// `[batch, actions]` of q.
        q_logits: Floats,
        /// `[batch, actions]`: 0 where an action is invalid.
        mask: OptionalWords,
        /// `[batch]`.
        d_kl: Floats,
        /// `[batch, actions]`.
        d_logits: FloatsMut,
    }
}

operands! {
    /// Operands of [`gaussian_evaluate`](crate::backend::PolicyOps::gaussian_evaluate).
    pub struct GaussianEvaluateOperands<F> {
        /// `[batch, dim]`.
        mean: Floats,
        /// As the distribution says.
        log_std: Floats,
        /// `[batch, dim]`: actions taken.
        actions: Floats,
        /// `[batch]`: log-probabilities of the actions.
        logp: FloatsMut,
        /// `[batch]`.
        entropy: FloatsMut,
    }
}

operands! {
    /// Operands of [`gaussian_sample`](crate::backend::PolicyOps::gaussian_sample).
    pub struct GaussianSampleOperands<F> {
        /// `[batch, dim]`.
        mean: Floats,
        /// As the distribution says.
        log_std: Floats,
        /// Standard normal `[.., dim]`, from row `offset` on.
        noise: Floats,
        /// First row of the numbers and of the outputs.
        offset: Size,
        /// Actions drawn `[.., dim]`, from row `offset` on.
        actions: FloatsMut,
        /// Their log-probabilities, from row `offset` on.
        logp: FloatsMut,
    }
}

operands! {
    /// Operands of [`gaussian_backward`](crate::backend::PolicyOps::gaussian_backward).
    pub struct GaussianBackwardOperands<F> {
        /// `[batch, dim]`.
        mean: Floats,
        /// As the distribution says.
        log_std: Floats,
        /// `[batch, dim]`: actions taken.
        actions: Floats,
        /// `[batch]`.
        d_logp: Floats,
        /// `[batch]`.
        d_entropy: Floats,
        /// `[batch, dim]`.
        d_mean: FloatsMut,
        /// In the shape of the log-std, from `d_log_std_offset` on.
        d_log_std: FloatsMut,
        /// First element of that gradient.
        d_log_std_offset: Size,
    }
}

operands! {
    /// Operands of [`gaussian_kl`](crate::backend::PolicyOps::gaussian_kl).
    pub struct GaussianKlOperands<F> {
        /// `[batch, dim]` of p.
        p_mean: Floats,
        /// Of p, as the distribution says.
        p_log_std: Floats,
        /// `[batch, dim]` of q.
        q_mean: Floats,
        /// Of q, as the distribution says.
        q_log_std: Floats,
        /// `[batch]`.
        kl: FloatsMut,
    }
}

operands! {
    /// Operands of [`gaussian_kl_backward`](crate::backend::PolicyOps::gaussian_kl_backward).
    pub struct GaussianKlBackwardOperands<F> {
        /// `[batch, dim]` of p.
        p_mean: Floats,
        /// Of p, as the distribution says.
        p_log_std: Floats,
        /// `[batch, dim]` of q.
        q_mean: Floats,
        /// Of q, as the distribution says.
        q_log_std: Floats,
        /// `[batch]`.
        d_kl: Floats,
        /// `[batch, dim]`.
        d_mean: FloatsMut,
        /// In the shape of the log-std.
        d_log_std: FloatsMut,
    }
}

operands! {
    /// Operands of [`squashed_gaussian_evaluate`](crate::backend::PolicyOps::squashed_gaussian_evaluate).
    pub struct SquashedEvaluateOperands<F> {
        /// `[batch, dim]`.
        mean: Floats,
        /// As the distribution says.
        log_std: Floats,
        /// `[batch, dim]`, before the squashing.
        u: Floats,
        /// `[batch, dim]`, squashed and scaled.
        actions: FloatsMut,
        /// `[batch, dim]`: log(1 − tanh²u).
        log_det: FloatsMut,
        /// `[batch]`: log-probabilities of the actions.
        logp: FloatsMut,
    }
}

operands! {
    /// Operands of [`squashed_gaussian_backward`](crate::backend::PolicyOps::squashed_gaussian_backward).
    pub struct SquashedBackwardOperands<F> {
        /// `[batch, dim]`.
        mean: Floats,
        /// As the distribution says.
        log_std: Floats,
        /// `[batch, dim]`, before the squashing.
        u: Floats,
        /// `[batch]`.
        d_logp: Floats,
        /// `[batch, dim]`.
        d_mean: FloatsMut,
        /// In the shape of the log-std.
        d_log_std: FloatsMut,
    }
}

impl Categorical {
    /// Elements of a tensor `[batch, actions]`, after checks of the sizes and of the mask.
    fn check(&self, mask: Option<&impl Length>) -> Result<usize> {
        require_size("batch", self.batch)?;
        require_size("actions", self.actions)?;
        let n = elements("logits", self.batch, self.actions)?;
        mask.map_or(Ok(()), |mask| require_len("mask", mask.len(), n))?;
        Ok(n)
    }

    pub(crate) fn check_distribution<F: Length, W: Length>(
        &self,
        operands: &CategoricalDistributionOperands<'_, F, W>,
    ) -> Result<()> {
        let n = self.check(operands.mask)?;
        require_lens!(operands, n => logits, log_probs, probs; self.batch => logsumexp, mode);
        Ok(())
    }

    pub(crate) fn check_evaluate<F: Length, W: Length>(&self, operands: &CategoricalEvaluateOperands<'_, F, W>) -> Result<()> {
        let n = self.check(operands.mask)?;
        require_lens!(operands, n => logits; self.batch => actions, logp, entropy);
        Ok(())
    }

    pub(crate) fn check_sample<F: Length, W: Length>(&self, operands: &CategoricalSampleOperands<'_, F, W>) -> Result<()> {
        let n = self.check(operands.mask)?;
        let end = rows_end(self.batch, operands.offset)?;
        require_lens!(operands, n => logits; end => uniforms, actions, logp);
        Ok(())
    }

    pub(crate) fn check_backward<F: Length, W: Length>(&self, operands: &CategoricalBackwardOperands<'_, F, W>) -> Result<()> {
        let n = self.check(operands.mask)?;
        require_lens!(operands, n => logits, d_logits; self.batch => actions, d_logp, d_entropy);
        Ok(())
    }

    pub(crate) fn check_kl<F: Length, W: Length>(&self, operands: &CategoricalKlOperands<'_, F, W>) -> Result<()> {
        let n = self.check(operands.mask)?;
        require_lens!(operands, n => p_logits, q_logits; self.batch => kl);
        Ok(())
    }

    pub(crate) fn check_kl_backward<F: Length, W: Length>(
        &self,
        operands: &CategoricalKlBackwardOperands<'_, F, W>,
    ) -> Result<()> {
        let n = self.check(operands.mask)?;
        require_lens!(operands, n => p_logits, q_logits, d_logits; self.batch => d_kl);
        Ok(())
    }
}

fn rows_end(batch: usize, offset: usize) -> Result<usize> {
    let end = offset.checked_add(batch).filter(|&end| end <= u32::MAX as usize);
    end.ok_or_else(|| Error::shape("offset", "offset + batch below 2^32", offset))
}

impl Gaussian {
    /// Elements of a tensor `[batch, dim]` and the end of the log-std in its buffer, after checks of the sizes.
    fn check(&self) -> Result<(usize, usize)> {
        require_size("batch", self.batch)?;
        require_size("dim", self.dim)?;
        let n = elements("mean", self.batch, self.dim)?;
        Ok((n, self.log_std_end("log_std_offset", self.log_std_offset)?))
    }

    /// The end of a log-std, or of the gradient with respect to it, that starts at `offset`.
    pub(crate) fn log_std_end(&self, name: &str, offset: usize) -> Result<usize> {
        let end = offset.checked_add(self.log_std_len()).filter(|&end| end <= u32::MAX as usize);
        end.ok_or_else(|| Error::shape(name, "an offset inside the buffer", offset))
    }

    pub(crate) fn check_evaluate<F: Length>(&self, operands: &GaussianEvaluateOperands<'_, F>) -> Result<()> {
        let (n, log_std_end) = self.check()?;
        require_lens!(operands, log_std_end => log_std; n => mean, actions; self.batch => logp, entropy);
        Ok(())
    }

    pub(crate) fn check_sample<F: Length>(&self, operands: &GaussianSampleOperands<'_, F>) -> Result<()> {
        let (n, log_std_end) = self.check()?;
        let rows = rows_end(self.batch, operands.offset)?;
        let end = elements("actions", rows, self.dim)?;
        require_lens!(operands, log_std_end => log_std; n => mean; end => noise, actions; rows => logp);
        Ok(())
    }

    pub(crate) fn check_backward<F: Length>(&self, operands: &GaussianBackwardOperands<'_, F>) -> Result<()> {
        let (n, log_std_end) = self.check()?;
        let d_log_std_end = self.log_std_end("d_log_std_offset", operands.d_log_std_offset)?;
        require_lens!(operands, log_std_end => log_std; n => mean, actions, d_mean; self.batch => d_logp, d_entropy);
        require_lens!(operands, d_log_std_end => d_log_std);
        Ok(())
    }

    pub(crate) fn check_kl<F: Length>(&self, operands: &GaussianKlOperands<'_, F>) -> Result<()> {
        let (n, log_std_end) = self.check()?;
        require_lens!(operands, log_std_end => p_log_std, q_log_std; n => p_mean, q_mean; self.batch => kl);
        Ok(())
    }

    pub(crate) fn check_kl_backward<F: Length>(&self, operands: &GaussianKlBackwardOperands<'_, F>) -> Result<()> {
        let (n, log_std_end) = self.check()?;
        require_lens!(operands, log_std_end => p_log_std, q_log_std; n => p_mean, q_mean, d_mean; self.batch => d_kl);
        require_lens!(operands, self.log_std_len() => d_log_std);
        Ok(())
    }
}

impl SquashedGaussian {
    /// As that of the [`Gaussian`], after checks of the interval.
    fn check(&self) -> Result<(usize, usize)> {
        require_finite("low", self.low)?;
        require_finite("high", self.high)?;
        if self.low >= self.high {
            return Err(Error::value("high", format!("more than low = {}", self.low), self.high));
        }
        self.gaussian.check()
    }

    pub(crate) fn check_evaluate<F: Length>(&self, operands: &SquashedEvaluateOperands<'_, F>) -> Result<()> {
        let (n, log_std_end) = self.check()?;
        require_lens!(operands, log_std_end => log_std; n => mean, u, actions, log_det; self.gaussian.batch => logp);
        Ok(())
    }

    pub(crate) fn check_backward<F: Length>(&self, operands: &SquashedBackwardOperands<'_, F>) -> Result<()> {
        let (n, log_std_end) = self.check()?;
        require_lens!(operands, log_std_end => log_std; n => mean, u, d_mean; self.gaussian.batch => d_logp);
        require_lens!(operands, self.gaussian.log_std_len() => d_log_std);
        Ok(())
    }
}
