//! The operation of [`kernels::nonfinite`](crate::kernels::nonfinite) on every backend.

#[cfg(feature = "gpu")]
use super::Gpu;
use super::{Cpu, CrossCheck, Memory};
use crate::error::Result;
#[cfg(feature = "gpu")]
use crate::gpu::Buffer;
use crate::kernels::nonfinite::{self as kernels, Watched};
use crate::layout::control::WORDS;
use crate::real::Real;
use crate::reference::nonfinite as reference;

/// Looks for NaN and infinities without a read-back.
pub trait NonfiniteOps: Memory {
    /// If one of the elements of `tensors` is NaN or infinite, and none has been reported yet: sets `control` to STOP =
    /// [`NON_FINITE`](crate::layout::stop::NON_FINITE), BAD_TENSOR = the number of the first tensor in which there is one, BAD_ELEMENT =
    /// its index there, again the first.
    ///
    /// # Errors
    /// A size of zero or 2³² and more; a tensor's number 0; a buffer too small.
    fn find_nonfinite(&mut self, tensors: &[Watched<'_, Self::Floats>], control: &mut Self::Words) -> Result<()>;
}

#[cfg(feature = "gpu")]
impl NonfiniteOps for Gpu {
    fn find_nonfinite(&mut self, tensors: &[Watched<'_, Buffer<f32>>], control: &mut Buffer<u32>) -> Result<()> {
        kernels::record_find_nonfinite(&mut self.context, tensors, control)
    }
}

impl<T: Real> NonfiniteOps for Cpu<T> {
    fn find_nonfinite(&mut self, tensors: &[Watched<'_, Vec<T>>], control: &mut Vec<u32>) -> Result<()> {
        for Watched { tensor, len, x } in tensors {
            kernels::check(*tensor, *len, x.len(), control.len())?;
        }
        for Watched { tensor, len, x } in tensors {
            reference::find_nonfinite(*tensor, &x[..*len], control);
        }
        Ok(())
    }
}

impl<A: NonfiniteOps, B: NonfiniteOps> NonfiniteOps for CrossCheck<A, B> {
    fn find_nonfinite(&mut self, tensors: &[Watched<'_, Self::Floats>], control: &mut Self::Words) -> Result<()> {
        let of_a: Vec<_> = tensors.iter().map(|&Watched { tensor, len, x }| Watched { tensor, len, x: &x.a }).collect();
        let of_b: Vec<_> = tensors.iter().map(|&Watched { tensor, len, x }| Watched { tensor, len, x: &x.b }).collect();
        self.a.find_nonfinite(&of_a, &mut control.a)?;
        self.b.find_nonfinite(&of_b, &mut control.b)?;
        self.compare_words("find_nonfinite", "control", control, 0..WORDS)
    }
}
