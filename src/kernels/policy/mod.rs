//! Action distributions: categorical from logits (with optional masks), diagonal Gaussian, tanh-squashed Gaussian.

#[cfg(feature = "gpu")]
mod binding;
pub mod tolerance;

#[cfg(feature = "gpu")]
pub(crate) use binding::*;

use crate::error::{Error, Result};
use crate::shape::{elements, require_finite, require_len, require_size};

/// A batch of categorical distributions given by logits `[batch, actions]`.
///
/// A mask `[batch, actions]` holds 0 for invalid actions: they get probability 0, no part in any sum, and gradient 0. A row without a
/// valid action gives logp, entropy and KL 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Categorical {
    /// Rows.
    pub batch: usize,
    /// Number of actions.
    pub actions: usize,
}

/// A batch of diagonal Gaussians given by `mean [batch, dim]` and `log_std`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gaussian {
    /// Rows.
    pub batch: usize,
    /// Dimensions of an action.
    pub dim: usize,
    /// Whether `log_std` depends on the state, `[batch, dim]`, or is shared by the batch, `[dim]`. The gradient with respect to it has
    /// the same shape.
    pub state_dependent_std: bool,
    /// Where `log_std` starts in its buffer (it may be part of the flat parameter buffer).
    pub log_std_offset: usize,
}

/// A tanh-squashed Gaussian: a = low + (tanh(u) + 1)/2·(high − low) with u from a [`Gaussian`]. `low` = −1, `high` = 1 is plain tanh.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SquashedGaussian {
    /// The distribution of u.
    pub gaussian: Gaussian,
    /// Lower end of every action.
    pub low: f64,
    /// Upper end of every action.
    pub high: f64,
}

/// With respect to which of the two distributions of KL(p ‖ q).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KlArgument {
    /// The first, p.
    P,
    /// The second, q.
    Q,
}

/// Rounds of all loops of one invocation: llvmpipe ends them, wherever they are, when they add up to 65 535.
#[cfg(feature = "gpu")]
const MOST_ROUNDS: usize = 65_000;
/// Actions that one invocation of a shader goes through in one loop. The gradient of a KL divergence takes six such loops.
#[cfg(feature = "gpu")]
const ACTIONS_PER_LANE: usize = 1 << 13;

impl Categorical {
    /// Elements of a tensor `[batch, actions]`.
    pub(crate) fn elements(&self) -> usize {
        self.batch * self.actions
    }

    /// Checks sizes, the mask, and that every named buffer holds `[batch, actions]` or `[batch]`.
    pub(crate) fn check(&self, mask: Option<usize>, wide: &[(&str, usize)], narrow: &[(&str, usize)]) -> Result<()> {
        require_size("batch", self.batch)?;
        require_size("actions", self.actions)?;
        let all = elements("logits", self.batch, self.actions)?;
        mask.map_or(Ok(()), |mask| require_len("mask", mask, all))?;
        wide.iter().try_for_each(|(name, len)| require_len(name, *len, all))?;
        narrow.iter().try_for_each(|(name, len)| require_len(name, *len, self.batch))
    }

    /// Checks the buffers that sampling reads and writes from row `offset` on.
    pub(crate) fn check_sample(&self, mask: Option<usize>, logits: usize, offset: usize, rows: &[(&str, usize)]) -> Result<()> {
        self.check(mask, &[("logits", logits)], &[])?;
        let end = rows_end(self.batch, offset)?;
        rows.iter().try_for_each(|(name, len)| require_len(name, *len, end))
    }
}

fn rows_end(batch: usize, offset: usize) -> Result<usize> {
    let end = offset.checked_add(batch).filter(|&end| end <= u32::MAX as usize);
    end.ok_or_else(|| Error::shape("offset", "offset + batch below 2^32", offset))
}

impl Gaussian {
    /// Elements of a tensor `[batch, dim]`.
    pub(crate) fn elements(&self) -> usize {
        self.batch * self.dim
    }

    /// Elements of log-std and of the gradient with respect to it.
    pub fn log_std_len(&self) -> usize {
        if self.state_dependent_std { self.elements() } else { self.dim }
    }

    /// Checks sizes, the log-stds, and that every named buffer holds `[batch, dim]` or `[batch]`.
    pub(crate) fn check(&self, log_stds: &[(&str, usize)], wide: &[(&str, usize)], narrow: &[(&str, usize)]) -> Result<()> {
        require_size("batch", self.batch)?;
        require_size("dim", self.dim)?;
        let all = elements("mean", self.batch, self.dim)?;
        let end = offset_end("log_std_offset", self.log_std_offset, self.log_std_len())?;
        log_stds.iter().try_for_each(|(name, len)| require_len(name, *len, end))?;
        wide.iter().try_for_each(|(name, len)| require_len(name, *len, all))?;
        narrow.iter().try_for_each(|(name, len)| require_len(name, *len, self.batch))
    }

    /// Checks the buffers that sampling reads and writes from row `offset` on.
    pub(crate) fn check_sample(
        &self,
        mean: usize,
        log_std: usize,
        offset: usize,
        wide: &[(&str, usize)],
        logp: usize,
    ) -> Result<()> {
        self.check(&[("log_std", log_std)], &[("mean", mean)], &[])?;
        let end = rows_end(self.batch, offset)?;
        let wide_end = elements("actions", end, self.dim)?;
        wide.iter().try_for_each(|(name, len)| require_len(name, *len, wide_end))?;
        require_len("logp", logp, end)
    }

    /// Checks the buffer that takes the gradient with respect to log-std.
    pub(crate) fn check_d_log_std(&self, len: usize, offset: usize) -> Result<()> {
        require_len("d_log_std", len, offset_end("d_log_std_offset", offset, self.log_std_len())?)
    }

    /// Rows that one invocation sums for a log-std shared by the batch, and how many such parts there are: at most 1024, so that both sums stay short.
    pub(crate) fn rows_per_part(&self) -> (usize, usize) {
        let rows = if self.state_dependent_std { 1 } else { self.batch.div_ceil(1024).max(64) };
        (rows, self.batch.div_ceil(rows))
    }
}

fn offset_end(name: &str, offset: usize, len: usize) -> Result<usize> {
    let end = offset.checked_add(len).filter(|&end| end <= u32::MAX as usize);
    end.ok_or_else(|| Error::shape(name, "an offset inside the buffer", offset))
}

impl SquashedGaussian {
    /// Checks the ends of the interval.
    pub(crate) fn check_interval(&self) -> Result<()> {
        require_finite("low", self.low)?;
        require_finite("high", self.high)?;
        if self.low < self.high { Ok(()) } else { Err(Error::value("high", format!("more than low = {}", self.low), self.high)) }
    }
}
