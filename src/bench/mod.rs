//! What a backend can do: every kernel and four whole PPO updates, checked against double precision before they are timed, beside peaks
//! measured in the same run.
//!
//! Names and shapes are those of `benches/peers`, so that figures can be laid side by side.

mod cases;
mod inputs;
mod losses;
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

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record {
    /// `section/shape`.
    pub bench: String,
    /// Which way of computing it: one of [`TENSOR_CORES`] where large matrix products ran there, else `default`.
    pub variant: &'static str,
    /// This crate.
    pub framework: &'static str,
    /// Backend and adapter.
    pub device: String,
    /// Median seconds a call, wall time, until the result can be used.
    pub median_s: f64,
    /// Fastest sample.
    pub min_s: f64,
    /// 10 % quantile.
    pub p10_s: f64,
    /// 90 % quantile.
    pub p90_s: f64,
    /// Samples.
    pub reps: usize,
    /// Calls a sample.
    pub inner: usize,
    /// Seconds of the first call.
    pub first_call_s: f64,
    /// Median seconds a call by the GPU's timestamps: of each submission, from the beginning of its first compute pass to the end of its
    /// last, with the copies between passes and without those before and after. None on the CPU, on an adapter without timestamp
    /// queries, and where no sample had timestamps that make sense.
    pub gpu_s: Option<f64>,
    /// Median seconds a call that the host spent on recording and encoding, up to each submission, without submitting and waiting. None on
    /// the CPU, which has nothing to record.
    pub encode_s: Option<f64>,
    /// Floating-point operations a call; a transcendental function counts as one.
    pub flops: f64,
    /// Bytes a call has to read and write at least; 0 where nobody has counted them.
    pub bytes: f64,
    /// At the median: `gflops`, `eff_gbps`, `percent_of_peak`, samples or elements a second. Of a whole update also `memory_bytes`, which it
    /// [takes](crate::ppo::Learner::planned_memory_bytes).
    pub derived: BTreeMap<&'static str, f64>,
    /// By tensor: the worst error as a share of what its kernel's contract allows; of a whole update or a minibatch's gradient: relative
    /// deviations.
    pub check: BTreeMap<String, f64>,
}

/// What came of one bench.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Finding {
    /// Checked and timed.
    Timed(Box<Record>),
    /// The adapter cannot hold it, or a sweep has become too slow for it.
    Skipped {
        /// `section/shape`.
        bench: String,
        /// This crate.
        framework: &'static str,
        /// Backend and adapter.
        device: String,
        /// Why.
        skipped: String,
    },
    /// Not what double precision says, or refused by the backend; not timed.
    Failed {
        /// `section/shape`.
        bench: String,
        /// This crate.
        framework: &'static str,
        /// Backend and adapter.
        device: String,
        /// What went wrong.
        failed: String,
    },
}

/// Takes each finding as soon as there is one, and says whether to go on.
pub type Report<'a> = dyn FnMut(Finding) -> ControlFlow<()> + 'a;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Parts of names, separated by commas; empty for all.
    pub only: String,
    /// How long to measure.
    pub effort: Effort,
    /// Leave out shapes that take seconds or gigabytes.
    pub small: bool,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.split(',').any(|part| !part.is_empty() && name.contains(part))
    }

    /// Whether anything of `names` would run.
    pub fn fits(&self, names: &[String]) -> bool {
        names.iter().any(|name| self.wants(name))
    }

    /// Refuses a pattern that fits none of `names`, and lists them.
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

/// Names of all benches that `options` leave in, whatever it says of names.
pub fn names(options: &Options) -> Vec<String> {
    let mut names = Names { small: options.small, names: peaks::NAMES.iter().map(|name| (*name).to_owned()).collect() };
    benches(&mut names);
    names.names.into_iter().chain(update::names(options.small)).collect()
}

/// Shows every bench but whole updates to `list`.
fn benches(list: &mut impl Benches) {
    operations::benches(list);
    for case in cases::all(false) {
        list.add(case.name.clone(), cases::all(true).iter().any(|small| small.name == case.name), case);
    }
}

/// Collects names.
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

/// Times what is wanted, until an error or a break.
struct Timing<'a, 'b, B> {
    /// Gone only after a panic.
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
        let (mut backend, outcome) = cases::run(backend, &name, &call, self.options.effort, self.peaks);
        self.state = settle(&mut backend, &name, outcome, self.report);
        self.backend = Some(backend);
    }
}

/// Measures the peaks of `backend`, then runs all benches that `options` want and hands each finding to `report` as soon as there is one; a
/// break from it ends the run. A result that is not what double precision says is reported as failed, and the others are measured. Returns the
/// backend; [`Peaks::among`] finds its peaks.
///
/// # Errors
/// A pattern that fits no name; a peak that cannot be measured, since all figures need it; [`Error::Bench`] around a lost device.
pub fn run<B: Benchmarked>(mut backend: B, options: &Options, report: &mut Report<'_>) -> Result<B> {
    options.require_some(&names(options))?;
    backend.set_timing(true);
    if let Some(peaks) = peaks::measure(&mut backend, options.effort, report)? {
        let state = Ok(ControlFlow::Continue(()));
        let mut timing = Timing { backend: Some(backend), options, peaks: &peaks, report, state };
        benches(&mut timing);
        let Timing { backend: Some(timed), state, .. } = timing else {
            return Err(Error::Device("the backend is gone".to_owned()));
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

/// Reports a record; where the adapter is too small for it, or something went wrong, says so. Only after a lost device can nothing follow.
fn settle<B: Benchmarked>(
    backend: &mut B,
    name: &str,
    outcome: Result<Record>,
    report: &mut Report<'_>,
) -> Result<ControlFlow<()>> {
    // What a bench without a record has used is not the next one's.
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
