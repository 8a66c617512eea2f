//! One call at one shape, checked and timed.

use std::collections::BTreeMap;

use super::measure::{Clocks, Effort, Samples, Timed};
use super::peaks::{Benchmarked, Peaks};
use super::{Record, record};
use crate::backend::{Backend, Cpu, CrossCheck};
use crate::error::Result;
use crate::operations::{self, Call, Draw, Step};

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
