//! Advantage normalisation and explained variance, with variances that survive means far larger than the spread.

/// How the standard deviation is kept away from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpsilonMode {
    /// (x − μ) / (σ + ε): torch-style code.
    AddToStd,
    /// (x − μ) / √(σ² + ε²).
    AddToVariance,
    /// (x − μ) / max(σ, ε).
    Max,
}

/// Normalisation of one column of a row-major matrix, in place: elements `offset + i·stride`, i < `len`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalize {
    /// Number of values.
    pub len: usize,
    /// First value.
    pub offset: usize,
    /// Distance between values, at least 1.
    pub stride: usize,
    /// 1 divides by len − 1 (torch), 0 by len (numpy, JAX). With one value and ddof 1 the values stay as they are (SB3), std is 0.
    pub ddof: u32,
    /// ε ≥ 0.
    pub epsilon: f64,
    /// Where ε enters.
    pub epsilon_mode: EpsilonMode,
}

#[cfg(feature = "gpu")]
pub(crate) use binding::*;

#[cfg(feature = "gpu")]
mod binding {
    use crate::kernels::ShaderInfo;

    pub(crate) const SHADERS: &[ShaderInfo] = &[];
}
