//! The operations of [`kernels::gather`](crate::kernels::gather) on every backend.

#[cfg(feature = "gpu")]
use super::Gpu;
use super::{Cpu, CrossCheck, Memory};
use crate::error::Result;
#[cfg(feature = "gpu")]
use crate::gpu::Buffer;
#[cfg(feature = "gpu")]
use crate::kernels::gather as kernels;
use crate::kernels::gather::Gather;
use crate::layout::sample;
use crate::real::Real;
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
    fn gather_samples(
        &mut self,
        op: &Gather,
        indices: &Self::Words,
        old_logp: &Self::Floats,
        advantages: &Self::Floats,
        returns: &Self::Floats,
        old_values: &Self::Floats,
        samples: &mut Self::Floats,
    ) -> Result<()>;
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

    fn gather_samples(
        &mut self,
        op: &Gather,
        indices: &Buffer<u32>,
        old_logp: &Buffer<f32>,
        advantages: &Buffer<f32>,
        returns: &Buffer<f32>,
        old_values: &Buffer<f32>,
        samples: &mut Buffer<f32>,
    ) -> Result<()> {
        let columns = [("old_logp", old_logp), ("advantages", advantages), ("returns", returns), ("old_values", old_values)];
        kernels::record_pack_samples(&mut self.context, op, indices, columns, samples)
    }
}

impl<T: Real> GatherOps for Cpu<T> {
    fn gather_floats(&mut self, op: &Gather, source: &Vec<T>, indices: &Vec<u32>, target: &mut Vec<T>) -> Result<()> {
        op.check_rows(source.len(), indices.len(), target.len())?;
        reference::rows(op, source, indices, target);
        Ok(())
    }

    fn gather_words(&mut self, op: &Gather, source: &Vec<u32>, indices: &Vec<u32>, target: &mut Vec<u32>) -> Result<()> {
        op.check_rows(source.len(), indices.len(), target.len())?;
        reference::rows(op, source, indices, target);
        Ok(())
    }

    fn gather_samples(
        &mut self,
        op: &Gather,
        indices: &Vec<u32>,
        old_logp: &Vec<T>,
        advantages: &Vec<T>,
        returns: &Vec<T>,
        old_values: &Vec<T>,
        samples: &mut Vec<T>,
    ) -> Result<()> {
        let columns = [("old_logp", old_logp), ("advantages", advantages), ("returns", returns), ("old_values", old_values)];
        op.check_samples(indices.len(), columns.map(|(name, column)| (name, column.len())), samples.len())?;
        reference::pack_samples(op, indices, columns.map(|(_, column)| column.as_slice()), samples);
        Ok(())
    }
}

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

    fn gather_samples(
        &mut self,
        op: &Gather,
        indices: &Self::Words,
        old_logp: &Self::Floats,
        advantages: &Self::Floats,
        returns: &Self::Floats,
        old_values: &Self::Floats,
        samples: &mut Self::Floats,
    ) -> Result<()> {
        self.a.gather_samples(op, &indices.a, &old_logp.a, &advantages.a, &returns.a, &old_values.a, &mut samples.a)?;
        self.b.gather_samples(op, &indices.b, &old_logp.b, &advantages.b, &returns.b, &old_values.b, &mut samples.b)?;
        self.compare("gather_samples", "samples", samples, 0..op.count * sample::COLUMNS, &Gather::TOLERANCE)
    }
}
