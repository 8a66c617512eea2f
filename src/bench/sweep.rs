//! Time over size, one size at a time from a fixed middle: a minibatch's gradient over its samples and over the networks' width,
//! advantages over the rollout's length.
//!
//! A short call costs what it costs to launch it, a long one what its operations and bytes cost. A sweep shows where the one turns into
//! the other: [`Peaks::least_seconds`] of a record's `flops` and `bytes` is what they cost at least.

mod minibatch;

use super::cases;
use super::measure::Effort;
use super::peaks::{self, Benchmarked, Peaks};
use super::{Options, Record, Report, Work, settle, skipped};
use crate::error::Result;
use crate::operations::Call;
use crate::operations::advantage::CleanRlGae;
use minibatch::Shape;

/// Samples of a minibatch while its networks' width varies.
pub const BATCH: usize = 4096;
/// Width of both hidden layers, of the actor and of the critic, while the batch varies.
pub const WIDTH: usize = 64;
/// Environments beside each other while the horizon varies.
pub const ENVS: usize = 64;
/// Elements of an observation.
pub const OBSERVATIONS: usize = 64;
/// Actions of the categorical policy.
pub const ACTIONS: usize = 16;

/// Seconds that a call may be expected to take. An axis ends before it takes longer, so that a slow machine is done in minutes too.
const LONGEST_CALL: f64 = 4.0;

/// What varies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Samples of a minibatch step (forward, loss, backward, Adam) of actor and critic, `[batch, OBSERVATIONS]` through two layers of [`WIDTH`].
    Batch,
    /// Width of the two hidden layers of each network: the same, of [`BATCH`] samples.
    Width,
    /// Steps of a rollout `[horizon, ENVS]`: its advantages and returns.
    Horizon,
}

impl Axis {
    /// In the order in which they run.
    pub const ALL: [Self; 3] = [Axis::Batch, Axis::Width, Axis::Horizon];

    /// As in `sweep/NAME/SIZE`.
    pub fn name(self) -> &'static str {
        match self {
            Axis::Batch => "batch",
            Axis::Width => "width",
            Axis::Horizon => "horizon",
        }
    }

    /// The axis of a bench called `sweep/NAME/SIZE`, and the size: samples, units or steps.
    pub fn of(bench: &str) -> Option<(Self, usize)> {
        let (name, size) = bench.strip_prefix("sweep/")?.split_once('/')?;
        Some((Self::ALL.into_iter().find(|axis| axis.name() == name)?, size.parse().ok()?))
    }

    /// Powers of two in ascending order; with `small` three that are done in no time.
    fn sizes(self, small: bool) -> Vec<usize> {
        let powers: Vec<u32> = match (self, small) {
            (Axis::Batch, false) => (6..=20).collect(),
            (Axis::Width, false) => (5..=11).collect(),
            (Axis::Horizon, false) => (4..=16).collect(),
            (Axis::Batch, true) => vec![6, 8, 10],
            (Axis::Width, true) => vec![5, 6, 7],
            (Axis::Horizon, true) => vec![4, 7, 10],
        };
        powers.into_iter().map(|power| 1 << power).collect()
    }
}

/// One size.
#[derive(Debug, Clone, Copy)]
struct Point {
    axis: Axis,
    size: usize,
}

impl Point {
    fn name(self) -> String {
        format!("sweep/{}/{}", self.axis.name(), self.size)
    }

    fn kind(self) -> Kind {
        match self.axis {
            Axis::Batch => Kind::Gradient(Shape { batch: self.size, width: WIDTH }),
            Axis::Width => Kind::Gradient(Shape { batch: BATCH, width: self.size }),
            Axis::Horizon => Kind::Advantages(CleanRlGae::bench(self.size, ENVS)),
        }
    }
}

enum Kind {
    Gradient(Shape),
    Advantages(CleanRlGae),
}

impl Kind {
    fn work(&self) -> Work {
        match self {
            Kind::Gradient(shape) => shape.work(),
            Kind::Advantages(case) => case.work(),
        }
    }

    /// Checks, then times. The backend always comes back.
    fn run<B: Benchmarked>(&self, mut backend: B, name: &str, effort: Effort, peaks: &Peaks) -> (B, Result<Record>) {
        match self {
            Kind::Gradient(shape) => {
                let outcome = minibatch::run(&mut backend, name, shape, effort, peaks);
                (backend, outcome)
            }
            Kind::Advantages(case) => cases::run(backend, name, case, effort, peaks),
        }
    }
}

