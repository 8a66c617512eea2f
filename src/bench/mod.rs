//! Speed of a backend: every kernel and four whole PPO updates, checked against double precision,
//! beside peaks measured in the same run.
//!
//! Names and shapes are those of `benches/peers`, for comparison.

mod calls;
mod inputs;
mod measure;
mod peaks;
pub mod sweep;
mod update;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde::Serialize;

pub use measure::{Clocks, Effort};
pub use peaks::{Bandwidth, Benchmarked, Peaks, TENSOR_CORES, Units};
pub use update::{Workload, workloads};

use crate::error::{Error, Result};
use crate::operations::{self, Benches, Call, Work};
use measure::Samples;
use peaks::variant;

/// The figures of one bench.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record {
    /// `section/shape`.
    pub bench: String,
    /// Kernel variant: one of [`TENSOR_CORES`] if large matrix products ran there, else `default`.
    pub variant: &'static str,
    /// This crate.
    pub framework: &'static str,
    /// Backend and adapter.
    pub device: String,
    /// Median wall seconds per call, until the result is usable.
    pub median_s: f64,
    /// Fastest sample.
    pub min_s: f64,
    /// 10 % quantile.
    pub p10_s: f64,
    /// 90 % quantile.
    pub p90_s: f64,
    /// Number of samples.
    pub reps: usize,
    /// Calls in a sample.
    pub inner: usize,
    /// Seconds of the first call.
    pub first_call_s: f64,
    /// Median GPU seconds per call, from the start of each submission's first compute pass to the
    /// end of its last. None on the CPU, and without valid timestamps.
    pub gpu_s: Option<f64>,
    /// Median host seconds per call for recording and encoding. None on the CPU.
    pub encode_s: Option<f64>,
    /// Floating-point operations per call; a transcendental function counts as one.
    pub flops: f64,
    /// Least bytes per call to read and write; 0 if not counted.
    pub bytes: f64,
    /// At the median: `gflops`, `eff_gbps`, `percent_of_peak`, samples or elements per second. For
    /// a whole update also [`memory_bytes`](crate::ppo::Learner::planned_memory_bytes).
    pub derived: BTreeMap<&'static str, f64>,
    /// Worst error by tensor, as a share of the tolerance or, for updates and minibatches,
    /// relative.
    pub check: BTreeMap<String, f64>,
}

/// The result of one bench.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Finding {
    /// Checked and timed.
    Timed(Box<Record>),
    /// Too large for the adapter, or too slow in a sweep.
    Skipped {
        /// `section/shape`.
        bench: String,
        /// This crate.
        framework: &'static str,
        /// Backend and adapter.
        device: String,
        /// The reason.
        skipped: String,
    },
    /// Wrong, or refused by the backend; not timed.
    Failed {
        /// `section/shape`.
        bench: String,
        /// This crate.
        framework: &'static str,
        /// Backend and adapter.
        device: String,
        /// The error.
        failed: String,
    },
}

/// Receives each finding at once, and returns whether to go on.
pub type Report<'a> = dyn FnMut(Finding) -> ControlFlow<()> + 'a;

/// Options of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Parts of names, separated by commas; empty for all.
    pub only: String,
    /// Effort of each measurement.
    pub effort: Effort,
    /// Leaves out shapes that take seconds or gigabytes.
    pub small: bool,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.split(',').any(|part| !part.is_empty() && name.contains(part))
    }

    /// Whether `only` fits any of `names`.
    pub fn fits(&self, names: &[String]) -> bool {
        names.iter().any(|name| self.wants(name))
    }

    /// Fails if `only` fits none of `names`, and lists them.
    fn require_some(&self, names: &[String]) -> Result<()> {
        if self.fits(names) {
            return Ok(());
        }
        Err(Error::value("only", format!("part of one of {}", names.join(", ")), &self.only))
    }
}

const FRAMEWORK: &str = "ppo-kernels";

impl Work {
    pub(crate) fn rates(&self, seconds: f64, peaks: Option<Peaks>) -> BTreeMap<&'static str, f64> {
        let mut rates = BTreeMap::new();
        if self.flops > 0.0 {
            rates.insert("gflops", self.flops / seconds / 1e9);
        }
        if self.bytes > 0.0 {
            rates.insert("eff_gbps", self.bytes / seconds / 1e9);
        }
        rates.extend(self.items.map(|(name, items)| (name, items / seconds)));
        if let Some(peaks) = peaks {
            rates.insert("percent_of_peak", 100.0 * peaks.least_seconds(self.flops, self.bytes) / seconds);
        }
        rates
    }
}

