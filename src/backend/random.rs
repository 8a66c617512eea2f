//! The operations of [`kernels::random`](crate::kernels::random) on every backend.

#[cfg(feature = "gpu")]
use super::Gpu;
use super::{Cpu, CrossCheck, Memory};
use crate::cpu::random as cpu;
use crate::error::Result;
#[cfg(feature = "gpu")]
use crate::gpu::Buffer;
#[cfg(feature = "gpu")]
use crate::kernels::random as kernels;
use crate::kernels::random::RandomStream;
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

    /// Random permutations of 0..len, `count` of them one after the other into `out[offset..]`, of as many streams from `op.stream` on: Feistel
    /// networks keyed by their streams, with cycle walking (Mitchell et al. 2021, "Bandwidth-optimal random shuffling for GPUs"). The same numbers on
    /// every backend.
    ///
    /// # Errors
    /// As [`random_uniform`](Self::random_uniform); `count` of zero; `offset + count·len` of 2³² and more.
    fn random_permutations(&mut self, op: &RandomStream, count: usize, out: &mut Self::Words, offset: usize) -> Result<()>;
}

#[cfg(feature = "gpu")]
impl RandomOps for Gpu {
    fn random_uniform(&mut self, op: &RandomStream, out: &mut Buffer<f32>) -> Result<()> {
        kernels::record_uniform(&mut self.context, op, out)
    }

    fn random_normal(&mut self, op: &RandomStream, out: &mut Buffer<f32>) -> Result<()> {
        kernels::record_normal(&mut self.context, op, out)
    }

    fn random_permutations(&mut self, op: &RandomStream, count: usize, out: &mut Buffer<u32>, offset: usize) -> Result<()> {
        kernels::record_permutations(&mut self.context, op, count, out, offset)
    }
}

/// On the host in `$real`, by the functions of `$arithmetic`.
macro_rules! on_the_host {
    ($real:ty, $arithmetic:ident) => {
        impl RandomOps for Cpu<$real> {
            fn random_uniform(&mut self, op: &RandomStream, out: &mut Vec<$real>) -> Result<()> {
                op.check(out.len())?;
                $arithmetic::uniform(op, out);
                Ok(())
            }

            fn random_normal(&mut self, op: &RandomStream, out: &mut Vec<$real>) -> Result<()> {
                op.check(out.len())?;
                $arithmetic::normal(op, out);
                Ok(())
            }

            fn random_permutations(&mut self, op: &RandomStream, count: usize, out: &mut Vec<u32>, offset: usize) -> Result<()> {
                op.check_permutations(count, out.len(), offset)?;
                for (k, out) in (0..count as u64).zip(out[offset..].chunks_exact_mut(op.len)) {
                    $arithmetic::permutation(&op.following(k), out);
                }
                Ok(())
            }
        }
    };
}
on_the_host!(f32, cpu);
on_the_host!(f64, reference);

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

    fn random_permutations(&mut self, op: &RandomStream, count: usize, out: &mut Self::Words, offset: usize) -> Result<()> {
        self.a.random_permutations(op, count, &mut out.a, offset)?;
        self.b.random_permutations(op, count, &mut out.b, offset)?;
        self.compare_words("random_permutations", "out", out, offset..offset + count * op.len)
    }
}
