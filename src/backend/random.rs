//! The operations of [`kernels::random`](crate::kernels::random) on every backend.

#[cfg(feature = "gpu")]
use super::Gpu;
use super::{Cpu, CrossCheck, Memory};
use crate::error::Result;
#[cfg(feature = "gpu")]
use crate::gpu::Buffer;
#[cfg(feature = "gpu")]
use crate::kernels::random as kernels;
use crate::kernels::random::RandomStream;
use crate::real::Real;
use crate::reference::random as reference;

/// Random numbers made on the device.
pub trait RandomOps: Memory {
    /// Uniform numbers in the open interval (0, 1): ((w >> 9) + ½)·2⁻²³ of Philox word w, so 2⁻²⁴ and 1 − 2⁻²⁴ are the ends. (One bit
    /// more would not fit an `f32`, and round to 1.) The same number on every backend.
    ///
    /// # Errors
    /// A size of zero or 2³² and more; a buffer too small.
    fn random_uniform(&mut self, op: &RandomStream, out: &mut Self::Floats) -> Result<()>;

    /// Standard normal numbers (Box–Muller, both of each pair), at most 5.77 in magnitude.
    ///
    /// # Errors
    /// As [`random_uniform`](Self::random_uniform).
    fn random_normal(&mut self, op: &RandomStream, out: &mut Self::Floats) -> Result<()>;

    /// A random permutation of 0..len into `out[offset..]`: a Feistel network keyed by the stream, with cycle walking (Mitchell et al. 2021,
    /// "Bandwidth-optimal random shuffling for GPUs"). The same numbers on every backend.
    ///
    /// # Errors
    /// As [`random_uniform`](Self::random_uniform); `offset + len` of 2³² and more.
    fn random_permutation(&mut self, op: &RandomStream, out: &mut Self::Words, offset: usize) -> Result<()>;
}

#[cfg(feature = "gpu")]
impl RandomOps for Gpu {
    fn random_uniform(&mut self, op: &RandomStream, out: &mut Buffer<f32>) -> Result<()> {
        kernels::record_uniform(&mut self.context, op, out)
    }

    fn random_normal(&mut self, op: &RandomStream, out: &mut Buffer<f32>) -> Result<()> {
        kernels::record_normal(&mut self.context, op, out)
    }

    fn random_permutation(&mut self, op: &RandomStream, out: &mut Buffer<u32>, offset: usize) -> Result<()> {
        kernels::record_permutation(&mut self.context, op, out, offset)
    }
}

impl<T: Real> RandomOps for Cpu<T> {
    fn random_uniform(&mut self, op: &RandomStream, out: &mut Vec<T>) -> Result<()> {
        op.check(out.len(), 0)?;
        reference::uniform(op, out);
        Ok(())
    }

    fn random_normal(&mut self, op: &RandomStream, out: &mut Vec<T>) -> Result<()> {
        op.check(out.len(), 0)?;
        reference::normal(op, out);
        Ok(())
    }

    fn random_permutation(&mut self, op: &RandomStream, out: &mut Vec<u32>, offset: usize) -> Result<()> {
        op.check(out.len(), offset)?;
        reference::permutation(op, &mut out[offset..]);
        Ok(())
    }
}

impl<A: RandomOps, B: RandomOps> RandomOps for CrossCheck<A, B> {
    fn random_uniform(&mut self, op: &RandomStream, out: &mut Self::Floats) -> Result<()> {
        self.a.random_uniform(op, &mut out.a)?;
        self.b.random_uniform(op, &mut out.b)?;
        self.compare("random_uniform", "out", out, 0..op.len, &RandomStream::UNIFORM_TOLERANCE)
    }

    fn random_normal(&mut self, op: &RandomStream, out: &mut Self::Floats) -> Result<()> {
        self.a.random_normal(op, &mut out.a)?;
        self.b.random_normal(op, &mut out.b)?;
        self.compare("random_normal", "out", out, 0..op.len, &RandomStream::NORMAL_TOLERANCE)
    }

    fn random_permutation(&mut self, op: &RandomStream, out: &mut Self::Words, offset: usize) -> Result<()> {
        self.a.random_permutation(op, &mut out.a, offset)?;
        self.b.random_permutation(op, &mut out.b, offset)?;
        self.compare_words("random_permutation", "out", out, offset..offset + op.len)
    }
}
