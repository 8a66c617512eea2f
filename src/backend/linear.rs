//! The operations of [`kernels::linear`](crate::kernels::linear) on every backend.

use super::Memory;
use crate::error::Result;
use crate::kernels::linear::{Activation, Linear};

/// Fully connected layers and their gradients.
pub trait LinearOps: Memory {
    /// y = act(x·Wᵀ + b).
    ///
    /// `x` `[batch, in]` is read from element `x_offset` on, `y` `[batch, out]` written from `y_offset` on. `pre`, if given, takes
    /// x·Wᵀ + b `[batch, out]`, which [`linear_backward_input`](Self::linear_backward_input) needs for activations that say so.
    ///
    /// # Errors
    /// A size of zero or of 2³² and more; a buffer too small; a limit of the adapter.
    fn linear_forward(
        &mut self,
        layer: &Linear,
        activation: Activation,
        x: &Self::Floats,
        x_offset: usize,
        params: &Self::Floats,
        pre: Option<&mut Self::Floats>,
        y: &mut Self::Floats,
        y_offset: usize,
    ) -> Result<()>;

    /// d_pre = d_y ⊙ act′, elementwise over `len` elements. `saved` is the pre-activation where
    /// [`Activation::needs_pre_activation`], else the output y.
    ///
    /// # Errors
    /// As [`linear_forward`](Self::linear_forward).
    fn activation_backward(
        &mut self,
        activation: Activation,
        len: usize,
        saved: &Self::Floats,
        d_y: &Self::Floats,
        d_pre: &mut Self::Floats,
    ) -> Result<()>;

    /// d_x = d_pre·W `[batch, in]`, and with `through` = (activation, saved `[batch, in]`) of the layer below also ⊙ act′: then
    /// `d_x` is that layer's d_pre.
    ///
    /// # Errors
    /// As [`linear_forward`](Self::linear_forward).
    fn linear_backward_input(
        &mut self,
        layer: &Linear,
        d_pre: &Self::Floats,
        params: &Self::Floats,
        through: Option<(Activation, &Self::Floats)>,
        d_x: &mut Self::Floats,
    ) -> Result<()>;

    /// dW = d_preᵀ·x `[out, in]` and db = Σ_batch d_pre `[out]`, written to `grads` at the layer's offsets.
    ///
    /// # Errors
    /// As [`linear_forward`](Self::linear_forward).
    fn linear_backward_params(
        &mut self,
        layer: &Linear,
        d_pre: &Self::Floats,
        x: &Self::Floats,
        grads: &mut Self::Floats,
    ) -> Result<()>;
}
