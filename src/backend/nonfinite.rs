//! The operation of [`kernels::nonfinite`](crate::kernels::nonfinite) on every backend.

#[cfg(feature = "gpu")]
use super::Gpu;
use super::{Cpu, CrossCheck, Memory};
use crate::error::Result;
#[cfg(feature = "gpu")]
use crate::gpu::Buffer;
use crate::kernels::nonfinite as kernels;
use crate::kernels::optimizer::control::WORDS;
use crate::real::Real;
use crate::reference::nonfinite as reference;

/// Looks for NaN and infinities without a read-back.
pub trait NonfiniteOps: Memory {
    /// If one of the first `len` elements of `x` is NaN or infinite, and no tensor has been reported yet: sets `control` to STOP =
    /// [`NON_FINITE`](crate::kernels::optimizer::stop::NON_FINITE), BAD_TENSOR = `tensor` (a number of the caller's, not 0), BAD_ELEMENT = index of the first.
    ///
    /// # Errors
    /// A size of zero or 2³² and more; `tensor` 0; a buffer too small.
    fn find_nonfinite(&mut self, tensor: u32, len: usize, x: &Self::Floats, control: &mut Self::Words) -> Result<()>;
}

#[cfg(feature = "gpu")]
impl NonfiniteOps for Gpu {
    fn find_nonfinite(&mut self, tensor: u32, len: usize, x: &Buffer<f32>, control: &mut Buffer<u32>) -> Result<()> {
        kernels::record_find_nonfinite(&mut self.context, tensor, len, x, control)
    }
}

impl<T: Real> NonfiniteOps for Cpu<T> {
    fn find_nonfinite(&mut self, tensor: u32, len: usize, x: &Vec<T>, control: &mut Vec<u32>) -> Result<()> {
        kernels::check(tensor, len, x.len(), control.len())?;
        reference::find_nonfinite(tensor, &x[..len], control);
        Ok(())
    }
}

impl<A: NonfiniteOps, B: NonfiniteOps> NonfiniteOps for CrossCheck<A, B> {
    fn find_nonfinite(&mut self, tensor: u32, len: usize, x: &Self::Floats, control: &mut Self::Words) -> Result<()> {
        self.a.find_nonfinite(tensor, len, &x.a, &mut control.a)?;
        self.b.find_nonfinite(tensor, len, &x.b, &mut control.b)?;
        self.compare_words("find_nonfinite", "control", control, 0..WORDS)
    }
}
