//! Fully connected layers: y = act(x·Wᵀ + b) for a batch, and the gradients of that.
//!
//! Weights are `[out, in]` as in `torch.nn.Linear`, and live with their biases in one flat parameter buffer.

/// Elementwise activation functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x
    Identity,
    /// tanh x
    Tanh,
    /// max(x, 0); its derivative at 0 is 0
    Relu,
    /// x for x > 0, else eˣ − 1 (α = 1)
    Elu,
    /// x·σ(x)
    Silu,
    /// x·Φ(x) with the error function
    GeluErf,
    /// The tanh approximation of GELU, 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))
    GeluTanh,
}

impl Activation {
    /// Whether the derivative is computed from the pre-activation; otherwise it is computed from the output.
    pub fn needs_pre_activation(self) -> bool {
        matches!(self, Activation::Silu | Activation::GeluErf | Activation::GeluTanh)
    }
}

/// One layer of a batch: `x [batch, in]`, `W [out, in]`, `b [out]`, `y [batch, out]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Linear {
    /// Rows of `x` and `y`.
    pub batch: usize,
    /// Columns of `x`.
    pub in_features: usize,
    /// Columns of `y`.
    pub out_features: usize,
    /// Where `W` starts in the parameter buffer (and dW in the gradient buffer).
    pub weight_offset: usize,
    /// Where `b` starts in the parameter buffer (and db in the gradient buffer).
    pub bias_offset: usize,
}

#[cfg(feature = "gpu")]
pub(crate) use binding::*;

#[cfg(feature = "gpu")]
mod binding {
    use crate::kernels::ShaderInfo;

    pub(crate) const SHADERS: &[ShaderInfo] = &[];
}
