//! Fully connected layers: y = act(x·Wᵀ + b) for a batch, and the gradients of that.
//!
//! Weights are `[out, in]` as in `torch.nn.Linear`, and live with their biases in one flat parameter buffer.

mod tensor_core;

pub use tensor_core::{Precision, gradient_scale, rounded_magnitudes, tensor_core_tolerance};

#[cfg(feature = "gpu")]
pub(crate) use tensor_core::TensorCores;

use crate::error::{Error, Result};
use crate::operands::{Length, operands};
use crate::shape::{elements, require_len, require_size};
use crate::tolerance::{F32_ROUNDOFF, Tolerance};

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

/// Absolute error of an activation in `f32`, in units of 2⁻²⁴·(1 + |y|). WGSL lets `exp` be wrong by 3 + 2|x| ULP; weighted by the slope with which
/// that enters tanh, the logistic function or Φ it never exceeds 8 units, a few roundings come on top.
const ACTIVATION_ERROR: f64 = 16.0;
/// Absolute error of a derivative, in units of 2⁻²⁴. The worst is that of GELU's tanh form, 1 − t² with t wrong by 8 units, times up to 1.3.
const DERIVATIVE_ERROR: f64 = 64.0;
/// Largest slope of any activation (GELU has 1.13): how much of the pre-activation's error reaches the output.
const STEEPEST: f64 = 1.13;
/// Results below the smallest normal number may be flushed to zero.
const SMALLEST_NORMAL: f64 = 1.2e-38;

/// γ for a sum of `terms` products in any order: each term passes at most `terms` roundings, and two more where it is used
/// (Higham, Accuracy and Stability of Numerical Algorithms, §3.1).
fn gamma(terms: usize) -> f64 {
    (terms as f64 + 2.0) * F32_ROUNDOFF
}

/// The bound for y = act(x·Wᵀ + b): γ times `magnitudes` = |x|·|W|ᵀ + |b|, through the activation's steepest slope, plus the activation's own error.
pub fn forward_tolerance(layer: &Linear, activation: Activation, magnitudes: &[f64], outputs: &[f64]) -> Tolerance {
    let own = if activation == Activation::Identity { 0.0 } else { ACTIVATION_ERROR * F32_ROUNDOFF };
    let bound =
        |(magnitude, y): (&f64, &f64)| STEEPEST * gamma(layer.in_features) * magnitude + own * (1.0 + y.abs()) + SMALLEST_NORMAL;
    Tolerance::PerElement(magnitudes.iter().zip(outputs).map(bound).collect())
}

/// The bound for d_pre = d_y ⊙ act′: the derivative's error times |d_y|.
pub fn activation_backward_tolerance(d_y: &[f64]) -> Tolerance {
    Tolerance::PerElement(d_y.iter().map(|d| DERIVATIVE_ERROR * F32_ROUNDOFF * d.abs() + SMALLEST_NORMAL).collect())
}

/// The bound for d_x = (d_pre·W) ⊙ act′: γ and the derivative's error times `magnitudes` = |d_pre|·|W|.
pub fn backward_input_tolerance(layer: &Linear, magnitudes: &[f64]) -> Tolerance {
    let factor = STEEPEST * gamma(layer.out_features) + DERIVATIVE_ERROR * F32_ROUNDOFF;
    Tolerance::PerElement(magnitudes.iter().map(|m| factor * m + SMALLEST_NORMAL).collect())
}

/// The bound for dW and db: γ times `magnitudes` = |d_pre|ᵀ·|x| and Σ|d_pre|, with the depth that sums in stretches leave.
pub fn backward_params_tolerance(layer: &Linear, magnitudes: &[f64]) -> Tolerance {
    Tolerance::PerElement(magnitudes.iter().map(|m| gamma(layer.terms_over_batch()) * m + SMALLEST_NORMAL).collect())
}

/// Bounds of [`Linear::samples_per_split`]. Long sums lose accuracy and, past 65 535 terms, llvmpipe's patience; short ones cost more where the parts are
/// stored and summed than they save.
const SAMPLES_PER_SPLIT: std::ops::RangeInclusive<usize> = 256..=2048;
/// Tiles of 64×64 outputs, counted once a stretch, that keep a large GPU busy: four for each of its some 130 multiprocessors.
const BUSY: usize = 512;
/// Most stretches that are made for that reason: their parts are summed one after the other.
const MOST_SPLITS: usize = 64;
/// Terms of the longest sum that one invocation makes in the other two products: llvmpipe ends a loop after 65 535 rounds.
const DEEPEST: usize = 65_535;

operands! {
    /// Operands of [`linear_forward`](crate::backend::LinearOps::linear_forward).
    pub struct ForwardOperands<F> {
        /// `[batch, in]`, from `x_offset` on.
        x: Floats,
        /// Where the input starts.
        x_offset: Size,
        /// Weights and biases, at the layer's offsets.
        params: Floats,
        /// `[batch, out]`: takes x·Wᵀ + b, which the backward pass needs for activations that say so.
        pre: OptionalFloatsMut,
        /// `[batch, out]`, from `y_offset` on.
        y: FloatsMut,
        /// Where the output starts.
        y_offset: Size,
    }
}

impl Linear {
    /// Elements of `W`.
    pub fn weights(&self) -> usize {
        self.in_features * self.out_features
    }

