//! One kernel, or a few that belong together, at one shape.

use std::collections::BTreeMap;

use super::inputs::Inputs;
use super::measure::{Clocks, Effort, Samples, Timed};
use super::peaks::{Benchmarked, Peaks};
use super::{Record, record};
use crate::backend::{Backend, Cpu, CrossCheck};
use crate::error::Result;
use crate::kernels::nonfinite::Watched;
use crate::kernels::optimizer::{Adam, GradientNorm};
use crate::layout::{control, schedule, stat};
use crate::operations::{self, Call, Draw, Step, Work};

#[derive(Debug)]
pub(super) struct Case {
    pub name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Clip and Adam over a flat buffer.
    Optimizer { len: usize },
    /// Looking for NaN.
    Nonfinite { len: usize },
}

/// All cases, done in no time.
pub(super) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: String, kind| cases.push(Case { name, kind });
    // What an update needs besides, at the sizes of its larger workloads.
    for len in [20_000, 400_000] {
        add(format!("optimizer/P{len}"), Kind::Optimizer { len });
    }
    add("nonfinite/L8388608".to_owned(), Kind::Nonfinite { len: 1 << 23 });
    cases
}

impl Call for Case {
    fn work(&self) -> Work {
        let (flops, words, items) = match self.kind {
            // The norm reads the gradient once more: 2 and 12 operations.
            Kind::Optimizer { len } => (14.0 * len as f64, 8 * len, ("elements_per_s", len)),
            Kind::Nonfinite { len } => (0.0, len, ("elements_per_s", len)),
        };
        Work { flops, bytes: 4.0 * words as f64, items: Some((items.0, items.1 as f64)) }
    }

    fn prepare<B: Backend>(&self, buffers: &mut operations::Inputs<'_, B>) -> Result<Step<B>> {
        let (backend, mut inputs) = (&mut *buffers.backend, Inputs::new());
        match self.kind {
            Kind::Optimizer { len } => optimizer(backend, &mut inputs, len),
            Kind::Nonfinite { len } => {
                let x = backend.upload_floats(&inputs.floats(len, 1.0))?;
                let mut control = backend.upload_words(&control::INITIAL)?;
                Ok(Box::new(move |backend| backend.find_nonfinite(&[Watched { tensor: 1, len, x: &x }], &mut control)))
            }
        }
    }
}

fn optimizer<B: Backend>(backend: &mut B, inputs: &mut Inputs, len: usize) -> Result<Step<B>> {
    let mut params = backend.upload_floats(&inputs.floats(len, 0.1))?;
    let grads = backend.upload_floats(&inputs.floats(len, 1e-2))?;
    let mut m = backend.upload_floats(&inputs.floats(len, 1e-2))?;
    let squares: Vec<f32> = inputs.floats(len, 1e-2).iter().map(|g| g * g).collect();
    let mut v = backend.upload_floats(&squares)?;
    let rows = backend.upload_floats(&schedule::row(2.5e-4, 0.9, 0.999, 10))?;
    let mut stats = backend.upload_floats(&inputs.floats(stat::COLUMNS, 1.0))?;
    let mut control = backend.upload_words(&control::INITIAL)?;
    let norm = GradientNorm { len, max_grad_norm: 0.5, epsilon: 1e-6, stats_row: 0 };
    let adam =
        Adam { len, beta1: 0.9, beta2: 0.999, epsilon: 1e-5, weight_decay: 0.0, decoupled: false, schedule_row: 0, stats_row: 0 };
    Ok(Box::new(move |backend| {
        backend.gradient_norm(&norm, &grads, &mut stats)?;
        backend.adam_step(&adam, &mut params, &grads, &mut m, &mut v, &rows, &stats, &mut control)
    }))
}

struct Repeated<'a, B: Benchmarked> {
    backend: &'a mut B,
    step: Step<B>,
    /// Whose read-back waits for all that was recorded.
    waited_for: B::Words,
}

impl<B: Benchmarked> Timed for Repeated<'_, B> {
    const REPEATABLE: bool = true;

    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    fn call(&mut self) -> Result<()> {
        (self.step)(self.backend)
    }

    fn wait(&mut self) -> Result<()> {
        self.backend.read_words(&self.waited_for, 0, 1).map(drop)
    }

    fn take_clocks(&mut self) -> Result<Clocks> {
        self.backend.take_clocks()
    }
}

/// Checks one call against double precision, then times it. The backend always comes back.
pub(super) fn run<B: Benchmarked>(
    backend: B,
    name: &str,
    call: &impl Call,
    effort: Effort,
    peaks: &Peaks,
) -> (B, Result<Record>) {
    let mut checked = CrossCheck::new(backend, Cpu::<f64>::new());
    let outcome = prepare(call, &mut checked).and_then(|mut step| step(&mut checked));
    let check = |(&(operation, tensor), worst): (&(&str, &str), &crate::backend::Worst)| {
        (format!("{operation}: {tensor}"), worst.ratio())
    };
    let check: BTreeMap<String, f64> = checked.worst().iter().map(check).collect();
    let mut backend = checked.a;
    let outcome = outcome.and_then(|()| {
        let step = prepare(call, &mut backend)?;
        let samples = time(&mut backend, step, effort)?;
        Ok(record(name, &mut backend, &samples, call.work(), Some(peaks), check))
    });
    (backend, outcome)
}

/// With the same inputs on every backend.
fn prepare<B: Backend>(call: &impl Call, backend: &mut B) -> Result<Step<B>> {
    call.prepare(&mut operations::Inputs { backend, draw: Draw::new(1, 0) })
}

/// Times a call that has been checked.
pub(super) fn time<B: Benchmarked>(backend: &mut B, step: Step<B>, effort: Effort) -> Result<Samples> {
    let waited_for = backend.alloc_words(1)?;
    Samples::collect(effort, &mut Repeated { backend, step, waited_for })
}

#[cfg(test)]
mod tests {
    use crate::bench::{Effort, Options, names};

    #[test]
    fn names_are_distinct() {
        let names = names(&Options { only: String::new(), effort: Effort::FULL, small: false });
        let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
    }
}