/// The largest size measured so far on an axis.
struct Reached {
    name: String,
    flops: f64,
    seconds: f64,
}

impl Reached {
    /// Why a call of `work` is not even tried, if it would take too long: time grows at most as the operations do.
    fn too_long(&self, work: Work) -> Option<String> {
        let expected = self.seconds * work.flops / self.flops;
        (expected > LONGEST_CALL).then(|| {
            format!("{expected:.1} s a call expected after {:.2} s of {}; at most {LONGEST_CALL} s", self.seconds, self.name)
        })
    }
}

fn points(small: bool) -> impl Iterator<Item = Point> {
    Axis::ALL.into_iter().flat_map(move |axis| axis.sizes(small).into_iter().map(move |size| Point { axis, size }))
}

/// Names of all sizes that `options` leave in, whatever it says of names.
pub fn names(options: &Options) -> Vec<String> {
    points(options.small).map(Point::name).collect()
}

/// Measures the peaks of `backend`, then every size that `options` want, in ascending order, and hands each finding to `report` as soon as
/// there is one; a break from it ends the run. What the adapter cannot hold, and what would take more than a few seconds a call, is reported as
/// skipped, what is not as double precision says as failed. Returns the backend; [`Peaks::among`] finds its peaks.
///
/// # Errors
/// As [`bench::run`](super::run).
pub fn run<B: Benchmarked>(mut backend: B, options: &Options, report: &mut Report<'_>) -> Result<B> {
    options.require_some(&names(options))?;
    backend.set_timing(true);
    'axes: {
        let Some(peaks) = peaks::measure(&mut backend, options.effort, report)? else { break 'axes };
        for axis in Axis::ALL {
            let mut reached: Option<Reached> = None;
            for point in points(options.small).filter(|point| point.axis == axis && options.wants(&point.name())) {
                let (name, kind) = (point.name(), point.kind());
                let too_long = reached.as_ref().and_then(|reached| reached.too_long(kind.work()));
                let next = if let Some(reason) = too_long {
                    report(skipped(&backend, &name, reason))
                } else {
                    let (back, outcome) = kind.run(backend, &name, options.effort, &peaks);
                    backend = back;
                    if let Ok(record) = &outcome {
                        reached = Some(Reached { name: name.clone(), flops: record.flops, seconds: record.median_s });
                    }
                    settle(&mut backend, &name, outcome, report)?
                };
                if next.is_break() {
                    break 'axes;
                }
            }
        }
    }
    backend.set_timing(false);
    Ok(backend)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Options;

    fn all_names(small: bool) -> Vec<String> {
        names(&Options { only: String::new(), effort: Effort::QUICK, small })
    }

    #[test]
    fn each_axis_goes_from_end_to_end_by_powers_of_two() {
        let names = all_names(false);
        assert_eq!(names.len(), 15 + 7 + 13);
        let middle = ["sweep/batch/4096", "sweep/width/256", "sweep/horizon/1024"];
        let ends = ["batch/64", "batch/1048576", "width/32", "width/2048", "horizon/16", "horizon/65536"];
        let ends = ends.map(|end| format!("sweep/{end}"));
        for name in middle.iter().copied().chain(ends.iter().map(String::as_str)) {
            assert!(names.iter().any(|known| known == name), "no {name} in {names:?}");
        }
        assert!(all_names(true).iter().all(|name| names.contains(name)), "the small ones are a part");
    }

    #[test]
    fn a_name_says_axis_and_size() {
        for point in points(false) {
            assert_eq!(Axis::of(&point.name()), Some((point.axis, point.size)));
        }
        for other in ["gae/T128_N8", "sweep/depth/3", "sweep/batch/many", "sweep/batch", "batch/64"] {
            assert_eq!(Axis::of(other), None, "{other}");
        }
    }

    #[test]
    fn an_axis_ends_before_a_call_takes_too_long() {
        let reached = |seconds| Reached { name: "sweep/batch/64".to_owned(), flops: 1e9, seconds };
        let work = Work { flops: 4e9, bytes: 0.0, items: None };
        assert_eq!(reached(0.99).too_long(work), None);
        let reason = reached(1.5).too_long(work).unwrap();
        assert_eq!(reason, "6.0 s a call expected after 1.50 s of sweep/batch/64; at most 4 s");
    }
}