    /// Samples of a stretch that is summed by itself for dW and db, a function of the layer's sizes alone: results must not depend on how the
    /// product is shared or where it runs. dW has few elements and a long depth, so the fewer there are, the more stretches make up for it. The parts of
    /// all stretches take some 8 MiB at most, or as much as dW|db once for every 2048 samples.
    pub fn samples_per_split(&self) -> usize {
        let tiles = self.out_features.div_ceil(64).saturating_mul(self.in_features.div_ceil(64)).max(1);
        let splits = BUSY.div_ceil(tiles).min(MOST_SPLITS);
        self.batch.div_ceil(splits).clamp(*SAMPLES_PER_SPLIT.start(), *SAMPLES_PER_SPLIT.end())
    }

    /// Stretches of the batch for dW and db.
    pub(crate) fn splits(&self) -> usize {
        self.batch.div_ceil(self.samples_per_split())
    }

    /// Roundings on the way of a term into a sum over the batch, which is made of stretches.
    pub(crate) fn terms_over_batch(&self) -> usize {
        self.batch.min(self.samples_per_split()) + self.splits()
    }

    fn check_sizes(&self) -> Result<()> {
        for (name, size) in [("batch", self.batch), ("in_features", self.in_features), ("out_features", self.out_features)] {
            require_size(name, size)?;
        }
        for (name, size) in [("in_features", self.in_features), ("out_features", self.out_features)] {
            if size > DEEPEST {
                return Err(Error::shape(name, format!("at most {DEEPEST}"), size));
            }
        }
        elements("x", self.batch, self.in_features)?;
        elements("y", self.batch, self.out_features)?;
        elements("batch", self.splits(), elements("W", self.out_features, self.in_features + 1)?).map(|_| ())
    }

    fn check_params(&self, name: &str, len: usize, with_bias: bool) -> Result<()> {
        let end = |argument: &str, offset: usize, size: usize| {
            offset.checked_add(size).ok_or_else(|| Error::shape(argument, "an offset inside the buffer", offset))
        };
        require_len(name, len, end("weight_offset", self.weight_offset, self.weights())?)?;
        if with_bias { require_len(name, len, end("bias_offset", self.bias_offset, self.out_features)?) } else { Ok(()) }
    }

    /// Checks the buffers of a forward pass.
    pub(crate) fn check_forward<F: Length>(&self, operands: &ForwardOperands<'_, F>) -> Result<()> {
        let ForwardOperands { x, x_offset, params, pre, y, y_offset } = operands;
        let lens = ((x.len(), *x_offset), params.len(), pre.as_ref().map(|pre| pre.len()), (y.len(), *y_offset));
        self.check_forward_lens(lens.0, lens.1, lens.2, lens.3)
    }

    pub(crate) fn check_forward_lens(
        &self,
        x: (usize, usize),
        params: usize,
        pre: Option<usize>,
        y: (usize, usize),
    ) -> Result<()> {
        self.check_sizes()?;
        let end = |argument: &str, offset: usize, size: usize| {
            let end = offset.checked_add(size).filter(|&end| end <= u32::MAX as usize);
            end.ok_or_else(|| Error::shape(argument, "an offset inside the buffer", offset))
        };
        require_len("x", x.0, end("x_offset", x.1, self.batch * self.in_features)?)?;
        require_len("y", y.0, end("y_offset", y.1, self.batch * self.out_features)?)?;
        pre.map_or(Ok(()), |pre| require_len("pre", pre, self.batch * self.out_features))?;
        self.check_params("params", params, true)
    }

    /// Checks the buffers of the gradient with respect to the input.
    pub(crate) fn check_backward_input(&self, d_pre: usize, params: usize, saved: Option<usize>, d_x: usize) -> Result<()> {
        self.check_sizes()?;
        require_len("d_pre", d_pre, self.batch * self.out_features)?;
        saved.map_or(Ok(()), |saved| require_len("saved", saved, self.batch * self.in_features))?;
        require_len("d_x", d_x, self.batch * self.in_features)?;
        self.check_params("params", params, false)
    }

    /// Checks the buffers of the gradients with respect to the parameters.
    pub(crate) fn check_backward_params(&self, d_pre: usize, x: usize, grads: usize) -> Result<()> {
        self.check_sizes()?;
        require_len("d_pre", d_pre, self.batch * self.out_features)?;
        require_len("x", x, self.batch * self.in_features)?;
        self.check_params("grads", grads, true)?;
        let (weights_end, bias_end) = (self.weight_offset + self.weights(), self.bias_offset + self.out_features);
        if self.bias_offset < weights_end && self.weight_offset < bias_end {
            let expected = format!("none of the weights, {} to {}", self.weight_offset, weights_end - 1);
            return Err(Error::shape("bias_offset", expected, self.bias_offset));
        }
        Ok(())
    }
}

/// Checks the buffers of an elementwise operation.
pub(crate) fn check_elementwise(len: usize, buffers: [(&str, usize); 3]) -> Result<()> {
    require_size("len", len)?;
    buffers.iter().try_for_each(|(name, available)| require_len(name, *available, len))
}

#[cfg(feature = "gpu")]
mod binding;
#[cfg(feature = "gpu")]
mod tuning;

#[cfg(feature = "gpu")]
pub use binding::Product;
#[cfg(feature = "gpu")]
pub(crate) use binding::*;
