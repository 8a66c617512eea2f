//! The operation of [`kernels::nonfinite`](crate::kernels::nonfinite) on every backend.

#[cfg(feature = "gpu")]
use super::Gpu;
use super::{Cpu, CrossCheck, Memory};
use crate::cpu::nonfinite as cpu;
use crate::error::Result;
#[cfg(feature = "gpu")]
use crate::gpu::Buffer;
use crate::kernels::nonfinite::{self as kernels, Unless, Watched};
use crate::layout::control::WORDS;
use crate::reference::nonfinite as reference;
use crate::shape::require_len;

/// Looks for NaN and infinities without a read-back.
pub trait NonfiniteOps: Memory {
    /// If one of the elements of `tensors` is NaN or infinite, and nothing has stopped yet: sets `control` to STOP =
    /// [`NON_FINITE`](crate::layout::stop::NON_FINITE), BAD_TENSOR = the number of the first tensor in which there is one, BAD_ELEMENT =
    /// its index there, again the first.
    ///
    /// # Errors
    /// A size of zero or 2³² and more; a tensor's number 0; a buffer too small.
    fn find_nonfinite(&mut self, tensors: &[Watched<'_, Self::Floats>], control: &mut Self::Words) -> Result<()>;

    /// As [`find_nonfinite`](Self::find_nonfinite) in one tensor, of which elements whose flag in `unless` `[len]` is not 0 may be anything.
    ///
    /// # Errors
    /// As [`find_nonfinite`](Self::find_nonfinite).
    fn find_nonfinite_unless(
        &mut self,
        watched: &Watched<'_, Self::Floats>,
        unless: &Unless<'_, Self::Floats, Self::Words>,
        control: &mut Self::Words,
    ) -> Result<()>;
}

#[cfg(feature = "gpu")]
impl NonfiniteOps for Gpu {
    fn find_nonfinite(&mut self, tensors: &[Watched<'_, Buffer<f32>>], control: &mut Buffer<u32>) -> Result<()> {
        kernels::record_find_nonfinite(&mut self.context, tensors, control)
    }

    fn find_nonfinite_unless(
        &mut self,
        watched: &Watched<'_, Buffer<f32>>,
        unless: &Unless<'_, Buffer<f32>, Buffer<u32>>,
        control: &mut Buffer<u32>,
    ) -> Result<()> {
        kernels::record_find_nonfinite_unless(&mut self.context, watched, unless, control)
    }
}

/// On the host in `$real`, by the functions of `$arithmetic`.
macro_rules! on_the_host {
    ($real:ty, $arithmetic:ident) => {
        impl NonfiniteOps for Cpu<$real> {
            fn find_nonfinite(&mut self, tensors: &[Watched<'_, Vec<$real>>], control: &mut Vec<u32>) -> Result<()> {
                for Watched { tensor, len, x } in tensors {
                    kernels::check(*tensor, *len, x.len(), control.len())?;
                }
                for Watched { tensor, len, x } in tensors {
                    $arithmetic::find_nonfinite(*tensor, &x[..*len], control);
                }
                Ok(())
            }

            fn find_nonfinite_unless(
                &mut self,
                watched: &Watched<'_, Vec<$real>>,
                unless: &Unless<'_, Vec<$real>, Vec<u32>>,
                control: &mut Vec<u32>,
            ) -> Result<()> {
                let &Watched { tensor, len, x } = watched;
                kernels::check(tensor, len, x.len(), control.len())?;
                match unless {
                    Unless::Floats(flags) => {
                        require_len("unless", flags.len(), len)?;
                        $arithmetic::find_nonfinite_unless(tensor, &x[..len], |i| flags[i] != 0.0, control);
                    }
                    Unless::Words(flags) => {
                        require_len("unless", flags.len(), len)?;
                        $arithmetic::find_nonfinite_unless(tensor, &x[..len], |i| flags[i] != 0, control);
                    }
                }
                Ok(())
            }
        }
    };
}
on_the_host!(f32, cpu);
on_the_host!(f64, reference);

impl<A: NonfiniteOps, B: NonfiniteOps> NonfiniteOps for CrossCheck<A, B> {
    fn find_nonfinite(&mut self, tensors: &[Watched<'_, Self::Floats>], control: &mut Self::Words) -> Result<()> {
        let of_a: Vec<_> = tensors.iter().map(|&Watched { tensor, len, x }| Watched { tensor, len, x: &x.a }).collect();
        let of_b: Vec<_> = tensors.iter().map(|&Watched { tensor, len, x }| Watched { tensor, len, x: &x.b }).collect();
        self.a.find_nonfinite(&of_a, &mut control.a)?;
        self.b.find_nonfinite(&of_b, &mut control.b)?;
        self.compare_words("find_nonfinite", "control", control, 0..WORDS)
    }

    fn find_nonfinite_unless(
        &mut self,
        watched: &Watched<'_, Self::Floats>,
        unless: &Unless<'_, Self::Floats, Self::Words>,
        control: &mut Self::Words,
    ) -> Result<()> {
        let &Watched { tensor, len, x } = watched;
        let (of_a, of_b) = match unless {
            Unless::Floats(flags) => (Unless::Floats(&flags.a), Unless::Floats(&flags.b)),
            Unless::Words(flags) => (Unless::Words(&flags.a), Unless::Words(&flags.b)),
        };
        self.a.find_nonfinite_unless(&Watched { tensor, len, x: &x.a }, &of_a, &mut control.a)?;
        self.b.find_nonfinite_unless(&Watched { tensor, len, x: &x.b }, &of_b, &mut control.b)?;
        self.compare_words("find_nonfinite_unless", "control", control, 0..WORDS)
    }
}
