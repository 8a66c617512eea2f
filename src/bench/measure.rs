//! Timing: warm-up apart, a set of samples, their quantiles.

use std::time::{Duration, Instant};

use crate::error::Result;

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Time to spend on one bench, not counting its warm-up.
    pub budget: Duration,
    /// Samples at least, even when that takes longer.
    pub fewest: usize,
    /// Samples at most.
    pub most: usize,
}

impl Effort {
    /// Enough for a quotable figure.
    pub const FULL: Self = Self { budget: Duration::from_millis(1200), fewest: 7, most: 300 };
    /// Enough to see that everything runs.
    pub const QUICK: Self = Self { budget: Duration::from_millis(100), fewest: 3, most: 20 };
}

/// Seconds a call, over all samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    sorted: Vec<f64>,
    /// Seconds of the very first call: pipelines compiled, caches filled.
    pub first_call: f64,
    /// Calls in one sample.
    pub inner: usize,
}

/// A sample shorter than this is mostly the clock's and the scheduler's noise.
const SHORTEST_SAMPLE: Duration = Duration::from_millis(2);

impl Samples {
    /// Times `call`, which has to wait for its own results. `prepare` runs before each sample, untimed; where it does anything that calls depend on,
    /// `repeatable` has to be false, and every sample is one call.
    ///
    /// # Errors
    /// The first error of either.
    pub fn collect(
        effort: Effort,
        repeatable: bool,
        mut prepare: impl FnMut() -> Result<()>,
        mut call: impl FnMut() -> Result<()>,
    ) -> Result<Self> {
        let mut timed = |calls: usize| -> Result<f64> {
            prepare()?;
            let start = Instant::now();
            (0..calls).try_for_each(|_| call())?;
            Ok(start.elapsed().as_secs_f64() / calls as f64)
        };
        let first_call = timed(1)?;
        let warm = timed(1)?.min(timed(1)?);
        let inner = if repeatable { (SHORTEST_SAMPLE.as_secs_f64() / warm).ceil().clamp(1.0, 1e6) as usize } else { 1 };
        let fits = (effort.budget.as_secs_f64() / (warm * inner as f64)) as usize;
        let mut sorted = (0..fits.clamp(effort.fewest, effort.most)).map(|_| timed(inner)).collect::<Result<Vec<f64>>>()?;
        sorted.sort_by(f64::total_cmp);
        Ok(Self { sorted, first_call, inner })
    }

    /// The `q`-quantile, 0 ≤ q ≤ 1, by linear interpolation.
    pub fn quantile(&self, q: f64) -> f64 {
        let position = q.clamp(0.0, 1.0) * (self.sorted.len() - 1) as f64;
        let (below, above) = (self.sorted[position.floor() as usize], self.sorted[position.ceil() as usize]);
        below + (above - below) * position.fract()
    }

    /// How many samples there are.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }
}
