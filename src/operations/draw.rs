//! Seeded random inputs.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// Elements after which [`Draw::long`] repeats itself: a prime, so that no power of two divides the period.
const PERIOD: usize = 8191;

/// A seeded source of inputs.
#[derive(Debug)]
pub struct Draw(ChaCha8Rng);

impl Draw {
    /// Number `stream` of those that `seed` gives.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream);
        Self(generator)
    }

    /// A size from 1 to `most`, small ones more often: its logarithm is uniform.
    pub fn size(&mut self, most: usize) -> usize {
        let exponent: f64 = self.0.random();
        ((most as f64 + 1.0).powf(exponent) as usize).clamp(1, most)
    }

    /// An integer below `below`.
    pub fn below(&mut self, below: usize) -> usize {
        self.0.random_range(0..below)
    }

    /// One of `items`.
    pub fn one<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// Any 64 bits.
    pub fn seed(&mut self) -> u64 {
        self.0.random()
    }

    /// A number in [low, high).
    pub fn number(&mut self, low: f64, high: f64) -> f64 {
        self.0.random_range(low..high)
    }

    /// True or false, as a coin falls.
    pub fn coin(&mut self) -> bool {
        self.0.random()
    }

    /// Normal numbers with that mean and standard deviation.
    pub fn normal(&mut self, n: usize, mean: f32, std: f32) -> Vec<f32> {
        (0..n).map(|_| mean + std * Distribution::<f32>::sample(&StandardNormal, &mut self.0)).collect()
    }

    /// Standard normal numbers times `scale`.
    pub fn floats(&mut self, n: usize, scale: f32) -> Vec<f32> {
        self.normal(n, 0.0, scale)
    }

    /// As [`floats`](Self::floats), for vectors so long that drawing each element would take longer than the kernel.
    pub fn long(&mut self, n: usize, scale: f32) -> Vec<f32> {
        let block = self.floats(n.min(PERIOD), scale);
        block.iter().copied().cycle().take(n).collect()
    }

    /// Uniform numbers in [0, 1).
    pub fn uniforms(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.0.random()).collect()
    }

    /// Integers below `below`.
    pub fn words(&mut self, n: usize, below: usize) -> Vec<u32> {
        (0..n).map(|_| self.0.random_range(0..below as u32)).collect()
    }

    /// Flags that are 1 with that probability.
    pub fn flags(&mut self, n: usize, probability: f64) -> Vec<u32> {
        (0..n).map(|_| u32::from(self.0.random_bool(probability))).collect()
    }
}
