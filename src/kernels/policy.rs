//! Action distributions: categorical from logits (with optional masks), diagonal Gaussian, tanh-squashed Gaussian.

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

#[cfg(feature = "gpu")]
pub(crate) use binding::*;

#[cfg(feature = "gpu")]
mod binding {
    use crate::kernels::ShaderInfo;

    pub(crate) const SHADERS: &[ShaderInfo] = &[];
}
