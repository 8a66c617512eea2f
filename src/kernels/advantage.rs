//! Advantages and returns over a rollout `[T, N]`, time-major: reverse scans of affine maps.

/// Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438, eq. 16).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gae {
    /// T, steps.
    pub steps: usize,
    /// N, environments.
    pub envs: usize,
    /// Discount γ in [0, 1].
    pub gamma: f64,
    /// λ in [0, 1].
    pub gae_lambda: f64,
}

/// Discounted sums of rewards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DiscountedReturns {
    /// T, steps.
    pub steps: usize,
    /// N, environments.
    pub envs: usize,
    /// Discount γ in [0, 1].
    pub gamma: f64,
}

#[cfg(feature = "gpu")]
pub(crate) use binding::*;

#[cfg(feature = "gpu")]
mod binding {
    use crate::kernels::ShaderInfo;

    pub(crate) const SHADERS: &[ShaderInfo] = &[];
}
