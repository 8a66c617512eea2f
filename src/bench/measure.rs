//! Timing: warm-up apart, a set of samples, their quantiles.

use std::time::{Duration, Instant};

use crate::error::Result;

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Time to spend on one bench, not counting its warm-up.
    pub budget: Duration,
    /// Samples at least, even when that takes longer; three where one call alone does.
    pub fewest: usize,
    /// Samples at most.
    pub most: usize,
}

impl Effort {
    /// Enough for a quotable figure.
    pub const FULL: Self = Self { budget: Duration::from_millis(1200), fewest: 7, most: 300 };
    /// Enough to see that everything runs.
    pub const QUICK: Self = Self { budget: Duration::from_millis(50), fewest: 3, most: 20 };
}

/// What is timed.
pub(super) trait Timed {
    /// Whether a call may follow another without [`prepare`](Self::prepare); otherwise a sample is one call.
    const REPEATABLE: bool;
    /// Runs before each sample, untimed.
    fn prepare(&mut self) -> Result<()>;
    /// Does, or records, the work.
    fn call(&mut self) -> Result<()>;
    /// Waits until all of it is done.
    fn wait(&mut self) -> Result<()>;
}

/// Seconds a call, over all samples.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Samples {
    sorted: Vec<f64>,
    /// Seconds of the very first call: pipelines compiled, caches filled.
    pub first_call: f64,
    /// Calls in one sample.
    pub inner: usize,
}

/// A sample shorter than this is mostly the clock's and the scheduler's noise, or the cost of one submission to a GPU.
const SHORTEST_SAMPLE: f64 = 4e-3;
/// Calls in one sample at most: they are recorded before any of them runs.
const MOST_CALLS: usize = 2000;

impl Samples {
    /// Times `timed`: the first call, then as many in one sample as it takes for the clock, then samples until the budget is spent.
    pub(super) fn collect<T: Timed>(effort: Effort, timed: &mut T) -> Result<Self> {
        let mut sample = |calls: usize| -> Result<f64> {
            timed.prepare()?;
            let start = Instant::now();
            (0..calls).try_for_each(|_| timed.call())?;
            timed.wait()?;
            Ok(start.elapsed().as_secs_f64() / calls as f64)
        };
        let first_call = sample(1)?;
        let (mut inner, mut warm) = (1, sample(1)?);
        while T::REPEATABLE && inner < MOST_CALLS && warm * (inner as f64) < SHORTEST_SAMPLE {
            // At most four times as many at once: a first estimate contains what is paid once a sample.
            let wanted = (1.1 * SHORTEST_SAMPLE / warm).ceil() as usize;
            inner = wanted.clamp(inner + 1, 4 * inner).min(MOST_CALLS);
            warm = sample(inner)?;
        }
        let fits = (effort.budget.as_secs_f64() / (warm * inner as f64)) as usize;
        let fewest = if fits == 0 { effort.fewest.min(3) } else { effort.fewest };
        let samples = (0..fits.clamp(fewest, effort.most)).map(|_| sample(inner)).collect::<Result<Vec<f64>>>()?;
        Ok(Self::new(samples, first_call, inner))
    }

    fn new(mut sorted: Vec<f64>, first_call: f64, inner: usize) -> Self {
        sorted.sort_by(f64::total_cmp);
        Self { sorted, first_call, inner }
    }

    /// The `q`-quantile, 0 ≤ q ≤ 1, by linear interpolation.
    pub(super) fn quantile(&self, q: f64) -> f64 {
        let position = q.clamp(0.0, 1.0) * (self.sorted.len() - 1) as f64;
        let (below, above) = (self.sorted[position.floor() as usize], self.sorted[position.ceil() as usize]);
        below + (above - below) * position.fract()
    }

    /// How many samples there are.
    pub(super) fn count(&self) -> usize {
        self.sorted.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate_between_sorted_samples() {
        let samples = Samples::new(vec![4.0, 1.0, 3.0, 2.0, 5.0], 9.0, 1);
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(|q| samples.quantile(q)), [1.0, 2.0, 3.0, 5.0]);
        assert!((samples.quantile(0.9) - 4.6).abs() < 1e-12);
        assert_eq!(samples.count(), 5);
        let one = Samples::new(vec![7.0], 9.0, 1);
        assert_eq!([0.0, 0.1, 0.5, 0.9, 1.0].map(|q| one.quantile(q)), [7.0; 5]);
    }

    /// Counts what is asked of it.
    struct Counter {
        prepared: usize,
        calls: usize,
        waits: usize,
    }

    impl Timed for Counter {
        const REPEATABLE: bool = false;

        fn prepare(&mut self) -> Result<()> {
            self.prepared += 1;
            Ok(())
        }

        fn call(&mut self) -> Result<()> {
            self.calls += 1;
            Ok(())
        }

        fn wait(&mut self) -> Result<()> {
            self.waits += 1;
            Ok(())
        }
    }

    #[test]
    fn what_cannot_be_repeated_is_prepared_before_each_call() {
        let mut counter = Counter { prepared: 0, calls: 0, waits: 0 };
        let samples = Samples::collect(Effort { budget: Duration::from_secs(60), fewest: 5, most: 5 }, &mut counter).unwrap();
        assert_eq!((samples.count(), samples.inner), (5, 1));
        assert_eq!((counter.prepared, counter.calls, counter.waits), (7, 7, 7), "two calls of warm-up, five samples");
        let hurried = Samples::collect(Effort { budget: Duration::ZERO, fewest: 5, most: 5 }, &mut counter).unwrap();
        assert_eq!(hurried.count(), 3, "a budget that one call exceeds");
    }
}
