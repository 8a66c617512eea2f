//! Timing: warm-up, samples and quantiles of wall time, beside a backend's own clocks.

use std::time::{Duration, Instant};

use crate::error::Result;

/// Effort of a measurement.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Time for one bench, without its warm-up.
    pub budget: Duration,
    /// Least samples, even beyond the budget; three if one call exceeds it.
    pub fewest: usize,
    /// Most samples.
    pub most: usize,
}

impl Effort {
    /// For figures to quote.
    pub const FULL: Self = Self { budget: Duration::from_millis(1200), fewest: 7, most: 300 };
    /// For seeing that everything runs.
    pub const QUICK: Self = Self { budget: Duration::from_millis(50), fewest: 3, most: 20 };
}

/// Seconds by a backend's own clocks, if it has any.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Clocks {
    /// GPU time, from the start of each submission's first compute pass to the end of its last.
    pub gpu_s: Option<f64>,
    /// Host time for recording and encoding, up to each submission.
    pub encode_s: Option<f64>,
}

impl Clocks {
    fn per_call(self, calls: usize) -> Self {
        let share = |seconds: f64| seconds / calls as f64;
        Self { gpu_s: self.gpu_s.map(share), encode_s: self.encode_s.map(share) }
    }
}

pub(super) trait Timed {
    /// Whether calls may repeat without [`prepare`](Self::prepare); otherwise a sample is one call.
    const REPEATABLE: bool;
    /// Runs before each sample, untimed.
    fn prepare(&mut self) -> Result<()>;
    /// Executes or records the work.
    fn call(&mut self) -> Result<()>;
    /// Waits for the work.
    fn wait(&mut self) -> Result<()>;
    /// Reads and restarts the backend's clocks. Runs before and after each sample, untimed.
    fn take_clocks(&mut self) -> Result<Clocks>;
}

/// Seconds per call, over all samples.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Samples {
    sorted: Vec<f64>,
    /// Medians per call, over the samples with clocks.
    pub clocks: Clocks,
    /// Seconds of the first call, with compilation and cold caches.
    pub first_call: f64,
    pub inner: usize,
}

/// Shorter samples measure noise, or the cost of a submission to a GPU.
const SHORTEST_SAMPLE: f64 = 4e-3;
/// Most calls in one sample: all are recorded before any runs.
const MOST_CALLS: usize = 2000;

impl Samples {
    /// Times the first call, then samples of as many calls as the clock needs, within the budget.
    pub(super) fn collect<T: Timed>(effort: Effort, timed: &mut T) -> Result<Self> {
        let mut sample = |calls: usize| -> Result<(f64, Clocks)> {
            timed.prepare()?;
            timed.take_clocks()?;
            let start = Instant::now();
            (0..calls).try_for_each(|_| timed.call())?;
            timed.wait()?;
            let wall = start.elapsed().as_secs_f64() / calls as f64;
            Ok((wall, timed.take_clocks()?.per_call(calls)))
        };
        let (first_call, _) = sample(1)?;
        let (mut inner, mut warm) = (1, sample(1)?.0);
        while T::REPEATABLE && inner < MOST_CALLS && warm * (inner as f64) < SHORTEST_SAMPLE {
            // At most four times as many: the estimate contains costs per sample.
            let wanted = (1.1 * SHORTEST_SAMPLE / warm).ceil() as usize;
            inner = wanted.clamp(inner + 1, 4 * inner).min(MOST_CALLS);
            warm = sample(inner)?.0;
        }
        let fits = (effort.budget.as_secs_f64() / (warm * inner as f64)) as usize;
        let fewest = if fits == 0 { effort.fewest.min(3) } else { effort.fewest };
        let samples = (0..fits.clamp(fewest, effort.most)).map(|_| sample(inner)).collect::<Result<Vec<_>>>()?;
        Ok(Self::new(&samples, first_call, inner))
    }

    fn new(samples: &[(f64, Clocks)], first_call: f64, inner: usize) -> Self {
        let median_of = |clock: fn(&Clocks) -> Option<f64>| {
            let ran = sorted(samples.iter().filter_map(|(_, clocks)| clock(clocks)));
            (!ran.is_empty()).then(|| quantile(&ran, 0.5))
        };
        let clocks = Clocks { gpu_s: median_of(|clocks| clocks.gpu_s), encode_s: median_of(|clocks| clocks.encode_s) };
        Self { sorted: sorted(samples.iter().map(|&(wall, _)| wall)), clocks, first_call, inner }
    }

    /// The `q`-quantile, 0 ≤ q ≤ 1, by linear interpolation.
    pub(super) fn quantile(&self, q: f64) -> f64 {
        quantile(&self.sorted, q)
    }

    pub(super) fn count(&self) -> usize {
        self.sorted.len()
    }
}

fn sorted(seconds: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut sorted: Vec<f64> = seconds.collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    let position = q.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    below + (above - below) * position.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate_between_sorted_samples() {
        let samples = Samples::new(&[4.0, 1.0, 3.0, 2.0, 5.0].map(|wall| (wall, Clocks::default())), 9.0, 1);
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(|q| samples.quantile(q)), [1.0, 2.0, 3.0, 5.0]);
        assert!((samples.quantile(0.9) - 4.6).abs() < 1e-12);
        assert_eq!(samples.count(), 5);
        let one = Samples::new(&[(7.0, Clocks::default())], 9.0, 1);
        assert_eq!([0.0, 0.1, 0.5, 0.9, 1.0].map(|q| one.quantile(q)), [7.0; 5]);
        assert_eq!(one.clocks, Clocks::default());
    }

    #[test]
    fn clocks_have_the_median_of_the_samples_in_which_they_ran() {
        let sample = |gpu_s, encode_s| (9.0, Clocks { gpu_s, encode_s });
        let samples = [sample(Some(3.0), None), sample(None, None), sample(Some(1.0), None), sample(Some(8.0), None)];
        assert_eq!(Samples::new(&samples, 9.0, 1).clocks, Clocks { gpu_s: Some(3.0), encode_s: None });
        let of_four_calls = Clocks { gpu_s: Some(8.0), encode_s: Some(2.0) }.per_call(4);
        assert_eq!(of_four_calls, Clocks { gpu_s: Some(2.0), encode_s: Some(0.5) });
    }

    struct Counter {
        prepared: usize,
        calls: usize,
        waits: usize,
        clocks_taken: usize,
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

        fn take_clocks(&mut self) -> Result<Clocks> {
            self.clocks_taken += 1;
            Ok(Clocks { gpu_s: Some(f64::from(u32::from(self.waits < self.calls))), encode_s: None })
        }
    }

    #[test]
    fn what_cannot_be_repeated_is_prepared_before_each_call() {
        let mut counter = Counter { prepared: 0, calls: 0, waits: 0, clocks_taken: 0 };
        let samples = Samples::collect(Effort { budget: Duration::from_secs(60), fewest: 5, most: 5 }, &mut counter).unwrap();
        assert_eq!((samples.count(), samples.inner), (5, 1));
        assert_eq!((counter.prepared, counter.calls, counter.waits), (7, 7, 7), "two calls of warm-up, five samples");
        assert_eq!((counter.clocks_taken, samples.clocks.gpu_s), (14, Some(0.0)), "before each sample, and after it has waited");
        let hurried = Samples::collect(Effort { budget: Duration::ZERO, fewest: 5, most: 5 }, &mut counter).unwrap();
        assert_eq!(hurried.count(), 3, "a budget that one call exceeds");
    }
}
