//! The operations of [`kernels::optimizer`](crate::kernels::optimizer) on every backend.

use super::Memory;
use crate::error::Result;
use crate::kernels::optimizer::{Adam, GradientNorm};

/// Clipping and the optimiser.
pub trait OptimizerOps: Memory {
    /// ‖g‖₂ over all `op.len` elements into `stats[row, GRAD_NORM]`, min(1, max_grad_norm/(‖g‖ + ε)) into `stats[row, CLIP_COEF]`.
    ///
    /// # Errors
    /// A size of zero or 2³² and more; a limit that is not positive; a buffer too small.
    fn gradient_norm(&mut self, op: &GradientNorm, grads: &Self::Floats, stats: &mut Self::Floats) -> Result<()>;

    /// One step on `params`, `m` and `v`, with the gradient multiplied by `stats[row, CLIP_COEF]`; adds 1 to `control[STEPS_DONE]`. Does nothing at
    /// all where `control[STOP]` is set.
    ///
    /// # Errors
    /// As [`gradient_norm`](Self::gradient_norm).
    fn adam_step(
        &mut self,
        op: &Adam,
        params: &mut Self::Floats,
        grads: &Self::Floats,
        m: &mut Self::Floats,
        v: &mut Self::Floats,
        schedule: &Self::Floats,
        stats: &Self::Floats,
        control: &mut Self::Words,
    ) -> Result<()>;
}
