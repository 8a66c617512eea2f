//! Action distributions: categorical from logits (with optional masks), diagonal Gaussian, tanh-squashed Gaussian.

#[cfg(feature = "gpu")]
mod binding;
mod operands;
pub mod tolerance;

#[cfg(feature = "gpu")]
pub(crate) use binding::*;
pub use operands::*;

/// ½·log 2π.
pub(crate) const HALF_LOG_TWO_PI: f64 = 0.918_938_533_204_672_7;

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

    /// Index of a log-std in its buffer.
    pub(crate) fn log_std_index(&self, row: usize, d: usize) -> usize {
        self.log_std_offset + if self.state_dependent_std { row * self.dim + d } else { d }
    }

    /// Rows that one invocation sums for a log-std shared by the batch, and how many such parts there are: at most 1024, so that both sums stay short.
    pub(crate) fn rows_per_part(&self) -> (usize, usize) {
        let rows = if self.state_dependent_std { 1 } else { self.batch.div_ceil(1024).max(64) };
        (rows, self.batch.div_ceil(rows))
    }
}
