//! The operation of [`kernels::nonfinite`](crate::kernels::nonfinite) on every backend.

use super::Memory;
use crate::error::Result;

/// Looks for NaN and infinities without a read-back.
pub trait NonfiniteOps: Memory {
    /// If one of the first `len` elements of `x` is NaN or infinite, and no tensor has been reported yet: sets `control` to STOP =
    /// [`NON_FINITE`](crate::kernels::optimizer::stop::NON_FINITE), BAD_TENSOR = `tensor` (a number of the caller's, not 0), BAD_ELEMENT = index of the first.
    ///
    /// # Errors
    /// A size of zero or 2³² and more; `tensor` 0; a buffer too small.
    fn find_nonfinite(&mut self, tensor: u32, len: usize, x: &Self::Floats, control: &mut Self::Words) -> Result<()>;
}
