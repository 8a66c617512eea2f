//! One call at one shape, checked and timed.

use std::collections::BTreeMap;

use super::measure::Effort;
use super::peaks::{Benchmarked, Peaks, time};
use super::{Record, record};
use crate::backend::{Backend, Cpu, CrossCheck};
use crate::error::Result;
use crate::operations::{self, Call, Draw, Step};

/// Checks one call against double precision, then times it. Always returns the backend.
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

/// Draws equal inputs on every backend.
fn prepare<B: Backend>(call: &impl Call, backend: &mut B) -> Result<Step<B>> {
    call.prepare(&mut operations::Inputs { backend, draw: Draw::new(1, 0) })
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
