//! The operations of [`kernels::gather`](crate::kernels::gather) on every backend.

#[cfg(feature = "gpu")]
use super::Gpu;
use super::{Cpu, CrossCheck, Memory};
use crate::cpu::gather as cpu;
use crate::error::Result;
#[cfg(feature = "gpu")]
use crate::gpu::Buffer;
#[cfg(feature = "gpu")]
use crate::kernels::gather as kernels;
use crate::kernels::gather::{Gather, SamplesOperands};
use crate::layout::sample;
use crate::reference::gather as reference;

/// Minibatches by an index buffer.
pub trait GatherOps: Memory {
    /// target[i, :] = source[indices[start + i], :].
    ///
    /// # Errors
    /// A size of zero or 2³² and more; a buffer too small. An index beyond the source's rows is clamped to the last row.
    fn gather_floats(
        &mut self,
        op: &Gather,
        source: &Self::Floats,
        indices: &Self::Words,
        target: &mut Self::Floats,
    ) -> Result<()>;

    /// As [`gather_floats`](Self::gather_floats).
    ///
    /// # Errors
    /// The same.
    fn gather_words(&mut self, op: &Gather, source: &Self::Words, indices: &Self::Words, target: &mut Self::Words) -> Result<()>;

    /// Packs four columns `[rows]` into `samples [count, 4]` ([`sample`](crate::layout::sample)) in one go. `op.width` is 1.
    ///
    /// # Errors
    /// The same.
    fn gather_samples(&mut self, op: &Gather, operands: SamplesOperands<'_, Self::Floats, Self::Words>) -> Result<()>;
}

#[cfg(feature = "gpu")]
impl GatherOps for Gpu {
    fn gather_floats(
        &mut self,
        op: &Gather,
        source: &Buffer<f32>,
        indices: &Buffer<u32>,
        target: &mut Buffer<f32>,
    ) -> Result<()> {
        kernels::record_rows(&mut self.context, op, &source.cast(), indices, &target.cast())
    }

    fn gather_words(&mut self, op: &Gather, source: &Buffer<u32>, indices: &Buffer<u32>, target: &mut Buffer<u32>) -> Result<()> {
        kernels::record_rows(&mut self.context, op, source, indices, target)
    }

    fn gather_samples(&mut self, op: &Gather, operands: SamplesOperands<'_, Buffer<f32>, Buffer<u32>>) -> Result<()> {
        kernels::record_pack_samples(&mut self.context, op, &operands)
    }
}

/// On the host in `$real`, by the functions of `$arithmetic`.
macro_rules! on_the_host {
    ($real:ty, $arithmetic:ident) => {
        impl GatherOps for Cpu<$real> {
            fn gather_floats(
                &mut self,
                op: &Gather,
                source: &Vec<$real>,
                indices: &Vec<u32>,
                target: &mut Vec<$real>,
            ) -> Result<()> {
                op.check_rows(source.len(), indices.len(), target.len())?;
                $arithmetic::rows(op, source, indices, target);
                Ok(())
            }

            fn gather_words(&mut self, op: &Gather, source: &Vec<u32>, indices: &Vec<u32>, target: &mut Vec<u32>) -> Result<()> {
                op.check_rows(source.len(), indices.len(), target.len())?;
                $arithmetic::rows(op, source, indices, target);
                Ok(())
            }

            fn gather_samples(&mut self, op: &Gather, operands: SamplesOperands<'_, Vec<$real>, Vec<u32>>) -> Result<()> {
                op.check_samples(&operands)?;
                $arithmetic::pack_samples(op, operands);
                Ok(())
            }
        }
    };
}
on_the_host!(f32, cpu);
on_the_host!(f64, reference);

impl<A: GatherOps, B: GatherOps> GatherOps for CrossCheck<A, B> {
    fn gather_floats(
        &mut self,
        op: &Gather,
        source: &Self::Floats,
        indices: &Self::Words,
        target: &mut Self::Floats,
    ) -> Result<()> {
        self.a.gather_floats(op, &source.a, &indices.a, &mut target.a)?;
        self.b.gather_floats(op, &source.b, &indices.b, &mut target.b)?;
        self.compare("gather_floats", "target", target, 0..op.count * op.width, &Gather::TOLERANCE)
    }

    fn gather_words(&mut self, op: &Gather, source: &Self::Words, indices: &Self::Words, target: &mut Self::Words) -> Result<()> {
        self.a.gather_words(op, &source.a, &indices.a, &mut target.a)?;
        self.b.gather_words(op, &source.b, &indices.b, &mut target.b)?;
        self.compare_words("gather_words", "target", target, 0..op.count * op.width)
    }

    fn gather_samples(&mut self, op: &Gather, mut operands: SamplesOperands<'_, Self::Floats, Self::Words>) -> Result<()> {
        let (a, b) = operands.sides();
        self.a.gather_samples(op, a)?;
        self.b.gather_samples(op, b)?;
        self.compare("gather_samples", "samples", operands.samples, 0..op.count * sample::COLUMNS, &Gather::TOLERANCE)
    }
}