/// Names of all benches for `options`, without regard to `only`.
pub fn names(options: &Options) -> Vec<String> {
    let mut names = Names { small: options.small, names: peaks::NAMES.iter().map(|name| (*name).to_owned()).collect() };
    operations::benches(&mut names);
    names.names.into_iter().chain(update::names(options.small)).collect()
}

struct Names {
    small: bool,
    names: Vec<String>,
}

impl Benches for Names {
    fn add<C: Call>(&mut self, name: String, small: bool, _: C) {
        if small || !self.small {
            self.names.push(name);
        }
    }
}

/// Times the selected benches, until an error or a break.
struct Timing<'a, 'b, B> {
    /// None only after a panic.
    backend: Option<B>,
    options: &'a Options,
    peaks: &'a Peaks,
    report: &'a mut Report<'b>,
    state: Result<ControlFlow<()>>,
}

impl<B: Benchmarked> Benches for Timing<'_, '_, B> {
    fn add<C: Call>(&mut self, name: String, small: bool, call: C) {
        let is_wanted = (small || !self.options.small) && self.options.wants(&name);
        let (true, Ok(ControlFlow::Continue(()))) = (is_wanted, &self.state) else { return };
        let Some(backend) = self.backend.take() else { return };
        let (mut backend, outcome) = calls::run(backend, &name, &call, self.options.effort, self.peaks);
        self.state = settle(&mut backend, &name, outcome, self.report);
        self.backend = Some(backend);
    }
}

/// Measures the peaks of `backend`, then runs the benches of `options` and passes each finding to
/// `report`, whose break ends the run. Returns the backend; [`Peaks::among`] finds its peaks.
///
/// # Errors
/// A pattern that fits no name; a peak that cannot be measured; [`Error::Bench`] for a lost device.
pub fn run<B: Benchmarked>(mut backend: B, options: &Options, report: &mut Report<'_>) -> Result<B> {
    options.require_some(&names(options))?;
    backend.set_timing(true);
    if let Some(peaks) = peaks::measure(&mut backend, options.effort, report)? {
        let state = Ok(ControlFlow::Continue(()));
        let mut timing = Timing { backend: Some(backend), options, peaks: &peaks, report, state };
        operations::benches(&mut timing);
        let Timing { backend: Some(timed), state, .. } = timing else {
            return Err(Error::Device("the backend was lost in a bench".to_owned()));
        };
        backend = timed;
        let mut state = state?;
        for workload in update::workloads(options.small).iter().filter(|workload| options.wants(workload.name)) {
            if state.is_continue() {
                let outcome = update::run(&mut backend, workload, options.effort, &peaks);
                state = settle(&mut backend, workload.name, outcome, report)?;
            }
        }
    }
    backend.set_timing(false);
    Ok(backend)
}

/// Reports a record, a skip or a failure. Only a lost device ends the run.
fn settle<B: Benchmarked>(
    backend: &mut B,
    name: &str,
    outcome: Result<Record>,
    report: &mut Report<'_>,
) -> Result<ControlFlow<()>> {
    // Resets the precision used by a bench without a record.
    backend.take_used_precision();
    backend.release();
    Ok(report(match outcome {
        Ok(record) => Finding::Timed(Box::new(record)),
        Err(error @ (Error::LimitExceeded { .. } | Error::OutOfMemory { .. })) => skipped(backend, name, error.to_string()),
        Err(error @ Error::DeviceLost(_)) => return Err(Error::Bench { bench: name.to_owned(), source: Box::new(error) }),
        Err(error) => Finding::Failed {
            bench: name.to_owned(),
            framework: FRAMEWORK,
            device: backend.describe(),
            failed: error.to_string(),
        },
    }))
}

fn skipped<B: Benchmarked>(backend: &B, name: &str, reason: String) -> Finding {
    Finding::Skipped { bench: name.to_owned(), framework: FRAMEWORK, device: backend.describe(), skipped: reason }
}

fn record<B: Benchmarked>(
    bench: &str,
    backend: &mut B,
    samples: &Samples,
    work: Work,
    peaks: Option<&Peaks>,
    check: BTreeMap<String, f64>,
) -> Record {
    let variant = variant(backend.take_used_precision());
    Record {
        bench: bench.to_owned(),
        variant,
        framework: FRAMEWORK,
        device: backend.describe(),
        median_s: samples.quantile(0.5),
        min_s: samples.quantile(0.0),
        p10_s: samples.quantile(0.1),
        p90_s: samples.quantile(0.9),
        reps: samples.count(),
        inner: samples.inner,
        first_call_s: samples.first_call,
        gpu_s: samples.clocks.gpu_s,
        encode_s: samples.clocks.encode_s,
        flops: work.flops,
        bytes: work.bytes,
        derived: work.rates(samples.quantile(0.5), peaks.map(|peaks| peaks.of(variant))),
        check,
    }
}
