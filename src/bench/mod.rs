//! What a backend can do: every kernel and four whole PPO updates, checked against double precision before they are timed.
//!
//! Names and shapes are those of common peer benchmarks, so that figures can be laid side by side.

mod kernels;
mod measure;
mod update;

use std::collections::BTreeMap;

use serde::Serialize;

pub use measure::{Effort, Samples};

use crate::backend::Backend;
use crate::error::Result;

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record {
    /// `section/shape`.
    pub bench: String,
    /// Which way of computing it.
    pub variant: String,
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
    /// Rates at the median: `gflops`, `gbps`, samples or elements a second.
    pub derived: BTreeMap<&'static str, f64>,
    /// How far the result was from double precision, by tensor.
    pub check: BTreeMap<&'static str, f64>,
}

/// What a call does, as its kernel's contract declares it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Work {
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes that have to be read and written at least.
    pub bytes: f64,
    /// Samples or elements, with the name of that rate.
    pub items: Option<(&'static str, f64)>,
}

impl Work {
    fn rates(self, seconds: f64) -> BTreeMap<&'static str, f64> {
        let mut rates = BTreeMap::new();
        if self.flops > 0.0 {
            rates.insert("gflops", self.flops / seconds / 1e9);
        }
        if self.bytes > 0.0 {
            rates.insert("gbps", self.bytes / seconds / 1e9);
        }
        if let Some((name, items)) = self.items {
            rates.insert(name, items / seconds);
        }
        rates
    }
}

/// Runs all benches whose name contains `only`, on `backend`, and hands each record to `report` as soon as there is one.
///
/// # Errors
/// Those of the backend, and a result that is not what double precision says: such a thing is not timed.
pub fn run<B: Backend>(
    backend: &mut B,
    only: &str,
    effort: Effort,
    report: &mut dyn FnMut(Record),
) -> Result<()> {
    kernels::run(backend, only, effort, report)?;
    update::run(backend, only, effort, report)
}

pub(crate) fn record<B: Backend>(
    backend: &B,
    bench: String,
    samples: &Samples,
    work: Work,
    check: BTreeMap<&'static str, f64>,
) -> Record {
    Record {
        bench,
        variant: "default".to_owned(),
        framework: "ppo-kernels",
        device: backend.describe(),
        median_s: samples.quantile(0.5),
        min_s: samples.quantile(0.0),
        p10_s: samples.quantile(0.1),
        p90_s: samples.quantile(0.9),
        reps: samples.count(),
        inner: samples.inner,
        first_call_s: samples.first_call,
        derived: work.rates(samples.quantile(0.5)),
        check,
    }
}
