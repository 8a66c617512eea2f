//! Does this backend compute what it should? Every operation of every kernel on seeded random shapes, against double precision.
//!
//! [`run`] drives a [`CrossCheck`] over a backend, so each output is judged by its kernel's own tolerance. Edge sizes (one, a workgroup or a tile
//! and its neighbours, more than 65 535 workgroups for the cheap kernels) are always among the shapes; the random ones come on top. Sizes of zero have
//! to be refused with a typed error. On a GPU [opened with bounds checks](crate::backend::Gpu::open_checked), turn on
//! [guard regions](crate::gpu::Context::set_guards) first: outputs are then poisoned, and writes
//! outside them found.

mod actor_critic;
#[cfg(feature = "gpu")]
pub mod faults;
mod runner;
#[cfg(feature = "gpu")]
mod variants;

use std::time::{Duration, Instant};

use crate::backend::{Backend, Cpu, CrossCheck, Worst};
use crate::error::{Error, Result};
use crate::operations::{self, Operation, Operations};
use runner::Runner;
#[cfg(feature = "gpu")]
pub use variants::{KernelVariant, variants};

/// The kernels, in the order in which they are run.
pub const KERNELS: &[&str] =
    &["linear", "advantage", "policy", "surrogate", "actor_critic", "normalize", "optimizer", "nonfinite", "gather", "random"];

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Random shapes of each operation, besides the edge sizes.
    pub cases: usize,
    /// Of shapes and inputs.
    pub seed: u64,
    /// Whether to include the edge sizes that take more than 65 535 workgroups, which take most of the time.
    pub many_workgroups: bool,
    /// Which of [`KERNELS`].
    pub kernels: Vec<&'static str>,
    /// Whether to leave out all cases of a kernel behind the first that does not pass.
    pub stop_at_first_miss: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { cases: 16, seed: 1, many_workgroups: true, kernels: KERNELS.to_vec(), stop_at_first_miss: false }
    }
}

/// The worst element of one output of one operation, over all cases.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorReport {
    /// The operation, as the method of the backend trait is called.
    pub operation: &'static str,
    /// Its output.
    pub tensor: &'static str,
    /// The element nearest to its tolerance, or furthest beyond.
    pub worst: Worst,
}

/// What was wrong in a case.
#[derive(Debug)]
pub enum Problem {
    /// A mismatch, a write outside an output, or anything else that should have worked.
    Failed(Error),
    /// Arguments that make no sense were accepted.
    Accepted,
}

/// A case that did not pass.
#[derive(Debug)]
pub struct Miss {
    /// The operation, as the method of the backend trait is called.
    pub operation: &'static str,
    /// Shapes and options.
    pub case: String,
    /// What was wrong.
    pub problem: Problem,
}

impl Miss {
    /// Whether this is about that output: the one that a mismatch names, every output of the operation otherwise.
    pub fn concerns(&self, operation: &str, tensor: &str) -> bool {
        match &self.problem {
            Problem::Failed(Error::Mismatch(mismatch)) => mismatch.operation == operation && mismatch.tensor == tensor,
            _ => self.operation == operation,
        }
    }
}

impl std::fmt::Display for Miss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.problem {
            Problem::Failed(error @ Error::Mismatch(_)) => write!(f, "{error} ({})", self.case),
            Problem::Failed(error) => write!(f, "{}: {error} ({})", self.operation, self.case),
            Problem::Accepted => write!(f, "{}: accepted what a typed error was due for ({})", self.operation, self.case),
        }
    }
}

/// All cases of one kernel.
#[derive(Debug)]
pub struct KernelReport {
    /// Which, of [`KERNELS`].
    pub kernel: &'static str,
    /// Cases run, refusals included.
    pub cases: usize,
    /// Every output, by operation and name.
    pub tensors: Vec<TensorReport>,
    /// The cases that did not pass.
    pub misses: Vec<Miss>,
    /// How long it took.
    pub elapsed: Duration,
}

impl KernelReport {
    /// The output nearest to its tolerance, or furthest beyond.
    pub fn worst(&self) -> Option<&TensorReport> {
        // A NaN is worse than any number.
        let badness = |report: &&TensorReport| match report.worst.ratio() {
            ratio if ratio.is_nan() => f64::INFINITY,
            ratio => ratio,
        };
        self.tensors.iter().max_by(|a, b| badness(a).total_cmp(&badness(b)))
    }
}

/// Runs the operations of one kernel.
struct OfKernel<'a, B> {
    kernel: &'static str,
    runner: &'a mut Runner<B>,
}

impl<B: Backend> Operations for OfKernel<'_, B> {
    fn add<O: Operation>(&mut self) -> Result<()> {
        if O::DOMAIN.kernel == self.kernel { self.runner.operation::<O>() } else { Ok(()) }
    }
}

/// Runs the cases of `options.kernels` on `backend` against [`Cpu<f64>`](Cpu), shows each kernel's report to `observe` as soon as it is done, and
/// goes on after misses.
///
/// # Errors
/// [`Error::DeviceLost`], since nothing that follows would say anything; [`Error::InvalidValue`] for a kernel that is none.
pub fn run<A: Backend>(backend: A, options: &Options, mut observe: impl FnMut(&KernelReport)) -> Result<(A, Vec<KernelReport>)> {
    if let Some(unknown) = options.kernels.iter().find(|kernel| !KERNELS.contains(kernel)) {
        return Err(Error::value("kernels", format!("some of {}", KERNELS.join(", ")), unknown));
    }
    let mut reports = Vec::new();
    let mut backend = backend;
    for &kernel in KERNELS.iter().filter(|kernel| options.kernels.contains(kernel)) {
        let started = Instant::now();
        let mut runner = Runner::new(CrossCheck::new(backend, Cpu::<f64>::new()), options);
        if kernel == "actor_critic" {
            actor_critic::cases(&mut runner)?;
        }
        operations::operations(&mut OfKernel { kernel, runner: &mut runner })?;
        let Runner { backend: checked, cases, misses, .. } = runner;
        let outputs = checked.worst().iter();
        let tensors = outputs.map(|(&(operation, tensor), &worst)| TensorReport { operation, tensor, worst }).collect();
        let report = KernelReport { kernel, cases, tensors, misses, elapsed: started.elapsed() };
        observe(&report);
        reports.push(report);
        backend = checked.a;
    }
    Ok((backend, reports))
}
