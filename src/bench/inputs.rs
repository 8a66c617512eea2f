//! Seeded random inputs, never zeros, on which some hardware is faster.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

pub(super) struct Inputs(ChaCha8Rng);

impl Inputs {
    pub(super) fn new() -> Self {
        Self(ChaCha8Rng::seed_from_u64(1))
    }

    pub(super) fn normal(&mut self) -> f64 {
        StandardNormal.sample(&mut self.0)
    }

    /// Standard normal numbers times `scale`.
    pub(super) fn floats(&mut self, n: usize, scale: f64) -> Vec<f32> {
        (0..n).map(|_| scale as f32 * Distribution::<f32>::sample(&StandardNormal, &mut self.0)).collect()
    }

    /// Integers below `below`.
    pub(super) fn words(&mut self, n: usize, below: usize) -> Vec<u32> {
        (0..n).map(|_| self.0.random_range(0..below as u32)).collect()
    }

    /// Ends of episodes as 0.0 or 1.0: one step in fifty on average.
    pub(super) fn ends(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| f32::from(u8::from(self.0.random_bool(0.02)))).collect()
    }
}
