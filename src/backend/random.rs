//! The operations of [`kernels::random`](crate::kernels::random) on every backend.

use super::Memory;
use crate::error::Result;
use crate::kernels::random::RandomStream;

/// Random numbers made on the device.
pub trait RandomOps: Memory {
    /// Uniform numbers in the open interval (0, 1): (w >> 8 + ½)·2⁻²⁴ of Philox word w. The same bits on every `f32` backend.
    ///
    /// # Errors
    /// A size of zero or 2³² and more; a buffer too small.
    fn random_uniform(&mut self, op: &RandomStream, out: &mut Self::Floats) -> Result<()>;

    /// Standard normal numbers (Box–Muller).
    ///
    /// # Errors
    /// As [`random_uniform`](Self::random_uniform).
    fn random_normal(&mut self, op: &RandomStream, out: &mut Self::Floats) -> Result<()>;

    /// A random permutation of 0..len into `out[offset..]`: a Feistel network keyed by the stream, with cycle walking (Mitchell et al. 2021,
    /// "Bandwidth-optimal random shuffling for GPUs"). The same numbers on every backend.
    ///
    /// # Errors
    /// As [`random_uniform`](Self::random_uniform).
    fn random_permutation(&mut self, op: &RandomStream, out: &mut Self::Words, offset: usize) -> Result<()>;
}
